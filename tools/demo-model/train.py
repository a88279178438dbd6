#!/usr/bin/env python3
"""Train the demo model: a small GPT-2 with GPT-2's own tokenizer, on CPU.

    train.py CORPUS_DIR RUN_DIR --tokenizer DIR [--hours 2] [--deadline-hours H] [--resume]
    train.py CORPUS_DIR RUN_DIR --tokenizer DIR --export DIR      write a checkpoint as a Hugging Face folder
    train.py CORPUS_DIR RUN_DIR --tokenizer DIR --evaluate DIR    held-out loss of an exported folder

CORPUS_DIR holds *.txt.zst files whose documents are separated by a line
`<|endoftext|>`. RUN_DIR receives the token cache, `checkpoint.pt` and `log.jsonl`.

The schedule (learning rate, sequence length, softmax) follows the time spent,
not a number of steps: progress runs from 0 to 1 over `--hours` of computing
(process time divided by the threads, so a paused process does not age), or
over `--deadline-hours` on the wall since the first start, whichever is ahead.
"""
import argparse
import hashlib
import json
import math
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import zstandard
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

END_OF_TEXT = 50256
VOCABULARY = 50257
HELD_OUT = "heldout"
# The small modern files are seen more than once per epoch: they make samples more readable.
REPEATS = {"childrens_ccby": 4, "fairytaleqa_pd": 3, "usgov_cc0": 2, "opensource_guides_ccby": 2}

SEED = 1
TOKENS_PER_STEP = 2048
SHORT, LONG = 256, 1024  # sequence lengths of the two phases
LONG_FROM = 0.70  # progress at which LONG begins
FULL_SOFTMAX_FROM = 0.92
DECAY_FROM = 0.62
WARMUP_STEPS = 150
NEGATIVES = 3072
CHECKPOINT_SECONDS, EVALUATE_SECONDS = 300, 600
EVALUATED_TOKENS = 32_768


# ---- data ------------------------------------------------------------------------------------------------------------

def documents(path: Path) -> list[str]:
    raw = zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read().decode("utf-8")
    return [text for text in (part.strip("\n") for part in raw.split("<|endoftext|>\n")) if text]


def is_held_out(text: str) -> bool:
    """The corpus's rule: about one document in a hundred, chosen by its MD5, is never trained on."""
    return int.from_bytes(hashlib.md5(text.encode("utf-8")).digest()[:4], "big") % 100 == 7


def tokenize(corpus: Path, run: Path, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Token streams (training, held out); documents shuffled, each preceded by <|endoftext|>. Cached in `run`."""
    caches = run / "training.npy", run / "heldout.npy"
    if not all(cache.exists() for cache in caches):
        training, held_out = [], []
        for path in sorted(corpus.glob("*.txt.zst")):
            name = path.name.removesuffix(".txt.zst")
            texts = documents(path)
            kept = texts if name == HELD_OUT else [text for text in texts if not is_held_out(text)]
            encoded = [np.array([END_OF_TEXT, *e.ids], np.uint16) for e in tokenizer.encode_batch(kept)]
            (held_out if name == HELD_OUT else training).extend(encoded * REPEATS.get(name, 1))
            print(json.dumps({"file": name, "documents": len(texts), "dropped": len(texts) - len(kept),
                              "tokens": sum(map(len, encoded)), "repeats": REPEATS.get(name, 1)}), flush=True)
        order = np.random.default_rng(SEED).permutation(len(training))
        np.save(caches[0], np.concatenate([training[i] for i in order]))
        np.save(caches[1], np.concatenate(held_out))
    return tuple(np.load(cache, mmap_mode="r") for cache in caches)


def batch(stream: np.ndarray, length: int, rows: int, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets (B, T): windows `first..first + rows` of an endless sequence of shuffled epochs."""
    windows = (len(stream) - length - 1) // length
    picked = []
    for number in range(first, first + rows):
        epoch, index = divmod(number, windows)
        generator = np.random.default_rng([SEED, length, epoch])
        shift = int(generator.integers(length))
        if batch.key != (length, epoch):
            batch.key, batch.order = (length, epoch), generator.permutation(windows)
        start = shift + int(batch.order[index]) * length
        picked.append(stream[start:start + length + 1].astype(np.int64))
    tokens = torch.from_numpy(np.stack(picked))
    return tokens[:, :-1], tokens[:, 1:]


batch.key = None  # the epoch whose permutation is kept: making one costs as much as a training step


# ---- model and losses ------------------------------------------------------------------------------------------------

def new_model() -> GPT2LMHeadModel:
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=LONG, n_embd=256, n_layer=6, n_head=4,
                        activation_function="gelu_new", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                        bos_token_id=END_OF_TEXT, eos_token_id=END_OF_TEXT)
    torch.manual_seed(SEED)
    model = GPT2LMHeadModel(config)
    for block in model.transformer.h:  # the same function as gelu_new, as one fused operation
        block.mlp.act = torch.nn.GELU(approximate="tanh")
    return model


class Negatives:
    """Draws negatives for the sampled softmax from the unigram distribution raised to 3/4."""

    def __init__(self, stream: np.ndarray):
        counts = np.bincount(stream, minlength=VOCABULARY) + 1.0
        self.unigram = torch.from_numpy(counts / counts.sum())
        self.drawn = torch.from_numpy(counts**0.75 / (counts**0.75).sum())
        self.cumulative = self.drawn.cumsum(0)

    def candidates(self, targets: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids of the targets and of NEGATIVES draws, and each id's log-probability of being among them."""
        points = torch.rand(NEGATIVES, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        drawn = torch.searchsorted(self.cumulative, points).clamp_(max=VOCABULARY - 1)
        ids = torch.unique(torch.cat([targets, drawn]))
        missed = targets.numel() * torch.log1p(-self.unigram[ids]) + NEGATIVES * torch.log1p(-self.drawn[ids])
        return ids, torch.log(-torch.expm1(missed)).float()


def sampled_loss(hidden, targets, wte, negatives: Negatives, step: int) -> torch.Tensor:
    """Cross-entropy whose denominator is estimated: each candidate is weighted by 1 / P(it is a candidate)."""
    ids, log_inclusion = negatives.candidates(targets, step)
    column = torch.searchsorted(ids, targets).unsqueeze(1)
    logits = F.linear(hidden, wte[ids]).float() - log_inclusion
    # A row's own target is a candidate for certain, so its weight is 1.
    logits = logits.scatter_add(1, column, log_inclusion[column])
    return F.cross_entropy(logits, column.squeeze(1))


def full_loss_backward(hidden, targets, wte, rows: int = 512) -> float:
    """Exact cross-entropy and its backward pass, `rows` positions at a time to bound the memory."""
    leaf, total = hidden.detach().requires_grad_(), 0.0
    for part, wanted in zip(leaf.split(rows), targets.split(rows)):
        loss = F.cross_entropy(F.linear(part, wte).float(), wanted, reduction="sum") / targets.numel()
        loss.backward()
        total += loss.item()
    hidden.backward(leaf.grad)
    return total


@torch.no_grad()
def held_out_loss(model, stream: np.ndarray, length: int, limit: int | None = None) -> float:
    """Nats per token, full softmax in f32, over windows of `length` that do not overlap."""
    total = count = 0
    for start in range(0, min(limit or len(stream), len(stream)) - 1, length):
        tokens = torch.from_numpy(stream[start:start + length + 1].astype(np.int64))
        hidden = model.transformer(tokens[None, :-1]).last_hidden_state[0]
        total += F.cross_entropy(F.linear(hidden, model.transformer.wte.weight), tokens[1:], reduction="sum").item()
        count += len(tokens) - 1
    return total / count


# ---- training --------------------------------------------------------------------------------------------------------

def learning_rate(peak: float, step: int, progress: float) -> float:
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return peak * warmup * min(1.0, (1.0 - progress) / (1.0 - DECAY_FROM))


def train(args, training: np.ndarray, held_out: np.ndarray) -> None:
    checkpoint, log_path = args.run / "checkpoint.pt", args.run / "log.jsonl"
    model, negatives = new_model(), Negatives(training)
    wte = model.transformer.wte.weight
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "wte" not in name and "wpe" not in name]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.95), fused=True)
    state = {"step": 0, "tokens": 0, "compute_s": 0.0, "started": time.time(), "windows": {SHORT: 0, LONG: 0}}
    if args.resume:
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        state = saved["state"]

    def log(**fields):
        with log_path.open("a") as file:
            file.write(json.dumps({"step": state["step"], "tokens": state["tokens"], **fields}) + "\n")

    def save():
        partial = checkpoint.with_suffix(".partial")
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "state": state}, partial)
        os.replace(partial, checkpoint)

    def progress() -> float:
        wall = (time.time() - state["started"]) / 3600 / args.deadline_hours if args.deadline_hours else 0.0
        return min(1.0, max(state["compute_s"] / 3600 / args.hours, wall))

    log(event="start", resumed=args.resume, threads=args.threads, hours=args.hours, deadline_hours=args.deadline_hours,
        lr=args.lr, training_tokens=len(training), parameters=sum(p.numel() for p in model.parameters()))
    losses, saved_at, evaluated_at = [], state["compute_s"], state["compute_s"]
    mark = time.time(), state["tokens"]
    while (done := progress()) < 1.0 and state["step"] < args.max_steps:
        begun = time.process_time()
        length = LONG if done >= LONG_FROM else SHORT
        rows = TOKENS_PER_STEP // length
        inputs, targets = batch(training, length, rows, state["windows"][length])
        targets = targets.reshape(-1)
        with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
            hidden = model.transformer(inputs, use_cache=False).last_hidden_state.reshape(-1, wte.shape[1])
            if done >= FULL_SOFTMAX_FROM:
                loss = full_loss_backward(hidden, targets, wte)
            else:
                estimate = sampled_loss(hidden, targets, wte, negatives, state["step"])
                estimate.backward()
                loss = estimate.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.lr, state["step"], done)
        optimizer.step()
        optimizer.zero_grad()
        if not math.isfinite(loss):
            raise SystemExit(f"the loss became {loss} at step {state['step']}; resume from the last checkpoint")
        losses.append(loss)
        state["step"] += 1
        state["tokens"] += targets.numel()
        state["windows"][length] += rows
        state["compute_s"] += (time.process_time() - begun) / args.threads
        if state["step"] % args.log_every == 0:
            now = time.time(), state["tokens"]
            log(loss=round(float(np.mean(losses)), 4), lr=round(optimizer.param_groups[0]["lr"], 6), length=length,
                progress=round(done, 4), tokens_per_second=round((now[1] - mark[1]) / (now[0] - mark[0])),
                compute_h=round(state["compute_s"] / 3600, 4), wall_h=round((now[0] - state["started"]) / 3600, 4))
            losses, mark = [], now
        if state["compute_s"] - saved_at >= CHECKPOINT_SECONDS:
            save()
            saved_at = state["compute_s"]
        if state["compute_s"] - evaluated_at >= EVALUATE_SECONDS and done < 0.97:
            log(held_out_loss=round(held_out_loss(model, held_out, length, EVALUATED_TOKENS), 4), length=length)
            evaluated_at, mark = state["compute_s"], (time.time(), state["tokens"])
    save()
    log(event="end", held_out_loss=round(held_out_loss(model, held_out, LONG, EVALUATED_TOKENS), 4), length=LONG,
        compute_h=round(state["compute_s"] / 3600, 4), wall_h=round((time.time() - state["started"]) / 3600, 4))


# ---- export and evaluation -------------------------------------------------------------------------------------------

def export(args) -> None:
    """Writes config.json, generation_config.json and model.safetensors (bf16) as `save_pretrained` does."""
    saved = torch.load(args.run / "checkpoint.pt")
    model = new_model()
    model.load_state_dict(saved["model"])
    model.to(torch.bfloat16).save_pretrained(args.export)
    # Says in the file itself how far the training had come.
    path = args.export / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt", "tokens": str(saved["state"]["tokens"])})
    path.chmod(0o644)
    print(json.dumps(saved["state"]))


def evaluate(args, held_out: np.ndarray) -> None:
    model = GPT2LMHeadModel.from_pretrained(args.evaluate, dtype=torch.float32).eval()
    print(json.dumps({"held_out_loss": held_out_loss(model, held_out, LONG), "window": LONG, "softmax": "full",
                      "tokens_scored": len(held_out) - 1}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--hours", type=float, default=2.0, help="computing time of the whole schedule")
    parser.add_argument("--deadline-hours", type=float, help="wall-clock time of the whole schedule")
    parser.add_argument("--resume", action="store_true", help="go on from RUN_DIR/checkpoint.pt")
    parser.add_argument("--export", type=Path, metavar="DIR")
    parser.add_argument("--evaluate", type=Path, metavar="DIR")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--bf16", action="store_true", help="bf16 autocast; pays only where bf16 products are fast")
    parser.add_argument("--max-steps", type=int, default=1 << 60, help="stop early, for trials")
    parser.add_argument("--log-every", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # AdamW's averages of rows that are not seen shrink into slow denormals
    args.run.mkdir(parents=True, exist_ok=True)
    if args.export:
        return export(args)
    training, held_out = tokenize(args.corpus, args.run, Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")))
    if args.evaluate:
        return evaluate(args, held_out)
    train(args, training, held_out)


if __name__ == "__main__":
    main()
