"""Contrastive partial ranking distillation."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.contrastive import batch_negatives
from irdistill.losses.listwise import likelihood_of_order

_RULE = re.compile(r"\s*(gap|score|prob|top)\s*(>=|>|<=|<)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*")
_FORMS = '"all", "gap>2", "score>0", "prob>0.01" or "top<=5"'


@register("CPRD")
@dataclass(frozen=True)
class CPRD(Loss):
    """``-1/V sum_{j <= V} log [ e^{s_j/tau} / (sum_{k >= j} e^{s_k/tau} + sum_batch e^{s_b/tau})
    ]``, items in the teacher's order.

    Contrastive partial ranking distillation (Chen et al., CVPR 2024, arXiv 2407.07479), for text. A
    cross-encoder's order among hard negatives is worth learning, its numbers are not, and the order
    among easy ones is noise: so the list is the teacher's, cut behind its last *valid* item, and
    what follows stands in the denominators alone. Each term has the form of InfoNCE with item j as
    the positive.

    What is ours: the paper's validity rule could not be read, so several are offered; the relevant
        document may be put first;
    the other lists' documents stand in every denominator (the paper adds a contrastive loss beside
    it); the value is divided by the number of valid items. Tied items stand in each other's
    denominators. Mean over the lists with at least one term. With ``valid="all"``,
    ``negatives="list"`` and ``positive=False`` it is `ListMLE`; with two items, the positive first,
    it is `InfoNCE` on the list. Any map of the teacher's scores that keeps their order and the
    valid items changes nothing. O(N log N).

    Attributes:
        tau: divides the student's scores.
        valid: which items are valid: ``"all"``; ``"gap>2"``, those more than 2 above the list's
            last; ``"score>0"``, above a score; ``"prob>0.01"``, of more than this share of the
            softmax of ``t / teacher_tau``; ``"top<=5"``, the first five.
        positive: put the items labelled relevant first, scored or not; they are always valid.
        negatives: ``"all"`` adds the other lists' documents to every denominator, ``"list"`` does
            not.
        teacher_tau: divides the teacher's scores for ``prob``.
    """

    tau: float = 0.05
    valid: str = "all"
    positive: bool = True
    negatives: str = "all"
    teacher_tau: float = 1.0

    def __post_init__(self) -> None:
        self.check_positive("tau", "teacher_tau")
        self.check_choice("negatives", ("all", "list"))
        if not isinstance(self.positive, bool):
            raise IrdistillError(
                f"CPRD(positive={self.positive!r}): positive must be True or False."
            )
        if self.valid != "all":
            found = _RULE.fullmatch(str(self.valid))
            if found is None or (found[1] == "top") != (found[2][0] == "<"):
                raise IrdistillError(
                    f"CPRD(valid={self.valid!r}): valid must be written as {_FORMS}."
                )

    @property
    def needs(self) -> frozenset[str]:
        numbers = self.valid != "all" and not self.valid.lstrip().startswith("top")
        return frozenset(
            {"score" if numbers else "order"} | ({"label"} if self.positive else set())
        )

    @property
    def uses_in_batch(self) -> bool:
        return self.negatives == "all"

    def compute(self, batch: ScoreBatch) -> Tensor:
        teacher, scored = batch.targets("teacher")
        relevant = batch.relevant if self.positive else torch.zeros_like(scored)
        if self.positive:  # which would stand above a document suspected to be as relevant
            scored = scored & ~batch.suspected
        usable = scored | relevant
        others = self._others(batch)
        rows = usable.sum(dim=1) >= (1 if others is not None else 2)
        if others is not None:
            rows = rows & ((usable.sum(dim=1) >= 2) | (others > torch.finfo(others.dtype).min))
        if not rows.any():
            return batch.zero()
        good = self._valid(teacher, scored) | relevant
        order, begins = _relevant_first(teacher[rows], scored[rows], relevant[rows])
        found = likelihood_of_order(
            batch.student[rows] / self.tau,
            order,
            begins,
            usable[rows],
            None if others is None else others[rows],
        )
        counted = good[rows].gather(1, found.order) & found.usable
        terms = counted.sum(dim=1)
        if others is None:
            terms = terms.minimum(
                found.usable.sum(dim=1) - 1
            )  # the last of a list has nothing below it
        sums = found.losses.masked_fill(~counted, 0.0).sum(dim=1)
        there = terms > 0
        return (sums[there] / terms[there]).mean() if there.any() else batch.zero()

    def _others(self, batch: ScoreBatch) -> Tensor | None:
        """(B,) log-sum-exp of the other lists' scores; the lowest number where a query has none."""
        if self.negatives == "list" or batch.in_batch is None:
            return None
        return batch_negatives(batch, self.tau)

    def _valid(self, teacher: Tensor, scored: Tensor) -> Tensor:
        """(B, N) bool."""
        if self.valid == "all":
            return scored
        found = _RULE.fullmatch(self.valid)
        assert found is not None
        kind, sign, limit = found[1], found[2], float(found[3])
        if kind == "top":
            limit = math.ceil(limit) - 1 if sign == "<" else math.floor(limit)
            keys = teacher.masked_fill(~scored, -torch.inf)
            # fewer than ``limit`` items stand above one that scores at least as much as the item at
            # that place
            place = min(int(limit), keys.shape[1])
            return (
                scored & (keys >= keys.topk(place, dim=1).values[:, -1:])
                if place > 0
                else torch.zeros_like(scored)
            )
        if kind == "gap":
            values = teacher - teacher.masked_fill(~scored, torch.inf).amin(dim=1, keepdim=True)
        elif kind == "prob":
            values = (
                (teacher / self.teacher_tau)
                .masked_fill(~scored, torch.finfo(teacher.dtype).min)
                .softmax(dim=1)
            )
        else:
            values = teacher
        return scored & (values > limit if sign == ">" else values >= limit)


def _relevant_first(teacher: Tensor, scored: Tensor, relevant: Tensor) -> tuple[Tensor, Tensor]:
    """(B, N) items by the teacher's scores, the relevant ones before all others; and whether each
    position begins a tie.

    Unscored items come last, of the relevant and of the others, and tie.
    """
    values, order = teacher.masked_fill(~scored, -torch.inf).sort(
        dim=1, descending=True, stable=True
    )
    first = relevant.gather(1, order)
    # the second sort that this saves took a third of the loss's time
    ahead = first.cumsum(dim=1)
    places = torch.where(first, ahead, ahead[:, -1:] + (~first).cumsum(dim=1)) - 1
    order, values = (
        torch.empty_like(found).scatter_(1, places, found) for found in (order, values)
    )
    first = torch.arange(order.shape[1], device=order.device) < ahead[:, -1:]
    begins = torch.ones_like(relevant)
    begins[:, 1:] = (values[:, 1:] != values[:, :-1]) | (first[:, 1:] != first[:, :-1])
    return order, begins
