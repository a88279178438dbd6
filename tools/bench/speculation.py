#!/usr/bin/env python3
"""Measure speculative decoding of `gpt2` against plain decoding, and check that the texts are the same.

    widen.py wide && speculation.py --model wide

All ways take turns, prompt by prompt, so that a slow minute of the machine hits everyone; a figure is tokens over the
seconds of decoding of all prompts, a ratio is one to plain decoding in the same round, and both are medians over the
rounds. A text that differs ends the run. `ordinary` are beginnings of tales; `repeating` are texts that go on as they
began; `--prompts FILE` takes the prompts from the lines of a file instead.
"""
import argparse
import json
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "target" / "release" / "gpt2"
SETTINGS = {
    "greedy": ["--greedy"],
    "sampled": ["--do-sample", "--temperature", "0.7", "--top-k", "50", "--top-p", "0.95"],
    "penalties": ["--do-sample", "--repetition-penalty", "1.2", "--no-repeat-ngram-size", "3"],
}
WAYS = {"plain": [], "self": ["--speculate", "self"], "prompt-lookup": ["--speculate", "prompt-lookup"]}
ORDINARY = [
    "Once upon a time there was a king who had three daughters, and the youngest of them",
    "A poor miller had nothing left but his mill and a grey cat.",
    "In a village by the sea there lived an old fisherman and his wife.",
    "The fox met the hare at the edge of the wood one winter morning and said",
    "There was once a tailor who could sew anything, but who was afraid of",
    "Long ago, when animals could still speak, the wolf came to the shepherd",
    "The queen looked into her mirror and saw that",
    "A soldier was walking home from the wars with a single penny in his pocket.",
    "Far away in the north, where the snow never melts, stood a castle of ice.",
    "Two brothers set out to seek their fortune, and at the first crossroads",
    "The little girl opened the door that she had been told never to open.",
    "An ant and a cricket lived under the same stone.",
    "When the prince woke up, the forest around him had changed.",
    "Every night a bird with golden feathers came into the garden of the king",
    "The giant sat down on the hill, and the hill groaned.",
    "A farmer had a goose that could tell the weather.",
    "At the bottom of the well there was a meadow full of flowers.",
    "The old woman gave him three nuts and told him to crack them only when",
    "It had rained for seven days when a stranger knocked at the door of the inn.",
    "The lion was king of all the beasts, and yet he could not sleep.",
]
REPEATING = [
    "One for the rook, one for the crow, one to rot and one to grow. One for the rook, one for the crow,",
    "The house that Jack built. This is the cat that sat in the house that Jack built. This is the dog that chased the cat "
    "that sat in the house that Jack built. This is the",
    "Monday: bread and cheese. Tuesday: bread and cheese. Wednesday: bread and cheese. Thursday: bread and",
    "\"Who will help me to sow the wheat?\" said the hen. \"Not I,\" said the duck. \"Not I,\" said the cat. \"Not I,\" said",
    "Row, row, row the boat, gently down the stream. Row, row, row the boat, gently down",
]
TEXTS = {"ordinary": ORDINARY, "repeating": REPEATING}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a checkpoint, such as widen.py makes")
    parser.add_argument("--program", default=str(PROGRAM), help="default: target/release/gpt2 of this repository")
    parser.add_argument("--assistant", help="a model to guess, besides the model's own copy")
    parser.add_argument("--dtype", default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=512)
    parser.add_argument("--settings", type=names(SETTINGS), default="greedy,sampled", help=f"of {', '.join(SETTINGS)}")
    parser.add_argument("--ways", type=names(WAYS), default=",".join(WAYS), help="plain decoding is always one")
    parser.add_argument("--texts", type=names(TEXTS), default=",".join(TEXTS))
    parser.add_argument("--prompts", metavar="FILE", type=Path, help="a prompt a line, instead of `--texts`")
    parser.add_argument("--prompts-per-round", metavar="N", type=int, help="only the first N of each kind of text")
    parser.add_argument("--flags", default="", help="more flags for all ways but plain, such as `--num-assistant-tokens 4`")
    parser.add_argument("--json", metavar="OUT", help="where to append a line for every figure")
    arguments = parser.parse_args()
    ways = {"plain": [], **{way: WAYS[way] for way in arguments.ways}}
    if arguments.assistant:
        ways["assistant"] = ["--assistant", arguments.assistant]
    kinds = {texts: TEXTS[texts] for texts in arguments.texts}
    if arguments.prompts:
        kinds = {"file": [line for line in arguments.prompts.read_text().splitlines() if line.strip()]}
    for texts, prompts in kinds.items():
        prompts = prompts[:arguments.prompts_per_round]
        if not prompts:
            raise SystemExit(f"no prompts to measure in `{arguments.prompts or texts}`")
        for settings in arguments.settings:
            rounds = [measure(arguments, ways, prompts, SETTINGS[settings]) for _ in range(arguments.rounds)]
            for way in ways:
                show(arguments, texts, settings, way, [(one[way], one["plain"]) for one in rounds])


def names(known: dict) -> Callable[[str], list[str]]:
    """The type of an option that lists some of these."""
    def parse(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"found `{name}`, expected some of {', '.join(known)}")
        return text.split(",")
    return parse


def measure(arguments: argparse.Namespace, ways: dict, prompts: list[str], settings: list[str]) -> dict:
    """One round: what every way took for all prompts, and what came of its guesses."""
    totals = {way: {"tokens": 0, "seconds": 0.0, "reports": []} for way in ways}
    for index, prompt in enumerate(prompts):
        texts = {}
        for way, flags in ways.items():
            more = arguments.flags.split() if way != "plain" else []
            command = [arguments.program, "--quiet", "--offline", "--model", arguments.model, "--dtype", arguments.dtype,
                       "--threads", str(arguments.threads), "generate", "--json", "--ignore-eos",
                       "--max-new-tokens", str(arguments.new_tokens), "--seed", str(index), *settings, *flags, *more,
                       "--", prompt]
            record = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            texts[way] = record["tokens"]
            totals[way]["tokens"] += len(record["tokens"])
            totals[way]["seconds"] += record["timing"]["decode_s"]
            totals[way]["reports"] += [record["speculation"]] if "speculation" in record else []
        for way, tokens in texts.items():
            place = difference(tokens, texts["plain"])
            if place is not None:
                raise SystemExit(f"{way} differs from plain decoding at token {place} behind {prompt!r}, seed {index}")
    return totals


def difference(a: list[int], b: list[int]) -> int | None:
    """The first place where two texts differ, if they do: the end of the shorter one if the other one goes on."""
    for place, (one, other) in enumerate(zip(a, b)):
        if one != other:
            return place
    return None if len(a) == len(b) else min(len(a), len(b))


def show(arguments: argparse.Namespace, texts: str, settings: str, way: str, rounds: list[tuple[dict, dict]]) -> None:
    """Prints a way's figures: medians over rounds, each next to plain decoding in the same round."""
    rates = [mine["tokens"] / mine["seconds"] for mine, _ in rounds]
    ratios = [rate * plain["seconds"] / plain["tokens"] for rate, (_, plain) in zip(rates, rounds)]
    line = {"texts": texts, "settings": settings, "way": way, "dtype": arguments.dtype, "flags": arguments.flags,
            "tokens_per_round": rounds[0][0]["tokens"], "tokens_per_second": statistics.median(rates),
            "ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]}
    text = f"{texts:10}{settings:11}{way:15}{line['tokens_per_second']:7.1f} tokens/s {line['ratio']:5.2f} " \
           f"({min(ratios):.2f}..{max(ratios):.2f})"
    reports = [report for mine, _ in rounds for report in mine["reports"]]
    if reports:
        def total(field):
            return sum(report[field] for report in reports)

        def by_position(field):
            return [sum(counts) for counts in zip(*(report[field] for report in reports))]

        drafted, accepted = by_position("drafted_by_position"), by_position("accepted_by_position")
        line |= {"drafted": total("drafted"), "accepted": total("accepted"), "passes": total("passes"),
                 "drafted_by_position": drafted, "accepted_by_position": accepted}
        shares = " ".join(f"{a / d:.2f}" for a, d in zip(accepted, drafted) if d)
        text += f"  {total('accepted') / max(total('drafted'), 1):.2f} of guesses right," \
                f" {(total('accepted') + total('passes')) / total('passes'):.2f} tokens a pass; by position: {shares}"
    print(text, flush=True)
    if arguments.json:
        with open(arguments.json, "a") as file:
            file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
