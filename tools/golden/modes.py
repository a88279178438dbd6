"""Decoding beside plain sampling and beams: guidance, contrastive search, contrasted layers, watermarks, healed prompts.

Contrastive search and contrasted layers (DoLa) are no longer in transformers 5: that half is written by transformers
4.53.3, with `python modes.py OUT_DIR`; the other half by `make.py`. A text is cut off before the first step at which
two candidates are so close that the order of additions could decide between them.
"""
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoTokenizer, GPT2LMHeadModel, WatermarkingConfig

from output import versions, write_json, write_tensors

# Below this the order of two candidates could depend on the order of additions.
SMALLEST_MARGIN = 1e-4
FEWEST_TOKENS = 8
REPOSITORY = Path(__file__).resolve().parents[2]

PROMPTS = (
    "Once upon a time there was",
    "The old man looked at the sea and said",
    "The Department of Health announced on Monday that",
    "She opened the door and",
)
# Tiny checkpoints, by their folders.
TINY = ("head-24", "layer-scale", "untied-head", "no-scale-layer-scale", "one-layer")


def load(out: Path, name: str) -> GPT2LMHeadModel:
    folder = REPOSITORY / "models/demo" if name == "demo" else out / name
    model = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager").float().eval()
    model.generation_config.eos_token_id = None  # texts run past the end token
    return model


def prompts(name: str, model: GPT2LMHeadModel) -> list[list[int]]:
    if name == "demo":
        from tokenizers import Tokenizer
        tokenizer = Tokenizer.from_file(str(REPOSITORY / "models/demo/tokenizer.json"))
        return [tokenizer.encode(text).ids for text in PROMPTS]
    vocabulary = model.config.vocab_size
    return [[(7 * i + 3 * i * i + n) % vocabulary for i in range(length)] for n, length in enumerate((1, 3, 12, 25))]


def generate(model: GPT2LMHeadModel, ids: list[int], **settings):
    prompt = torch.tensor([ids])
    return model.generate(prompt, attention_mask=torch.ones_like(prompt), pad_token_id=0, return_dict_in_generate=True,
                          output_scores=True, **settings)


def margins(scores) -> list[float]:
    """The lead of the winner at every step."""
    best = [step[0].topk(2).values for step in scores]
    return [(b[0] - b[1]).item() for b in best]


def clear(tokens: list[int], lead: list[float]) -> list[int]:
    """The tokens before the first near tie."""
    close = [i for i, margin in enumerate(lead) if not margin >= SMALLEST_MARGIN]
    return tokens[:close[0]] if close else tokens


def write(out: Path, name: str, cases: list[dict], tensors: dict[str, torch.Tensor]) -> None:
    folder = out / "modes"
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{name}.json", {"versions": versions(), "cases": cases})
    if tensors:
        write_tensors(folder / f"{name}.safetensors", tensors)
    print(f"{name}: {len(cases)} cases, tokens {[len(case['tokens']) for case in cases if 'tokens' in case]}", flush=True)


@torch.no_grad()
def make_guidance(out: Path) -> None:
    """Greedy texts with `guidance_scale`; for tiny models the processed scores of every step too. (tokens, V)"""
    wanted = [("demo", p, scale, negative) for p, scale, negative in (
        (0, 1.5, None), (1, 2.0, None), (2, 0.5, None), (3, 3.0, 1), (0, 1.5, 2), (2, 0.0, 0), (1, -0.5, 3))]
    wanted += [(name, p, scale, negative) for name, p, scale, negative in (
        ("head-24", 1, 1.5, None), ("head-24", 2, 2.5, 3), ("layer-scale", 3, 1.2, 1), ("untied-head", 2, 4.0, 0),
        ("one-layer", 0, 1.5, None), ("head-24", 3, 0.7, 2))]
    cases, tensors = [], {}
    for name, prompt, scale, negative in wanted:
        model = load(out, name)
        ids = prompts(name, model)
        other = None if negative is None else ids[negative]
        result = generate(model, ids[prompt], do_sample=False, max_new_tokens=30, guidance_scale=scale,
                          negative_prompt_ids=None if other is None else torch.tensor([other]))
        tokens = clear(result.sequences[0, len(ids[prompt]):].tolist(), margins(result.scores))
        if len(tokens) < FEWEST_TOKENS:
            print(f"guidance: {name} {prompt} {scale} {negative} is a near tie after {len(tokens)} tokens")
            continue
        if name != "demo":
            tensors[f"case{len(cases)}.scores"] = torch.cat(result.scores)[:len(tokens)]
        cases.append({"model": name, "ids": ids[prompt], "guidance_scale": scale, "negative": other, "tokens": tokens})
    write(out, "guidance", cases, tensors)


@torch.no_grad()
def make_contrastive(out: Path) -> None:
    """Texts by contrastive search. A step is clear if the winner leads, and the last candidate the first that is none."""
    from transformers.generation import utils
    ranking, leads = utils._ranking_fast, []

    def observed(context_hidden, next_hidden, probabilities, mask, alpha, width):
        norms = [hidden / hidden.norm(dim=2, keepdim=True) for hidden in (context_hidden, next_hidden)]
        penalty = (norms[0] @ norms[1].transpose(1, 2)).squeeze(-1).max(-1).values
        best = ((1 - alpha) * probabilities.view(-1) - alpha * penalty).topk(2).values
        leads.append((best[0] - best[1]).item())
        return ranking(context_hidden, next_hidden, probabilities, mask, alpha, width)

    utils._ranking_fast = observed
    cases = []
    for name, prompt, alpha, top_k, more in (
            ("demo", 0, 0.6, 4, {}), ("demo", 1, 0.6, 4, {}), ("demo", 2, 0.4, 6, {}), ("demo", 3, 0.3, 10, {}),
            ("demo", 0, 0.8, 5, {}), ("demo", 1, 0.5, 5, {"repetition_penalty": 1.2}), ("head-24", 1, 0.6, 4, {}),
            ("head-24", 2, 0.3, 8, {}), ("layer-scale", 3, 0.5, 5, {}), ("untied-head", 2, 0.6, 3, {}),
            ("one-layer", 0, 0.6, 4, {}), ("no-scale-layer-scale", 2, 0.9, 6, {}), ("head-24", 3, 1.0, 20, {})):
        model = load(out, name)
        ids = prompts(name, model)[prompt]
        leads.clear()
        result = generate(model, ids, max_new_tokens=30, penalty_alpha=alpha, top_k=top_k, **more)
        last = [step[0].topk(top_k + 1).values for step in result.scores]
        lead = [min(lead, (v[top_k - 1] - v[top_k]).item()) for lead, v in zip(leads, last)]
        tokens = clear(result.sequences[0, len(ids):].tolist(), lead)
        if len(tokens) < FEWEST_TOKENS:
            print(f"contrastive: {name} {prompt} {alpha} {top_k} is a near tie after {len(tokens)} tokens")
            continue
        cases.append({"model": name, "ids": ids, "penalty_alpha": alpha, "top_k": top_k, **more, "tokens": tokens})
    utils._ranking_fast = ranking
    write(out, "contrastive", cases, {})


@torch.no_grad()
def make_dola(out: Path) -> None:
    """Texts by contrasted layers; for tiny models the processed scores of every step too. (tokens, V)

    Sampled texts are a path to compare scores on: their draws are torch's.
    """
    from transformers.generation import utils
    select, leads, sizes = utils._dola_select_contrast, [], []

    def observed(layers, logits, final):
        """How clear it is which layer is held against the last, and which tokens have a tenth of the best one's mass."""
        sizes.append(max(abs(row).max().item() for row in (final, *logits.values())))
        last = final[0].double().log_softmax(-1)
        far = (last - last.max() - torch.tensor(0.1).double().log()).abs().min().item()
        if len(layers) > 1:
            each = torch.stack([logits[layer][0] for layer in layers]).double().log_softmax(-1)
            mean = (last.exp() + each.exp()) / 2
            divergence = (mean * (2 * mean.log() - last - each)).sum(-1).topk(2).values
            far = min(far, (divergence[0] - divergence[1]).item())
        leads.append(far)
        return select(layers, logits, final)

    utils._dola_select_contrast = observed
    cases, tensors = [], {}
    sampled = {"do_sample": True, "temperature": 0.8, "top_k": 10}
    for name, prompt, layers, more in (
            ("demo", 0, "low", {}), ("demo", 1, "high", {}), ("demo", 2, [0, 2, 4], {}), ("demo", 3, [1], {}),
            ("demo", 0, "high", {"repetition_penalty": 1.2}), ("demo", 2, "high", {}),
            ("head-24", 1, "low", {}), ("head-24", 2, "high", {}), ("layer-scale", 3, [0, 1, 2], {}),
            ("layer-scale", 2, "high", {}), ("untied-head", 2, "low", {}), ("one-layer", 0, "low", {}),
            ("no-scale-layer-scale", 2, [1, 2, 7], {}), ("layer-scale", 1, [0, 2], sampled),
            ("no-scale-layer-scale", 3, [0, 1], sampled), ("head-24", 0, [0, 1], sampled)):
        model = load(out, name)
        ids = prompts(name, model)[prompt]
        leads.clear()
        sizes.clear()
        torch.manual_seed(1)
        result = generate(model, ids, max_new_tokens=25, dola_layers=layers,
                          **({"do_sample": False} | more))
        lead = leads if "do_sample" in more else [min(pair) for pair in zip(leads, margins(result.scores))]
        tokens = clear(result.sequences[0, len(ids):].tolist(), lead)
        if len(tokens) < FEWEST_TOKENS:
            print(f"dola: {name} {prompt} {layers} is a near tie after {len(tokens)} tokens")
            continue
        if name != "demo":
            tensors[f"case{len(cases)}.scores"] = torch.cat(result.scores)[:len(tokens)]
        cases.append({"model": name, "ids": ids, "dola_layers": layers, **more, "logits_max": max(sizes),
                      "tokens": tokens})
    utils._dola_select_contrast = select
    write(out, "dola", cases, tensors)


@torch.no_grad()
def make_watermarks(out: Path) -> None:
    """Greedy texts with a watermark, for tiny models with the processed scores (tokens, V), and what the detector says."""
    from transformers import WatermarkDetector, WatermarkLogitsProcessor
    # An empty list of green tokens becomes a tensor of floats, which cannot be an index.
    search = WatermarkLogitsProcessor._score_rejection_sampling
    WatermarkLogitsProcessor._score_rejection_sampling = lambda self, *args: search(self, *args).long()
    cases, tensors, texts = [], {}, {"demo": [], "head-24": []}
    for name, prompt, settings in (
            ("demo", 0, {}), ("demo", 1, {"bias": 5.0, "greenlist_ratio": 0.5}),
            ("demo", 2, {"seeding_scheme": "selfhash", "bias": 3.0}),
            ("demo", 3, {"seeding_scheme": "selfhash", "context_width": 2, "hashing_key": 15, "bias": 4.0}),
            ("head-24", 1, {"bias": 4.0}), ("head-24", 0, {"context_width": 4, "bias": 6.0}),
            ("head-24", 2, {"seeding_scheme": "selfhash", "bias": 4.0, "greenlist_ratio": 0.1}),
            ("head-24", 1, {"seeding_scheme": "selfhash", "context_width": 4, "bias": -3.5}),
            ("untied-head", 3, {"hashing_key": 4294967311, "greenlist_ratio": 0.7})):
        model = load(out, name)
        ids = prompts(name, model)[prompt]
        config = WatermarkingConfig(**settings)
        result = generate(model, ids, do_sample=False, max_new_tokens=30, watermarking_config=config)
        tokens = clear(result.sequences[0, len(ids):].tolist(), margins(result.scores))
        if len(tokens) < FEWEST_TOKENS:
            print(f"watermark: {name} {prompt} {settings} is a near tie after {len(tokens)} tokens")
            continue
        if name != "demo":
            tensors[f"case{len(cases)}.scores"] = torch.cat(result.scores)[:len(tokens)]
        texts.setdefault(name, []).append((tokens, settings))
        cases.append({"model": name, "ids": ids, "watermarking_config": settings, "tokens": tokens})
    detections = []
    for name, marked in texts.items():
        model = load(out, name)
        bos = model.config.bos_token_id
        plain = generate(model, prompts(name, model)[1], do_sample=False, max_new_tokens=60).sequences[0].tolist()
        for tokens, settings in [*marked, (plain, {}), (plain, {"seeding_scheme": "selfhash", "context_width": 3}),
                                 ([bos, *plain], {"context_width": 2}), ([bos, bos, 5, 5, 5, 5, 5, 5], {"bias": 1.0})]:
            for ignore in (False, True):
                detector = WatermarkDetector(model.config, "cpu", WatermarkingConfig(**settings), ignore)
                found = detector(torch.tensor([tokens]), z_threshold=2.0 if ignore else 3.0, return_dict=True)
                detections.append({
                    "vocabulary": model.config.vocab_size, "bos_token_id": bos, "watermarking_config": settings,
                    "ignore_repeated_ngrams": ignore, "z_threshold": 2.0 if ignore else 3.0, "ids": tokens,
                    **{field: getattr(found, field)[0].item() for field in (
                        "num_tokens_scored", "num_green_tokens", "green_fraction", "z_score", "p_value", "prediction",
                        "confidence")}})
    WatermarkLogitsProcessor._score_rejection_sampling = search
    write(out, "watermark", cases, tensors)
    write(out, "detection", detections, {})


HEALED = (
    "The link is <a href=\"http", "The link is \"http", "He said \"Wh", "(The", "hello-wor", "1234", "semi-auto", "\"T",
    "wor", "(wor", "the<", "un-forg", "It was a half-fo", "e.g", "She said:\n\"Yo",
    # nothing to heal: a single token, a space before the token, a token that no other begins with
    "an", "Once upon a ti", "  He said wor", "I am go", "it's", "He said:", "q\u2019", "caf\u00e9 (", "x <",
    # white space and special tokens at the ends
    "Once upon a time ", "\n\t (wor\n", "wor\u00a0", "(wor\x1f", "<|endoftext|>", "<|endoftext|>(wor", "a<|endoftext|>b",
    "Hello .", "   ", "",
)


@torch.no_grad()
def make_healing(out: Path) -> None:
    """Prompts of the demo model before and after `heal_tokens`, and a few texts of `generate(token_healing=True)`."""
    model = load(out, "demo")
    tokenizer = AutoTokenizer.from_pretrained(REPOSITORY / "models/demo")
    tokenizer.pad_token = tokenizer.eos_token
    cases = []
    for text in HEALED:
        ids = tokenizer(text).input_ids
        healed = model.heal_tokens(torch.tensor([ids]), tokenizer)[0].tolist() if ids else []
        case = {"text": text, "ids": ids, "healed": healed}
        if len(healed) == len(ids) and healed[:-1] == ids[:-1] and len(healed) > 1:
            result = generate(model, ids, do_sample=False, max_new_tokens=10, token_healing=True, tokenizer=tokenizer)
            case["tokens"] = clear(result.sequences[0, len(ids):].tolist(), margins(result.scores))
        cases.append(case)
    print(f"healing: {sum(case['ids'] != case['healed'] for case in cases)} of {len(cases)} prompts changed")
    write(out, "healing", cases, {})


def make_modes(out: Path) -> None:
    """The modes that this version of transformers has."""
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    if int(transformers.__version__.split(".")[0]) < 5:
        make_contrastive(out)
        make_dola(out)
    else:
        make_guidance(out)
        make_watermarks(out)
        make_healing(out)


if __name__ == "__main__":
    make_modes(Path(sys.argv[1]))
