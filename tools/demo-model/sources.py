"""What is trained on and when: one row per file of the corpus. Nothing else in these tools names a source's weight."""

# The schedule's progress at which a phase ends. Modern, simple prose is all of the last phase.
PHASE_ENDS = (0.50, 0.67, 1.0)

# Weights of a phase need not add up to anything. The order is that of keeping when a size limit leaves no room for all.
WEIGHTS = {
    "tinystories_cdla": (8, 12, 22),
    "childrens_ccby": (5, 7, 12),
    "modern_open": (12, 16, 24),
    "usgov_cc0": (11, 14, 18),
    "usgov_science_pd": (6, 8, 10),
    "opensource_guides_ccby": (0.5, 0.5, 1),
    "countries_pd": (0.5, 1, 1.5),
    "arxiv_cc0": (8, 10, 11),
    "fairytaleqa_pd": (6, 7, 0),
    "children_classics_pd": (23, 24, 0),
    "classics_pd": (9, 0, 0),
    "standardebooks_pd": (11, 0, 0),
}

# A source that was seen more often than this weighs less, in inverse proportion to how often. Four times are about as
# good as new text, many more teach a small file by heart (https://arxiv.org/abs/2305.16264). So the table serves a short
# run and a long one, in which the large sources make up for the small ones.
FULL_WEIGHT_EPOCHS = 4

# The held-out files and how many documents of each source they hold, in their order.
HELD_OUT = {
    "heldout": (
        ("openstax_ccby", 37), ("biology_ccby", 2), ("childrens_ccby", 12), ("standardebooks_pd", 26),
        ("fairytaleqa_pd", 7), ("classics_pd", 12), ("standardebooks_us_pd", 6), ("usgov_cc0", 36),
        ("medquad_ccby", 17),
    ),
    "heldout_modern": (
        ("arxiv_cc0", 123), ("children_classics_pd", 78), ("countries_pd", 2), ("modern_open", 19),
        ("tinystories_cdla", 36), ("usgov_science_pd", 8),
    ),
}


def phase(progress: float) -> int:
    """The column of `WEIGHTS` that holds at this progress of the schedule."""
    return next((i for i, end in enumerate(PHASE_ENDS) if progress < end), len(PHASE_ENDS) - 1)


def shares(names: list[str], progress: float, epochs: list[float]) -> list[float]:
    """Each source's share of the batches, given how often it was seen; 1 in sum."""
    column = phase(progress)
    weights = [WEIGHTS[name][column] / max(1.0, seen / FULL_WEIGHT_EPOCHS) for name, seen in zip(names, epochs)]
    if not any(weights):
        raise SystemExit(f"error: none of {names} has a weight at progress {progress:.2f}")
    return [weight / sum(weights) for weight in weights]
