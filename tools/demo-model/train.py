#!/usr/bin/env python3
"""Train the demo model: a small GPT-2 with GPT-2's own tokenizer, on a few CPU cores or on one GPU.

    train.py TOKENS RUN_DIR --hours 100 --nice 19 --pause-file PAUSE [--resume]    on CPU
    train.py TOKENS RUN_DIR --device cuda --minutes 8                             on a GPU
    train.py TOKENS RUN_DIR --export MODEL_DIR                                     the last checkpoint as a model

TOKENS is what `prepare.py` wrote. RUN_DIR receives `log.jsonl` and, on CPU, `checkpoint.pt`, from which `--resume` goes
on; on a GPU, the model in pieces (`pieces.py`) several times on the way and at the end.

The schedule follows what was spent of a limit, not a number of steps: `--tokens`, `--hours` of computing (process time
divided by the threads, so a paused process does not age), `--minutes` on the wall since the program's start, which
include loading, compiling, the last evaluation and the export. Whatever the speed turns out to be, the learning rate
has fallen to zero when the limit is reached.
"""
import time

STARTED = time.time()

import argparse  # noqa: E402  (the clock starts before PyTorch is loaded)
import contextlib  # noqa: E402
import copy  # noqa: E402
import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NamedTuple  # noqa: E402

import torch  # noqa: E402

import evaluate  # noqa: E402
import losses  # noqa: E402
import model as gpt2  # noqa: E402
import optimizers  # noqa: E402
import pieces  # noqa: E402
import schedule  # noqa: E402
import token_file  # noqa: E402
from batches import Mixer  # noqa: E402

COMPILE_SECONDS, COMPILE_SHARE = 150, 0.25  # a compilation that takes longer, or more of the time, is given up
CHECKPOINT_SECONDS, EVALUATE_SECONDS = 300, 1800  # of computing, on CPU
EXPORT_AT = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9)  # progress at which a GPU run writes what it has
CONTEXT = 256  # of the held-out losses
QUICK_WINDOWS = 48
EVALUATION_SHARE = 0.01  # of the wall-clock time that an evaluation on the way may take
EMA_EVERY = 4


class Plan(NamedTuple):
    """What differs between the two kinds of hardware; each field has an option of its name."""
    tokens_per_step: int
    tokens_at_once: int  # in one forward pass; halved when the memory is too small
    chunk: int  # positions whose logits are held at a time
    short_window: int  # of the first part of the schedule; 0: all windows are as long as the model has positions
    full_softmax_from: float
    optimizer: str
    lr: float
    dropout: float
    bf16: bool
    compile: bool
    log_every: int


PLANS = {
    "cpu": Plan(4096, 2048, 512, 256, schedule.FULL_SOFTMAX_FROM, "muon", 4e-3, 0.0, False, False, 50),
    "gpu": Plan(65_536, 65_536, 8192, 0, 0.0, "muon", 4e-3, 0.1, True, True, 20),
}


@contextlib.contextmanager
def time_limit(seconds: int):
    """Raises TimeoutError in the block after so many seconds."""
    def stop(*_):
        raise TimeoutError(f"took more than {seconds} s")
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Training:
    """The model, its optimizers, its average, and how far they are."""

    def __init__(self, shape: gpt2.Shape, plan: Plan, mixer: Mixer, limits: schedule.Limits, run: Path, device: str,
                 threads: int):
        self.plan, self.mixer, self.limits, self.run, self.device = plan, mixer, limits, run, device
        self.threads = threads
        self.model = gpt2.Gpt2(shape, plan.dropout).to(device)
        self.average = copy.deepcopy(self.model).eval()
        self.scratch = copy.deepcopy(self.average)  # for evaluation: the compiled model would be compiled again
        self.negatives = losses.Negatives(mixer.stream) if plan.full_softmax_from > 0.0 else None
        self.state = {"step": 0, "tokens": 0, "compute_s": 0.0, "started": STARTED, "averaged": 0, "lr_scale": 1.0}
        if plan.optimizer == "muon" and not hasattr(torch.optim, "Muon"):
            self.plan = plan = plan._replace(optimizer="adamw")
        self.optimizers = optimizers.make(self.model, plan.optimizer)
        self.set_compiled(plan.compile)

    # -- one step

    def set_compiled(self, compiled: bool) -> None:
        """Compiles one block, whose code then serves all of them, and the loss; or goes back to plain PyTorch."""
        self.plan = self.plan._replace(compile=compiled)
        for block in self.model.h:
            block._compiled_call_impl = None
            if compiled:
                block.compile(dynamic=False)
        self.chunk = torch.compile(losses.chunk, dynamic=False) if compiled else losses.chunk

    def length(self, progress: float) -> int:
        positions = self.model.shape.n_positions
        short = min(self.plan.short_window, positions)
        return short if short and progress < schedule.SHORT_UNTIL else positions

    def backward(self, progress: float) -> torch.Tensor:
        """Gradients of one step's batch; returns the mean loss, on the device."""
        length, plan = self.length(progress), self.plan
        rows = max(1, plan.tokens_at_once // length)
        times = max(1, plan.tokens_per_step // (rows * length))
        wte = self.model.wte.weight
        total = torch.zeros((), device=self.device)
        for _ in range(times):
            inputs, targets = self.mixer.batch(length, rows, progress)
            targets = targets.reshape(-1)
            with torch.autocast(self.device, torch.bfloat16, enabled=plan.bf16):
                hidden = self.model(inputs).reshape(-1, wte.shape[1])
                if progress >= plan.full_softmax_from:
                    total += losses.full_backward(hidden, targets, wte, plan.chunk, 1 / times, self.chunk)
                else:
                    loss = losses.sampled(hidden, targets, wte, self.negatives, self.mixer.state["drawn"]) / times
                    loss.backward()
                    total += loss.detach()
            self.state["tokens"] += targets.numel()
        return total

    def update(self, lr: float) -> None:
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def update_average(self) -> None:
        self.state["averaged"] += 1
        weight = schedule.ema_weight(self.state["averaged"])
        torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), weight)

    # -- making sure that it runs

    def settle(self) -> None:
        """Tries one step at each window length, changing nothing, and falls back until it works."""
        seconds = int(min(COMPILE_SECONDS, COMPILE_SHARE * (self.limits.wall_s or math.inf)))
        # The last length first: should the time be cut short, it is the one that matters.
        for progress in sorted({0.0, schedule.SHORT_UNTIL, max(self.plan.full_softmax_from, 0.0)}, reverse=True):
            while True:
                begun = time.time()
                tokens, drawn = self.state["tokens"], copy.deepcopy(self.mixer.state)
                try:
                    with time_limit(max(1, seconds)) if self.plan.compile else contextlib.nullcontext():
                        self.backward(progress)
                        self.update(0.0)
                        self.synchronize()
                    break
                except Exception as error:
                    self.fall_back(error)
                finally:
                    self.zero_grad()
                    self.state["tokens"], self.mixer.state = tokens, drawn
                    self.log(event="tried", length=self.length(progress), seconds=round(time.time() - begun, 1),
                             compiled=self.plan.compile, tokens_at_once=self.plan.tokens_at_once,
                             optimizer=self.plan.optimizer)
        self.optimizers = optimizers.make(self.model, self.plan.optimizer)

    def fall_back(self, error: BaseException) -> None:
        """Goes on with less after an error: smaller batches, no compiled code, AdamW. Raises it if all has been tried."""
        text = f"{type(error).__name__}: {error}"
        plan, smallest = self.plan, self.model.shape.n_positions
        if "out of memory" in text.lower() and plan.tokens_at_once > smallest:
            self.plan = plan._replace(tokens_at_once=max(smallest, plan.tokens_at_once // 2),
                                      chunk=max(256, plan.chunk // 2))
        elif plan.compile:
            self.set_compiled(False)
        elif plan.optimizer == "muon" and self.state["step"] == 0:
            self.plan = plan._replace(optimizer="adamw")
            self.optimizers = optimizers.make(self.model, "adamw")
        else:
            raise error
        if self.device == "cuda":
            torch.cuda.empty_cache()
        self.log(event="fell back", error=text[-600:], compiled=self.plan.compile, optimizer=self.plan.optimizer,
                 tokens_at_once=self.plan.tokens_at_once, chunk=self.plan.chunk)

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    # -- what is kept

    def progress(self) -> float:
        return self.limits.progress(self.state["tokens"], self.state["compute_s"], time.time() - self.state["started"])

    def log(self, **fields) -> None:
        fields = {"step": self.state["step"], "tokens": self.state["tokens"],
                  "wall_s": round(time.time() - self.state["started"], 1), **fields}
        with (self.run / "log.jsonl").open("a") as file:
            file.write(json.dumps(fields) + "\n")
        print(json.dumps(fields), flush=True)

    def everything(self) -> dict:
        return {"model": self.model.state_dict(), "average": self.average.state_dict(), "state": self.state,
                "shape": self.model.shape._asdict(), "dropout": self.plan.dropout, "mixer": self.mixer.state,
                "optimizer": self.plan.optimizer, "optimizers": [each.state_dict() for each in self.optimizers]}

    def restore(self, saved: dict) -> None:
        """Goes back to what `everything` returned, but for the position in the data if that is further."""
        self.model.load_state_dict(saved["model"])
        self.average.load_state_dict(saved["average"])
        self.state = copy.deepcopy(saved["state"])
        if saved["mixer"]["drawn"] > self.mixer.state["drawn"]:
            self.mixer.state = copy.deepcopy(saved["mixer"])
        if saved["optimizer"] == self.plan.optimizer:
            for optimizer, state in zip(self.optimizers, saved["optimizers"]):
                optimizer.load_state_dict(copy.deepcopy(state))

    def save(self) -> None:
        partial = self.run / "checkpoint.partial"
        torch.save(self.everything(), partial)
        os.replace(partial, self.run / "checkpoint.pt")

    def export(self, weights: gpt2.Gpt2, name: str) -> None:
        """Writes the weights in pieces."""
        metadata = {"tokens": str(self.state["tokens"]), "step": str(self.state["step"])}
        files = gpt2.checkpoint_files(weights, weights.state_dict(), metadata)
        files["training.json"] = json.dumps({**self.state, "plan": self.plan._asdict(),
                                             "epochs": self.mixer.report()}).encode()
        written = pieces.split(self.run, name, files)
        self.log(event="exported", name=name, pieces=[piece.name for piece in written])

    def held_out(self, weights: gpt2.Gpt2, parts: list, limit: int | None) -> dict[str, float]:
        """Held-out loss by source; at most `limit` windows."""
        self.scratch.load_state_dict(weights.state_dict())
        found = losses.held_out(self.scratch, parts, min(CONTEXT, self.model.shape.n_positions), limit=limit)
        return {source: round(loss, 4) for source, loss in found.items()}


def report_held_out(training: Training, texts: dict) -> dict[str, dict]:
    """Logs and returns the losses of the averaged and of the current weights on a few windows of each text."""
    quick = {which: {kind: training.held_out(weights, parts, QUICK_WINDOWS)["all"] for kind, parts in texts.items()}
             for which, weights in (("average", training.average), ("current", training.model))}
    training.log(event="held out", windows=QUICK_WINDOWS, **quick)
    return quick


def train(training: Training, texts: dict, pause_file: Path | None, checkpoints: bool, max_steps: int) -> None:
    """Trains until the limit; on the way saves checkpoints, or exports what there is."""
    plan = training.plan
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    training.model.train()
    gathered, evaluation_s = [], 0.0
    saved_at = evaluated_at = training.state["compute_s"]
    exports = [] if checkpoints else list(EXPORT_AT)
    good = copy.deepcopy(training.everything())
    mark = time.time(), training.state["tokens"]

    def check(done: float) -> None:
        """Logs the losses gathered; keeps what there is, or goes back to what was kept if a loss is not finite."""
        nonlocal gathered, good, mark
        if not gathered:
            return
        mean, now = torch.stack(gathered).mean().item(), time.time()
        gathered = []
        training.log(loss=round(mean, 4), progress=round(done, 4), length=training.length(done),
                     lr=training.optimizers[-1].param_groups[0]["lr"],
                     tokens_per_second=round((training.state["tokens"] - mark[1]) / (now - mark[0])),
                     compute_h=round(training.state["compute_s"] / 3600, 4))
        if math.isfinite(mean):
            good = copy.deepcopy(training.everything())
        else:
            training.restore(good)
            training.state["lr_scale"] *= 0.7
            good["state"]["lr_scale"] = training.state["lr_scale"]
            training.log(event="went back", reason=f"the loss became {mean}")
        mark = time.time(), training.state["tokens"]

    while (done := training.progress()) < 1.0 and training.state["step"] < max_steps and not stopped:
        while pause_file and pause_file.exists() and not stopped:
            time.sleep(1.0)
        begun = time.process_time()
        tokens = training.state["tokens"]
        try:
            loss = training.backward(done)
            training.update(schedule.learning_rate(plan.lr, training.state["step"], done) * training.state["lr_scale"])
        except RuntimeError as error:
            training.zero_grad()
            training.state["tokens"] = tokens
            training.fall_back(error)
            continue
        gathered.append(loss)
        training.state["step"] += 1
        if training.state["step"] % EMA_EVERY == 0:
            training.update_average()
        training.state["compute_s"] += (time.process_time() - begun) / training.threads
        if len(gathered) == plan.log_every:
            check(done)
        if exports and done >= exports[0]:
            exports = [at for at in exports if at > done]
            check(done)
            training.export(training.average, f"model-{int(100 * done):03}")
            if evaluation_s < EVALUATION_SHARE * (training.limits.wall_s or math.inf):
                begun = time.time()
                report_held_out(training, texts)
                evaluation_s = time.time() - begun
        if checkpoints and training.state["compute_s"] - saved_at >= CHECKPOINT_SECONDS:
            training.save()
            saved_at = training.state["compute_s"]
        if checkpoints and training.state["compute_s"] - evaluated_at >= EVALUATE_SECONDS:
            report_held_out(training, texts)
            training.log(event="epochs", **training.mixer.report())
            evaluated_at = training.state["compute_s"]
    check(1.0)
    if checkpoints:
        training.save()
    training.log(event="stopped" if stopped else "trained", epochs=training.mixer.report())


def finish(training: Training, texts: dict, deadline: float | None) -> None:
    """Exports the average or the last weights, whichever is better held out, and evaluates it if there is time."""
    training.export(training.average, "model-100-average")
    begun = time.time()
    quick = report_held_out(training, texts)
    seconds = (time.time() - begun) / (2 * QUICK_WINDOWS * len(texts))  # of a window
    best = min(quick, key=lambda which: sum(quick[which].values()))
    weights = {"average": training.average, "current": training.model}[best]
    if best == "current":
        training.export(weights, "model-100-current")
    for number, (kind, parts) in enumerate(texts.items()):
        windows = sum(len(tokens) for _, tokens in parts) // CONTEXT
        limit = None
        if deadline:
            affordable = int((deadline - time.time()) * 0.8 / (len(texts) - number) / seconds)
            limit = None if affordable > windows else max(8, affordable)
        found = training.held_out(weights, parts, limit)
        training.log(event="held-out loss", text=kind, weights=best, windows=limit or windows, of_windows=windows,
                     **found)
    training.log(event="end")


def export_checkpoint(run: Path, folder: Path, tokenizer: Path | None) -> None:
    saved = torch.load(run / "checkpoint.pt", map_location="cpu", weights_only=True)
    weights = gpt2.Gpt2(gpt2.Shape(**saved["shape"]), saved["dropout"])
    metadata = {name: str(saved["state"][name]) for name in ("tokens", "step")}
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in gpt2.checkpoint_files(weights, saved["average"], metadata).items():
        (folder / name).write_bytes(data)
    if tokenizer:
        pieces.copy_tokenizer(tokenizer, folder)
    print(json.dumps(saved["state"]))


def arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens_file", type=Path, metavar="TOKENS")
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--plan", choices=sorted(PLANS), help="defaults to that of the device")
    parser.add_argument("--tokens", type=float, help="tokens of the whole schedule")
    parser.add_argument("--hours", type=float, help="computing time of the whole schedule")
    parser.add_argument("--minutes", type=float, help="wall-clock time of everything, from start to exit")
    parser.add_argument("--reserve", type=float, metavar="SECONDS",
                        help="kept of --minutes for the last evaluation and export [default: 30, at most a tenth]")
    parser.add_argument("--resume", action="store_true", help="go on from RUN_DIR/checkpoint.pt, if there is one")
    parser.add_argument("--export", type=Path, metavar="MODEL_DIR", help="write the checkpoint's averaged weights")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="folder whose tokenizer is copied to MODEL_DIR")
    parser.add_argument("--nice", type=int, default=0, metavar="N", help="lower the priority by N")
    parser.add_argument("--pause-file", type=Path, help="pause while this file exists")
    parser.add_argument("--threads", type=int, default=2, help="on CPU")
    parser.add_argument("--max-steps", type=int, default=1 << 60, help="stop early, for trials")
    parser.add_argument("--init", type=Path, metavar="MODEL_DIR", help="start from these weights")
    for name, kind in gpt2.Shape.__annotations__.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, default=gpt2.Shape._field_defaults[name])
    for name, kind in Plan.__annotations__.items():
        if kind is bool:
            parser.add_argument(f"--{name}", action=argparse.BooleanOptionalAction, default=None)
        else:
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = arguments(argv)
    if args.export:
        return export_checkpoint(args.run, args.export, args.tokenizer)
    if not (args.tokens or args.hours or args.minutes):
        raise SystemExit("error: the schedule has no end\nhint: give --tokens, --hours or --minutes")
    os.nice(args.nice)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # AdamW's averages of rows that are not seen shrink into slow denormals
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(1)
    args.run.mkdir(parents=True, exist_ok=True)
    which = args.plan or ("gpu" if args.device == "cuda" else "cpu")
    options = {name: getattr(args, name) for name in Plan._fields if getattr(args, name) is not None}
    plan = PLANS[which]._replace(**options)
    if args.device == "cuda" and plan.full_softmax_from > 0.0:
        raise SystemExit("error: the sampled softmax is for CPUs\nhint: leave --full-softmax-from at 0")
    shape = gpt2.Shape(*(getattr(args, name) for name in gpt2.Shape._fields))

    wall_s = 60 * args.minutes if args.minutes else None
    reserve = args.reserve if args.reserve is not None else min(30.0, 0.1 * (wall_s or 0.0))
    limits = schedule.Limits(args.tokens, args.hours and 3600 * args.hours, wall_s and wall_s - reserve)
    parts = token_file.read(args.tokens_file)
    texts = evaluate.held_out_texts(parts)
    training = Training(shape, plan, Mixer(parts, args.device), limits, args.run, args.device, args.threads)
    if args.init:
        training.model.load_state_dict(gpt2.load(args.init).state_dict())
        training.average.load_state_dict(training.model.state_dict())
    resumed = args.resume and (args.run / "checkpoint.pt").exists()
    if resumed:
        training.restore(torch.load(args.run / "checkpoint.pt", map_location=args.device, weights_only=True))
    training.log(event="start", resumed=resumed, device=args.device, torch=torch.__version__, threads=args.threads,
                 limits=limits._asdict(), shape=shape._asdict(), parameters=training.model.parameters_exported(),
                 sources=dict(zip(training.mixer.names, training.mixer.sizes)), **plan._asdict())
    training.model.train()
    if not resumed:
        training.settle()
    if which == "cpu":
        return train(training, texts, args.pause_file, checkpoints=True, max_steps=args.max_steps)
    try:
        train(training, texts, args.pause_file, checkpoints=False, max_steps=args.max_steps)
    except Exception as error:  # what was learned until then is worth having
        training.log(event="failed", error=f"{type(error).__name__}: {error}"[-600:])
        training.zero_grad()
    finish(training, texts, wall_s and STARTED + wall_s)


if __name__ == "__main__":
    main()
