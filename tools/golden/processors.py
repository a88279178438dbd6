"""Scores before and after every processor of transformers' `generate`, alone and combined, and of llama.cpp's samplers.

transformers' come from `_get_logits_processor` of a tiny model. As in `filters.py`, `torch.sort` and `torch.topk` are
made stable, because transformers leaves the choice among equal scores open. What depends on rounding is not asked for:
the same processors in f64 must keep the same tokens.

llama.cpp's are stated again here, from its `llama-sampling.cpp` and the papers it names, in f64.
"""
import math
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel
from transformers.utils import logging

from output import versions, write_json, write_tensors

SEED = 23
COMBINATIONS = 200
INFINITY = float("inf")

# Each alone. `allowed` stands for a `prefix_allowed_tokens_fn` that always gives these.
SETTINGS = (
    {"sequence_bias": [[[3], 2.5], [[9], -4.0], [[9], -1.0]]},
    {"sequence_bias": [[[1, 2], 3.0], [[0, 2], 1.0], [[2, 2], 1.5], [[1, 0, 2], -0.5], [[2], 0.25]]},
    {"sequence_bias": [[[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 7.0], [[3], -INFINITY]]},
    {"encoder_repetition_penalty": 1.5}, {"encoder_repetition_penalty": 0.7},
    {"repetition_penalty": 1.2}, {"repetition_penalty": 0.8}, {"repetition_penalty": 5.0},
    {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 3}, {"no_repeat_ngram_size": 9},
    {"encoder_no_repeat_ngram_size": 1}, {"encoder_no_repeat_ngram_size": 2}, {"encoder_no_repeat_ngram_size": 4},
    {"bad_words_ids": [[3], [4], [5]]}, {"bad_words_ids": [[0, 1], [1, 1], [2, 1], [2, 0], [1, 0, 2], [5, 5]]},
    {"min_length": 1}, {"min_length": 13}, {"min_length": 100}, {"min_new_tokens": 1}, {"min_new_tokens": 8},
    {"min_new_tokens": 2, "min_length": 90},
    {"allowed": [1, 2, 30]}, {"allowed": [7]},
    {"forced_bos_token_id": 2}, {"forced_eos_token_id": 5}, {"forced_eos_token_id": [5, 8]},
    {"remove_invalid_values": True},
    {"exponential_decay_length_penalty": [1, 1.1]}, {"exponential_decay_length_penalty": [0, 1.5]},
    {"exponential_decay_length_penalty": [6, 0.5]}, {"exponential_decay_length_penalty": [50, 2.0]},
    {"suppress_tokens": [0, 1, 2, 40]}, {"suppress_tokens": [5]},
    {"begin_suppress_tokens": [0, 5]}, {"begin_suppress_tokens": [0, 5], "forced_bos_token_id": 9},
    {"renormalize_logits": True},
)
SAMPLING = (
    {"top_h": 0.1}, {"top_h": 0.4}, {"top_h": 0.8}, {"top_h": 0.95},
    {"min_p": 0.0}, {"min_p": 0.02}, {"min_p": 0.1}, {"min_p": 0.55}, {"min_p": 1.0}, {"min_p": 0.9, "num_beams": 3},
    {"typical_p": 0.05}, {"typical_p": 0.2}, {"typical_p": 0.51}, {"typical_p": 0.9}, {"typical_p": 0.97},
    {"typical_p": 0.05, "num_beams": 2},
    {"epsilon_cutoff": 3e-4}, {"epsilon_cutoff": 0.011}, {"epsilon_cutoff": 0.3}, {"epsilon_cutoff": 0.97},
    {"epsilon_cutoff": 0.97, "num_beams": 4},
    {"eta_cutoff": 3e-4}, {"eta_cutoff": 0.02}, {"eta_cutoff": 0.6}, {"eta_cutoff": 0.6, "num_beams": 2},
    {"top_k": 1, "num_beams": 2}, {"top_k": 7, "num_beams": 2}, {"top_p": 0.01, "num_beams": 2},
    {"top_p": 0.3, "num_beams": 5},
)
OTHERS = (
    {"frequency_penalty": 0.7}, {"presence_penalty": 1.1}, {"frequency_penalty": -0.3, "presence_penalty": 0.2},
    {"dry_multiplier": 0.8}, {"dry_multiplier": 0.5, "dry_base": 3.0, "dry_allowed_length": 1},
    {"dry_multiplier": 0.5, "dry_base": 1.0, "dry_allowed_length": 1},
    {"dry_multiplier": 0.5, "dry_allowed_length": 1, "dry_penalty_last_n": 7},
    {"dry_multiplier": 0.5, "dry_allowed_length": 0, "dry_penalty_last_n": 4},
    {"dry_multiplier": 0.5, "dry_allowed_length": 1, "breakers": [[2]]},
    {"dry_multiplier": 0.5, "dry_allowed_length": 1, "breakers": [[0, 1], [0], [2, 2, 1]]},
    {"xtc_probability": 1.0, "xtc_threshold": 0.1}, {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"xtc_probability": 1.0, "xtc_threshold": 0.4}, {"xtc_probability": 1.0, "xtc_threshold": 0.6},
    {"xtc_probability": 0.0, "xtc_threshold": 0.01},
    {"dynatemp_range": 0.5}, {"dynatemp_range": 0.4, "temperature": 0.8, "dynatemp_exponent": 2.5},
    {"dynatemp_range": 1.5, "temperature": 1.2, "dynatemp_exponent": 0.7}, {"dynatemp_range": 0.5, "dynatemp_exponent": 0.0},
    {"top_n_sigma": 0.5}, {"top_n_sigma": 1.0}, {"top_n_sigma": 2.5}, {"top_n_sigma": -1.0},
    {"samplers": ["top_n_sigma", "temperature"], "top_n_sigma": 1.2, "temperature": 0.6},
    {"samplers": ["temperature", "xtc", "top_n_sigma"], "top_n_sigma": 2.0, "temperature": 1.7, "xtc_probability": 1.0,
     "xtc_threshold": 0.05},
    {"samplers": ["xtc", "top_n_sigma", "temperature"], "top_n_sigma": 2.0, "temperature": 1.7, "dynatemp_range": 0.3,
     "xtc_probability": 1.0, "xtc_threshold": 0.05},
    {"samplers": ["dry", "penalties", "xtc"], "xtc_probability": 1.0, "xtc_threshold": 0.05, "frequency_penalty": 0.5,
     "temperature": 0.3, "repetition_penalty": 1.3, "dry_multiplier": 1.0, "dry_allowed_length": 1},
    {"samplers": ["xtc", "penalties"], "xtc_probability": 1.0, "xtc_threshold": 0.05, "presence_penalty": 2.5,
     "dry_multiplier": 1.0, "dry_allowed_length": 1},
)
MIROSTAT = (
    {"mirostat": 1, "mirostat_tau": 2.0, "mirostat_eta": 0.3}, {"mirostat": 1}, {"mirostat": 2},
    {"mirostat": 2, "mirostat_tau": 1.0, "mirostat_eta": 0.5}, {"mirostat": 2, "mirostat_tau": 0.2, "mirostat_eta": 1.0},
)


def draw_scores(generator: np.random.Generator, kind: int) -> np.ndarray:
    vocab = int(generator.integers(60, 130))
    scores = (generator.choice([0.5, 2.0, 4.0]) * generator.standard_normal(vocab)).astype(np.float32)
    match kind:
        case 1:
            scores -= 100
        case 2:
            scores = np.round(2 * scores) / 2
        case 3:
            scores[generator.permutation(vocab)[:vocab // 2]] = -INFINITY
        case 4:
            scores[generator.integers(vocab)] += 9
        case 5:
            scores[generator.permutation(vocab)[:3]] = scores.max() + 1
    return np.ascontiguousarray(scores, np.float32)


def draw_text(generator: np.random.Generator, number: int) -> dict:
    """Few different tokens, so that phrases recur; some texts have one token, some are about to be full."""
    length = 1 if number % 4 == 0 else int(generator.integers(2, 24))
    tokens = generator.integers(0, 4, size=length).tolist()
    prompt = 1 if number % 8 < 2 else int(generator.integers(1, length + 1))
    total = length + (1 if number % 3 == 0 else 20)
    return {"tokens": tokens, "prompt": prompt, "total": total, "eos": [[5], [5, 8], []][number % 5 % 3]}


def processors(model: GPT2LMHeadModel, setting: dict, text: dict):
    setting = {"top_k": 0, "num_beams": 1, **setting}
    allowed = setting.pop("allowed", None)
    config = GenerationConfig(**setting, max_length=text["total"])
    config._eos_token_tensor = torch.tensor(text["eos"]) if text["eos"] else None
    if config.min_new_tokens is not None:  # as in `_prepare_generated_length`
        config.min_length = config.min_new_tokens + text["prompt"]
    return model._get_logits_processor(
        config, input_ids_seq_length=text["prompt"], encoder_input_ids=torch.tensor([text["tokens"][:text["prompt"]]]),
        prefix_allowed_tokens_fn=allowed and (lambda batch, tokens: allowed), device="cpu", model_kwargs={})


def stable_topk(sort, scores, k, dim=-1, largest=True, sorted=True):
    values, indices = sort(scores, dim=dim, descending=largest, stable=True)
    return torch.return_types.topk((values[..., :k], indices[..., :k]))


def after(model: GPT2LMHeadModel, setting: dict, text: dict, scores: np.ndarray) -> torch.Tensor | None:
    """None if no token is left or rounding decides which are."""
    tokens = torch.tensor([text["tokens"]])
    with ExitStack() as stack:
        stack.enter_context(patch("torch.topk", partial(stable_topk, torch.sort)))
        stack.enter_context(patch("torch.sort", partial(torch.sort, stable=True)))
        try:
            single, double = (processors(model, setting, text)(tokens, torch.from_numpy(scores)[None].to(dtype))[0]
                              for dtype in (torch.float32, torch.float64))
        except ValueError:  # top-h, where no token is left
            return None
    if single.isnan().any() or single.isneginf().all() or not torch.equal(single.isneginf(), double.isneginf()):
        return None
    return single


def needs_eos(setting: dict) -> bool:
    return "exponential_decay_length_penalty" in setting


def draw_setting(generator: np.random.Generator) -> dict:
    def phrase() -> list[int]:
        return generator.integers(0, 6, size=int(generator.integers(1, 4))).tolist()

    def number(low: float, high: float) -> float:
        return round(float(generator.uniform(low, high)), 3)

    every = {
        "sequence_bias": lambda: [[phrase(), number(-3, 3)] for _ in range(5)],
        "encoder_repetition_penalty": lambda: number(0.6, 2),
        "repetition_penalty": lambda: number(0.6, 2),
        "no_repeat_ngram_size": lambda: int(generator.integers(1, 4)),
        "encoder_no_repeat_ngram_size": lambda: int(generator.integers(1, 4)),
        "bad_words_ids": lambda: [phrase() for _ in range(3)] + [[50]],
        "min_length": lambda: int(generator.integers(1, 30)),
        "min_new_tokens": lambda: int(generator.integers(1, 15)),
        "forced_bos_token_id": lambda: int(generator.integers(0, 50)),
        "forced_eos_token_id": lambda: generator.integers(0, 50, size=2).tolist(),
        "remove_invalid_values": lambda: True,
        "exponential_decay_length_penalty": lambda: [int(generator.integers(0, 9)), number(0.8, 1.6)],
        "suppress_tokens": lambda: generator.integers(0, 50, size=6).tolist(),
        "begin_suppress_tokens": lambda: generator.integers(0, 50, size=6).tolist(),
        "renormalize_logits": lambda: True,
        "temperature": lambda: number(0.4, 2),
        "top_h": lambda: number(0.2, 0.9),
        "top_k": lambda: int(generator.integers(2, 70)),
        "top_p": lambda: number(0.3, 0.99),
        "min_p": lambda: number(0, 0.2),
        "typical_p": lambda: number(0.3, 0.99),
        "epsilon_cutoff": lambda: number(0.001, 0.02),
        "eta_cutoff": lambda: number(0.001, 0.02),
        "num_beams": lambda: int(generator.integers(2, 5)),
    }
    setting = {name: value() for name, value in every.items() if generator.random() < 0.2}
    return {**setting, "do_sample": bool(generator.random() < 0.7)}


class LlamaCpp:
    """Samplers on one row of f64 scores; what is ruled out is -inf. Of equal scores the lower id comes first."""

    def __init__(self, text: dict, setting: dict):
        self.text, self.setting = text, setting

    @staticmethod
    def softmax(scores: np.ndarray) -> np.ndarray:
        powers = np.exp(scores - scores.max())
        return powers / powers.sum()

    def penalties(self, scores: np.ndarray) -> np.ndarray:
        penalty, tokens = self.setting.get("repetition_penalty", 1.0), self.text["tokens"]
        for token in set(tokens):
            scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
        generated = tokens[self.text["prompt"]:]
        for token in set(generated):
            scores[token] -= generated.count(token) * self.setting.get("frequency_penalty", 0.0)
            scores[token] -= self.setting.get("presence_penalty", 0.0)
        return scores

    def dry(self, scores: np.ndarray) -> np.ndarray:
        multiplier, base = self.setting.get("dry_multiplier", 0.0), self.setting.get("dry_base", 1.75)
        allowed, breakers = self.setting.get("dry_allowed_length", 2), self.setting.get("breakers", [])
        tokens = self.text["tokens"][-self.setting.get("dry_penalty_last_n", 1 << 30):]
        if multiplier == 0 or len(tokens) <= allowed:
            return scores
        limit = len(tokens)
        for back in range(len(tokens)):
            rest = tokens[len(tokens) - back - 1:]
            found = [len(breaker) for breaker in breakers if rest[:len(breaker)] == breaker]
            if found:
                limit = back + 1 - max(found)
                break
        if limit < allowed:
            return scores
        longest = {}
        for end in range(1, len(tokens)):
            repeated = 0
            while repeated < min(end, limit) and tokens[end - 1 - repeated] == tokens[-1 - repeated]:
                repeated += 1
            if repeated >= allowed:
                longest[tokens[end]] = max(longest.get(tokens[end], 0), repeated)
        for token, repeated in longest.items():
            if [token] not in breakers:
                scores[token] -= multiplier * base ** (repeated - allowed)
        return scores

    def top_n_sigma(self, scores: np.ndarray) -> np.ndarray:
        n, left = self.setting.get("top_n_sigma", -1.0), scores[scores > -INFINITY]
        return scores if n <= 0 else np.where(scores < left.max() - n * left.std(), -INFINITY, scores)

    def temperature(self, scores: np.ndarray) -> np.ndarray:
        temperature, reach = self.setting.get("temperature", 1.0), self.setting.get("dynatemp_range", 0.0)
        if reach > 0:
            probabilities = self.softmax(scores)
            probabilities = probabilities[scores > -INFINITY]
            if len(probabilities) < 2:
                return scores
            flatness = -(probabilities * np.log(probabilities)).sum() / math.log(len(probabilities))
            low, high = max(0.0, temperature - reach), temperature + reach
            temperature = low + (high - low) * flatness ** self.setting.get("dynatemp_exponent", 1.0)
        return scores / temperature

    def xtc(self, scores: np.ndarray) -> np.ndarray:
        chance, threshold = self.setting.get("xtc_probability", 0.0), self.setting.get("xtc_threshold", 0.1)
        assert chance in (0.0, 1.0), "chance has no place in a golden file"
        if chance and threshold <= 0.5:
            probabilities = self.softmax(scores)
            order = np.argsort(-scores, kind="stable")
            likely = [token for token in order if probabilities[token] >= threshold]
            scores[likely[:-1]] = -INFINITY
        return scores

    def apply(self, scores: np.ndarray) -> np.ndarray:
        scores = scores.astype(np.float64)
        for sampler in self.setting.get("samplers", ["penalties", "dry", "top_n_sigma", "temperature", "xtc"]):
            scores = getattr(self, sampler)(scores)
        return scores


class Mirostat:
    def __init__(self, setting: dict):
        self.version, self.tau = setting["mirostat"], setting.get("mirostat_tau", 5.0)
        self.eta, self.mu = setting.get("mirostat_eta", 0.1), 2 * setting.get("mirostat_tau", 5.0)

    def apply(self, scores: np.ndarray) -> np.ndarray:
        scores = scores.astype(np.float64)
        order = np.argsort(-scores, kind="stable")
        probabilities = LlamaCpp.softmax(scores)[order]
        if self.version == 2:
            keep = max(1, int((-np.log2(probabilities) <= self.mu).sum()))
        else:
            i = np.arange(min(100, (probabilities > 0).sum()) - 1)
            t, b = np.log((i + 2) / (i + 1)), np.log(probabilities[i] / probabilities[i + 1])
            exponent = (t * b).sum() / (t * t).sum()
            epsilon = exponent - 1
            k = (epsilon * 2 ** self.mu / (1 - len(scores) ** -epsilon)) ** (1 / exponent)
            # Where rounding could decide, another seed.
            assert min(k % 1, 1 - k % 1) > 1e-4 or k > len(scores), k
            keep = max(1, int(min(k, len(scores))))
        result = np.full_like(scores, -INFINITY)
        result[order[:keep]] = scores[order[:keep]]
        return result

    def chosen(self, result: np.ndarray, token: int) -> None:
        self.mu -= self.eta * (-np.log2(LlamaCpp.softmax(result)[token]) - self.tau)


def make_processors(out: Path) -> None:
    folder = out / "processors"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(SEED)
    torch.manual_seed(SEED)
    logging.set_verbosity_error()  # it warns of settings that greedy search leaves unused
    model = GPT2LMHeadModel(GPT2Config(vocab_size=60, n_embd=4, n_head=1, n_layer=1, n_positions=8))
    cases, before, results = [], [], []

    def add(group: str, setting: dict, text: dict, scores: np.ndarray, result: torch.Tensor) -> None:
        cases.append({"group": group, "setting": setting, **text, "vocab": len(scores)})
        before.append(torch.from_numpy(scores))
        results.append(result)

    rounding = 0
    for number, setting in enumerate([*SETTINGS] + [{**s, "do_sample": True} for s in SAMPLING]):
        for row in range(6):
            text, scores = draw_text(generator, 7 * number + row), draw_scores(generator, row)
            if needs_eos(setting) and not text["eos"]:
                text["eos"] = [5, 8]
            result = after(model, setting, text, scores)
            rounding += result is None
            if result is not None:
                add("alone", setting, text, scores, result)
    if rounding > 20:
        raise SystemExit(f"processors: {rounding} cases depend on rounding")
    combinations = 0
    while combinations < COMBINATIONS:
        setting, text = draw_setting(generator), draw_text(generator, int(generator.integers(120)))
        scores = draw_scores(generator, combinations % 6)
        if needs_eos(setting) and not text["eos"]:
            text["eos"] = [5]
        result = after(model, setting, text, scores)
        if result is not None:
            add("combined", setting, text, scores, result)
            combinations += 1
    for number, setting in enumerate(OTHERS):
        for row in range(6):
            text, scores = draw_text(generator, 7 * number + row), draw_scores(generator, row)
            setting = {**setting, "do_sample": True}
            add("llama.cpp", setting, text, scores, torch.from_numpy(LlamaCpp(text, setting).apply(scores)))
    runs = []
    for number, setting in enumerate(MIROSTAT):
        vocab, steps, mirostat = 80, [], Mirostat(setting)
        for _ in range(12):
            scores = (2 * generator.standard_normal(vocab)).astype(np.float32)
            result = mirostat.apply(scores)
            token = int(generator.choice(np.flatnonzero(result > -INFINITY)))
            mirostat.chosen(result, token)
            steps.append(token)
            before.append(torch.from_numpy(scores))
            results.append(torch.from_numpy(result))
        runs.append({"setting": {**setting, "do_sample": True}, "chosen": steps, "vocab": vocab})
    described = {"versions": versions(), "seed": SEED, "cases": cases, "mirostat": runs}
    write_json(folder / "expected.json", json_numbers(described))
    write_tensors(folder / "expected.safetensors", {"before": torch.cat(before), "after": torch.cat([r.float() for r in results])})
    print(f"processors: {len(cases)} cases, {rounding} left out")


def json_numbers(value):
    """JSON has no infinities: the least f64 stands for -inf, which it is in f32."""
    if isinstance(value, dict):
        return {name: json_numbers(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_numbers(entry) for entry in value]
    return -1.7976931348623157e308 if value == -INFINITY and isinstance(value, float) else value
