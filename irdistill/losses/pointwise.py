"""Losses that look at one document at a time."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

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


@register("BCE")
@dataclass(frozen=True)
class BCE(Loss):
    """Binary cross-entropy of ``sigmoid(s / tau)``, mean over items.

    Attributes:
        by: what the target is: ``"label"``, 1 for a relevant item and 0 for any other; or
            ``"teacher"``, the soft target ``sigmoid(t / teacher_tau)`` of a teacher's raw logit.
            Items without a teacher score are left out then.
        tau, teacher_tau: divide the scores of student and teacher.
    """

    by: str = "label"
    tau: float = 1.0
    teacher_tau: float = 1.0

    def __post_init__(self) -> None:
        self.check_choice("by", ("label", "teacher"))
        self.check_positive("tau", "teacher_tau")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"label"} if self.by == "label" else {"score"})

    def compute(self, batch: ScoreBatch) -> Tensor:
        if self.by == "label":
            values, usable = batch.relevant.to(batch.student.dtype), batch.valid & ~batch.suspected
        else:
            values, usable = batch.targets("teacher")
            values = (values / self.teacher_tau).sigmoid()
        if not usable.any():
            return batch.zero()
        return F.binary_cross_entropy_with_logits(batch.student[usable] / self.tau, values[usable])
