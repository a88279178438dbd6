#!/usr/bin/env python3
"""Measure what structured output costs a token, against decoding with none, in turn.

    widen.py wide && structured.py --model wide

`regex` allows every text, so its tokens must be those of decoding with no form asked for, and they are compared (random
weights write bytes that are no text, hence a widened demo model); `records` are JSON objects with strings, numbers and
names of a list, as many as there is room for. A figure is seconds of decoding for each token, a ratio is one to plain
decoding in the same round; both are medians over the rounds.
"""
import argparse
import json
import statistics
import subprocess
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "target" / "release" / "gpt2"
RECORD = {"type": "object", "additionalProperties": False, "required": ["name", "masts", "colour", "speed"],
          "properties": {"name": {"type": "string", "maxLength": 20}, "masts": {"type": "integer", "minimum": 1, "maximum": 5},
                         "colour": {"enum": ["red", "black"]}, "speed": {"type": "number", "minimum": 0, "maximum": 20}}}
WAYS = {"plain": [], "regex": ["--regex", "(?s:.*)"],
        "records": ["--json-schema", json.dumps({"type": "array", "items": RECORD, "minItems": 1000})]}
SETTINGS = {"greedy": ["--greedy"], "sampled": ["--do-sample", "--temperature", "0.7", "--top-k", "50", "--top-p", "0.95"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--program", default=str(PROGRAM), help="default: target/release/gpt2 of this repository")
    parser.add_argument("--dtype", default="int4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--new-tokens", type=int, default=256)
    arguments = parser.parse_args()
    for name, settings in SETTINGS.items():
        rounds = [measure(arguments, settings) for _ in range(arguments.rounds)]
        for way in WAYS:
            seconds = statistics.median(one[way] for one in rounds)
            ratios = [one[way] / one["plain"] for one in rounds]
            print(f"{name:10}{way:10}{seconds * 1e3:7.3f} ms a token {statistics.median(ratios):6.3f} "
                  f"({min(ratios):.3f}..{max(ratios):.3f})", flush=True)


def measure(arguments: argparse.Namespace, settings: list[str]) -> dict[str, float]:
    """One round: seconds of decoding for each token, by way."""
    seconds, tokens = {}, {}
    for way, flags in WAYS.items():
        command = [arguments.program, "--quiet", "--offline", "--model", arguments.model, "--dtype", arguments.dtype,
                   "--threads", str(arguments.threads), "generate", "--json", "--ignore-eos", "--seed", "1",
                   "--max-new-tokens", str(arguments.new_tokens), *settings, *flags, "--", "The ships:"]
        # `records` are cut off by the length, which the program says by exiting with 1; their line of JSON is whole.
        run = subprocess.run(command, check=way != "records", capture_output=True, text=True)
        record = json.loads(run.stdout)
        tokens[way] = record["tokens"]
        if len(tokens[way]) != arguments.new_tokens:
            raise SystemExit(f"{way} wrote {len(tokens[way])} tokens, expected {arguments.new_tokens}")
        seconds[way] = 1 / record["timing"]["tokens_per_second"]
    if tokens["regex"] != tokens["plain"]:
        raise SystemExit("a regular expression that allows every text changed the text")
    return seconds


if __name__ == "__main__":
    main()
