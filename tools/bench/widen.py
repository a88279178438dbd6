#!/usr/bin/env python3
"""Make a checkpoint of `gpt2`'s shape that computes what a smaller one computes: the demo model, unless another is named.

    widen.py OUT_DIR [--model ../../models/demo] [--factor 3] [--layers 12]

Speed depends on the shape, and how often a guess is right depends on the function, so this is what speculative decoding
is measured with. Channels and heads are repeated, the whole vector at a time, so that layer norms find the same mean and
variance; where a sum then runs over each of them `factor` times, the weights are divided by it. Blocks that add nothing
follow the real ones: copies of these whose output projections are zero, which takes as long to multiply as any other
numbers. `--check PROGRAM` compares the log-probabilities of a text by both models, and fails if they differ by more than
rounding.
"""
import argparse
import json
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
from make_checkpoint import TOKENIZER, Tensor, write_safetensors

TEXT = "Once upon a time there was a king who had three daughters, and the youngest of them was so fair that the sun itself, \
which had seen so much, wondered whenever it shone on her face."
# What rounding may do to a log-probability: of a logit around 10, the last of 24 bits is 1e-6, and the sums on the way to
# it, over more channels and thus in another order, are each rounded differently.
ROUNDING = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", type=Path, default=TOKENIZER, help="default: the demo model")
    parser.add_argument("--factor", type=int, default=3)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--check", metavar="PROGRAM", help="a `gpt2` to compare the two models with")
    arguments = parser.parse_args()
    if arguments.out.resolve() == arguments.model.resolve():
        raise SystemExit(f"{arguments.out} is the model itself, which would be overwritten")
    config = json.loads((arguments.model / "config.json").read_text())
    weights = read_safetensors(arguments.model / "model.safetensors")
    refuse(config, weights, arguments.layers, arguments.factor)
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (arguments.model / name).exists():
            shutil.copy(arguments.model / name, arguments.out)
    # Without `n_inner` it is 4 times `n_embd`.
    wide = dict(config, n_embd=config["n_embd"] * arguments.factor, n_head=config["n_head"] * arguments.factor,
                n_inner=None, n_layer=arguments.layers, dtype="float32")
    (arguments.out / "config.json").write_text(json.dumps(wide, indent=2) + "\n")
    made = widened(weights, config["n_layer"], arguments.layers, arguments.factor)
    items = [Tensor(name, value.shape, lambda value=value: value) for name, value in sorted(made.items())]
    write_safetensors(arguments.out / "model.safetensors", items)
    if arguments.check:
        difference = check(arguments.check, arguments.model, arguments.out)
        print(f"largest difference of a log-probability: {difference:.1e}")
        if not difference <= ROUNDING:
            raise SystemExit(f"expected at most {ROUNDING:.0e}: the wide model computes something else")


def refuse(config: dict, weights: dict[str, np.ndarray], layers: int, factor: int) -> None:
    """Ends the program where repeating would change the function."""
    channels = config["n_embd"]
    if factor < 1:
        raise SystemExit(f"`--factor` is {factor}, expected at least 1")
    if layers < config["n_layer"]:
        raise SystemExit(f"`--layers` is {layers}, expected at least the model's {config['n_layer']}")
    if config.get("n_inner") not in (None, 4 * channels):
        raise SystemExit(f"`n_inner` is {config['n_inner']}, expected 4 times `n_embd`: {4 * channels}")
    # A copy of a tied head may be in the file.
    head = weights.get("lm_head.weight")
    if not config.get("tie_word_embeddings", True) or head is not None and not np.array_equal(head, weights["wte.weight"]):
        raise SystemExit("the model's head, `lm_head.weight`, is not tied to its embeddings")
    for name, shape in shapes(config).items():
        if name not in weights:
            raise SystemExit(f"the model has no `{name}`, expected one of shape {shape}")
        if weights[name].shape != shape:
            raise SystemExit(f"`{name}` has shape {weights[name].shape}, expected {shape}")


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """The tensors of a model with this configuration."""
    channels = config["n_embd"]
    out = {"wte.weight": (config["vocab_size"], channels), "wpe.weight": (config["n_positions"], channels),
           "ln_f.weight": (channels,), "ln_f.bias": (channels,)}
    for layer in range(config["n_layer"]):
        for norm in ("ln_1", "ln_2"):
            out |= {f"h.{layer}.{norm}.{kind}": (channels,) for kind in ("weight", "bias")}
        for name, inputs, outputs in (("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)):
            out[f"h.{layer}.{name}.weight"] = (inputs * channels, outputs * channels)
            out[f"h.{layer}.{name}.bias"] = (outputs * channels,)
    return out


def widened(weights: dict[str, np.ndarray], layers: int, wanted: int, factor: int) -> dict[str, np.ndarray]:
    """The tensors of the wide model, from those of a model with so many layers. Weights are (in, out)."""
    def repeat(x: np.ndarray, parts: int = 1) -> np.ndarray:
        """Repeats outputs: each of so many parts by itself."""
        return np.concatenate([np.tile(part, factor) for part in np.split(x, parts, axis=-1)], axis=-1)

    def linear(weight: np.ndarray, parts: int = 1) -> np.ndarray:
        return np.tile(repeat(weight, parts), (factor, 1)) / np.float32(factor)

    out = {name: repeat(weights[name]) for name in ("wte.weight", "wpe.weight")}
    # The head is `wte`, so what it is multiplied with is divided.
    out |= {name: repeat(weights[name]) / np.float32(factor) for name in ("ln_f.weight", "ln_f.bias")}
    for layer in range(wanted):
        source, target = f"h.{layer % layers}.", f"h.{layer}."
        adds = np.float32(layer < layers)
        for norm in ("ln_1", "ln_2"):
            out |= {f"{target}{norm}.{kind}": repeat(weights[f"{source}{norm}.{kind}"]) for kind in ("weight", "bias")}
        for name, parts, scale in (("attn.c_attn", 3, 1), ("attn.c_proj", 1, adds), ("mlp.c_fc", 1, 1), ("mlp.c_proj", 1, adds)):
            out[f"{target}{name}.weight"] = linear(weights[f"{source}{name}.weight"], parts) * np.float32(scale)
            out[f"{target}{name}.bias"] = repeat(weights[f"{source}{name}.bias"], parts) * np.float32(scale)
    return out


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors in single precision, without the prefix that some checkpoints have."""
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    out = {}
    for name, entry in json.loads(data[8:8 + length]).items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        raw = data[8 + length + start:8 + length + end]
        if entry["dtype"] == "BF16":
            values = (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
        elif entry["dtype"] in ("F32", "F16"):
            values = np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype("<f4")
        else:
            continue  # A mask of some kind; a weight is missed by name.
        out[name.removeprefix("transformer.")] = values.reshape(entry["shape"])
    return out


def check(program: str, model: Path, wide: Path) -> float:
    """The largest difference between what two models say of the same tokens."""
    both = []
    for directory in (model, wide):
        command = [program, "--quiet", "--model", str(directory.resolve()), "score", TEXT, "--json"]
        tokens = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["tokens"]
        both.append([token["logprob"] for token in tokens[1:]])
    return max(abs(a - b) for a, b in zip(*both, strict=True))


if __name__ == "__main__":
    main()
