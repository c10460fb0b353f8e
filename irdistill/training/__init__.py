"""Training: lists drawn from runs, and the loop that distills them into a student."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_MODULES = {
    "AlignOptions": "irdistill.training.align_options",
    "ListSampler": "irdistill.training.data.list_sampler",
    "PretrainOptions": "irdistill.training.pretraining_options",
    "TrainOptions": "irdistill.training.options",
    "align": "irdistill.training.aligning",
    "pretrain": "irdistill.training.pretraining",
    "train": "irdistill.training.trainer",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
