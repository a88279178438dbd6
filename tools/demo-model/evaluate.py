#!/usr/bin/env python3
"""Held-out loss of a model directory: nats per token by source, context 256, full softmax in f32.

    evaluate.py MODEL_DIR TOKENS [--context 256] [--threads 1] [--json]
"""
import argparse
import json
from pathlib import Path

import torch

import losses
import model as gpt2
import token_file
from sources import HELD_OUT


def held_out_texts(parts: list[token_file.Part]) -> dict[str, list]:
    """The held-out texts of a token file: kind and its (source, tokens)."""
    texts = {kind: [(part.source, part.tokens) for part in parts if part.kind == kind] for kind in HELD_OUT}
    return {kind: text for kind, text in texts.items() if text}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--windows", type=int, help="only so many windows of each text, at even distances")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model = gpt2.load(args.model).to(args.device).eval()
    texts = held_out_texts(token_file.read(args.tokens, held_out_only=True))
    results = {kind: losses.held_out(model, parts, args.context, limit=args.windows) for kind, parts in texts.items()}
    if args.json:
        return print(json.dumps(results))
    print("| held-out text | source | tokens | nats per token |\n|---|---|---:|---:|")
    for kind, by_source in results.items():
        sizes = {source: len(tokens) for source, tokens in texts[kind]}
        for source, loss in by_source.items():
            print(f"| {kind} | {source} | {sizes.get(source, sum(sizes.values())):,} | {loss:.3f} |")


if __name__ == "__main__":
    main()
