#!/usr/bin/env python3
"""Judge a model by what people see: unselected samples at the program's defaults, and figures about them.

    judge.py MODEL_DIR [--samples FILE.md]     samples with transformers: seeds 1 to 20 for each prompt
    judge.py FILE.jsonl [--samples FILE.md]    samples that `gpt2 generate --batch --json` made

Prints figures as Markdown; writes the samples for reading. What no figure tells, whether a text stays on its topic and
makes sense, is for the reader.

Grammar is checked by what is installed: harper (`pip install harper-py`; rules, so it finds wrong agreement rather than
nonsense) and link-grammar (Debian's `link-grammar`; a parser, so a sentence passes if it can be parsed at all). Neither
needs a network. Known prose gives the scale: `judge.py --text FILE.txt` checks the sentences of a text.
"""
import argparse
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

SEEDS = range(1, 21)
NEW_TOKENS = 60
SETTINGS = {"temperature": 0.7, "top_k": 50, "top_p": 0.95}
PROMPTS = (
    # of the notebook
    "Once upon a time, in a land far away,",
    "The future of artificial intelligence is",
    "Artificial intelligence is",
    "The weather today is very",
    # everyday
    "My name is",
    "The best way to learn a language is",
    "Yesterday I went to the",
    "The little girl looked at her mother and said,",
    "Computers can",
    "In this paper, we",
    "The capital of France is",
    "I like to eat",
    "The most important thing in life is",
    "Scientists have discovered that",
)

LONGEST_PERIOD = 20  # words of a phrase that may be looped
LEAST_LOOP = 8  # words that the repetitions must have together
# harper's remarks that are about grammar; the others are about style, spelling and layout.
GRAMMAR_KINDS = {"Agreement", "BoundaryError", "Grammar", "Malapropism", "Miscellaneous", "Nonstandard", "Redundancy",
                 "Repetition", "Usage", "WordChoice"}

SENTENCE_START = re.compile(r"""(?:(?<=[.!?])|(?<=[.!?]["')]))\s+(?=["'(]?[A-Z0-9])""")


class Sample(NamedTuple):
    prompt: str
    seed: int
    text: str  # without the prompt


# ---- figures ---------------------------------------------------------------------------------------------------------

def words(text: str) -> list[str]:
    return re.findall(r"[\w'-]+", text.lower())


def longest_loop(tokens: list[str]) -> int:
    """How many tokens the longest loop covers: a phrase at least three times in succession. 0 if there is none."""
    longest = 0
    for period in range(1, LONGEST_PERIOD + 1):
        same = 0  # how many tokens in succession equal the one a period before
        for i in range(period, len(tokens)):
            same = same + 1 if tokens[i] == tokens[i - period] else 0
            if same >= 2 * period and same + period >= LEAST_LOOP:
                longest = max(longest, same + period)
    return longest


def has_repeated_phrase(tokens: list[str]) -> bool:
    """Whether a phrase of six words comes twice, or one of four words three times, anywhere."""
    for size, times in ((6, 2), (4, 3)):
        counts = {}
        for i in range(len(tokens) - size + 1):
            phrase = tuple(tokens[i:i + size])
            counts[phrase] = counts.get(phrase, 0) + 1
        if any(count >= times for count in counts.values()):
            return True
    return False


def distinct(samples: list[list[str]], size: int) -> float:
    """The share of n-grams that are different ones, over all samples."""
    grams = [tuple(tokens[i:i + size]) for tokens in samples for i in range(len(tokens) - size + 1)]
    return len(set(grams)) / max(1, len(grams))


def sentences(text: str) -> list[str]:
    """The complete sentences of a text; what comes after the last full stop is not one."""
    found = []
    for paragraph in text.split("\n"):
        parts = SENTENCE_START.split(paragraph.strip())
        found += [part for part in parts if re.search(r"[.!?][\"')]*$", part) and len(part.split()) >= 3]
    return found


def share_that_harper_passes(checked: list[str]) -> float | None:
    try:
        from harper import Linter
    except ImportError:
        return None
    linter = Linter()
    passed = [not any(str(lint.lint_kind) in GRAMMAR_KINDS for lint in linter.lint(one)) for one in checked]
    return sum(passed) / max(1, len(passed))


def share_that_link_grammar_parses(checked: list[str]) -> float | None:
    if not shutil.which("link-parser"):
        return None
    command = ["link-parser", "en", "-graphics=0", "-verbosity=1", "-limit=100", "-timeout=5"]
    # A line that begins with ! or % or is empty would be a command or nothing.
    lines = "\n".join(re.sub(r"^\W+", "", one) or "." for one in checked) + "\n"
    output = subprocess.run(command, input=lines, capture_output=True, text=True, check=True).stdout
    complete = sum(line.startswith("Found ") for line in output.splitlines())
    return (complete - output.count("No complete linkages found")) / max(1, len(checked))


def grammar(checked: list[str]) -> dict[str, float]:
    shares = {"sentences that harper passes": share_that_harper_passes(checked),
              "sentences that link-grammar parses": share_that_link_grammar_parses(checked)}
    return {name: share for name, share in shares.items() if share is not None}


def judge(samples: list[Sample]) -> dict[str, float]:
    tokens = [words(sample.text) for sample in samples]
    loops = [longest_loop(one) for one in tokens]
    by_prompt = {}
    for sample, one in zip(samples, tokens):
        by_prompt.setdefault(sample.prompt, []).append(one)
    count = len(samples)
    return {
        "samples": count,
        "with a loop": sum(loop > 0 for loop in loops) / count,
        "that are one repeated phrase": sum(2 * loop >= len(one) > 0 for loop, one in zip(loops, tokens)) / count,
        "with a repeated phrase": sum(map(has_repeated_phrase, tokens)) / count,
        **{f"distinct-{size}, mean over prompts": sum(distinct(group, size) for group in by_prompt.values())
           / len(by_prompt) for size in (1, 2, 3)},
        **grammar([one for sample in samples for one in sentences(sample.prompt + sample.text)]),
    }


# ---- samples ---------------------------------------------------------------------------------------------------------

def generate(folder: Path, threads: int) -> list[Sample]:
    import torch
    from transformers import AutoTokenizer, GPT2LMHeadModel
    torch.set_num_threads(threads)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32).eval()
    samples = []
    for prompt in PROMPTS:
        inputs = tokenizer([prompt], return_tensors="pt")
        for seed in SEEDS:
            torch.manual_seed(seed)
            out = model.generate(**inputs, do_sample=True, max_new_tokens=NEW_TOKENS, pad_token_id=50256, **SETTINGS)
            text = tokenizer.decode(out[0, inputs.input_ids.shape[1]:], skip_special_tokens=True)
            samples.append(Sample(prompt, seed, text))
    return samples


def read(path: Path) -> list[Sample]:
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Sample(record["prompt"], record.get("seed", 0), record["text"]) for record in records if "text" in record]


def to_read(samples: list[Sample]) -> str:
    """The samples as Markdown, prompt by prompt."""
    lines, prompt = [], None
    for sample in samples:
        if sample.prompt != prompt:
            prompt = sample.prompt
            lines += [f"## {prompt}", ""]
        text = sample.text.replace("\n", "\n> ")
        lines += [f"**{sample.seed}**", "", f"> **{prompt}**{text}", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="MODEL_DIR|FILE")
    parser.add_argument("--text", action="store_true", help="FILE is prose: check its sentences only")
    parser.add_argument("--samples", type=Path, help="file to write the samples to [default: not written]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.text:
        checked = sentences(args.source.read_text(encoding="utf-8"))
        figures = {"sentences": len(checked), **grammar(checked)}
    else:
        samples = generate(args.source, args.threads) if args.source.is_dir() else read(args.source)
        if not samples:
            raise SystemExit(f"error: no samples in `{args.source}`")
        if args.samples:
            args.samples.write_text(to_read(samples), encoding="utf-8")
        figures = judge(samples)
    if args.json:
        return print(json.dumps(figures))
    print("| | |\n|---|---:|")
    for name, value in figures.items():
        print(f"| {name} | {value:.3f} |" if isinstance(value, float) else f"| {name} | {value:,} |")


if __name__ == "__main__":
    main()
