"""Losses between the vectors of teacher and student."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irdistill.errors import IrdistillError
from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.representations import FittingSample, pick

#: The sides whose vectors can be compared, and the field of `BatchRepresentations` that holds them.
SIDES = {"query": "queries", "document": "documents", "pair": "pairs"}


def vectors(batch: ScoreBatch, side: str) -> tuple[Tensor, Tensor]:
    """The vectors of student (n, D) and teacher (n, E) of all texts or pairs of one side that the
    teacher has one for.
    """
    name = SIDES[side]
    own, theirs = (
        getattr(states, name, None)
        for states in (batch.student_representations, batch.teacher_representations)
    )
    if own is None or theirs is None:
        raise ValueError(
            f"this needs the {name} in student_representations and teacher_representations"
        )
    if side == "pair":
        own, theirs = own[batch.valid], theirs[batch.valid]
    return pick(own, theirs)


def _dimensions(batch: ScoreBatch, side: str) -> tuple[int, int]:
    own, theirs = vectors(batch, side)
    return own.shape[-1], theirs.shape[-1]


@register("EmbeddingMSE")
@dataclass(frozen=True)
class EmbeddingMSE(Loss):
    """``|P x - y|^2``, x the student's vector and y the teacher's, mean over texts (Reimers and
    Gurevych, arXiv 2004.09813).

    ``P`` is a linear map learnt beside the student where the dimensions differ, and nothing where
    they agree. It is the squared distance: ``MSELoss`` of sentence-transformers divides it by the
    dimension. Texts for which the teacher has no vector are left out.

    Attributes:
        side: whose vectors: ``"query"``, ``"document"``, or ``"pair"`` of a cross-encoder.
        normalize: bring both to length 1 first, so that only directions count.
    """

    has_parameters: ClassVar[bool] = True
    side: str = "query"
    normalize: bool = True

    def __post_init__(self) -> None:
        self.check_choice("side", tuple(SIDES))
        if not isinstance(self.normalize, bool):
            raise IrdistillError(
                f"EmbeddingMSE(normalize={self.normalize!r}): normalize must be True or False."
            )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"representation"})

    @property
    def representations(self) -> frozenset[str]:
        return frozenset({SIDES[self.side]})

    def make_parameters(
        self, example: ScoreBatch, sample: FittingSample | None
    ) -> nn.Module | None:
        own, theirs = _dimensions(example, self.side)
        return None if own == theirs else nn.Linear(own, theirs, bias=False)

    def compute(self, batch: ScoreBatch) -> Tensor:
        own, theirs = vectors(batch, self.side)
        if not len(own):
            return batch.zero()
        if own.shape[-1] != theirs.shape[-1]:
            own = self.parameters_in(batch)(own)
        if self.normalize:
            own, theirs = F.normalize(own, dim=-1), F.normalize(theirs, dim=-1)
        return (own - theirs).square().sum(dim=-1).mean()


@register("MIAlpha")
@dataclass(frozen=True)
class MIAlpha(Loss):
    """``-I_alpha``, a lower bound of the mutual information of student's and teacher's vectors
    (arXiv 1905.06922).

    ``I = 1 + mean_j [f(x_j, y_j) - log Z(y_j)] - mean_ij e^f(x_i, y_j) / Z(y_j)``, with ``Z = alpha
    m + (1 - alpha) q``, ``m(y) = mean_i e^f(x_i, y)`` over the K texts of the batch, and the critic
    ``f(x, y) = cos(A x, B y) / tau``. Distiller (arXiv 2109.11105) found it the best objective
    between layers.

    With ``alpha=1`` it is InfoNCE less ``log K``. ``I`` is never above ``log(K / alpha)``. The
    second mean goes over all pairs of the batch, a text with itself included, as ``m`` does, so
    that both hold exactly. Large batches make the bound tight: as with in-batch negatives, K is
    what it can tell apart. Texts for which the teacher has no vector are left out; fewer than two
    give no loss.

    Attributes:
        side: whose vectors: ``"query"``, ``"document"``, or ``"pair"`` of a cross-encoder.
        alpha: 1 has the least variance and the bound ``log K``; towards 0 the bound rises, and the
            variance with it.
        tau: divides the cosine.
        dimension: of the two learnt linear maps A and B; None compares the vectors as they are,
            which have to be of one dimension.
        baseline: ``q``: ``"constant"`` 1, or a ``"learned"`` function of y.
    """

    has_parameters: ClassVar[bool] = True
    side: str = "document"
    alpha: float = 0.9
    tau: float = 0.1
    dimension: int | None = 128
    baseline: str = "constant"

    def __post_init__(self) -> None:
        self.check_choice("side", tuple(SIDES))
        self.check_choice("baseline", ("constant", "learned"))
        self.check_positive("tau", "alpha")
        if self.alpha > 1:
            raise IrdistillError(
                f"MIAlpha(alpha={self.alpha:g}): alpha must be above 0 and at most 1."
            )
        self.check_whole("dimension", 1, optional=True)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"representation"})

    @property
    def representations(self) -> frozenset[str]:
        return frozenset({SIDES[self.side]})

    def make_parameters(
        self, example: ScoreBatch, sample: FittingSample | None
    ) -> nn.Module | None:
        own, theirs = _dimensions(example, self.side)
        if self.dimension is None and own != theirs:
            raise IrdistillError(
                f"{self}: the student's vectors have {own} dimensions and the teacher's {theirs};"
                " give dimension=128 or another, so that both are mapped to one."
            )
        made = nn.ModuleDict()
        if self.dimension is not None:
            made["student"] = nn.Linear(own, self.dimension, bias=False)
            made["teacher"] = nn.Linear(theirs, self.dimension, bias=False)
        if self.baseline == "learned":
            made["baseline"] = nn.Linear(theirs, 1)
        return made if len(made) else None

    def compute(self, batch: ScoreBatch) -> Tensor:
        own, theirs = vectors(batch, self.side)
        count = len(own)
        if count < 2:
            return batch.zero()
        heads = (
            self.parameters_in(batch)
            if self.dimension is not None or self.baseline == "learned"
            else nn.ModuleDict()
        )
        assert isinstance(heads, nn.ModuleDict)
        level = heads["baseline"](theirs)[:, 0] if "baseline" in heads else theirs.new_zeros(count)
        if "student" in heads:
            own, theirs = heads["student"](own), heads["teacher"](theirs)
        critic = F.normalize(own, dim=-1) @ F.normalize(theirs, dim=-1).T / self.tau
        mean = critic.logsumexp(dim=0) - math.log(count)
        normaliser = mean
        if self.alpha < 1:
            normaliser = torch.logaddexp(
                mean + math.log(self.alpha), level + math.log(1 - self.alpha)
            )
        together = (critic.diagonal() - normaliser).mean()
        return (mean - normaliser).exp().mean() - 1 - together
