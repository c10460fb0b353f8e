"""Losses that look at a whole list."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.loss_base import ListDocuments, Loss, order_needs, register
from irdistill.losses.parameter_checks import AtLeast, Positive


def masked_divergence(teacher: Tensor, student: Tensor, usable: Tensor) -> Tensor:
    """Mean over rows of ``KL(softmax(teacher) || softmax(student))`` over the usable entries.

    Args:
        teacher, student: logits of one shape; the last dimension is the distribution.
        usable: bool of the same shape, at least one entry in each row.
    """
    out = ~usable
    target = teacher.masked_fill(out, -torch.inf).log_softmax(dim=-1)
    model = student.masked_fill(out, -torch.inf).log_softmax(dim=-1)
    terms = target.exp() * (target.masked_fill(out, 0.0) - model.masked_fill(out, 0.0))
    return terms.sum(dim=-1).mean()


@register("KL", needs={"score"}, compares="distributions", lists_of_batch=True)
class KL(Loss):
    """``KL(P_T || P_S)`` with ``P_T = softmax(t / teacher_tau)`` and ``P_S = softmax(s / tau)``.

    Documents without a teacher score are in neither distribution. The mean goes over the lists
    with at least two usable documents; the softmax of a shorter list is constant. The value is not
    multiplied by ``tau^2``, as ``DistillKLDivLoss`` of sentence-transformers does.

    Attributes:
        tau: divides the student's scores; about 0.05 for a cosine student, 1 for a dot product.
        teacher_tau: divides the teacher's scores.
        top: use only the teacher's first ``top`` documents of a list and those labeled relevant;
            None uses all.
        negatives: ``"list"``: the distributions are over the query's list. ``"batch"``: over all
            documents of the batch, by a retriever's in-batch scores.

    Examples:
        >>> from irdistill.losses import ScoreBatch
        >>> batch = ScoreBatch(student=torch.zeros(1, 2), teacher=torch.tensor([[0.0, 1.0]]))
        >>> KL(tau=0.05)(batch)
        tensor(0.1109)
    """

    tau: Positive = 1.0
    teacher_tau: Positive = 1.0
    top: Annotated[int, AtLeast(2)] | None = None
    negatives: ListDocuments = "list"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the lists with at least two usable documents."""
        usable = batch.scored if self.top is None else _top(batch, self.top)
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        assert batch.teacher is not None
        return masked_divergence(
            batch.teacher[rows] / self.teacher_tau, batch.student[rows] / self.tau, usable[rows]
        )


def _top(batch: ScoreBatch, depth: int) -> Tensor:
    """(B, N) bool: scored, and among the teacher's first ``depth`` or labeled relevant."""
    assert batch.teacher is not None
    usable = batch.scored
    order = batch.teacher.masked_fill(~usable, -torch.inf).argsort(
        dim=1, descending=True, stable=True
    )
    first = torch.zeros_like(usable).scatter(1, order[:, :depth], True)
    return usable & (first if batch.labels is None else first | (batch.labels > 0))


@register(
    "ListNet",
    needs=lambda loss: {"score"} if loss.by == "teacher" else {"label"},
    lists_of_batch=True,
)
class ListNet(Loss):
    """Cross-entropy of ``softmax(s / tau)`` against ``softmax(t / teacher_tau)``.

    Cao et al., ICML 2007, top one. It is `KL` plus the teacher's entropy, so it has KL's gradient,
    and its value is above 0 for every student.

    Attributes:
        tau: divides the scores of the student.
        teacher_tau: divides the scores of the teacher.
        by: the targets: the ``"teacher"``'s scores or the ``"label"``s.
        negatives: the query's ``"list"``, or all documents of the ``"batch"``, as in `KL`.
    """

    tau: Positive = 1.0
    teacher_tau: Positive = 1.0
    by: Literal["teacher", "label"] = "teacher"
    negatives: ListDocuments = "list"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the lists with at least two usable documents."""
        values, usable = batch.targets(self.by)
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        out = ~usable[rows]
        target = (values[rows] / self.teacher_tau).masked_fill(out, -torch.inf).softmax(dim=1)
        student = (batch.student[rows] / self.tau).masked_fill(out, -torch.inf).log_softmax(dim=1)
        return -(target * student.masked_fill(out, 0.0)).sum(dim=1).mean()


@register("ListMLE", needs=order_needs, lists_of_batch=True)
class ListMLE(Loss):
    """Plackett-Luce likelihood of an order: ``-sum_j log softmax_{k >= j}(s_k / tau)``.

    Xia et al., ICML 2008. Tied documents are in each other's denominators, so that the value does
    not depend on the order of ties (Breslow's likelihood); without ties it is the paper's. It is
    divided by n - 1, because the last of n documents has none below it. O(N log N).

    Attributes:
        tau: divides the student's scores.
        by: whose order: the ``"teacher"``'s or that of the ``"label"``s.
        negatives: the query's ``"list"``, or all documents of the ``"batch"``, as in `KL`.
    """

    tau: Positive = 1.0
    by: Literal["teacher", "label"] = "teacher"
    negatives: ListDocuments = "list"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the lists with at least two usable documents."""
        values, usable = batch.targets(self.by)
        rows = usable.sum(dim=1) >= 2
        if not rows.any():
            return batch.zero()
        ordered = plackett_luce(batch.student[rows] / self.tau, values[rows], usable[rows])
        return (ordered.losses.sum(dim=1) / (ordered.usable.sum(dim=1) - 1)).mean()


class Ordered(NamedTuple):
    """Lists in the order of their targets.

    Attributes:
        losses: (B, N) ``-log softmax`` at each position over itself, its ties and all below it; 0
            where nothing is usable.
        order: (B, N) the items at the positions, usable ones first.
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
        usable: (B, N) bool, at least one in each list.
    """
    values, order = targets.masked_fill(~usable, -torch.inf).sort(
        dim=1, descending=True, stable=True
    )
    begins = torch.ones_like(usable)
    begins[:, 1:] = values[:, 1:] != values[:, :-1]
    return likelihood_of_order(scores, order, begins, usable)


def likelihood_of_order(
    scores: Tensor, order: Tensor, begins: Tensor, usable: Tensor, others: Tensor | None = None
) -> Ordered:
    """As `plackett_luce`, for lists whose order is known.

    Args:
        order: (B, N) the items at the positions, usable ones first.
        begins: (B, N) bool, by position: it is not tied with the position above. True at the first.
        others: (B,) log-sum-exp of scores that are in every denominator.
    """
    ranked_usable = usable.gather(1, order)
    ranked = scores.masked_fill(~usable, torch.finfo(scores.dtype).min).gather(1, order)
    below = ranked.flip(1).logcumsumexp(dim=1).flip(1)
    places = torch.arange(order.shape[1], device=order.device).expand_as(order)
    # the denominator of a tie is that of its first item
    below = below.gather(1, places.masked_fill(~begins, 0).cummax(dim=1).values)
    if others is not None:
        below = torch.logaddexp(below, others[:, None])
    return Ordered((below - ranked).masked_fill(~ranked_usable, 0.0), order, ranked_usable)
