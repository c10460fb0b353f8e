"""Losses that look at one document at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch


@register("MSE")
@dataclass(frozen=True)
class MSE(Loss):
    """Mean over all items scored by the teacher of ``(scale * s - t)^2``.

    Only for teachers of the student's own kind: raw scores differ in offset and spread between
    architectures, which is what `MarginMSE` was made for (Hofstaetter et al. 2020).

    Attributes:
        scale: multiplies the student's scores, as a cosine cannot leave [-1, 1].
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        self.check_positive("scale")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"score"})

    def compute(self, batch: ScoreBatch) -> Tensor:
        usable = batch.scored
        if not usable.any():
            return batch.zero()
        assert batch.teacher is not None
        return (self.scale * batch.student[usable] - batch.teacher[usable]).square().mean()
