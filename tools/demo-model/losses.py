"""Cross-entropy over GPT-2's vocabulary without holding all logits: sampled, exact in chunks, and held out."""
import torch
import torch.nn.functional as F

from token_file import VOCABULARY

NEGATIVES = 3072


class Negatives:
    """Draws negatives for the sampled softmax from the unigram distribution raised to 3/4."""

    def __init__(self, stream: torch.Tensor):
        counts = torch.bincount(stream.cpu(), minlength=VOCABULARY).double() + 1.0
        self.unigram = counts / counts.sum()
        self.drawn = counts**0.75 / (counts**0.75).sum()
        self.cumulative = self.drawn.cumsum(0)

    def candidates(self, targets: torch.Tensor, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids of the targets and of NEGATIVES draws, and each id's log-probability of being among them."""
        points = torch.rand(NEGATIVES, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        drawn = torch.searchsorted(self.cumulative, points).clamp_(max=VOCABULARY - 1)
        ids = torch.unique(torch.cat([targets, drawn]))
        missed = targets.numel() * torch.log1p(-self.unigram[ids]) + NEGATIVES * torch.log1p(-self.drawn[ids])
        return ids, torch.log(-torch.expm1(missed)).float()


def sampled(hidden, targets, wte, negatives: Negatives, step: int) -> torch.Tensor:
    """Cross-entropy whose denominator is estimated: each candidate is weighted by 1 / P(it is a candidate)."""
    ids, log_inclusion = negatives.candidates(targets, step)
    column = torch.searchsorted(ids, targets).unsqueeze(1)
    logits = F.linear(hidden, wte[ids]).float() - log_inclusion
    # A row's own target is a candidate for certain, so its weight is 1.
    logits = logits.scatter_add(1, column, log_inclusion[column])
    return F.cross_entropy(logits, column.squeeze(1))


def chunk(hidden, targets, wte) -> torch.Tensor:
    """The summed cross-entropy of a few positions: hidden (N, C), targets (N)."""
    return F.cross_entropy(F.linear(hidden, wte).float(), targets, reduction="sum")


def full_backward(hidden, targets, wte, rows: int, scale: float = 1.0, chunk=chunk) -> torch.Tensor:
    """Exact mean cross-entropy times `scale`, and its backward pass, `rows` positions at a time to bound the memory."""
    leaf = hidden.detach().requires_grad_()
    total = torch.zeros((), device=hidden.device)
    for part, wanted in zip(leaf.split(rows), targets.split(rows)):
        loss = chunk(part, wanted, wte) * (scale / targets.numel())
        loss.backward()
        total += loss.detach()
    hidden.backward(leaf.grad)
    return total


@torch.no_grad()
def held_out(model, parts, length: int, rows: int = 16, limit: int | None = None) -> dict[str, float]:
    """Nats per token by source and of all, full softmax in f32, windows of `length` that do not overlap.

    `parts` are the (source, tokens) of one held-out text, in its order. `limit` takes the first so many windows only,
    at even distances.
    """
    device = model.wte.weight.device
    tokens = torch.cat([torch.from_numpy(part.astype("int64")) for _, part in parts])
    source = torch.cat([torch.full((len(part),), number) for number, (_, part) in enumerate(parts)])
    starts = torch.arange(0, len(tokens) - length, length)
    if limit and limit < len(starts):
        starts = starts[torch.arange(limit) * len(starts) // limit]
    elif not limit:  # what is left at the end is a window as well, shifted back over tokens that do not count twice
        last = len(tokens) - length - 1
        if starts.numel() and last > int(starts[-1]):
            starts = torch.cat([starts, torch.tensor([last])])
    counted = torch.zeros(len(tokens), dtype=torch.bool)
    sums, counts = torch.zeros(len(parts), dtype=torch.float64), torch.zeros(len(parts), dtype=torch.float64)
    wte = model.wte.weight[:VOCABULARY]
    for group in starts.split(rows):
        places = group.unsqueeze(1) + torch.arange(length + 1)  # (B, T + 1)
        window = tokens[places].to(device)
        hidden = model(window[:, :-1])
        for row, place in zip(range(len(group)), places):
            logits = F.linear(hidden[row].float(), wte.float())
            losses = F.cross_entropy(logits, window[row, 1:], reduction="none").double().cpu()
            new = ~counted[place[1:]]
            counted[place[1:]] = True
            sums.index_add_(0, source[place[1:]][new], losses[new])
            counts.index_add_(0, source[place[1:]][new], torch.ones(int(new.sum()), dtype=torch.float64))
    if not counts.sum():
        raise SystemExit(f"error: the held-out text is shorter than a window of {length} tokens")
    by_source = {name: float(s / n) for (name, _), s, n in zip(parts, sums, counts) if n}
    return {**by_source, "all": float(sums.sum() / counts.sum())}
