"""How golden files are written: readable JSON, f32 tensors, and the versions that made them."""
import json
import platform
import re
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import save_file


def versions() -> dict[str, str]:
    packages = ("torch", "transformers", "tokenizers", "numpy", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def write_json(path: Path, value: dict) -> None:
    """Indented, but with each array of numbers on one line."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    text = re.sub(r"\[[\d\s.,eE+-]*\]", lambda found: re.sub(r"\s+", " ", found[0]).replace("[ ", "[").replace(" ]", "]"), text)
    path.write_text(text + "\n", encoding="utf-8")


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file({name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}, path)
    path.chmod(0o644)  # safetensors leaves it readable by its owner only
