"""Beam search of transformers on tiny checkpoints: tokens, scores of the texts and of their tokens."""
import random
from pathlib import Path

import torch

from output import versions, write_json
from tiny import load

CASES = ("head-24", "one-layer", "odd-vocabulary")
# Scores that are closer than this could come in another order after another rounding.
MARGIN = 1e-4


def runs(vocabulary: int, positions: int, draw: random.Random) -> list[dict]:
    made = []
    for number in range(40):
        settings = {"num_beams": draw.choice((2, 3, 4, 5)), "length_penalty": draw.choice((1.0, 0.0, 2.0, -1.0, 0.5)),
                    "early_stopping": draw.choice((False, True, "never")), "max_new_tokens": draw.choice((1, 5, 12, 20))}
        settings["num_return_sequences"] = draw.randint(1, settings["num_beams"])
        settings["eos_token_id"] = draw.sample(range(vocabulary), draw.choice((1, 1, 2, 6)))
        if number % 5 == 0:
            settings["repetition_penalty"] = 1.3
        if number % 7 == 0:
            settings["no_repeat_ngram_size"] = 2
        if number % 9 == 0:
            settings["min_new_tokens"] = 4
        prompt = [draw.randrange(vocabulary) for _ in range(draw.choice((1, 3, 8)))]
        made.append({"prompt": prompt, "settings": settings})
    return made


def run(model, prompt: list[int], settings: dict) -> dict:
    with torch.no_grad():
        output = model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
            pad_token_id=settings["eos_token_id"][0], return_dict_in_generate=True, output_scores=True, **settings)
    transitions = model.compute_transition_scores(output.sequences, output.scores, output.beam_indices)
    sequences, scores = [], []
    for row, indices, values in zip(output.sequences.tolist(), output.beam_indices.tolist(), transitions.tolist()):
        length = sum(index >= 0 for index in indices)
        sequences.append(row[len(prompt):len(prompt) + length])
        scores.append(values[:length])
    return {"sequences": sequences, "sequences_scores": output.sequences_scores.tolist(), "scores": scores}


def close(model, prompt: list[int], settings: dict, answer: dict) -> bool:
    """Whether a small change of the scores changes the answer."""
    ranked = answer["sequences_scores"]
    if any(a - b < MARGIN for a, b in zip(ranked, ranked[1:])):
        return True
    noise = torch.Generator().manual_seed(1)
    head = model.lm_head.forward
    for _ in range(3):
        model.lm_head.forward = lambda x: (y := head(x)) + MARGIN / 4 * torch.randn(y.shape, generator=noise)
        changed = run(model, prompt, settings)["sequences"] != answer["sequences"]
        model.lm_head.forward = head
        if changed:
            return True
    return False


def make_beams(out: Path) -> None:
    draw, cases = random.Random(7), []
    for case in CASES:
        model = load(out / case)
        for made in runs(model.config.vocab_size, model.config.n_positions, draw):
            answer = run(model, **made)
            if not close(model, made["prompt"], made["settings"], answer):
                cases.append({"case": case, **made, **answer})
    folder = out / "beams"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "expected.json", {"about": "beam search; runs that rounding could change are left out",
                                          "versions": versions(), "margin": MARGIN, "runs": cases})
    print(f"beams: {len(cases)} runs")
