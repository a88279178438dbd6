"""AdamW for everything, or Muon for the blocks' matrices and AdamW for the rest."""
import torch

WEIGHT_DECAY = 0.1  # on the blocks' matrices only


def make(model, kind: str) -> list[torch.optim.Optimizer]:
    """The optimizers of a model; `kind` is "adamw" or "muon". Learning rates are set before each step."""
    matrices = [p for name, p in model.named_parameters() if name.startswith("h.") and p.dim() == 2]
    others = [p for name, p in model.named_parameters() if not (name.startswith("h.") and p.dim() == 2)]
    adamw = {"lr": 0.0, "betas": (0.9, 0.95), "fused": True}
    if kind == "adamw":
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        return [torch.optim.AdamW(groups, **adamw)]
    # Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/), as PyTorch has it since 2.9. Updates are scaled
    # to the size of AdamW's (https://arxiv.org/abs/2502.16982), so that one learning rate serves both.
    muon = torch.optim.Muon(matrices, lr=0.0, weight_decay=WEIGHT_DECAY, momentum=0.95, nesterov=True,
                            adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, weight_decay=0.0, **adamw)]
