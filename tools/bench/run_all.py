#!/usr/bin/env python3
"""Run the commands of a plan in interleaved rounds and append one line of JSON for each run.

    run_all.py PLAN.json OUT.jsonl [--rounds 3]

A plan is a list of objects with `command`, a list of words, and whatever else is to be in the lines of its results.
A command prints a line of JSON that begins with `{"peer"`, so that a runtime in any language can take part.

Interleaved means A B C A B C ..., so that a slow minute of the machine hits everyone. A line also says what else went
on meanwhile, in shares of the whole machine: `others_pct`, what other processes used of the CPU, and `steal_pct`, what
the host withheld. A run with more than `MOST_OTHERS` is made once more, and the quieter one counts.
"""
import argparse
import json
import os
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

MOST_OTHERS = 4.0
TIMEOUT_S = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plan", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    run_rounds(json.loads(arguments.plan.read_text()), arguments.out, arguments.rounds)


def run_rounds(plan: list[dict], out: Path, rounds: int) -> None:
    for number in range(rounds):
        for entry in plan:
            result = run(entry["command"])
            if result["others_pct"] > MOST_OTHERS and "error" not in result:
                result = min(result, run(entry["command"]), key=lambda result: result["others_pct"])
            known = {key: value for key, value in entry.items() if key != "command"}
            result = {**known, **result, "round": number}
            with open(out, "a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            print(summary(result), flush=True)


def run(command: list[str]) -> dict:
    before = Usage.now()
    begin = time.perf_counter()
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        lines = [line for line in process.stdout.splitlines() if line.startswith('{"peer"')]
        result = json.loads(lines[-1]) if lines else {"error": process.stderr.strip()[-600:] or "it printed nothing"}
    except subprocess.TimeoutExpired:
        result = {"error": f"not done in {TIMEOUT_S} s"}
    except OSError as error:
        result = {"error": str(error)}
    seconds = time.perf_counter() - begin
    used = Usage.now() - before
    percent = 100 / (seconds * (os.cpu_count() or 1))
    return {**result, "wall_s": round(seconds, 1), "steal_pct": round(percent * used.stolen, 2),
            "others_pct": round(percent * max(0.0, used.busy - used.ours), 2)}


@dataclass
class Usage:
    """Seconds of CPU so far: withheld by the host, used on this machine, used by what was run here."""
    stolen: float
    busy: float
    ours: float

    @classmethod
    def now(cls) -> "Usage":
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        with open("/proc/stat") as file:
            ticks = [int(word) / os.sysconf("SC_CLK_TCK") for word in file.readline().split()[1:9]]
        return cls(stolen=ticks[7], busy=ticks[0] + ticks[1] + ticks[2], ours=children.ru_utime + children.ru_stime)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.stolen - other.stolen, self.busy - other.busy, self.ours - other.ours)


def summary(result: dict) -> str:
    figures = ("read_gbs", "decode_tps", "prefill_tps", "batch_tps", "cold_s")
    shown = [f"{name} {result[name]}" for name in figures if result.get(name)]
    if "error" in result:
        lines = result["error"].splitlines()
        shown.append(next((line for line in reversed(lines) if "error" in line.lower()), lines[-1]))
    load = f"{result['wall_s']} s, others {result['others_pct']} %, steal {result['steal_pct']} %"
    return "  ".join([f"{result['round']} {result['peer']} {result.get('variant', '')}", *shown, load])


if __name__ == "__main__":
    main()
