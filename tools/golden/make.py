#!/usr/bin/env python3
"""Make the golden files (their format: testdata/golden/README.md).

    make.py OUT_DIR                     tiny checkpoints, filters, modes of decoding, processors
    make.py OUT_DIR --demo MODEL_DIR    the demo model's files and the tokenizer's
"""
import argparse
from pathlib import Path

import torch

from beams import make_beams
from demo import make_demo
from filters import make_filters
from modes import make_modes
from processors import make_processors
from seeds import make_seeds
from texts import make_tokenizer
from tiny import CASES, make_case


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--demo", type=Path, metavar="MODEL_DIR", help="folder with model.safetensors and tokenizer.json")
    parser.add_argument("--case", help="only the tiny checkpoint of this name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.demo:
        make_tokenizer(args.demo, args.out)
        make_demo(args.demo, args.out)
        make_seeds(args.demo, args.out)
        return
    for case in CASES:
        if args.case in (None, case.name):
            make_case(case, args.out)
    if args.case is None:
        make_filters(args.out)
        make_beams(args.out)
        make_modes(args.out)
        make_processors(args.out)


if __name__ == "__main__":
    main()
