"""Losses that separate the relevant document from all others."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from irdistill.errors import OptionError
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.loss_base import Loss, register
from irdistill.losses.parameter_checks import NonNegative, Positive


def _info_nce_needs(loss: Any) -> set[str]:
    needs = {"label"} if loss.positive_by == "label" else {"order"}
    if loss.masked != "none" and loss.negatives != "batch":
        needs |= {"order"} if loss.masked == "teacher" and not loss.margin else {"score"}
    if loss.masks_batch:
        needs |= {"in_batch"}
    return needs | ({"score"} if loss.weights == "teacher" else set())


@register("InfoNCE", needs=_info_nce_needs, in_batch=lambda loss: loss.negatives != "list")
class InfoNCE(Loss):
    """``-log( e^{s+/tau} / (e^{s+/tau} + sum_- e^{s-/tau}) )``, mean over the positives.

    Each positive of a list is used in turn. The query's other positives and copies of the positive
    are in no denominator, nor are documents of other lists that are known to be relevant
    (``ScoreBatch.positives``). Documents of the query's own list are counted once, not again in the
    batch. A list without a positive and a positive without a negative give no loss.

    With ``masked_in="all"`` it is the guided loss of GISTEmbed (arXiv 2402.16829): a retriever's
    in-batch scores leave out false negatives among the documents of the other lists too. Documents
    without a teacher score are not masked.

    Attributes:
        tau: divides the student's scores; 0.01 to 0.05 for a cosine student.
        negatives: ``"list"``: of the query's list. ``"batch"``: documents of the other lists.
            ``"all"``: both.
        positive_by: what is relevant: by ``"label"``, or the ``"teacher"``'s best item of a list.
        masked: ``"teacher"`` leaves out negatives that the teacher scores no lower than the
            positive less ``margin``, which are probably relevant and not judged. ``"share"`` leaves
            out those that it scores above ``share`` times the positive's score. ``"none"`` keeps
            all.
        share: threshold of ``masked="share"``, as a share of the positive's score; 0.6 in CADET
            (arXiv 2502.19712). A negative score is lowered by the same share of its absolute value.
        weights: ``"teacher"`` multiplies a list negative's term in the denominator by ``1 -
            sigmoid(t / teacher_tau)``, so that a probably relevant negative repels less. ``"none"``
            leaves all weights at 1.
        teacher_tau: divides the teacher's scores for ``weights``.
        margin: of ``masked="teacher"``, on the scale of the teacher's scores.
        masked_in: ``"list"`` masks negatives of the query's list, by the scores of the run.
            ``"all"`` also masks documents of the other lists, by in-batch scores. With
            ``negatives="batch"`` there are no others, so both mean the same.

    Raises:
        OptionError: ``margin`` or ``masked_in`` has no effect.
    """

    tau: Positive = 0.05
    negatives: Literal["all", "list", "batch"] = "all"
    positive_by: Literal["label", "teacher"] = "label"
    masked: Literal["none", "teacher", "share"] = "none"
    share: Positive = 0.6
    weights: Literal["none", "teacher"] = "none"
    teacher_tau: Positive = 1.0
    margin: NonNegative = 0.0
    masked_in: Literal["list", "all"] = "list"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.margin and self.masked != "teacher":
            raise OptionError(
                f'{self}: margin is for masked="teacher"; set it, or leave margin out.'
            )
        if self.masked_in == "all" and (self.masked == "none" or self.negatives == "list"):
            raise OptionError(
                f'{self}: masked_in="all" needs a rule, masked="teacher" or masked="share", and'
                ' negatives="all" or "batch".'
            )

    @property
    def masks_batch(self) -> bool:
        """Whether documents of the other lists are masked, by in-batch scores."""
        return self.masked != "none" and (self.masked_in == "all" or self.negatives == "batch")

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the positives of the batch that have a negative."""
        relevant = batch.relevant if self.positive_by == "label" else _best(batch)
        lists, items = relevant.nonzero(as_tuple=True)
        if len(lists) == 0:
            return batch.zero()
        positive = batch.student[lists, items] / self.tau
        negative = torch.full_like(positive, torch.finfo(positive.dtype).min)
        if self.negatives != "batch":
            negative = log_sum_exp(self._list_negatives(batch, relevant, lists, items) / self.tau)
        if self.negatives != "list" and batch.in_batch is not None:
            negative = torch.logaddexp(negative, self._batch_negatives(batch, lists, items))
        counted = negative > torch.finfo(negative.dtype).min
        if not counted.any():
            return batch.zero()
        return F.softplus(negative[counted] - positive[counted]).mean()

    def _batch_negatives(self, batch: ScoreBatch, lists: Tensor, items: Tensor) -> Tensor:
        """(P,) log-sum-exp over the documents of other lists, for each positive."""
        if not self.masks_batch:
            return batch_negatives(batch, self.tau)[lists]
        if batch.teacher_in_batch is None:
            raise ValueError(f"{self} needs teacher_in_batch scores, shape (B, U)")
        assert batch.in_batch is not None and batch.columns is not None
        teacher = batch.teacher_in_batch[lists]
        positive = teacher.gather(1, batch.columns[lists, items][:, None])
        out = not_batch_negatives(batch)[lists] | self._false_negatives(teacher, positive)
        result: Tensor = _LogSumExpExcept.apply(batch.in_batch[lists], out, self.tau)
        return result

    def _false_negatives(self, teacher: Tensor, positive: Tensor) -> Tensor:
        """(P, M) bool, by scores (P, M) of documents and (P, 1) of the positives."""
        if self.masked == "teacher":
            return teacher >= positive - self.margin
        return teacher > torch.where(positive < 0, 2 - self.share, self.share) * positive

    def _list_negatives(
        self, batch: ScoreBatch, relevant: Tensor, lists: Tensor, items: Tensor
    ) -> Tensor:
        """(P, N) scores of the list of each positive, -inf on all but negatives."""
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
            out = out | self._false_negatives(teacher, teacher.gather(1, items[:, None]))
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
    """(P,) over rows (P, N). A row of -inf gives the lowest number, without a gradient."""
    return logits.masked_fill(logits == -torch.inf, torch.finfo(logits.dtype).min).logsumexp(dim=1)


class _LogSumExpExcept(torch.autograd.Function):
    """``log sum_u e^{s_u / tau}`` over what is not masked.

    The gradient reuses the one large tensor. Composed of torch operations it would pass over the
    (B, U) scores about twice as often: with B = 64 and U = 12,800 in float32 on one core, InfoNCE
    with its gradient took 6.1 ms that way and takes 2.2 ms this way.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, masked: Tensor, tau: float) -> Tensor:
        shares = torch.where(masked, -torch.inf, scores)
        # a row that is all masked gets shares of 0, not 0 / 0
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
    """(B,) log-sum-exp of ``score / tau`` of the other lists' documents, without known positives.

    The lowest number where no document is left. It passes over the (B, U) scores once, whatever
    the number of positives.
    """
    result: Tensor = _LogSumExpExcept.apply(batch.in_batch, not_batch_negatives(batch), tau)
    return result


def not_batch_negatives(batch: ScoreBatch) -> Tensor:
    """(B, U) bool: documents of the query's own list and known positives."""
    assert batch.in_batch is not None and batch.columns is not None
    width = batch.in_batch.shape[1]
    left_out = torch.zeros(
        batch.in_batch.shape[0], width + 1, dtype=torch.bool, device=batch.in_batch.device
    )
    left_out = left_out.scatter_(1, batch.columns.masked_fill(~batch.valid, width), True)[:, :width]
    return left_out if batch.positives is None else left_out | batch.positives
