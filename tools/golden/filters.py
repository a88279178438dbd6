"""Scores before and after transformers' temperature, top-k and top-p, alone and chained, ties included.

Which of several exactly equal scores top-p keeps at its boundary is left open by transformers: `torch.sort` is
not stable, and its order of ties differs between processors. The files hold what transformers' code gives with a
stable sort; that the unchanged code keeps the same values, if not the same ones among equals, is checked here.
"""
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from output import versions, write_json, write_tensors

SETTINGS = (
    {"temperature": 0.7}, {"temperature": 1.5}, {"temperature": 0.01},
    {"top_k": 1}, {"top_k": 5}, {"top_k": 50}, {"top_k": 1000},
    {"top_p": 0.0}, {"top_p": 1e-6}, {"top_p": 0.1}, {"top_p": 0.5}, {"top_p": 0.75}, {"top_p": 0.9},
    {"top_p": 0.95}, {"top_p": 0.999},
    {"temperature": 0.7, "top_k": 50, "top_p": 0.95},
    {"temperature": 0.7, "top_k": 5, "top_p": 0.9},
    {"temperature": 1.3, "top_p": 0.5},
    {"temperature": 0.2, "top_p": 0.999},
    {"top_k": 10, "top_p": 0.3},
    {"temperature": 1.5, "top_k": 1000, "top_p": 0.8},
)
INFINITY = float("inf")


def rows() -> list[tuple[str, np.ndarray]]:
    generator = np.random.default_rng(9)

    def normal(vocab: int, scale: float) -> np.ndarray:
        return (scale * generator.standard_normal(vocab)).astype(np.float32)

    def shuffled(values) -> np.ndarray:
        return generator.permutation(np.array(values, np.float32))

    made = [(f"normal, scale {scale}", normal(vocab, scale)) for vocab, scale in
            ((60, 0.1), (61, 1.0), (97, 2.0), (128, 3.0), (200, 3.0), (256, 5.0), (257, 8.0), (300, 1.0), (299, 4.0))]
    made.append(("like GPT-2's: all far below zero", normal(300, 3.0) - 100))
    made.append(("one value far above the rest", np.append(normal(80, 1.0), np.float32(40.0))))
    made += [(f"all {vocab} equal", np.full(vocab, 1.25, np.float32)) for vocab in (60, 64, 128)]
    # Steps of a half: ties everywhere, at every top-k and top-p boundary.
    made += [(f"normal, scale {scale}, rounded to halves", np.round(2 * normal(vocab, scale)) / 2)
             for vocab, scale in ((60, 1.0), (100, 2.0), (150, 3.0), (211, 4.0), (300, 1.5))]
    made.append(("ties at the boundary of top_k 5: four above, six equal", shuffled([9, 8, 7, 6] + [5] * 6 + [0] * 80)))
    made.append(("ties at the boundary of top_k 50", shuffled([3] * 49 + [2] * 4 + [1] * 40)))
    made.append(("two equal best", shuffled([4, 4] + [-1] * 70)))
    # Probabilities that are exact fractions, so that the running sum meets 1 - top_p exactly.
    made.append(("four equal, the rest -inf", shuffled([2.0] * 4 + [-INFINITY] * 60)))
    made.append(("eight equal, the rest -inf", shuffled([-3.0] * 8 + [-INFINITY] * 60)))
    made.append(("ten equal, the rest -inf", shuffled([0.5] * 10 + [-INFINITY] * 60)))
    made.append(("twenty equal, the rest far below", shuffled([0.0] * 20 + [-200.0] * 100)))
    made.append(("one is not -inf", shuffled([0.5] + [-INFINITY] * 63)))
    made.append(("three are not -inf, fewer than top_k", shuffled([1.0, 2.0, 2.0] + [-INFINITY] * 90)))
    half = normal(120, 2.0)
    half[generator.permutation(120)[:60]] = -INFINITY
    made.append(("half are -inf", half))
    made.append(("ties, and a third is -inf", np.where(generator.random(150) < 1 / 3, np.float32(-INFINITY),
                                                       np.round(normal(150, 2.0)))))
    return [(about, np.ascontiguousarray(scores, np.float32)) for about, scores in made]


def apply(scores: torch.Tensor, setting: dict) -> torch.Tensor:
    """transformers' warpers in the order in which `generate` puts them."""
    if "temperature" in setting:
        scores = TemperatureLogitsWarper(setting["temperature"])(None, scores)
    if "top_k" in setting:
        scores = TopKLogitsWarper(setting["top_k"])(None, scores)
    if "top_p" in setting:
        scores = TopPLogitsWarper(setting["top_p"])(None, scores)
    return scores


def recompute(scores: np.ndarray, setting: dict) -> np.ndarray:
    """The same from its description, with a stable sort and a running sum in f64."""
    scores = scores.astype(np.float32)
    if "temperature" in setting:
        scores = scores / np.float32(setting["temperature"])
    if "top_k" in setting:
        kth = np.sort(scores)[-min(setting["top_k"], len(scores))]
        scores = np.where(scores < kth, np.float32(-INFINITY), scores)
    if "top_p" in setting:
        ascending = np.argsort(scores, kind="stable")
        probabilities = torch.from_numpy(scores[ascending]).softmax(-1).numpy()
        below = np.cumsum(probabilities.astype(np.float64)).astype(np.float32) <= np.float32(1 - setting["top_p"])
        below[-1] = False
        scores = scores.copy()
        scores[ascending[below]] = -INFINITY
    return scores


def make_filters(out: Path) -> None:
    folder = out / "filters"
    folder.mkdir(parents=True, exist_ok=True)
    tensors, described = {}, []
    for number, (about, scores) in enumerate(rows()):
        after = [apply(torch.from_numpy(scores)[None], setting)[0] for setting in SETTINGS]
        with patch("torch.sort", partial(torch.sort, stable=True)):
            stable = [apply(torch.from_numpy(scores)[None], setting)[0] for setting in SETTINGS]
        for setting, unpatched, result in zip(SETTINGS, after, stable):
            if not torch.equal(unpatched.sort().values, result.sort().values):
                raise SystemExit(f"filters: {about}, {setting}: the sort changed more than the choice among ties")
            if not np.array_equal(result.numpy(), recompute(scores, setting)):
                raise SystemExit(f"filters: {about}, {setting}: not what the description says")
        tensors[f"row{number}.scores"] = torch.from_numpy(scores)
        tensors[f"row{number}.after"] = torch.stack(stable)
        described.append({"about": about, "vocab": len(scores)})
    write_json(folder / "expected.json", {"versions": versions(), "settings": SETTINGS, "rows": described})
    write_tensors(folder / "expected.safetensors", tensors)
    print(f"filters: {len(described)} rows, {len(SETTINGS)} settings")
