"""What GPT-2's tokenizer makes of texts that are easy to get wrong."""
from pathlib import Path

from tokenizers import Tokenizer

from output import versions, write_json

TEXTS = (
    "",
    " ",
    "a",
    "Hello",
    " Hello",
    "hello world",
    "Hello, world!",
    "Natural language processing helps computers understand text.",
    "The quick brown fox jumps over the lazy dog.",
    # contractions: only lower case and only the ASCII apostrophe are split as such
    "I'm you're he'll she'd we've it's don't can't",
    "I'M YOU'RE HE'LL SHE'D WE'VE IT'S DON'T",
    "I\u2019m you\u2019re don\u2019t",
    "'s 't 're 've 'm 'll 'd",
    "''s '''tis rock 'n' roll",
    "the cats' tails; James's",
    # numbers
    "0 1 22 333 4444 55555 1234567890",
    "3.14159 -2.5e-10 1,000,000 50% $9.99 1st 2nd",
    "2024-02-29T23:59:60Z",
    "x2y3 abc123def 4ever",
    "\u00bd \u00b2 \u2167 \u0663\u0664 \u096b",
    # white space
    "  two  three   four    five     ",
    "trailing space ",
    "   ",
    "\t",
    "\ttab\t\ttwo tabs",
    "\n",
    "\n\n\nthree lines\n\n",
    "line\r\nwindows\r\n\r\nline",
    "old mac\rline",
    " \n \n x",
    "a \n b",
    "space before newline \n",
    "no\u00a0break\u00a0\u00a0spaces",
    "em\u2003space\u2009thin\u3000ideographic\u200bzero width",
    "\u2028line\u2029paragraph\x85next",
    "form\x0cfeed\x0bvertical",
    # punctuation and code
    "!?!?...;:--,\"'()[]{}<>@#$%^&*_+=|\\/~`",
    "wait... what?! -- no \u2014 yes \u2013 \u201cquoted\u201d \u2026",
    "fn main() {\n    println!(\"{}\", 1 + 2);\n}\n",
    "def f(x):\n\treturn x**2  # square\n\n\nif __name__ == '__main__':\n        f(3)",
    "<div class=\"a\"><p>Hi&nbsp;there</p></div>",
    "SELECT * FROM t WHERE a <> 'b';--",
    "user.name+tag@example.com https://example.com/a?b=c&d=%20#e",
    "C:\\path\\to\\file.txt /usr/local/bin ../..",
    "camelCase snake_case SCREAMING_CASE kebab-case",
    "a=b+c;d*=e",
    "____ ---- ==== ....",
    # long words
    "antidisestablishmentarianism",
    "Donaudampfschifffahrtsgesellschaftskapit\u00e4n",
    "a" * 300,
    "ab" * 100,
    "1" * 100,
    "!" * 65,
    " " * 100 + "x",
    "supercalifragilisticexpialidocious" * 3,
    # other scripts
    "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00fcber stra\u00dfe \u00e6\u00f8\u00e5",
    "cafe\u0301 e\u0301\u0302\u0303 a\u0308o\u0308",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u03ba\u03cc\u03c3\u03bc\u03b5",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c \u30ab\u30bf\u30ab\u30ca",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "mixed \u4e2d\u6587 and English \u0438 \u0440\u0443\u0441\u0441\u043a\u0438\u0439",
    # emoji: one code point, a skin tone, joined families, flags, keycaps
    "\U0001f600",
    "Hi \U0001f44b\U0001f3fd there \U0001f600\U0001f600",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f1e9\U0001f1ea 1\ufe0f\u20e3 \u2764\ufe0f",
    "\U0001d49c\U0001d4b7\U0001d4b8 \U00020000\U0002a6d6",
    # control and odd characters
    "\x00",
    "nul\x00in\x01the\x02middle\x1b[31mred\x1b[0m\x7f",
    "\ufeffbyte order mark",
    "replacement \ufffd character, private \ue000, last \U0010ffff",
    "\u202eright to left\u202c",
    "\u00ad\u00adsoft hyphens",
    # the special token
    "<|endoftext|>",
    "before<|endoftext|>after",
    "before <|endoftext|> after",
    "<|endoftext|><|endoftext|>\n<|endoftext|>",
    "not special: <|endoftext|, <endoftext>, <|ENDOFTEXT|>, < |endoftext|>",
    # byte-level stand-ins, as ordinary text
    "\u0120Hello \u010a \u0122",
    "One sentence. Another one!  And a third?\n\nA new paragraph, with \"quotes\" (and brackets) \u2014 and 3 dashes.\n",
)

# Texts whose tokens, cut anywhere, leave incomplete characters.
CUT = ("\U0001f600", "\u4e2d\u6587\u5b57", "caf\u00e9 \U0001f468\u200d\U0001f469", "\U0002a6d6 x")


def make_tokenizer(model_folder: Path, out: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    encodings = []
    for text in TEXTS:
        tokenizer.encode_special_tokens = False
        found = tokenizer.encode(text)
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text).ids
        if tokenizer.decode(found.ids, skip_special_tokens=False) != text:
            raise SystemExit(f"tokenizer: {text!r} does not come back")
        entry = {"text": text, "ids": found.ids, "tokens": found.tokens, "offsets": [list(o) for o in found.offsets]}
        encodings.append(entry if plain == found.ids else entry | {"plain_ids": plain})
    tokenizer.encode_special_tokens = False
    pieces = [ids[start:end] for ids in (tokenizer.encode(text).ids for text in CUT)
              for start in range(len(ids)) for end in range(start + 1, len(ids) + 1)]
    pieces += [[220], [198, 198], [50256], [447, 50256, 247], list(range(188)), list(range(94, 110))]
    decodings = [{"ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False)} for ids in pieces]
    write_json(out / "tokenizer.json", {"versions": versions(), "encodings": encodings, "decodings": decodings})
    print(f"tokenizer: {len(encodings)} texts, {len(decodings)} decodings")
