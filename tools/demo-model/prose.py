"""Which paragraphs and documents read well enough to be trained on."""
import re

MARKUP = re.compile(r"[\\{}|<>=_^~@#*\[\]`]|https?:|www\.|\(see ", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.!?:;,\"')—-]$")
ARCHAIC = re.compile(r"\b(?:thou|thee|thy|thine|hath|doth|saith|unto|ye|'tis|'twas|methinks|behold)\b", re.IGNORECASE)
DIALECT = re.compile(r"\b\w+in'(?!\w)|\b(?:an|o|wi|th)'(?= )|'(?:em|im|er|ead|ave)\b"
                     r"|\b(?:ain't|yer|ter|gwine|dat|dis|dey|wuz|sez|de|ole|massa|afore)\b", re.IGNORECASE)
MOST_DIGITS, MOST_CAPITALS = 0.06, 0.14
HEADING = 90  # characters that a heading may have
MOST_ITEMS = 8
LEAST_WORDS, LEAST_KEPT = 40, 0.6
MOST_ARCHAIC, MOST_DIALECT, MOST_QUESTIONS, MOST_FOREIGN = 0.004, 0.005, 0.5, 0.005


def share(paragraph: str, is_one) -> float:
    return sum(map(is_one, paragraph)) / max(1, len(paragraph))


def paragraph_reads_well(text: str, first: bool) -> bool:
    """False for formulas, markup, tables, references, captions, long lists, and paragraphs that were cut off."""
    if MARKUP.search(text) or share(text, str.isdigit) > MOST_DIGITS or text.count("\n- ") >= MOST_ITEMS:
        return False
    if first:  # a title
        return True
    if len(text) > 60 and share(text, str.isupper) > MOST_CAPITALS:
        return False
    return len(text) <= HEADING or text.startswith("- ") or bool(SENTENCE_END.search(text))


def clean(document: str) -> str | None:
    """The document without the paragraphs that read badly; None if it is not worth keeping.

    A document is left out if a large part of it read badly, if it is a mere scrap, if it is in the English of long ago,
    in dialect or in another language, or if it mostly asks questions, as exercises do.
    """
    paragraphs = document.split("\n\n")
    kept = [text for number, text in enumerate(paragraphs) if paragraph_reads_well(text, number == 0)]
    while kept and len(kept[-1]) <= HEADING and not SENTENCE_END.search(kept[-1]):
        kept.pop()  # a heading with nothing under it
    text = "\n\n".join(kept)
    words = len(text.split())
    if words < LEAST_WORDS or len(text) < LEAST_KEPT * len(document):
        return None
    if len(ARCHAIC.findall(text)) > MOST_ARCHAIC * words or len(DIALECT.findall(text)) > MOST_DIALECT * words:
        return None
    if text.count("?") > MOST_QUESTIONS * (text.count("?") + text.count(". ") + text.count(".\n") + 1):
        return None
    if share(text, lambda c: c.isalpha() and not c.isascii()) > MOST_FOREIGN:
        return None
    return text
