"""The input of a loss: scores, targets and masks of one batch of lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from irdistill.losses.representations import BatchRepresentations, widened


@dataclass(frozen=True)
class ScoreBatch:
    """A list of N documents for each of B queries, padded to the longest list.

    Attributes:
        student: (B, N) the student's scores, with gradients. Half precision is widened to float32.
        teacher: (B, N), or (T, B, N) for T teachers; NaN where a teacher gave no score; None
            without a teacher.
        mask: (B, N) bool, False on padding.
        labels: (B, N) graded relevance, 0 for not relevant or not judged; None without judgments.
        in_batch: (B, U) scores of every query against the U unique documents of the batch, or None.
        columns: (B, N) int, the column in ``in_batch`` of each list item (any value on padding).
            Needed whenever ``in_batch`` is given.
        teacher_in_batch: (B, U), or (T, B, U) for T teachers: a teacher's scores of every query
            against the same documents; NaN where unknown; None without them. They are compared with
            each other only, so they may be of another model than ``teacher``.
        positives: (B, U) bool, documents of the batch known or suspected to be relevant to the
            query, in its list or not; or None.
        teacher_weights: (T,) or, by list, (T, B) weights of T teachers, at least 0 and not all 0;
            None weights them equally.
        student_representations, teacher_representations: the vectors of both models, for losses
            that compare them.
        parameters: the modules that losses train beside the student, by the loss as it is written
            (see `make_loss_parameters`).

    Examples:
        >>> batch = ScoreBatch(
        ...     student=torch.tensor([[0.9, 0.1]]),
        ...     teacher=torch.tensor([[3.0, float("nan")]]),
        ...     labels=torch.tensor([[1, 0]]),
        ... )
        >>> batch.scored
        tensor([[ True, False]])
    """

    student: Tensor
    teacher: Tensor | None = None
    mask: Tensor | None = None
    labels: Tensor | None = None
    in_batch: Tensor | None = None
    columns: Tensor | None = None
    teacher_in_batch: Tensor | None = None
    positives: Tensor | None = None
    teacher_weights: Tensor | None = None
    student_representations: BatchRepresentations | None = None
    teacher_representations: BatchRepresentations | None = None
    parameters: Mapping[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.student.dim() != 2:
            raise ValueError(
                f"student scores have shape {tuple(self.student.shape)}, expected (B, N)"
            )
        shape = self.student.shape
        object.__setattr__(self, "student", widened(self.student))
        if self.teacher is not None:
            teacher = widened(self.teacher).detach().to(self.student.dtype)
            if teacher.dim() not in (2, 3) or teacher.shape[-2:] != shape:
                raise ValueError(
                    f"teacher scores have shape {tuple(teacher.shape)}, expected {tuple(shape)} or"
                    " (T, B, N)"
                )
            object.__setattr__(self, "teacher", teacher)
        if self.teacher_weights is not None:
            expected = () if self.teacher is None else tuple(self.teacher.shape[:-1])
            weights_shape = tuple(self.teacher_weights.shape)
            if len(expected) != 2 or weights_shape not in (expected, expected[:1]):
                raise ValueError(
                    f"teacher weights of shape {weights_shape} need teacher scores (T, B, N), and"
                    " the shape (T,) or (T, B)"
                )
            object.__setattr__(self, "teacher_weights", self.teacher_weights.to(self.student))
        if self.mask is None:
            object.__setattr__(self, "mask", torch.ones_like(self.student, dtype=torch.bool))
        object.__setattr__(self, "mask", self.mask.bool())  # type: ignore[union-attr]
        for name in ("mask", "labels", "columns"):
            value = getattr(self, name)
            if value is not None and value.shape != shape:
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)}, the student scores {tuple(shape)}"
                )
        if self.in_batch is not None:
            self._check_in_batch(self.in_batch)
        if self.teacher_in_batch is not None:
            self._check_teacher_in_batch(self.teacher_in_batch)

    def _check_in_batch(self, scores: Tensor) -> None:
        if self.columns is None or scores.dim() != 2 or len(scores) != len(self.student):
            raise ValueError("in_batch scores need shape (B, U), and columns (B, N) beside them")
        object.__setattr__(self, "in_batch", widened(scores))
        if self.positives is not None and self.positives.shape != scores.shape:
            raise ValueError("positives must have the shape (B, U) of the in_batch scores")

    def _check_teacher_in_batch(self, scores: Tensor) -> None:
        expected = None if self.in_batch is None else self.in_batch.shape
        teachers = 0 if self.teacher is None or self.teacher.dim() == 2 else len(self.teacher)
        if scores.shape[-2:] != expected or (
            scores.dim() != 2 and (scores.dim() != 3 or len(scores) != teachers)
        ):
            raise ValueError(
                f"teacher_in_batch scores have shape {tuple(scores.shape)}; in_batch scores of the"
                " same shape (B, U) are needed, and for (T, B, U) teacher scores (T, B, N)"
            )
        scores = widened(scores).detach().to(self.student.dtype)
        object.__setattr__(self, "teacher_in_batch", scores)

    @property
    def valid(self) -> Tensor:
        """(B, N) bool: not padding."""
        assert self.mask is not None
        return self.mask

    @property
    def scored(self) -> Tensor:
        """(B, N) bool: not padding, and scored by the (single) teacher."""
        if self.teacher is None or self.teacher.dim() != 2:
            raise ValueError("this needs the scores of one teacher, shape (B, N)")
        return self.valid & ~self.teacher.isnan()

    @property
    def relevant(self) -> Tensor:
        """(B, N) bool: judged relevant (label above 0)."""
        if self.labels is None:
            raise ValueError("this needs labels, shape (B, N)")
        return self.valid & (self.labels > 0)

    @property
    def suspected(self) -> Tensor:
        """(B, N) bool: in ``positives`` but not labeled relevant, so never used as a negative."""
        if self.positives is None or self.columns is None:
            return torch.zeros_like(self.valid)
        known = self.positives.gather(1, self.columns.clamp(0, self.positives.shape[1] - 1))
        return (
            self.valid & known & ~self.relevant if self.labels is not None else self.valid & known
        )

    def targets(self, by: str) -> tuple[Tensor, Tensor]:
        """The values that order a list: the ``"teacher"``'s scores or the ``"label"``s.

        Returns:
            (B, N) values, 0 where unknown, and (B, N) bool where they are known. The labels of a
            list without a relevant document are unknown, because they would teach that all its
            documents are alike; so is the label of a `suspected` document.
        """
        if by == "label":
            usable = self.valid & ~self.suspected & self.relevant.any(dim=1, keepdim=True)
            values = self.labels
        else:
            usable, values = self.scored, self.teacher
        assert values is not None
        return values.to(self.student.dtype).masked_fill(~usable, 0.0), usable

    def zero(self) -> Tensor:
        """A loss of 0 with a zero gradient, for a batch without anything to learn from."""
        return self.student.masked_fill(~self.valid, 0.0).sum() * 0.0

    def for_teacher(self, index: int) -> ScoreBatch:
        """The same batch with one teacher of several."""
        assert self.teacher is not None
        every = self.teacher_in_batch
        if every is not None and every.dim() == 3:
            every = every[index]
        return replace(
            self, teacher=self.teacher[index], teacher_in_batch=every, teacher_weights=None
        )

    def over_batch(self) -> ScoreBatch:
        """The batch whose lists are all U documents, (B, U), with the in-batch scores of both.

        The labels are those of the query's own list; relevant documents of other lists are only
        `suspected`. A query whose list is all padding has no list.

        Raises:
            ValueError: the student has no in-batch scores.
        """
        if self.in_batch is None or self.columns is None:
            raise ValueError("this needs in_batch scores, shape (B, U)")
        labels = None
        if self.labels is not None:
            graded = self.labels.to(self.in_batch.dtype).masked_fill(~self.valid, 0.0)
            labels = torch.zeros_like(self.in_batch).scatter_reduce(
                1, self.columns.clamp(0, self.in_batch.shape[1] - 1), graded, "amax"
            )
        width = torch.arange(self.in_batch.shape[1], device=self.in_batch.device)
        return replace(
            self,
            student=self.in_batch,
            teacher=self.teacher_in_batch,
            mask=self.valid.any(dim=1, keepdim=True).expand_as(self.in_batch),
            labels=labels,
            columns=width.expand_as(self.in_batch),
        )

    def one_list(self, place: int) -> ScoreBatch:
        """The batch of one list of this batch."""

        def cut(name: str) -> Any:
            value = getattr(self, name)
            if (
                value is None
                or name == "parameters"
                or (name == "teacher_weights" and value.dim() == 1)
            ):
                return value
            if isinstance(value, BatchRepresentations):
                return value.one_list(place)
            if name == "teacher_weights":
                return value[:, place]
            several = name in ("teacher", "teacher_in_batch") and value.dim() == 3
            return value[:, place : place + 1] if several else value[place : place + 1]

        return ScoreBatch(**{entry.name: cut(entry.name) for entry in fields(self)})

    def top(self, depth: int) -> ScoreBatch:
        """The batch with each list cut to its first ``depth`` items; ``in_batch`` is unchanged.

        The order is by teacher score, items without one last, ties in list order. Without a teacher
        it is the list order.
        """
        if depth >= self.student.shape[1]:
            return self
        if self.teacher is None:
            keys = self.valid.to(self.student.dtype)
        else:
            keys = self.teacher.masked_fill(~self.scored, -torch.inf)
        order = keys.argsort(dim=1, descending=True, stable=True)[:, :depth]

        def cut(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.gather(1, order)

        def reordered(vectors: BatchRepresentations | None) -> BatchRepresentations | None:
            return None if vectors is None else vectors.reordered(order)

        return replace(
            self,
            student=self.student.gather(1, order),
            teacher=cut(self.teacher),
            mask=cut(self.mask),
            labels=cut(self.labels),
            columns=cut(self.columns),
            student_representations=reordered(self.student_representations),
            teacher_representations=reordered(self.teacher_representations),
        )
