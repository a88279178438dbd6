#!/usr/bin/env python3
"""Measure `gpt2 generate --batch` with prompts of mixed length against `gpt2 bench --batch` in turn.

    make_checkpoint.py small && batch.py --model small

`bench` reads prompts of one length all at once and decodes them in step: nothing is ever idle. What it would take for
the same numbers of tokens is what a batch is held against, that gives out and takes in texts as it goes; and what it says of
decoding alone, for which a token has an equal share of its pass, against the decoding alone of `bench`. Medians over rounds.
"""
import argparse
import json
import random
import re
import statistics
import subprocess
import tempfile
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "target" / "release" / "gpt2"
WORDS = "the king had a daughter and she went to the wood where an old woman lived with her cat under a great tree".split()
SETTINGS = {"greedy": ["--greedy"], "sampled": ["--seed", "1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--program", default=str(PROGRAM), help="default: target/release/gpt2 of this repository")
    parser.add_argument("--dtype", default="int8")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    program = [arguments.program, "--offline", "--model", arguments.model, "--dtype", arguments.dtype,
               "--threads", str(arguments.threads)]
    for name, lengths in (("mixed prompts of 10 to 300 words", (10, 300)), ("prompts of 1 to 8 words", (1, 8))):
        ratios = {setting: [] for setting in SETTINGS}
        for _ in range(arguments.rounds):
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
                stream = random.Random(1)
                for _ in range(arguments.prompts):
                    print(json.dumps(" ".join(stream.choices(WORDS, k=stream.randint(*lengths)))), file=file, flush=True)
                for setting, flags in SETTINGS.items():
                    run = subprocess.run([*program, "generate", "--batch", file.name, "--batch-size", str(arguments.batch_size),
                                          "--max-new-tokens", str(arguments.new_tokens), "--ignore-eos", "--json", *flags],
                                         check=True, capture_output=True, text=True)
                    usage = [json.loads(line)["usage"] for line in run.stdout.splitlines()]
                    read, written = (sum(u[kind] for u in usage) for kind in ("prompt_tokens", "completion_tokens"))
                    found = re.search(r"prompts? in ([0-9.]+) s .* written at ([0-9.]+)/s", run.stderr)
                    seconds, decoding = float(found[1]), float(found[2])
                    bench = subprocess.run([*program, "bench", "--json", "--batch", str(arguments.batch_size), "--repetitions",
                                            "1", "--prompt-tokens", str(max(read // len(usage), 1)),
                                            "--new-tokens", str(arguments.new_tokens + 1)],
                                           check=True, capture_output=True, text=True)
                    bench = json.loads(bench.stdout)
                    ideal = read / bench["prefill_tokens_per_second"] + written / bench["decode_tokens_per_second"]
                    ratios[setting].append((ideal / seconds, written / seconds, written / ideal,
                                            decoding / bench["decode_tokens_per_second"], decoding))
        for setting, rounds in ratios.items():
            ratio, mine, bench, share, decoding = (statistics.median(column) for column in zip(*rounds))
            spread = f"{min(r[0] for r in rounds):.2f}..{max(r[0] for r in rounds):.2f}"
            print(f"{name}, {setting}: {mine:.1f} tokens/s written, bench would {bench:.1f}: {ratio:.2f} ({spread}); "
                  f"decoding alone {decoding:.1f}, {share:.2f} of bench", flush=True)


if __name__ == "__main__":
    main()
