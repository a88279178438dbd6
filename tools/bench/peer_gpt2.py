#!/usr/bin/env python3
"""This repository's program. --model: a checkpoint folder.

Every figure is from `gpt2 bench` but the cold start, which is `gpt2 generate`; so it reads and applies the tokenizer
too, which the other peers need not. `rss_peak_mib` is the largest of the runs, each of which is a process.
One figure more than the others have:

    decode_tps_at[P]   decoding in the middle of 48 tokens around position P
"""
import json
import subprocess
from pathlib import Path

import measurement
from measurement import BATCH_NEW, DECODED, PROMPT

DTYPES = ("f32", "bf16", "int8", "int4")
PROGRAM = Path(__file__).resolve().parents[2] / "target" / "release" / "gpt2"
POSITIONS = (32, 1000)
AROUND = 48
# Each of these is one token.
COLD_PROMPT = " ".join(["the"] * PROMPT)


def main() -> None:
    parser = measurement.parser(DTYPES, __doc__)
    parser.add_argument("--program", default=str(PROGRAM), help="default: target/release/gpt2 of this repository")
    arguments = parser.parse_args()
    program = [arguments.program, "--quiet", "--offline", "--model", arguments.model, "--dtype", arguments.variant,
               "--threads", str(arguments.threads)]
    records = []

    def bench(prompt_tokens: int, new_tokens: int, batch: int = 1) -> dict:
        sizes = {"prompt-tokens": prompt_tokens, "new-tokens": new_tokens, "batch": batch,
                 "repetitions": arguments.reps}
        flags = [word for name, value in sizes.items() for word in (f"--{name}", str(value))]
        records.append(json.loads(output([*program, "bench", "--json", *flags])))
        return records[-1]

    single = bench(PROMPT, DECODED + 1)
    result = {
        "peer": "gpt2", "variant": arguments.variant, "threads": arguments.threads,
        "load_s": round(single["load_s"], 3),
        "versions": {"gpt2": output([arguments.program, "--version"]).split()[1]},
        "about": f"{single['kernels']} kernels",
        "decode_tps": round(single["decode_tokens_per_second"], 2),
        "rss_b1_mib": round(single["peak_rss_mib"], 1),
        "tokens": single["tokens"],
    }
    result["prefill_tps"] = {length: round(bench(length, 1)["prefill_tokens_per_second"], 1)
                             for length in arguments.prompt_lens}
    result["batch_tps"] = {size: round(batch_tps(bench(PROMPT, BATCH_NEW, size)), 1) for size in arguments.batches}
    result["decode_tps_at"] = {
        # The first token comes with the prompt, so AROUND passes follow, half of them before the position.
        position: round(bench(position - AROUND // 2, AROUND + 1)["decode_tokens_per_second"], 2)
        for position in POSITIONS}
    result["rss_peak_mib"] = round(max(record["peak_rss_mib"] for record in records), 1)
    cold = [*program, "generate", "--greedy", "--ignore-eos", "--max-new-tokens", "1", "--json", COLD_PROMPT]
    result["cold_s"] = measurement.cold_start(cold, "{", arguments.cold)
    print(json.dumps(result), flush=True)


def batch_tps(record: dict) -> float:
    """All new tokens by all the time; the first of each sequence comes with its prompt."""
    size, prompt_tokens, new_tokens = record["batch"], record["prompt_tokens"], record["new_tokens"]
    prefill = size * prompt_tokens / record["prefill_tokens_per_second"]
    decode = size * (new_tokens - 1) / record["decode_tokens_per_second"]
    return size * new_tokens / (prefill + decode)


def output(command: list[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(run.stderr.strip() or f"`{command[0]}` failed: {run.returncode}")
    return run.stdout


if __name__ == "__main__":
    main()
