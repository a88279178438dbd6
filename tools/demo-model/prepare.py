#!/usr/bin/env python3
"""Turn the corpus into one file of tokens.

    prepare.py CORPUS_DIR TOKENS [--tokenizer models/demo] [--limit-mb N]

CORPUS_DIR holds *.txt.zst files whose documents are separated by a line
`<|endoftext|>`. `sources.py` says which are trained on, `prose.py` what of them
reads well enough. Prints a table of the sources. With a limit, the last sources
of the table are thinned out or left out until the file is small enough.
"""
import argparse
import hashlib
import os
from pathlib import Path

import numpy as np
import zstandard
from tokenizers import Tokenizer

import token_file
from prose import clean
from sources import HELD_OUT, WEIGHTS
from token_file import END_OF_TEXT, TRAINING, Part

SEED = 1


def texts(path: Path) -> list[str]:
    raw = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().decode("utf-8")
    return [text for text in (part.strip("\n") for part in raw.split("<|endoftext|>\n")) if text]


def is_held_out(text: str) -> bool:
    """The corpus's rule: about one document in a hundred, chosen by its MD5, is never trained on."""
    return int.from_bytes(hashlib.md5(text.encode("utf-8")).digest()[:4], "big") % 100 == 7


def encode(tokenizer: Tokenizer, documents: list[str]) -> np.ndarray:
    encoded = []
    for start in range(0, len(documents), 256):
        batch = tokenizer.encode_batch(documents[start:start + 256])
        encoded += [np.array([END_OF_TEXT, *one.ids], np.uint16) for one in batch]
    return np.concatenate(encoded)


def training_part(path: Path, source: str, tokenizer: Tokenizer) -> tuple[Part, int]:
    """The source's tokens, and how many documents its file has."""
    found = texts(path)
    kept = [text for text in (clean(one) for one in found if not is_held_out(one)) if text]
    return Part(TRAINING, source, encode(tokenizer, kept)), len(found)


def held_out_parts(path: Path, tokenizer: Tokenizer) -> list[Part]:
    """The held-out documents as they are, by source where the file has as many as `sources.py` says."""
    kind = path.name.removesuffix(".txt.zst")
    found, parts = texts(path), []
    counts = HELD_OUT[kind]
    if sum(count for _, count in counts) != len(found):
        counts = (("all", len(found)),)
    for source, count in counts:
        parts.append(Part(kind, source, encode(tokenizer, found[:count])))
        found = found[count:]
    return parts


def thinned(part: Part, share: float) -> Part:
    """A random `share` of the part's documents, in their order."""
    documents = token_file.documents(part.tokens)
    keep = np.random.default_rng(SEED).permutation(len(documents)) < share * len(documents)
    return part._replace(tokens=np.concatenate([one for one, kept in zip(documents, keep) if kept]))


def fit(part: Part, room: int) -> tuple[Part, bytes] | None:
    """The part, thinned if need be, in at most `room` bytes; None if that leaves next to nothing."""
    packed, whole = token_file.pack(part.tokens), part
    share = 1.0
    while len(packed) > room:
        share *= 0.98 * room / len(packed)
        if share < 0.05:
            return None
        part = thinned(whole, share)
        packed = token_file.pack(part.tokens)
    return part, packed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--tokenizer", type=Path, default=Path("models/demo"), help="folder with tokenizer.json")
    parser.add_argument("--limit-mb", type=float, help="largest size of the file, in units of 1,000,000 bytes")
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="lower the priority by N")
    args = parser.parse_args()
    os.nice(args.nice)
    tokenizer = Tokenizer.from_file(str(args.tokenizer / "tokenizer.json"))

    parts, packed = [], []
    for kind in HELD_OUT:
        for part in held_out_parts(args.corpus / f"{kind}.txt.zst", tokenizer):
            parts.append(part)
            packed.append(token_file.pack(part.tokens))
    print("| source | documents | kept | tokens | bytes |\n|---|---:|---:|---:|---:|")
    total = [0, 0, 0, 0]
    for source in WEIGHTS:
        path = args.corpus / f"{source}.txt.zst"
        if not path.exists():
            print(f"| {source} | missing | | | |", flush=True)
            continue
        part, found = training_part(path, source, tokenizer)
        room = int(args.limit_mb * 1e6) - sum(map(len, packed)) - 10_000 if args.limit_mb else 1 << 60
        fitted = fit(part, room)
        if fitted is None:
            print(f"| {source} | {found:,} | no room | | |", flush=True)
            continue
        parts.append(fitted[0])
        packed.append(fitted[1])
        row = found, fitted[0].documents, len(fitted[0].tokens), len(fitted[1])
        total = [a + b for a, b in zip(total, row)]
        print(f"| {source} | " + " | ".join(f"{n:,}" for n in row) + " |", flush=True)
    print("| total | " + " | ".join(f"{n:,}" for n in total) + " |")
    token_file.write(args.tokens, parts, packed)
    print(f"{args.tokens}: {args.tokens.stat().st_size / 1e6:.1f} MB with the held-out texts")


if __name__ == "__main__":
    main()
