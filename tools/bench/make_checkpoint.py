#!/usr/bin/env python3
"""Write a GPT-2 checkpoint with random weights, laid out like the published one, with the demo model's tokenizer.

    make_checkpoint.py OUT_DIR [--size small]

Speed does not depend on the weights, and these need no download. Every value comes from integer arithmetic on a
PCG64 stream keyed by the tensor's name, so that the same size gives the same bytes with any NumPy.

The scales keep the logits lively: `ln_f.weight` has random signs, so that the tied embedding does not simply vote for
the last token again, and the blocks together weigh about as much in the residual stream as the token does. Greedy
decoding then wanders instead of repeating itself, and the top two logits are rarely close.
"""
import argparse
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SIZES = {  # layers, heads, channels
    "tiny": (2, 4, 64),
    "small": (12, 12, 768),
    "medium": (24, 16, 1024),
    "large": (36, 20, 1280),
    "xl": (48, 25, 1600),
}
VOCABULARY = 50257
POSITIONS = 1024
TOKENIZER = Path(__file__).resolve().parents[2] / "models" / "demo"


@dataclass
class Tensor:
    name: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, arguments.out)
    layers, heads, channels = SIZES[arguments.size]
    (arguments.out / "config.json").write_text(json.dumps(config(layers, heads, channels), indent=2) + "\n")
    write_safetensors(arguments.out / "model.safetensors", tensors(layers, channels))


def config(layers: int, heads: int, channels: int) -> dict:
    return {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": VOCABULARY - 1,
        "eos_token_id": VOCABULARY - 1,
        "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2",
        "n_ctx": POSITIONS,
        "n_embd": channels,
        "n_head": heads,
        "n_layer": layers,
        "n_positions": POSITIONS,
        "vocab_size": VOCABULARY,
    }


def tensors(layers: int, channels: int) -> list[Tensor]:
    """In the order of the file: by name."""
    out = []

    def add(name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> None:
        out.append(Tensor(name, shape, lambda: noise(name, shape, std, mean)))

    def signs() -> np.ndarray:
        return np.copysign(noise("ln_f.weight", (channels,), 0.1, 1.0), noise("ln_f.weight/sign", (channels,), 1.0))

    def causal_mask() -> np.ndarray:
        return np.tril(np.ones((POSITIONS, POSITIONS), np.float32))

    add("wte.weight", (VOCABULARY, channels), 0.14)
    add("wpe.weight", (POSITIONS, channels), 0.08)
    gain = 0.2 / layers**0.5  # what one block adds, next to wte's 0.14
    for layer in range(layers):
        block = f"h.{layer}."
        add(block + "ln_1.weight", (channels,), 0.1, 1.0)
        add(block + "ln_1.bias", (channels,), 0.02)
        add(block + "attn.c_attn.weight", (channels, 3 * channels), 1.2 / channels**0.5)
        add(block + "attn.c_attn.bias", (3 * channels,), 0.02)
        add(block + "attn.c_proj.weight", (channels, channels), gain / channels**0.5)
        add(block + "attn.c_proj.bias", (channels,), 0.005)
        add(block + "ln_2.weight", (channels,), 0.1, 1.0)
        add(block + "ln_2.bias", (channels,), 0.02)
        add(block + "mlp.c_fc.weight", (channels, 4 * channels), 1.0 / channels**0.5)
        add(block + "mlp.c_fc.bias", (4 * channels,), 0.02)
        add(block + "mlp.c_proj.weight", (4 * channels, channels), 2 * gain / (4 * channels) ** 0.5)
        add(block + "mlp.c_proj.bias", (channels,), 0.005)
        out.append(Tensor(block + "attn.bias", (1, 1, POSITIONS, POSITIONS), causal_mask))
    out.append(Tensor("ln_f.weight", (channels,), signs))
    add("ln_f.bias", (channels,), 0.02)
    return sorted(out, key=lambda tensor: tensor.name)


def noise(name: str, shape: tuple[int, ...], std: float, mean: float = 0.0) -> np.ndarray:
    """Close to normal: the sum of four 16-bit uniforms from PCG64's raw bits."""
    stream = np.random.PCG64(np.random.SeedSequence([0, zlib.crc32(name.encode())]))
    out = np.empty(int(np.prod(shape)), np.float32)
    piece = 1 << 22
    for start in range(0, len(out), piece):
        count = min(piece, len(out) - start)
        sums = stream.random_raw(count).view(np.uint16).reshape(count, 4).sum(axis=1, dtype=np.int64)
        # 37837.2 is the standard deviation of such a sum: sqrt(4 * (2^32 - 1) / 12).
        out[start:start + count] = ((sums - 131070) * (std / 37837.2) + mean).astype(np.float32)
    return out.reshape(shape)


def write_safetensors(path: Path, items: list[Tensor]) -> None:
    header, position = {"__metadata__": {"format": "pt"}}, 0
    for item in items:
        end = position + 4 * int(np.prod(item.shape))
        header[item.name] = {"dtype": "F32", "shape": list(item.shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for item in items:
            file.write(np.ascontiguousarray(item.make(), dtype="<f4").data)


if __name__ == "__main__":
    main()
