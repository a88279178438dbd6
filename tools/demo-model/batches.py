"""Draws training windows from the sources in the shares that hold at each moment. Same state, same windows."""
import numpy as np
import torch

import sources
from token_file import TRAINING, Part, documents

SEED = 1


class Mixer:
    """All training tokens, by source, and how far each source was read. `state` is all that resuming needs."""

    def __init__(self, parts: list[Part], device: str):
        training = [part for part in parts if part.kind == TRAINING]
        self.names = [part.source for part in training]
        shuffled = []
        for number, part in enumerate(training):
            found = documents(part.tokens)
            order = np.random.default_rng([SEED, number]).permutation(len(found))
            shuffled.append(np.concatenate([found[i] for i in order]))
        self.sizes = [len(tokens) for tokens in shuffled]
        self.offsets = np.cumsum([0, *self.sizes])
        # 32 bits because PyTorch indexes few tensors of unsigned 16.
        self.stream = torch.from_numpy(np.concatenate(shuffled).astype(np.int32)).to(device)
        self.state = {"drawn": 0, "tokens": [0] * len(training), "windows": {}}
        self.orders = {}  # (length, source) -> (epoch, order of its windows)

    def epochs(self) -> list[float]:
        return [seen / size for seen, size in zip(self.state["tokens"], self.sizes)]

    def report(self) -> dict[str, float]:
        return {name: round(epochs, 2) for name, epochs in zip(self.names, self.epochs())}

    def start(self, source: int, length: int) -> int:
        """Where the next window of a source begins: shuffled epochs of windows, each at a random shift."""
        windows = (self.sizes[source] - length - 1) // length
        if windows < 1:
            raise SystemExit(f"error: {self.names[source]} is shorter than two windows of {length} tokens")
        counts = self.state["windows"].setdefault(length, [0] * len(self.names))
        epoch, index = divmod(counts[source], windows)
        counts[source] += 1
        self.state["tokens"][source] += length
        if self.orders.get((length, source), (None,))[0] != epoch:
            generator = np.random.default_rng([SEED, length, source, epoch])
            self.orders[length, source] = epoch, int(generator.integers(length)), generator.permutation(windows)
        _, shift, order = self.orders[length, source]
        return int(self.offsets[source]) + shift + int(order[index]) * length

    def batch(self, length: int, rows: int, progress: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs (B, T) and targets (B, T)."""
        generator = np.random.default_rng([SEED, self.state["drawn"]])
        self.state["drawn"] += 1
        shares = sources.shares(self.names, progress, self.epochs())
        picked = generator.choice(len(shares), size=rows, p=shares)
        device = self.stream.device
        starts = torch.tensor([self.start(int(source), length) for source in picked]).to(device)
        places = starts.unsqueeze(1) + torch.arange(length + 1, device=device)  # (B, T + 1)
        tokens = self.stream[places].long()
        return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()
