"""Losses that look at a whole list."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch


@register("KL")
@dataclass(frozen=True)
class KL(Loss):
    """``KL(P_T || P_S)`` with ``P_T = softmax(t / teacher_tau)`` and ``P_S = softmax(s / tau)`` over a list.

    Items without a teacher score are left out of both distributions. The mean goes over the lists with at
    least two usable items; a list with fewer says nothing (its softmax is constant) and is not counted. The
    value is not multiplied by ``tau^2`` (sentence-transformers' ``DistillKLDivLoss`` does so).

    Attributes:
        tau: divides the student's scores; about 0.05 for a cosine student, 1 for a dot product.
        teacher_tau: divides the teacher's scores.
    """

    tau: float = 1.0
    teacher_tau: float = 1.0

    def __post_init__(self) -> None:
        self.check_positive("tau", "teacher_tau")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"score"})

    def compute(self, batch: ScoreBatch) -> Tensor:
        usable = batch.scored
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        assert batch.teacher is not None
        out = ~usable[rows]
        teacher = (batch.teacher[rows] / self.teacher_tau).masked_fill(out, -torch.inf).log_softmax(dim=1)
        student = (batch.student[rows] / self.tau).masked_fill(out, -torch.inf).log_softmax(dim=1)
        terms = teacher.exp() * (teacher.masked_fill(out, 0.0) - student.masked_fill(out, 0.0))
        return terms.sum(dim=1).mean()
