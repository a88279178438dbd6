"""GPT-2 in PyTorch: parameters named as in a checkpoint of `transformers`, and the checkpoint's files.

Written out rather than taken from `transformers`, so that a training machine needs PyTorch alone and every version of
it compiles the same few lines.
"""
import json
import math
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from token_file import END_OF_TEXT, VOCABULARY

# `wte` has a few rows more in training, for matrix products want multiples of 64. They are not exported.
PADDED_VOCABULARY = 50304


class Shape(NamedTuple):
    n_embd: int = 256
    n_layer: int = 8
    n_head: int = 4
    n_positions: int = 1024


class Attention(nn.Module):
    def __init__(self, shape: Shape, dropout: float):
        super().__init__()
        self.heads, self.dropout = shape.n_head, dropout
        self.c_attn = nn.Linear(shape.n_embd, 3 * shape.n_embd)
        self.c_proj = nn.Linear(shape.n_embd, shape.n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, c // self.heads).transpose(1, 2)
                   for part in self.c_attn(x).split(c, dim=2))  # (B, H, T, D)
        dropout = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=dropout)
        return self.c_proj(mixed.transpose(1, 2).reshape(b, t, c))


class Mlp(nn.Module):
    def __init__(self, shape: Shape):
        super().__init__()
        self.c_fc = nn.Linear(shape.n_embd, 4 * shape.n_embd)
        self.c_proj = nn.Linear(4 * shape.n_embd, shape.n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, shape: Shape, dropout: float):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(shape.n_embd), nn.LayerNorm(shape.n_embd)
        self.attn, self.mlp = Attention(shape, dropout), Mlp(shape)
        self.dropout = dropout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + F.dropout(self.attn(self.ln_1(x)), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.ln_2(x)), self.dropout, self.training)


class Gpt2(nn.Module):
    """All but the head, which is `wte` again: `losses.py` multiplies by it."""

    def __init__(self, shape: Shape, dropout: float = 0.0, seed: int = 1):
        super().__init__()
        self.shape, self.dropout = shape, dropout
        self.wte = nn.Embedding(PADDED_VOCABULARY, shape.n_embd)
        self.wpe = nn.Embedding(shape.n_positions, shape.n_embd)
        self.h = nn.ModuleList(Block(shape, dropout) for _ in range(shape.n_layer))
        self.ln_f = nn.LayerNorm(shape.n_embd)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                elif parameter.dim() == 2:
                    scale = math.sqrt(2 * shape.n_layer) if name.endswith("c_proj.weight") else 1.0
                    parameter.normal_(0.0, 0.02 / scale, generator=generator)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """The last hidden states (B, T, C) of tokens (B, T)."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = F.dropout(self.wte(tokens) + self.wpe(positions), self.dropout, self.training)
        for block in self.h:
            x = block(x)
        return self.ln_f(x)

    def parameters_exported(self) -> int:
        return sum(p.numel() for p in self.parameters()) - (PADDED_VOCABULARY - VOCABULARY) * self.shape.n_embd


# ---- checkpoints -----------------------------------------------------------------------------------------------------

def is_transposed(name: str) -> bool:
    """GPT-2's checkpoints hold the matrices of the blocks as (inputs, outputs), `nn.Linear` as (outputs, inputs)."""
    return name.startswith("h.") and name.endswith(("c_attn.weight", "c_proj.weight", "c_fc.weight"))


def exported(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint, in bf16, from those of a `Gpt2`."""
    tensors = {}
    for name, tensor in weights.items():
        tensor = tensor[:VOCABULARY] if name == "wte.weight" else tensor.T if is_transposed(name) else tensor
        tensors[f"transformer.{name}"] = tensor.detach().to("cpu", torch.bfloat16).contiguous()
    return tensors


def safetensors_bytes(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file of bf16 tensors: a length, a JSON header, the values. (github.com/huggingface/safetensors)"""
    header, offset, values = {"__metadata__": metadata}, 0, []
    for name, tensor in sorted(tensors.items()):
        data = tensor.view(torch.int16).numpy().astype("<i2").tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
        values.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(values)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a bf16 safetensors file, in f32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "BF16":
            raise SystemExit(f"error: `{path}` has {name} in {entry['dtype']}, expected BF16")
        first, end = entry["data_offsets"]
        values = torch.frombuffer(bytearray(data[start + first:start + end]), dtype=torch.bfloat16)
        tensors[name] = values.view(entry["shape"]).float()
    return tensors


def config(shape: Shape, dropout: float) -> dict:
    return {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": dropout,
        "bos_token_id": END_OF_TEXT, "dtype": "bfloat16", "embd_pdrop": dropout, "eos_token_id": END_OF_TEXT,
        "initializer_range": 0.02, "layer_norm_epsilon": 1e-05, "model_type": "gpt2", **shape._asdict(),
        "resid_pdrop": dropout, "tie_word_embeddings": True, "vocab_size": VOCABULARY,
    }


def checkpoint_files(model: Gpt2, weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> dict[str, bytes]:
    """The files of a checkpoint directory, but for the tokenizer's: name and bytes."""
    generation = {"bos_token_id": END_OF_TEXT, "eos_token_id": END_OF_TEXT}
    return {
        "config.json": (json.dumps(config(model.shape, model.dropout), indent=2) + "\n").encode(),
        "generation_config.json": (json.dumps(generation, indent=2) + "\n").encode(),
        "model.safetensors": safetensors_bytes(exported(weights), {"format": "pt", **metadata}),
    }


def load(folder: Path) -> Gpt2:
    """The model of a directory that `checkpoint_files` or `transformers` wrote in bf16."""
    found = json.loads((folder / "config.json").read_text())
    model = Gpt2(Shape(**{name: found[name] for name in Shape._fields}))
    tensors = read_safetensors(folder / "model.safetensors")
    weights = {}
    for name, own in model.state_dict().items():
        tensor = tensors[f"transformer.{name}"]
        tensor = tensor.T if is_transposed(name) else tensor
        if name == "wte.weight":
            tensor = torch.cat([tensor, torch.zeros(PADDED_VOCABULARY - VOCABULARY, tensor.shape[1])])
        if tensor.shape != own.shape:
            raise SystemExit(f"error: {name} has shape {tuple(tensor.shape)}, expected {tuple(own.shape)}")
        weights[name] = tensor.contiguous()
    model.load_state_dict(weights)
    return model
