"""How far the training is, and what follows from it: learning rate, window length, weight averaging."""
from typing import NamedTuple

WARMUP_STEPS = 150
DECAY_FROM = 0.40  # progress at which the learning rate begins to fall, linearly to zero
SHORT_UNTIL = 0.70  # progress until which the CPU trains on short windows
FULL_SOFTMAX_FROM = 0.90
# The average at step t gives step s a weight in proportion to (s/t)**EMA_POWER, whatever the number of steps turns out
# to be: about the last 1/EMA_POWER of the training counts. (Karras et al. 2024, https://arxiv.org/abs/2312.02696)
EMA_POWER = 30


class Limits(NamedTuple):
    """When the training ends; the limit that is nearest to being reached counts."""
    tokens: float | None = None
    compute_s: float | None = None
    wall_s: float | None = None

    def progress(self, tokens: int, compute_s: float, wall_s: float) -> float:
        """From 0 to 1."""
        spent = (tokens, self.tokens), (compute_s, self.compute_s), (wall_s, self.wall_s)
        return min(1.0, max(have / limit for have, limit in spent if limit))


def learning_rate(peak: float, step: int, progress: float) -> float:
    return peak * min(1.0, (step + 1) / WARMUP_STEPS, (1.0 - progress) / (1.0 - DECAY_FROM))


def ema_weight(update: int) -> float:
    """How much of the current weights goes into the average at its `update`th update, from 1."""
    return 1.0 - (1.0 - 1.0 / update) ** (EMA_POWER + 1)
