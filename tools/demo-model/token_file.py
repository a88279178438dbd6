"""One file that holds all tokens of the corpus, by source: what `prepare.py` writes and training reads.

    line of JSON   {"parts": [{"kind", "source", "tokens", "documents", "bytes"}, ...]}
    parts          each an xz stream of 16-bit tokens, little-endian; every document begins with <|endoftext|>

`kind` is "training" or the name of a held-out file. Only numpy and the standard library are needed to read it.
"""
import json
import lzma
from pathlib import Path
from typing import NamedTuple

import numpy as np

END_OF_TEXT = 50256
VOCABULARY = 50257
TRAINING = "training"


class Part(NamedTuple):
    kind: str
    source: str
    tokens: np.ndarray  # uint16

    @property
    def documents(self) -> int:
        return int((self.tokens == END_OF_TEXT).sum())


def pack(tokens: np.ndarray) -> bytes:
    # Tokens are 2 bytes, so positions modulo 2 matter (lp, pb); measured best of a few settings.
    settings = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 3, "lp": 1, "pb": 1}
    return lzma.compress(tokens.astype("<u2").tobytes(), filters=[settings])


def write(path: Path, parts: list[Part], packed: list[bytes]) -> None:
    header = {"parts": [{"kind": part.kind, "source": part.source, "tokens": len(part.tokens),
                         "documents": part.documents, "bytes": len(data)} for part, data in zip(parts, packed)]}
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(json.dumps(header).encode() + b"\n")
        file.writelines(packed)
    partial.replace(path)


def read(path: Path, held_out_only: bool = False) -> list[Part]:
    with path.open("rb") as file:
        header = json.loads(file.readline())
        parts = []
        for entry in header["parts"]:
            data = file.read(entry["bytes"])
            if held_out_only and entry["kind"] == TRAINING:
                continue
            tokens = np.frombuffer(lzma.decompress(data), "<u2")
            if len(tokens) != entry["tokens"]:
                raise SystemExit(f"error: `{path}` is damaged: {entry['source']} has {len(tokens)} tokens, "
                                 f"not {entry['tokens']}")
            parts.append(Part(entry["kind"], entry["source"], tokens))
    return parts


def documents(tokens: np.ndarray) -> list[np.ndarray]:
    """The documents of a part, each with the <|endoftext|> before it."""
    return np.split(tokens, np.flatnonzero(tokens == END_OF_TEXT)[1:])
