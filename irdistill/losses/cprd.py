"""Contrastive partial ranking distillation."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import torch
from torch import Tensor

from irdistill.errors import OptionError
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.contrastive import batch_negatives
from irdistill.losses.listwise import likelihood_of_order
from irdistill.losses.loss_base import Loss, register
from irdistill.losses.parameter_checks import Positive

_RULE = re.compile(r"\s*(gap|score|prob|top)\s*(>=|>|<=|<)\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*")
_FORMS = '"all", "gap>2", "score>0", "prob>0.01" or "top<=5"'


def _cprd_needs(loss: Any) -> set[str]:
    uses_numbers = loss.valid != "all" and not loss.valid.lstrip().startswith("top")
    return {"score" if uses_numbers else "order"} | ({"label"} if loss.positive else set())


@register("CPRD", needs=_cprd_needs, in_batch=lambda loss: loss.negatives == "all")
class CPRD(Loss):
    """Mean over valid j of ``-log(e^{s_j/tau} / (sum_{k>=j} e^{s_k/tau} + sum_batch e^{s/tau}))``.

    Contrastive partial ranking distillation (Chen et al., CVPR 2024, arXiv 2407.07479), for text.
    Items are in the teacher's order. A cross-encoder's order among hard negatives is worth
    learning, its numbers are not, and its order among easy negatives is noise: so the list is cut
    after its last *valid* item, and what follows is in the denominators only. Each term has the
    form of InfoNCE with item j as the positive.

    Differences from the paper: its validity rule was not available, so several are offered; the
    relevant document can be put first; the other lists' documents are in every denominator (the
    paper adds a contrastive loss); the value is divided by the number of valid items. Tied items
    are in each other's denominators. With ``valid="all"``, ``negatives="list"`` and
    ``positive=False`` it is `ListMLE`; with two items, the positive first, it is `InfoNCE` on the
    list. A map of the teacher's scores that keeps their order and the valid items changes nothing.
    O(N log N).

    Attributes:
        tau: divides the student's scores.
        valid: which items are valid. ``"all"``; ``"gap>2"``: more than 2 above the list's last;
            ``"score>0"``: above a score; ``"prob>0.01"``: more than this share of the softmax of
            ``t / teacher_tau``; ``"top<=5"``: the first five.
        positive: put items labeled relevant first, scored or not; they are always valid.
        negatives: ``"all"`` adds the other lists' documents to every denominator, ``"list"`` does
            not.
        teacher_tau: divides the teacher's scores for ``prob``.
    """

    tau: Positive = 0.05
    valid: str = "all"
    positive: bool = True
    negatives: Literal["all", "list"] = "all"
    teacher_tau: Positive = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.valid != "all":
            rule = _RULE.fullmatch(self.valid)
            if rule is None or (rule[1] == "top") != (rule[2][0] == "<"):
                raise OptionError(f"CPRD(valid={self.valid!r}): valid must be written as {_FORMS}.")

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the lists with at least one term."""
        teacher, scored = batch.targets("teacher")
        relevant = batch.relevant if self.positive else torch.zeros_like(scored)
        if self.positive:  # do not rank it above a document that is suspected to be relevant
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
        ranked = likelihood_of_order(
            batch.student[rows] / self.tau,
            order,
            begins,
            usable[rows],
            None if others is None else others[rows],
        )
        counted = good[rows].gather(1, ranked.order) & ranked.usable
        terms = counted.sum(dim=1)
        if others is None:
            terms = terms.minimum(
                ranked.usable.sum(dim=1) - 1
            )  # the last of a list has nothing below it
        sums = ranked.losses.masked_fill(~counted, 0.0).sum(dim=1)
        counts = terms > 0
        return (sums[counts] / terms[counts]).mean() if counts.any() else batch.zero()

    def _others(self, batch: ScoreBatch) -> Tensor | None:
        """(B,) log-sum-exp of the other lists' scores; the lowest number where there are none."""
        if self.negatives == "list" or batch.in_batch is None:
            return None
        return batch_negatives(batch, self.tau)

    def _valid(self, teacher: Tensor, scored: Tensor) -> Tensor:
        """(B, N) bool: which scored items are valid."""
        if self.valid == "all":
            return scored
        rule = _RULE.fullmatch(self.valid)
        assert rule is not None
        kind, sign, limit = rule[1], rule[2], float(rule[3])
        if kind == "top":
            limit = math.ceil(limit) - 1 if sign == "<" else math.floor(limit)
            keys = teacher.masked_fill(~scored, -torch.inf)
            # an item that scores at least as much as the one at rank `limit` is valid
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
    """(B, N) items by teacher score, relevant ones first, and whether each position begins a tie.

    Unscored items come last among the relevant and among the others, and are tied.
    """
    values, order = teacher.masked_fill(~scored, -torch.inf).sort(
        dim=1, descending=True, stable=True
    )
    first = relevant.gather(1, order)
    # cumulative sums in place of a second sort, which took a third of the loss's time
    ahead = first.cumsum(dim=1)
    places = torch.where(first, ahead, ahead[:, -1:] + (~first).cumsum(dim=1)) - 1
    order, values = (
        torch.empty_like(moved).scatter_(1, places, moved) for moved in (order, values)
    )
    first = torch.arange(order.shape[1], device=order.device) < ahead[:, -1:]
    begins = torch.ones_like(relevant)
    begins[:, 1:] = (values[:, 1:] != values[:, :-1]) | (first[:, 1:] != first[:, :-1])
    return order, begins
