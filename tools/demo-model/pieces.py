#!/usr/bin/env python3
"""Write a result as files of at most 15 MB, and put it together again.

    pieces.py join OUT_DIR MODEL_DIR [--tokenizer models/demo]

A result is a tar archive, cut: `model-060.tar.000`, `model-060.tar.001`, ... and `result.sha256` with the archive's
name and SHA-256, as `sha256sum` writes it. That file is replaced after the pieces of a new result are there and before
those of the old one go, so whenever the writer is killed there is a whole result.
"""
import argparse
import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

LARGEST_PIECE = 15_000_000
HASH_FILE = "result.sha256"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "LICENSE-tokenizer")


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file that is there with all its bytes or not at all."""
    hidden = path.parent / ".partial"
    hidden.write_bytes(data)
    os.replace(hidden, path)


def split(out: Path, name: str, files: dict[str, bytes], largest: int = LARGEST_PIECE) -> list[Path]:
    """Writes `files` as the result `name` and removes the result that was there."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file_name, data in files.items():
            entry = tarfile.TarInfo(file_name)
            entry.size, entry.mode = len(data), 0o644
            tar.addfile(entry, io.BytesIO(data))
    archive = buffer.getvalue()
    pieces = []
    for number, start in enumerate(range(0, len(archive), largest)):
        pieces.append(out / f"{name}.tar.{number:03}")
        write_whole(pieces[-1], archive[start:start + largest])
    write_whole(out / HASH_FILE, f"{hashlib.sha256(archive).hexdigest()}  {name}.tar\n".encode())
    for old in out.glob("*.tar.[0-9][0-9][0-9]"):
        if old not in pieces:
            old.unlink()
    return pieces


def join(out: Path) -> dict[str, bytes]:
    """The files of the result in `out`."""
    hash_file = out / HASH_FILE
    if not hash_file.exists():
        raise SystemExit(f"error: no `{HASH_FILE}` in `{out}`: no result was finished")
    expected, name = hash_file.read_text().split()
    pieces = sorted(out.glob(f"{name}.[0-9][0-9][0-9]"))
    archive = b"".join(piece.read_bytes() for piece in pieces)
    found = hashlib.sha256(archive).hexdigest()
    if found != expected:
        raise SystemExit(f"error: the {len(pieces)} pieces of `{name}` have SHA-256 {found}, expected {expected}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar}


def copy_tokenizer(source: Path, model: Path) -> None:
    for name in TOKENIZER_FILES:
        if (source / name).exists() and source != model:
            shutil.copyfile(source / name, model / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["join"])
    parser.add_argument("out", type=Path, help="folder with the pieces")
    parser.add_argument("model", type=Path, help="folder to write the model to")
    parser.add_argument("--tokenizer", type=Path, help="folder whose tokenizer is copied to the model")
    args = parser.parse_args()
    files = join(args.out)
    args.model.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (args.model / Path(name).name).write_bytes(data)
    if args.tokenizer:
        copy_tokenizer(args.tokenizer, args.model)
    print(f"{args.model}: {', '.join(sorted(files))}; {(args.out / HASH_FILE).read_text().strip()}")


if __name__ == "__main__":
    main()
