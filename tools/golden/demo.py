"""The demo model's answers: logits and greedy tokens for a few English prompts."""
import hashlib
from pathlib import Path

import torch
from tokenizers import Tokenizer

from output import versions, write_json, write_tensors
from tiny import GREEDY_TOKENS, greedy, load, observe

PROMPTS = (
    "Once upon a time there was",
    "The old man looked at the sea and said, \"",
    "The Department of Health announced on Monday that",
    "Natural language processing helps computers understand text.",
    "It was a dark and stormy night; the rain fell in torrents, and the wind, which swept up the streets, rattled "
    "along the housetops and fiercely agitated the scanty flame of the lamps that struggled against the darkness.\n\n",
)
ALL_POSITIONS = 0


def make_demo(model_folder: Path, out: Path) -> None:
    folder = out / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    model = load(model_folder)
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    prompts, tensors = [], {}
    for number, text in enumerate(PROMPTS):
        ids = tokenizer.encode(text).ids
        tokens, margin = greedy(model, ids, GREEDY_TOKENS)
        logits = observe(model, ids)[0]["logits"]
        tensors[f"prompt{number}.last_logits"] = logits[-1].clone()
        if number == ALL_POSITIONS:
            tensors[f"prompt{number}.logits"] = logits
        prompts.append({"text": text, "ids": ids, "greedy": tokens,
                        "greedy_text": tokenizer.decode(tokens, skip_special_tokens=False),
                        "greedy_margin": margin, "logits_max": logits.abs().max().item()})
    write_json(folder / "expected.json", {
        "about": "the demo model, computed in f32 from its bf16 weights", "attention": "eager", "versions": versions(),
        "model_sha256": hashlib.sha256((model_folder / "model.safetensors").read_bytes()).hexdigest(),
        "all_positions": ALL_POSITIONS, "prompts": prompts})
    write_tensors(folder / "expected.safetensors", tensors)
    print(f"demo: margins {[p['greedy_margin'] for p in prompts]}")
