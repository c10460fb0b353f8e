"""Losses that look at a whole list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from irdistill.losses.base import Loss, needs_of_order, register
from irdistill.losses.batch import ScoreBatch


@register("KL")
@dataclass(frozen=True)
class KL(Loss):
    """``KL(P_T || P_S)`` with ``P_T = softmax(t / teacher_tau)`` and ``P_S = softmax(s / tau)``
    over a list.

    Items without a teacher score are left out of both distributions. The mean goes over the lists
    with at least two usable items; a list with fewer says nothing (its softmax is constant) and is
    not counted. The value is not multiplied by ``tau^2`` (sentence-transformers'
    ``DistillKLDivLoss`` does so).

    Attributes:
        tau: divides the student's scores; about 0.05 for a cosine student, 1 for a dot product.
        teacher_tau: divides the teacher's scores.
        top: only the teacher's first so many items of a list, and those labelled relevant, are in
            the distributions: the dense part of what the teacher says. All where None.
    """

    tau: float = 1.0
    teacher_tau: float = 1.0
    top: int | None = None

    def __post_init__(self) -> None:
        self.check_positive("tau", "teacher_tau")
        self.check_whole("top", 2, optional=True)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"score"})

    def compute(self, batch: ScoreBatch) -> Tensor:
        usable = batch.scored if self.top is None else _top(batch, self.top)
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        assert batch.teacher is not None
        out = ~usable[rows]
        teacher = (
            (batch.teacher[rows] / self.teacher_tau).masked_fill(out, -torch.inf).log_softmax(dim=1)
        )
        student = (batch.student[rows] / self.tau).masked_fill(out, -torch.inf).log_softmax(dim=1)
        terms = teacher.exp() * (teacher.masked_fill(out, 0.0) - student.masked_fill(out, 0.0))
        return terms.sum(dim=1).mean()


def _top(batch: ScoreBatch, depth: int) -> Tensor:
    """(B, N) bool: scored, and among the teacher's first ``depth`` of the list or labelled
    relevant.
    """
    assert batch.teacher is not None
    usable = batch.scored
    order = batch.teacher.masked_fill(~usable, -torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    first = torch.zeros_like(usable).scatter(1, order[:, :depth], True)
    return usable & (first if batch.labels is None else first | (batch.labels > 0))


@register("ListNet")
@dataclass(frozen=True)
class ListNet(Loss):
    """Cross-entropy of ``softmax(s / tau)`` against ``softmax(t / teacher_tau)`` (Cao et al., ICML
    2007, top one).

    It is `KL` plus the teacher's entropy, and so has KL's gradient; its value is 0 for no student.

    Attributes:
        tau, teacher_tau: divide the scores of student and teacher.
        by: the ``"teacher"``'s scores as targets, or the ``"label"``s.
    """

    tau: float = 1.0
    teacher_tau: float = 1.0
    by: str = "teacher"

    def __post_init__(self) -> None:
        self.check_positive("tau", "teacher_tau")
        self.check_choice("by", ("teacher", "label"))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"score"} if self.by == "teacher" else {"label"})

    def compute(self, batch: ScoreBatch) -> Tensor:
        values, usable = batch.targets(self.by)
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        out = ~usable[rows]
        target = (values[rows] / self.teacher_tau).masked_fill(out, -torch.inf).softmax(dim=1)
        student = (batch.student[rows] / self.tau).masked_fill(out, -torch.inf).log_softmax(dim=1)
        return -(target * student.masked_fill(out, 0.0)).sum(dim=1).mean()


@register("ListMLE")
@dataclass(frozen=True)
class ListMLE(Loss):
    """Plackett-Luce likelihood of an order: ``-sum_j log softmax_{k >= j}(s_k / tau)`` (Xia et al.,
    ICML 2008).

    Tied items stand in each other's denominators, so that the value does not depend on how ties
    were ordered (Breslow's likelihood); without ties it is the paper's. Divided by n - 1, as the
    last of n items has nothing below it; mean over the lists with at least two items. O(N log N).

    Attributes:
        tau: divides the student's scores.
        by: whose order: the ``"teacher"``'s, or the ``"label"``s'.
    """

    tau: float = 1.0
    by: str = "teacher"

    def __post_init__(self) -> None:
        self.check_positive("tau")
        self.check_choice("by", ("teacher", "label"))

    @property
    def needs(self) -> frozenset[str]:
        return needs_of_order(self.by)

    def compute(self, batch: ScoreBatch) -> Tensor:
        values, usable = batch.targets(self.by)
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        ordered = plackett_luce(batch.student[rows] / self.tau, values[rows], usable[rows])
        return (ordered.losses.sum(dim=1) / (ordered.usable.sum(dim=1) - 1)).mean()


class Ordered(NamedTuple):
    """Lists in the order of their targets.

    Attributes:
        losses: (B, N) each position's ``-log softmax`` over itself, what ties with it and what
            stands below it; 0 where nothing is usable.
        order: (B, N) the items at the positions; usable ones first.
        usable: (B, N) bool, by position.
    """

    losses: Tensor
    order: Tensor
    usable: Tensor


def plackett_luce(scores: Tensor, targets: Tensor, usable: Tensor) -> Ordered:
    """The terms of the Plackett-Luce likelihood of lists.

    Args:
        scores: (B, N) of the student, divided by their temperature.
        targets: (B, N), the highest first.
        usable: (B, N) bool, at least one a list.
    """
    own, order = targets.masked_fill(~usable, -torch.inf).sort(dim=1, descending=True, stable=True)
    begins = torch.ones_like(usable)
    begins[:, 1:] = own[:, 1:] != own[:, :-1]
    return likelihood_of_order(scores, order, begins, usable)


def likelihood_of_order(
    scores: Tensor, order: Tensor, begins: Tensor, usable: Tensor, others: Tensor | None = None
) -> Ordered:
    """As `plackett_luce`, of lists whose order is known.

    Args:
        order: (B, N) the items at the positions; usable ones first.
        begins: (B, N) bool, by position: it does not tie with the one above it. The first of a list
            begins.
        others: (B,) log-sum-exp of scores that stand in every denominator.
    """
    there = usable.gather(1, order)
    ranked = scores.masked_fill(~usable, torch.finfo(scores.dtype).min).gather(1, order)
    below = ranked.flip(1).logcumsumexp(dim=1).flip(1)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    # a tie's denominator is that of its first item
    below = below.gather(1, places.masked_fill(~begins, 0).cummax(dim=1).values)
    if others is not None:
        below = torch.logaddexp(below, others[:, None])
    return Ordered((below - ranked).masked_fill(~there, 0.0), order, there)
