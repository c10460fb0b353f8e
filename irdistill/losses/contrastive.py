"""Losses that tell the relevant document from all others, without the teacher's scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch


@register("InfoNCE")
@dataclass(frozen=True)
class InfoNCE(Loss):
    """``-log( e^{s+/tau} / (e^{s+/tau} + sum_- e^{s-/tau}) )``, mean over the positives of the
    batch.

    Each positive of a list takes its turn; the other positives of the query, and further copies of
    the positive, stand in no denominator. The same holds for documents of other lists that are
    known to be relevant (``ScoreBatch.positives``). Documents of its own list are counted once, not
    again in the batch. A list without a positive, and a positive without any negative, give no
    loss.

    Attributes:
        tau: divides the student's scores; 0.01 to 0.05 for a cosine student.
        negatives: ``"all"``, the ``"list"`` only, or the other lists' documents in the ``"batch"``
            only.
        positive_by: who says what is relevant: the ``"label"``, or the ``"teacher"``'s best item of
            the list.
        masked: ``"teacher"`` leaves out list negatives that the teacher scores no lower than the
            positive, which are probably relevant and not judged; ``"share"`` those that it scores
            above ``share`` times the positive's score, which needs scores of 0 and more; ``"none"``
            keeps them.
        share: of ``masked="share"``; 0.6 in CADET (arXiv 2502.19712).
        weights: ``"teacher"`` multiplies a list negative's term in the denominator by ``1 -
            sigmoid(t / teacher_tau)``, so that the likelier it is relevant the less it repels;
            ``"none"`` leaves all at 1.
        teacher_tau: divides the teacher's scores for ``weights``.
    """

    tau: float = 0.05
    negatives: str = "all"
    positive_by: str = "label"
    masked: str = "none"
    share: float = 0.6
    weights: str = "none"
    teacher_tau: float = 1.0

    def __post_init__(self) -> None:
        self.check_positive("tau", "share", "teacher_tau")
        self.check_choice("negatives", ("all", "list", "batch"))
        self.check_choice("positive_by", ("label", "teacher"))
        self.check_choice("masked", ("none", "teacher", "share"))
        self.check_choice("weights", ("none", "teacher"))

    @property
    def needs(self) -> frozenset[str]:
        by_label = {"label"} if self.positive_by == "label" else {"order"}
        if self.masked == "share" or self.weights == "teacher":
            return frozenset(by_label | {"score"})
        return frozenset(by_label | ({"order"} if self.masked == "teacher" else set()))

    @property
    def uses_in_batch(self) -> bool:
        return self.negatives != "list"

    def compute(self, batch: ScoreBatch) -> Tensor:
        relevant = batch.relevant if self.positive_by == "label" else _best(batch)
        lists, items = relevant.nonzero(as_tuple=True)
        if len(lists) == 0:
            return batch.zero()
        positive = batch.student[lists, items] / self.tau
        negative = torch.full_like(positive, torch.finfo(positive.dtype).min)
        if self.negatives != "batch":
            negative = log_sum_exp(self._list_negatives(batch, relevant, lists, items) / self.tau)
        if self.negatives != "list" and batch.in_batch is not None:
            negative = torch.logaddexp(negative, batch_negatives(batch, self.tau)[lists])
        counted = negative > torch.finfo(negative.dtype).min
        if not counted.any():
            return batch.zero()
        return F.softplus(negative[counted] - positive[counted]).mean()

    def _list_negatives(
        self, batch: ScoreBatch, relevant: Tensor, lists: Tensor, items: Tensor
    ) -> Tensor:
        """(P, N) scores of each positive's own list, -inf on all that is no negative."""
        out = ~batch.valid[lists] | relevant[lists]
        if batch.labels is not None:
            out = out | (batch.labels[lists] > 0)
        if batch.columns is not None:
            columns = batch.columns[lists]
            out = out | (columns == columns.gather(1, items[:, None]))
            if batch.positives is not None:
                known = batch.positives[lists]
                out = out | known.gather(1, columns.clamp(0, known.shape[1] - 1))
        scores = batch.student[lists]
        if self.masked != "none":
            assert batch.teacher is not None
            teacher = batch.teacher[lists]
            positive = teacher.gather(1, items[:, None])
            out = out | (
                teacher >= positive if self.masked == "teacher" else teacher > self.share * positive
            )
        if self.weights == "teacher":
            assert batch.teacher is not None
            # log(1 - sigmoid(t)) = logsigmoid(-t); times tau, as all scores are divided by it
            scores = scores + self.tau * F.logsigmoid(
                -batch.teacher[lists].nan_to_num(nan=-torch.inf) / self.teacher_tau
            )
        return scores.masked_fill(out, -torch.inf)


def _best(batch: ScoreBatch) -> Tensor:
    """(B, N) bool: the item of each list that the teacher scores highest (the first on ties)."""
    usable = batch.scored
    assert batch.teacher is not None
    best = torch.zeros_like(usable)
    first = batch.teacher.masked_fill(~usable, -torch.inf).argmax(dim=1, keepdim=True)
    return best.scatter(1, first, True) & usable


def log_sum_exp(logits: Tensor) -> Tensor:
    """(P,) over rows (P, N); the lowest number, without a gradient, where a row is all -inf."""
    return logits.masked_fill(logits == -torch.inf, torch.finfo(logits.dtype).min).logsumexp(dim=1)


class _LogSumExpExcept(torch.autograd.Function):
    """``log sum_u e^{s_u / tau}`` over what is not masked. Its one big tensor is reused for the
    softmax that the gradient needs.

    Written with the operations of the library it goes through (B, U) scores about twice as often:
    at B = 64, U = 12,800 in float32 on one core InfoNCE took 6.1 ms with its gradient, and so 2.2.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, masked: Tensor, tau: float) -> Tensor:
        shares = torch.where(masked, -torch.inf, scores)
        # what is all masked has no share of anything, rather than 0 / 0 of it
        highest = shares.amax(dim=1, keepdim=True).clamp_min(torch.finfo(scores.dtype).min)
        shares.sub_(highest).mul_(1 / tau).exp_()
        total = shares.sum(dim=1)
        ctx.save_for_backward(shares, total)
        ctx.tau = tau
        return (total.log() + highest.squeeze(1) / tau).clamp_min(torch.finfo(scores.dtype).min)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        shares, total = ctx.saved_tensors
        scale = torch.where(total > 0, grads[0] / (ctx.tau * total), 0.0)
        return shares * scale[:, None], None, None


def batch_negatives(batch: ScoreBatch, tau: float) -> Tensor:
    """(B,) log-sum-exp of the scores over tau of the other lists' documents, the query's own and
    known positives left out.

    The lowest number where nothing is left. The (B, U) scores are gone through once, however many
    positives there are.
    """
    assert batch.in_batch is not None and batch.columns is not None
    width = batch.in_batch.shape[1]
    own = torch.zeros(
        batch.in_batch.shape[0], width + 1, dtype=torch.bool, device=batch.in_batch.device
    )
    own = own.scatter_(1, batch.columns.masked_fill(~batch.valid, width), True)[:, :width]
    if batch.positives is not None:
        own = own | batch.positives
    found: Tensor = _LogSumExpExcept.apply(batch.in_batch, own, tau)
    return found
