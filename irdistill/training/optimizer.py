"""AdamW with parameter groups, and the seeds of a step."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
from torch import nn

_NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(?:^|\.)norm(?:$|\.)|_norm(?:$|\.)")


def step_seed(seed: int, step: int) -> int:
    """The random seed of a step, so that no state of a generator has to be saved."""
    return (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**63


def make_optimizer(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.0,
    special: Sequence[tuple[Iterable[nn.Parameter], float | None, bool]] = (),
) -> torch.optim.AdamW:
    """AdamW over the parameters that are not frozen.

    Biases and the weights of normalization layers have no weight decay. Each group keeps its peak
    learning rate as ``initial_lr``, see `set_learning_rate`.

    Args:
        special: parameters with another learning rate (None leaves them where they are), and
            whether they have weight decay.
    """
    norms = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.LayerNorm)
        for parameter in module.parameters()
    }
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            exempt = id(parameter) in norms or _NO_DECAY.search(name.lower())
            (others if exempt else decayed).append(parameter)
    groups = [(decayed, learning_rate, weight_decay), (others, learning_rate, 0.0)]
    for parameters, rate, decays in special:
        if rate is None:
            continue
        moved = {id(parameter) for parameter in parameters}
        for i, (members, group_rate, decay) in enumerate(list(groups)):
            groups[i] = [p for p in members if id(p) not in moved], group_rate, decay
            if chosen := [p for p in members if id(p) in moved]:
                groups.append((chosen, rate, decay if decays else 0.0))
    return torch.optim.AdamW(
        [
            {"params": members, "lr": rate, "initial_lr": rate, "weight_decay": decay}
            for members, rate, decay in groups
        ],
        lr=learning_rate,
        fused=torch.__version__ >= (2, 8),  # type: ignore[operator]
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, share: float) -> float:
    """Set all groups to a share of their peak; returns the rate of the first group."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * share
    return float(optimizer.param_groups[0]["lr"])
