#!/usr/bin/env python3
"""Measure what gpt2's formats of weights cost, next to llama.cpp's: the one command behind docs/quantization.md.

    compare.py --work DIR --text NAME=PATH [--text NAME=PATH ...] [--document docs/quantization.md]

Every runtime is compared with itself in f32: the mean Kullback-Leibler divergence of its predictions of the next
token, over the same tokens of the same texts in the same windows, with keys and values in f32 on both sides. DIR gets
the checkpoint in F32, the GGUF files, the texts that were packed (.zst), and every result, in results.jsonl. Without
--document the tables are printed. Numbers in the document come from here and never from a hand.

Needs the release build of gpt2 and the packages that tools/bench/requirements/llamacpp.txt lists, besides tokenizers,
and zstandard for packed texts.
"""
import argparse
import json
import subprocess
import sys
import textwrap
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
OURS = ("bf16", "int8", "int4")
THEIRS = ("Q8_0", "Q4_K_M", "Q4_0")
ROWS = ("bf16", "int8", "Q8_0", "int4", "Q4_K_M", "Q4_0")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for what is converted and measured")
    parser.add_argument("--text", type=named_path, action="append", required=True, metavar="NAME=PATH",
                        help="a text in UTF-8, or .zst of one, and what the table calls it")
    parser.add_argument("--model", type=Path, default=REPOSITORY / "models" / "demo",
                        help="checkpoint folder with one model.safetensors and a tokenizer.json (default: models/demo)")
    parser.add_argument("--document", type=Path, help="write the tables between the markers of this file")
    parser.add_argument("--tokens", type=int, default=40960, help="tokens of each text (default: %(default)s)")
    parser.add_argument("--window", type=int, default=512, help="tokens of a window (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--program", type=Path, default=REPOSITORY / "target" / "release" / "gpt2",
                        help="default: target/release/gpt2 of this repository")
    parser.add_argument("--llamacpp-results", type=Path, metavar="FILE",
                        help="take llama.cpp's figures from what llamacpp_divergence.py printed for these texts")
    arguments = parser.parse_args()
    if arguments.window < 2 or arguments.tokens < arguments.window or arguments.tokens % arguments.window:
        parser.error("--tokens must be a multiple of --window, which must be at least 2")
    arguments.work.mkdir(parents=True, exist_ok=True)

    texts = {name: unpacked(path, arguments.work) for name, path in arguments.text}
    theirs = arguments.llamacpp_results or llamacpp(arguments, texts)
    results = [*our_results(arguments, texts), *their_results(theirs, texts, arguments)]
    with open(arguments.work / "results.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps(result) + "\n" for result in results)
    text = section(results, list(texts), arguments)
    if arguments.document:
        document = arguments.document.read_text(encoding="utf-8")
        arguments.document.write_text(replaced(document, text), encoding="utf-8")
    else:
        print(text)


def named_path(argument: str) -> tuple[str, Path]:
    name, equals, path = argument.partition("=")
    if not (name and equals and path):
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, found {argument!r}")
    return name, Path(path)


def unpacked(path: Path, work: Path) -> Path:
    if path.suffix != ".zst":
        return path
    import zstandard
    plain = work / path.stem
    with open(path, "rb") as packed, open(plain, "wb") as out:
        zstandard.ZstdDecompressor().copy_stream(packed, out)
    return plain


def our_results(arguments: argparse.Namespace, texts: dict[str, Path]) -> list[dict]:
    results = []
    for name, path in texts.items():
        for dtype in OURS:
            command = [arguments.program, "--quiet", "--offline", "--model", arguments.model, "--dtype", dtype,
                       "--kv-dtype", "f32", "--threads", arguments.threads, "score", "--json", "--file", path,
                       "--reference-dtype", "f32", "--window", arguments.window, "--limit", arguments.tokens]
            record = json.loads(output(command))
            results.append({
                "format": dtype, "text": name, "bits": record["bits_per_weight"], "kl": record["kl"],
                "kl_stderr": record["kl_stderr"], "kl_max": record["kl_max"], "same": record["same_top_token"],
                "perplexity": record["perplexity"], "perplexity_f32": record["reference_perplexity"],
                "positions": record["positions"],
            })
            print(json.dumps(results[-1]), file=sys.stderr, flush=True)
    return results


def llamacpp(arguments: argparse.Namespace, texts: dict[str, Path]) -> Path:
    """Runs llama.cpp's variants on the texts and returns the file of the results."""
    gguf, results = arguments.work / "gguf", arguments.work / "llamacpp.jsonl"
    if not all((gguf / f"{variant}.gguf").is_file() for variant in ("F32", *THEIRS)):
        checkpoint = arguments.work / "checkpoint"
        widen(arguments.model, checkpoint)
        output([sys.executable, REPOSITORY / "tools" / "bench" / "prepare_gguf.py", checkpoint, gguf])
    lines = [output([sys.executable, HERE / "llamacpp_divergence.py", gguf, arguments.model / "tokenizer.json", path,
                     "--tokens", arguments.tokens, "--window", arguments.window, "--threads", arguments.threads,
                     "--variants", ",".join(THEIRS), "--kv", "f32"]) for path in texts.values()]
    results.write_text("".join(lines), encoding="utf-8")
    return results


def widen(model: Path, out: Path) -> None:
    """Copies a checkpoint with every tensor in F32: numpy knows no BF16, so prepare_gguf.py cannot read it."""
    import numpy as np
    from safetensors.numpy import save_file
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json"):
        (out / name).write_bytes((model / name).read_bytes())
    data = (model / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        first, last = (start + offset for offset in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(data[first:last], "<u2").astype("<u4") << 16).view("<f4")
        elif entry["dtype"] in ("F16", "F32"):
            values = np.frombuffer(data[first:last], f"<f{int(entry['dtype'][1:]) // 8}").astype("<f4")
        else:
            continue  # the masks of some checkpoints
        tensors[name] = np.ascontiguousarray(values.reshape(entry["shape"]))
    save_file(tensors, out / "model.safetensors")


def their_results(path: Path, texts: dict[str, Path], arguments: argparse.Namespace) -> list[dict]:
    names = {path.name: name for name, path in texts.items()}
    results = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        name = names.get(record["text"].removesuffix(".zst"))
        if name and (record["tokens"], record["window"]) == (arguments.tokens, arguments.window):
            results.append({
                "format": record["variant"], "text": name, "bits": record["bits_per_weight"], "kl": record["kl"],
                "kl_stderr": record["kl_stderr"], "kl_max": record["kl_max"], "same": record["top1"],
                "perplexity": record["perplexity"], "perplexity_f32": record["perplexity_f32"],
                "positions": record["positions"], "version": record["version"],
            })
    return results


def section(results: list[dict], texts: list[str], arguments: argparse.Namespace) -> str:
    """What stands between the markers."""
    by_key = {(result["format"], result["text"]): result for result in results}
    missing = [f"{row} on {text}" for row in ROWS for text in texts if (row, text) not in by_key]
    if missing:
        raise SystemExit(f"error: no result of {arguments.tokens} tokens for {', '.join(missing)}")
    versions = {result["version"] for result in results if "version" in result}
    program = output([arguments.program, "--version"]).split()[1]
    parts = [paragraph(
        f"The first {arguments.tokens:,} tokens of each text in windows of {arguments.window}, of which "
        f"{by_key[ROWS[0], texts[0]]['positions']:,} positions count; gpt2 {program} and llama-cpp-python "
        f"{', '.join(sorted(versions))}, each next to its own f32, keys and values in f32.")]
    for text in texts:
        rows = [by_key[row, text] for row in ROWS]
        if len({row["positions"] for row in rows}) != 1:
            raise SystemExit(f"error: {text} has less than {arguments.tokens} tokens")
        ours, theirs = (by_key[row, text]["perplexity_f32"] for row in (OURS[0], THEIRS[0]))
        if abs(ours / theirs - 1) > 1e-3:
            raise SystemExit(f"error: perplexity of {text} in f32 is {ours} here and {theirs} in llama.cpp")
        parts.append(f"**{text}** (perplexity in f32: {ours:.2f}, llama.cpp's {theirs:.2f})")
        parts.append(table(rows))
    return "\n\n".join(parts)


def table(rows: list[dict]) -> str:
    lines = ["| format | bits per weight | mean KL, nats | largest | same likeliest token | perplexity |",
             "|---|---:|---:|---:|---:|---:|"]
    for row in rows:
        name = row["format"] if row["format"] in OURS else f"llama.cpp {row['format']}"
        cells = (name, f"{row['bits']:.2f}", f"{row['kl']:.2e} ± {row['kl_stderr']:.0e}", f"{row['kl_max']:.1e}",
                 f"{100 * row['same']:.2f} %", f"{row['perplexity']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def output(command: list) -> str:
    process = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True)
    if process.returncode:
        raise SystemExit(f"error: {Path(command[0]).name} ended with code {process.returncode}")
    return process.stdout


def paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), width=118, break_long_words=False, break_on_hyphens=False)


def replaced(document: str, text: str) -> str:
    """The document with other text between the markers."""
    if document.count(BEGIN) != 1 or document.count(END) != 1 or document.index(END) < document.index(BEGIN):
        raise SystemExit(f"error: expected `{BEGIN}` once and `{END}` once after it")
    head, rest = document.split(BEGIN)
    return f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    main()
