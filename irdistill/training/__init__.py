"""Training: lists drawn from runs, and the loop that distils them into a student."""

from __future__ import annotations

from typing import Any

__all__ = ["ListSampler", "TrainOptions", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":
        from irdistill.training.trainer import train

        return train
    if name == "TrainOptions":
        from irdistill.training.options import TrainOptions

        return TrainOptions
    if name == "ListSampler":
        from irdistill.training.data.list_sampler import ListSampler

        return ListSampler
    raise AttributeError(f"module 'irdistill.training' has no attribute {name!r}")
