"""Texts that transformers draws with torch's generator on the CPU: the demo model, many settings and seeds."""
import random
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from tokenizers import Tokenizer

from demo import PROMPTS
from output import versions, write_json
from tiny import load

SAMPLERS = (
    {}, {"temperature": 0.7, "top_p": 0.95}, {"temperature": 1.3}, {"top_k": 0}, {"top_k": 5}, {"top_k": 0, "top_p": 0.8},
    {"temperature": 0.9, "top_k": 0, "top_p": 0.9}, {"temperature": 2.0, "top_k": 200},
)
OTHERS = (
    {"min_p": 0.1, "top_k": 0}, {"typical_p": 0.7, "top_k": 0}, {"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2},
    {"epsilon_cutoff": 0.01}, {"eta_cutoff": 0.01, "top_k": 0}, {"top_h": 0.5}, {"suppress_tokens": [11, 13]},
    {"bad_words_ids": [[11], [262, 1468]]}, {"min_new_tokens": 20}, {"repetition_penalty": 1.1, "min_p": 0.02, "top_p": 0.9},
    {"sequence_bias": [[[262], -2.0], [[257], 1.5]]},
)
BEAMS = (
    {"num_beams": 2}, {"num_beams": 3, "temperature": 0.7}, {"num_beams": 4, "top_p": 0.9}, {"num_beams": 3, "top_k": 0},
    {"num_beams": 4, "num_return_sequences": 2}, {"num_beams": 2, "early_stopping": True, "length_penalty": 0.5},
    {"num_beams": 3, "early_stopping": "never"}, {"num_beams": 5, "num_return_sequences": 5, "temperature": 1.2},
)


def runs() -> list[dict]:
    """What to run: 48 of sampling as it is, then others' settings and beams."""
    draw = random.Random(29)
    made = []
    for number in range(48):
        settings = dict(SAMPLERS[number % len(SAMPLERS)], max_new_tokens=draw.choice((8, 20, 40)),
                        num_return_sequences=draw.choice((1, 1, 2, 3, 4)))
        # A token that comes up soon, so that sequences end at different times and still take their draws.
        if number % 4 == 3:
            settings["eos_token_id"] = draw.choice(([13], [11, 13], [262]))
        if number % 6 == 5:
            settings["max_length"] = 30
            del settings["max_new_tokens"]
        made.append(settings)
    made += [dict(settings, max_new_tokens=25, num_return_sequences=1 + number % 2) for number, settings in enumerate(OTHERS)]
    made += [dict(settings, max_new_tokens=15) for settings in BEAMS]
    return [{"prompt": draw.randrange(4), "seed": draw.choice((0, 1, 42, 1234, 2**32 - 1, draw.randrange(2**32))),
             "settings": settings} for settings in made]


def exponentials() -> list[dict]:
    """Draws of torch itself, for a generator of one's own to be compared with."""
    made = []
    for seed in (0, 42, 123456789):
        torch.manual_seed(seed)
        values = torch.empty(2000).exponential_(1).numpy()
        picked = [0, 1, 2, 623, 624, 1247, 1248, 1999]
        made.append({"seed": seed, "indices": picked, "bits": [int(np.float32(values[i]).view(np.uint32)) for i in picked]})
    return made


def outputs() -> list[dict]:
    """Numbers of numpy's Mersenne Twister, seeded as torch seeds its own."""
    made = []
    for seed in (0, 42, 2**32 - 1):
        numbers = np.random.RandomState(seed).randint(0, 2**32, 2000, dtype=np.uint32)
        picked = [0, 1, 2, 226, 227, 396, 397, 622, 623, 624, 1247, 1248, 1999]
        made.append({"seed": seed, "indices": picked, "outputs": [int(numbers[i]) for i in picked]})
    return made


class Draws:
    """Stands in for `torch.multinomial`, and notes by how much each draw was decided."""

    def __init__(self):
        self.draw = torch.multinomial
        self.margins = []  # by step and row

    def __call__(self, probabilities: torch.Tensor, num_samples: int) -> torch.Tensor:
        state = torch.get_rng_state()
        quotients = probabilities / torch.empty_like(probabilities).exponential_(1)
        torch.set_rng_state(state)
        drawn = self.draw(probabilities, num_samples)
        best = quotients.double().topk(num_samples + 1)
        if not torch.equal(best.indices[:, :num_samples], drawn):
            raise SystemExit("seeds: torch.multinomial does not take the largest quotients")
        ahead, behind = best.values[:, :-1], best.values[:, 1:]
        self.margins.append((1 - behind / ahead).min(dim=-1).values.tolist())
        return drawn


def make_seeds(model_folder: Path, out: Path) -> None:
    model = load(model_folder)
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    made = []
    for run in runs():
        ids = tokenizer.encode(PROMPTS[run["prompt"]]).ids
        settings = dict(run["settings"])
        settings.setdefault("eos_token_id", [50256])
        arguments = dict(settings)
        if "sequence_bias" in arguments:
            arguments["sequence_bias"] = {tuple(tokens): bias for tokens, bias in arguments["sequence_bias"]}
        torch.manual_seed(run["seed"])
        draws = Draws()
        with torch.no_grad(), patch("torch.multinomial", draws):
            output = model.generate(torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                                    do_sample=True, pad_token_id=50256, **arguments)
        sequences = []
        for row in output.tolist():
            new = row[len(ids):]
            end = next((i + 1 for i, token in enumerate(new) if token in settings["eos_token_id"]), len(new))
            sequences.append(new[:end])
        # What a finished sequence draws does not matter; of beams there is one row, from which all are drawn.
        margin = min(margin for step, rows in enumerate(draws.margins) for row, margin in enumerate(rows)
                     if "num_beams" in settings or step < len(sequences[row]))
        made.append({"prompt": ids, "seed": run["seed"], "settings": settings, "margin": margin, "sequences": sequences})
    folder = out / "seeds"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "expected.json", {
        "about": "generate(do_sample=True, ...) of the demo model after torch.manual_seed(seed), on the CPU",
        "versions": versions(), "mt19937": outputs(), "exponentials": exponentials(), "runs": made})
    print(f"seeds: {len(made)} runs, smallest margin {min(run['margin'] for run in made)}")
