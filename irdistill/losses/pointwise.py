"""Losses that look at one document at a time."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.loss_base import ListDocuments, Loss, register
from irdistill.losses.parameter_checks import Positive


@register("MSE", needs={"score"}, compares="scores", lists_of_batch=True)
class MSE(Loss):
    """Mean of ``(scale * s - t)^2`` over all documents that the teacher scored.

    Only for teachers of the student's own kind: raw scores of different architectures differ in
    offset and spread, which is why `MarginMSE` exists (Hofstaetter et al. 2020).

    Attributes:
        scale: multiplies the student's scores, because a cosine cannot leave [-1, 1].
        negatives: the documents are of the query's ``"list"``, or all of the ``"batch"``, by a
            retriever's in-batch scores.
    """

    scale: Positive = 1.0
    negatives: ListDocuments = "list"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the scored documents of the batch."""
        usable = batch.scored
        if not usable.any():
            return batch.zero()
        assert batch.teacher is not None
        return (self.scale * batch.student[usable] - batch.teacher[usable]).square().mean()


@register("BCE", needs=lambda loss: {"label"} if loss.by == "label" else {"score"})
class BCE(Loss):
    """Binary cross-entropy of ``sigmoid(s / tau)``, mean over documents.

    Attributes:
        by: the target. ``"label"``: 1 for a relevant document and 0 for any other. ``"teacher"``:
            ``sigmoid(t / teacher_tau)`` of the teacher's raw logit; documents without a teacher
            score are left out.
        tau: divides the scores of the student.
        teacher_tau: divides the scores of the teacher.
    """

    by: Literal["label", "teacher"] = "label"
    tau: Positive = 1.0
    teacher_tau: Positive = 1.0

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the documents of the batch that have a target."""
        if self.by == "label":
            targets = batch.relevant.to(batch.student.dtype)
            usable = batch.valid & ~batch.suspected
        else:
            scores, usable = batch.targets("teacher")
            targets = (scores / self.teacher_tau).sigmoid()
        if not usable.any():
            return batch.zero()
        return F.binary_cross_entropy_with_logits(batch.student[usable] / self.tau, targets[usable])
