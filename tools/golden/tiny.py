"""Tiny checkpoints with random weights, one for each configuration that changes the maths or the file."""
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from output import versions, write_json, write_tensors

logging.set_verbosity_error()
logging.disable_progress_bar()

GREEDY_TOKENS = 40
# Below this the order of two logits could depend on the order of additions; such a seed is passed over.
SMALLEST_MARGIN = 2e-3
ACTIVATIONS = ("gelu_new", "gelu", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_10", "quick_gelu",
               "gelu_accurate", "relu", "relu2", "silu", "swish", "tanh")


@dataclass(frozen=True)
class Case:
    name: str
    about: str
    config: dict = field(default_factory=dict)
    prompts: tuple[int, ...] = (1, 12)  # lengths
    dtype: torch.dtype = torch.float32  # on disk
    layout: str = "plain"  # how the tensors are laid out in files, see `write_weights`
    embedding_std: float = 0.25
    attention_std: float = 0.25  # of c_attn, and so how sharp the attention is
    mlp_std: float = 0.3  # of c_fc


LONG = {"n_positions": 200}

CASES = (
    *(Case(f"act-{name}", f"activation_function {name}", {"activation_function": name, "n_inner": 64},
           dtype=torch.float16, mlp_std=0.6) for name in ACTIVATIONS),
    Case("n-inner", "n_inner that is not 4 times n_embd; a long prompt", {"n_inner": 80, **LONG}, (1, 12, 150)),
    Case("no-scale", "scale_attn_weights false", {"scale_attn_weights": False}, attention_std=0.14),
    Case("layer-scale", "scale_attn_by_inverse_layer_idx true, four heads",
         {"n_head": 4, "n_layer": 3, "scale_attn_by_inverse_layer_idx": True}),
    Case("no-scale-layer-scale", "scale_attn_weights false and scale_attn_by_inverse_layer_idx true",
         {"n_layer": 3, "scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}, attention_std=0.14),
    Case("upcast", "reorder_and_upcast_attn true, together with scale_attn_by_inverse_layer_idx",
         {"n_layer": 3, "reorder_and_upcast_attn": True, "scale_attn_by_inverse_layer_idx": True}),
    Case("untied-head", "tie_word_embeddings false, with its own lm_head.weight",
         {"vocab_size": 131, "tie_word_embeddings": False}),
    Case("tied-head-stored", "lm_head.weight in the file though it is tied", layout="head"),
    Case("odd-vocabulary", "257 tokens; layer_norm_epsilon 1e-3, large beside the variance of small embeddings",
         {"vocab_size": 257, "layer_norm_epsilon": 1e-3}, embedding_std=0.08),
    Case("f16", "f16 on disk", {"vocab_size": 500}, dtype=torch.float16),
    Case("bf16", "bf16 on disk", {"vocab_size": 500}, dtype=torch.bfloat16),
    Case("one-layer", "one layer, one head; a long prompt", {"n_layer": 1, "n_head": 1, **LONG}, (1, 12, 150)),
    Case("head-24", "head size 24; a long prompt", {"n_embd": 48, "n_head": 2, **LONG}, (1, 12, 150),
         dtype=torch.float16),
    Case("head-64", "head size 64, two heads", {"n_embd": 128, "n_head": 2, "n_layer": 1, "n_inner": 64},
         dtype=torch.float16),
    Case("head-80", "head size 80, over 64", {"n_embd": 80, "n_head": 1, "n_layer": 1, "n_inner": 160},
         dtype=torch.float16),
    Case("full-context", "prompts that fill the context, or leave one place",
         {"n_layer": 1, "n_positions": 32}, (1, 31, 32)),
    Case("bare-keys", "keys without prefix, and mask buffers as old checkpoints have them",
         {"n_positions": 48}, layout="bare"),
    Case("sharded", "model.safetensors.index.json and two shards", layout="shards"),
)


def config_of(case: Case) -> GPT2Config:
    options = {"vocab_size": 101, "n_embd": 32, "n_head": 2, "n_layer": 2, "n_positions": 64, "resid_pdrop": 0.0,
               "embd_pdrop": 0.0, "attn_pdrop": 0.0, **case.config}
    last = options["vocab_size"] - 1
    return GPT2Config(**options, bos_token_id=last, eos_token_id=last, architectures=["GPT2LMHeadModel"],
                      dtype=str(case.dtype).removeprefix("torch."))


def random_weights(case: Case, config: GPT2Config, seed: int) -> dict[str, torch.Tensor]:
    """Weights that are larger than a trained model's, so that a mistake anywhere changes the logits."""
    generator = np.random.default_rng([seed, *case.name.encode()])
    weights = {}
    for name, parameter in GPT2LMHeadModel(config).named_parameters():
        noise = generator.standard_normal(tuple(parameter.shape))
        if ".ln_" in name:
            value = 1 + 0.2 * noise if name.endswith("weight") else 0.1 * noise
        elif name.endswith("bias"):
            value = 0.1 * noise
        elif "wte" in name or "wpe" in name or "lm_head" in name:
            value = case.embedding_std * noise
        elif "c_attn" in name:
            value = case.attention_std * noise
        else:
            value = (case.mlp_std if "c_fc" in name else 0.2) * noise
        weights[name] = torch.from_numpy(value).to(case.dtype)
    return weights


def write_weights(case: Case, config: GPT2Config, weights: dict[str, torch.Tensor], folder: Path) -> None:
    """The layouts: plain, head (a stored tied head), bare (no prefix, with buffers), shards (two files)."""
    metadata = {"format": "pt"}
    if case.layout == "shards":
        names = list(weights)
        files = {}
        for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2:]), start=1):
            file = f"model-{number:05}-of-00002.safetensors"
            save_file({name: weights[name] for name in part}, folder / file, metadata)
            files |= dict.fromkeys(part, file)
        total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
        index = {"metadata": {"total_size": total}, "weight_map": files}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
        return
    if case.layout == "head":
        weights = weights | {"lm_head.weight": weights["transformer.wte.weight"].clone()}
    if case.layout == "bare":
        weights = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
        size = config.n_positions
        mask = torch.ones(size, size).tril().view(1, 1, size, size)
        for layer in range(config.n_layer):
            weights[f"h.{layer}.attn.bias"] = mask.clone() if layer == 0 else mask.bool()
            weights[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    save_file(weights, folder / "model.safetensors", metadata)


@torch.no_grad()
def greedy(model: GPT2LMHeadModel, ids: list[int], count: int) -> tuple[list[int], float]:
    """The most likely tokens one by one, without a cache, and the smallest lead of a winner over the second."""
    tokens, margin = list(ids), float("inf")
    for _ in range(count):
        best = model(torch.tensor([tokens]), use_cache=False).logits[0, -1].topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        tokens.append(best.indices[0].item())
    generated = tokens[len(ids):]
    if count:  # transformers' own loop, with its cache, must agree
        prompt = torch.tensor([ids])
        out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=count,
                             pad_token_id=0)[0].tolist()
        if out != tokens and margin >= SMALLEST_MARGIN:
            raise SystemExit(f"generate() differs from the plain loop: {out} {tokens}")
    return generated, margin


@torch.no_grad()
def observe(model: GPT2LMHeadModel, ids: list[int]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Named intermediate values of one forward pass (see testdata/golden/README.md), and the first attention."""
    before = []
    hook = model.transformer.ln_f.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
    out = model(torch.tensor([ids]), output_hidden_states=True, output_attentions=True, use_cache=False)
    hook.remove()
    layers = model.config.n_layer
    assert len(out.hidden_states) == layers + 1
    values = {f"hidden.{n}": out.hidden_states[n][0] for n in range(layers)}
    values |= {f"hidden.{layers}": before[0][0], "ln_f": out.hidden_states[layers][0], "logits": out.logits[0]}
    assert torch.equal(model.transformer.ln_f(before[0]), out.hidden_states[layers])
    return values, out.attentions[0][0]


def load(folder: Path) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None  # greedy tokens run past the end token
    return model


def make_case(case: Case, out: Path) -> None:
    folder = out / case.name
    for seed in range(1, 100):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        config = config_of(case)
        config.save_pretrained(folder)
        write_weights(case, config, random_weights(case, config, seed), folder)
        model = load(folder)
        generator = np.random.default_rng([seed, 2, *case.name.encode()])
        prompts, tensors = [], {}
        for number, length in enumerate(case.prompts):
            ids = generator.integers(config.vocab_size, size=length).tolist()
            tokens, margin = greedy(model, ids, min(GREEDY_TOKENS, config.n_positions - length))
            values, attention = observe(model, ids)
            tensors |= {f"prompt{number}.{name}": value for name, value in values.items()}
            if number == 1:
                tensors["prompt1.attention.0"] = attention
            prompts.append({"ids": ids, "greedy": tokens, "greedy_margin": margin if tokens else None,
                            "logits_max": values["logits"].abs().max().item()})
        lively = all(len(set(p["greedy"])) >= min(8, len(p["greedy"])) for p in prompts)
        if lively and all(not p["greedy"] or p["greedy_margin"] >= SMALLEST_MARGIN for p in prompts):
            break
    else:
        raise SystemExit(f"{case.name}: no seed gives clear greedy tokens")
    for path in folder.glob("*.safetensors"):
        path.chmod(0o644)
    write_json(folder / "expected.json", {
        "case": case.name, "about": case.about, "attention": "eager", "versions": versions(), "seed": seed,
        "attention_prompt": 1, "prompts": prompts})
    write_tensors(folder / "expected.safetensors", tensors)
    print(f"{case.name}: seed {seed}, margins {[p['greedy_margin'] for p in prompts]}, "
          f"distinct {[len(set(p['greedy'])) for p in prompts]}, max {[round(p['logits_max'], 1) for p in prompts]}", flush=True)
