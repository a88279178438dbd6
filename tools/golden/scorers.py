#!/usr/bin/env python3
"""Diverse and constrained beam search, which transformers had until 4.53: run with that version.

    scorers.py OUT_DIR                  OUT_DIR/beams/groups.json and constraints.json, for the tiny checkpoints there
"""
import argparse
import random
from pathlib import Path

import torch
from transformers import GPT2LMHeadModel, __version__
from transformers.generation import beam_search
from transformers.utils import logging

from output import versions, write_json

logging.set_verbosity_error()

CASES = ("head-24", "one-layer", "odd-vocabulary")
# Scores that are closer than this could come in another order after another rounding.
MARGIN = 1e-4


def load(folder: Path) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None
    return model


def common(vocabulary: int, number: int, draw: random.Random) -> dict:
    if number % 3 < 2:  # where texts end soon, and when to stop is the question
        return {"length_penalty": draw.choice((0.5, 1.0, 2.0, -1.0)), "early_stopping": draw.choice((False, True, "never", "never")),
                "max_new_tokens": draw.choice((5, 8, 24)), "eos_token_id": draw.sample(range(vocabulary), vocabulary // 2)}
    settings = {"length_penalty": draw.choice((1.0, 0.0, 2.0, -1.0, 0.5)),
                "early_stopping": draw.choice((False, True, "never")), "max_new_tokens": draw.choice((1, 6, 12, 24)),
                "eos_token_id": draw.sample(range(vocabulary), draw.choice((1, 2, 12)))}
    if draw.random() < 0.2:
        settings["repetition_penalty"] = 1.3
    return settings


def prompt_of(vocabulary: int, draw: random.Random) -> list[int]:
    return [draw.randrange(vocabulary) for _ in range(draw.choice((1, 3, 8)))]


def group_runs(model: GPT2LMHeadModel, draw: random.Random) -> list[dict]:
    vocabulary, made = model.config.vocab_size, []
    for number in range(24):
        beams, groups = draw.choice(((2, 2), (3, 3), (4, 2), (4, 4), (6, 3), (6, 2)))
        settings = {"num_beams": beams, "num_beam_groups": groups, "diversity_penalty": draw.choice((0.3, 1.0, 2.5)),
                    "num_return_sequences": draw.randint(1, beams), **common(vocabulary, number, draw)}
        prompt = prompt_of(vocabulary, draw)
        if draw.random() < 0.5:
            # Groups that have ended count as choosing this one: the likeliest of those that end no text.
            with torch.no_grad():
                ranked = model(torch.tensor([prompt])).logits[0, -1].argsort(descending=True).tolist()
            settings["pad_token_id"] = next(token for token in ranked if token not in settings["eos_token_id"])
        made.append({"prompt": prompt, "settings": settings})
    return made


def words(vocabulary: int, prompt: list[int], eos: list[int], draw: random.Random) -> list:
    others = [token for token in range(vocabulary) if token not in eos]
    tokens = lambda count: [draw.choice(others) for _ in range(count)]
    phrase = lambda: tokens(draw.choice((1, 2, 3)))
    def one_of() -> list[list[int]]:
        start, (a, b) = tokens(draw.choice((0, 1))), draw.sample(others, 2)
        return [[*start, a], [*start, b, *tokens(draw.choice((0, 2)))]]
    made = [draw.choice((phrase, phrase, one_of))() for _ in range(draw.choice((1, 1, 2, 3)))]
    kind = draw.random()
    if kind < 0.15:  # a token twice: what follows a broken beginning
        a, b = draw.sample(others, 2)
        made.append([a, a, b])
    elif kind < 0.3:  # begun by the prompt
        made.append([prompt[-1], draw.choice(others)] if prompt[-1] in others else phrase())
    elif kind < 0.5:  # fulfilled by the prompt
        made = [[prompt[0]]]
    return made


def constraint_runs(model: GPT2LMHeadModel, draw: random.Random) -> list[dict]:
    vocabulary, made = model.config.vocab_size, []
    for number in range(24):
        beams = draw.choice((2, 2, 3, 4, 5, 8))
        settings = {"num_beams": beams, "num_return_sequences": draw.randint(1, beams), **common(vocabulary, number, draw)}
        prompt = prompt_of(vocabulary, draw)
        settings["force_words_ids"] = words(vocabulary, prompt, settings["eos_token_id"], draw)
        made.append({"prompt": prompt, "settings": settings})
    return made


def run(model, prompt: list[int], settings: dict) -> dict:
    kept = {}
    for scorer in (beam_search.BeamSearchScorer, beam_search.ConstrainedBeamSearchScorer):
        if not hasattr(scorer, "plain_finalize"):
            scorer.plain_finalize = scorer.finalize

        def finalize(self, *args, **kwargs):
            result = self.plain_finalize(*args, **kwargs)
            kept["scores"] = result["sequence_scores"].tolist()
            kept["done"] = self._done.tolist()
            return result

        scorer.finalize = finalize
    settings = {"pad_token_id": settings["eos_token_id"][0], **settings}
    with torch.no_grad():
        rows = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                              do_sample=False, **settings)
    sequences = []
    for row in rows.tolist():
        text = row[len(prompt):]
        end = next((index + 1 for index, token in enumerate(text) if token in settings["eos_token_id"]), len(text))
        sequences.append(text[:end])
    return {"sequences": sequences, "sequences_scores": kept["scores"], "done": kept["done"]}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    if not __version__.startswith("4.53."):
        raise SystemExit(f"transformers is {__version__}, and these searches are in 4.53 for the last time")
    torch.set_num_threads(1)
    draw = random.Random(11)
    for name, about, runs in (("groups", "diverse beam search", group_runs),
                              ("constraints", "constrained beam search", constraint_runs)):
        cases = []
        for case in CASES:
            model = load(out / case)
            for made in runs(model, draw):
                answer = run(model, **made)
                if not close(model, made["prompt"], made["settings"], answer):
                    cases.append({"case": case, **made, **answer})
        write_json(out / "beams" / f"{name}.json",
                   {"about": f"{about}; runs that rounding could change are left out", "versions": versions(),
                    "margin": MARGIN, "runs": cases})
        ended = [sum(case["done"]) / len(case["done"]) for case in cases]
        print(f"{name}: {len(cases)} runs, {ended.count(1)} ended before their length, {sum(0 < e < 1 for e in ended)} in part")


if __name__ == "__main__":
    main()
