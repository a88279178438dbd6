#!/usr/bin/env python3
"""The README's performance table, from the results that performance.py wrote.

    table.py RESULTS.jsonl                       print it
    table.py RESULTS.jsonl --readme README.md    write it between the markers there

Results are appended run by run, each opened by a line with `"peer": "machine"`; the table is of the last run. Without
results it says so.
"""
import argparse
import json
import statistics
import textwrap
from dataclasses import dataclass
from pathlib import Path

BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"
OURS = "gpt2"
FORMATS = ("f32", "16-bit", "8-bit", "4-bit")
PARAMETERS = {"tiny": "3.4 M", "small": "124 M", "medium": "355 M", "large": "774 M", "xl": "1558 M"}
INSTRUCTIONS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "avx512_bf16": "BF16",
                "amx_int8": "AMX int8", "amx_bf16": "AMX bf16"}


@dataclass(frozen=True)
class Column:
    heading: str
    path: tuple[str, ...]  # to the figure in a result
    digits: int
    less_is_better: bool = False

    def median(self, results: list[dict]) -> float | None:
        return median(figure(result, self.path) for result in results)

    def best(self, values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return (min if self.less_is_better else max)(known, default=None)

    def ratio(self, ours: float | None, best_other: float | None) -> float | None:
        """How many times better than the best of the others."""
        if not ours or not best_other:
            return None
        return best_other / ours if self.less_is_better else ours / best_other


COLUMNS = (
    Column("decode", ("decode_tps",), 1),
    Column("prefill 32", ("prefill_tps", "32"), 0),
    Column("512", ("prefill_tps", "512"), 0),
    Column("1000", ("prefill_tps", "1000"), 0),
    Column("batch 8", ("batch_tps", "8"), 0),
    Column("32", ("batch_tps", "32"), 0),
    Column("load s", ("load_s",), 2, less_is_better=True),
    Column("cold s", ("cold_s",), 2, less_is_better=True),
    Column("MiB", ("rss_b1_mib",), 0, less_is_better=True),
    Column("peak MiB", ("rss_peak_mib",), 0, less_is_better=True),
)
LEGEND = """\
*decode*, *prefill* and *batch* are tokens per second: 128 greedy tokens after a prompt of 32; prompts of 32, 512 and
1000 tokens; 64 new tokens for each of 8 and 32 prompts of 32 tokens, the prompts' time included. *load* is from the
files to a model in memory, *cold* from the start of the process to the first token, with the files in the page cache;
Python and its imports are part of it for all but gpt2 and rten. *MiB* is the most memory resident up to the end of
decoding, *peak MiB* in all runs. Each row is the runtime's own format of its weights. Bold is best; *ratio* is how
many times better gpt2 is than the best of the others, so that below 1 it is worse."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--readme", type=Path)
    arguments = parser.parse_args()
    text = section(last_run(arguments.results.read_text(encoding="utf-8")))
    if arguments.readme:
        rewrite(arguments.readme, text)
    else:
        print(text)


def last_run(text: str) -> list[dict]:
    """The last line about a machine, and what follows it."""
    results = [json.loads(line) for line in text.splitlines() if line.strip()]
    starts = [index for index, result in enumerate(results) if result["peer"] == "machine"]
    if results and not starts:
        raise SystemExit('error: no line with `"peer": "machine"` in the results: performance.py writes it first')
    return results[starts[-1]:] if starts else []


def section(results: list[dict]) -> str:
    """What stands between the markers."""
    measured = [result for result in results if "weights" in result and "error" not in result]
    if not measured:
        return "Not measured yet."
    machine = results[0]
    parts = [paragraph(about(machine, results, measured)), table(measured), paragraph(LEGEND)]
    parts += [paragraph(text) for text in (*remarks(results, measured), versions(machine, measured))]
    parts.append(f"Remade by:\n\n    {machine['command']}")
    return "\n\n".join(parts)


def about(machine: dict, results: list[dict], measured: list[dict]) -> str:
    size, cores, rounds = machine["size"], machine["cores"], machine["rounds"]
    instructions = ", ".join(INSTRUCTIONS[flag] for flag in machine["instructions"])
    text = (f"GPT-2 {size} ({PARAMETERS[size]} parameters, random weights) with {counted(machine['threads'], 'thread')} "
            f"on {machine['cpu']} ({counted(cores, 'core')}; {instructions}), {machine['system']}, on {machine['date']}. "
            f"Medians of {counted(rounds, 'round')}, in which the runtimes take turns.")
    bandwidth = [result["read_gbs"]["500"] for result in results if "read_gbs" in result]
    if bandwidth:
        text += (f" Meanwhile its memory gave {statistics.median(bandwidth):.0f} GB/s "
                 f"({min(bandwidth):.0f} to {max(bandwidth):.0f}) to that many threads reading 500 MiB")
        text += f", and other processes took {max(result['others_pct'] for result in measured):.0f} % of the CPU at most."
    return text


def table(measured: list[dict]) -> str:
    lines = [line(["weights", "runtime", *(column.heading for column in COLUMNS)]),
             "|---|---|" + "---:|" * len(COLUMNS)]
    for weights in FORMATS:
        rows = grouped([result for result in measured if result["weights"] == weights])
        values = [[column.median(results) for column in COLUMNS] for results in rows.values()]
        best = [column.best([row[index] for row in values]) for index, column in enumerate(COLUMNS)]
        for (peer, variant), row in zip(rows, values):
            cells = [cell(value, column.digits, value == top) for value, column, top in zip(row, COLUMNS, best)]
            lines.append(line([weights, peer if peer == OURS else f"{peer} {variant}", *cells]))
        if any(peer == OURS for peer, _ in rows) and len(rows) > 1:
            lines.append(line([weights, "*ratio*", *(f"*{cell(ratio, 2)}*" for ratio in ratios(rows))]))
    return "\n".join(lines)


def ratios(rows: dict[tuple[str, str], list[dict]]) -> list[float | None]:
    """For each column, how many times better our figure is than the best of the others."""
    def best(column: Column, ours: bool) -> float | None:
        return column.best([column.median(results) for (peer, _), results in rows.items() if (peer == OURS) == ours])
    return [column.ratio(best(column, True), best(column, False)) for column in COLUMNS]


def remarks(results: list[dict], measured: list[dict]) -> list[str]:
    """What else is to be known; nothing where there is nothing to say."""
    texts = []
    rows = grouped(measured)
    spreads = [spread for results in rows.values() if (spread := decode_spread(results)) is not None]
    if spreads:
        texts.append(f"From round to round, *decode* differs by {statistics.median(spreads):.0f} % in the median row, "
                     f"and by {max(spreads):.0f} % at most (largest less smallest, by the median).")
    far = [text for (peer, variant), results in rows.items() if peer == OURS
           if (text := positions(variant, results)) is not None]
    if far:
        texts.append(f"How decoding slows down with its position: {'; '.join(far)}.")
    tokens = {peer: tuple(results[0]["tokens"]) for (peer, _), results in
              grouped([result for result in measured if result["weights"] == "f32" and "tokens" in result]).items()}
    if len(tokens) > 1:
        texts.append(f"In f32, these give the same first eight tokens: {', '.join(tokens)}."
                     if len(set(tokens.values())) == 1 else
                     f"In f32, the first eight tokens differ: {'; '.join(f'{p} {list(t)}' for p, t in tokens.items())}.")
    names = {(result["peer"], result.get("variant", "")) for result in results if "error" in result} - set(rows)
    if names:
        texts.append(f"These did not run here: {', '.join(sorted(' '.join(name).strip() for name in names))}.")
    return texts


def positions(variant: str, results: list[dict]) -> str | None:
    near, far = (median(figure(result, ("decode_tps_at", position)) for result in results) for position in ("32", "1000"))
    if near is None or far is None:
        return None
    return f"gpt2 {variant}, {near:.1f} tokens per second around position 32, {far:.1f} around 1000"


def versions(machine: dict, measured: list[dict]) -> str:
    known = {}
    for result in measured:
        known.update(result.get("versions", {}))
    if machine["commit"] and OURS in known:
        known[OURS] += f" ({machine['commit']})"
    return f"Versions: {', '.join(f'{name} {version}' for name, version in known.items())}."


def grouped(results: list[dict]) -> dict[tuple[str, str], list[dict]]:
    """By runtime and variant, in the order of the plan, ours first."""
    groups = {}
    for result in sorted(results, key=lambda result: result["peer"] != OURS):
        groups.setdefault((result["peer"], result["variant"]), []).append(result)
    return groups


def decode_spread(results: list[dict]) -> float | None:
    rates = [rate for result in results if (rate := figure(result, ("decode_tps",))) is not None]
    return 100 * (max(rates) - min(rates)) / statistics.median(rates) if len(rates) > 1 else None


def figure(result: dict, path: tuple[str, ...]) -> float | None:
    for key in path:
        result = (result or {}).get(key)
    return result


def median(values) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def cell(value: float | None, digits: int, bold: bool = False) -> str:
    if value is None:
        return "–"
    return f"**{value:.{digits}f}**" if bold else f"{value:.{digits}f}"


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), width=118, break_long_words=False, break_on_hyphens=False)


def rewrite(readme: Path, text: str) -> None:
    readme.write_text(replaced(readme.read_text(encoding="utf-8"), text), encoding="utf-8")


def replaced(document: str, text: str) -> str:
    """The document with other text between the markers."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(END) < document.index(BEGIN):
        raise SystemExit(f"error: expected `{BEGIN}` once and `{END}` once after it")
    head, rest = document.split(BEGIN)
    return f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    main()
