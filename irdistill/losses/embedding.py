"""Losses between the vectors of teacher and student."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irdistill.errors import OptionError
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.loss_base import Loss, register
from irdistill.losses.parameter_checks import AtLeast, Positive
from irdistill.losses.representations import FittingSample, both_models, known_vectors

#: The sides whose vectors can be compared, and their fields of `BatchRepresentations`.
SIDES = {"query": "queries", "document": "documents", "pair": "pairs"}
VectorSide = Literal["query", "document", "pair"]
TowerSide = Literal["query", "document"]


class VectorLoss(Loss):
    """A loss between the vectors of one side."""

    has_parameters: ClassVar[bool] = True
    side: Any

    @property
    def representations(self) -> frozenset[str]:
        """The field of the side."""
        return frozenset({SIDES[self.side]})

    def vectors(self, batch: ScoreBatch) -> tuple[Tensor, Tensor]:
        """Vectors (n, D) of the student and (n, E) of the teacher, where the teacher has one."""
        student, teacher = both_models(batch, SIDES[self.side])
        if self.side == "pair":
            student, teacher = student[batch.valid], teacher[batch.valid]
        return known_vectors(student, teacher)

    def dimensions(self, batch: ScoreBatch) -> tuple[int, int]:
        """D and E."""
        student, teacher = self.vectors(batch)
        return student.shape[-1], teacher.shape[-1]


class ProjectedLoss(VectorLoss):
    """A loss between the projected vectors of the student and the vectors of the teacher."""

    def make_parameters(
        self, example: ScoreBatch, sample: FittingSample | None
    ) -> nn.Module | None:
        """The linear map, if the dimensions differ."""
        student, teacher = self.dimensions(example)
        return None if student == teacher else nn.Linear(student, teacher, bias=False)

    def projected(self, batch: ScoreBatch) -> tuple[Tensor, Tensor]:
        """``P x`` and ``y``, (n, E) each."""
        student, teacher = self.vectors(batch)
        if len(student) and student.shape[-1] != teacher.shape[-1]:
            student = self.parameters_in(batch)(student)
        return student, teacher


@register("EmbeddingMSE", needs={"representation"})
class EmbeddingMSE(ProjectedLoss):
    """``|P x - y|^2`` of the student's vector x and the teacher's y, mean over texts.

    Reimers and Gurevych, arXiv 2004.09813. ``P`` is a trained linear map if the dimensions differ,
    else the identity. It is the squared distance; ``MSELoss`` of sentence-transformers divides it
    by the dimension. Texts without a teacher vector are left out.

    Attributes:
        side: whose vectors: ``"query"``, ``"document"``, or ``"pair"`` of a cross-encoder.
        normalize: scale both to length 1 first, so that only directions count.
    """

    side: VectorSide = "query"
    normalize: bool = True

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the texts with a teacher vector."""
        student, teacher = self.projected(batch)
        if not len(student):
            return batch.zero()
        if self.normalize:
            student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
        return (student - teacher).square().sum(dim=-1).mean()


@register("EmbeddingCosine", needs={"representation"})
class EmbeddingCosine(ProjectedLoss):
    """``1 - cos(P x, y)`` of the student's vector x and the teacher's y, mean over texts.

    Half of `EmbeddingMSE` with ``normalize``. ``P`` is a trained linear map if the dimensions
    differ, else the identity. Texts without a teacher vector are left out.

    Attributes:
        side: whose vectors: ``"query"``, ``"document"``, or ``"pair"`` of a cross-encoder.
    """

    side: VectorSide = "query"

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the texts with a teacher vector."""
        student, teacher = self.projected(batch)
        if not len(student):
            return batch.zero()
        return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


@register("MIAlpha", needs={"representation"})
class MIAlpha(VectorLoss):
    """``-I_alpha``, a lower bound of the mutual information of student's and teacher's vectors.

    arXiv 1905.06922: ``I = 1 + mean_j [f(x_j, y_j) - log Z(y_j)] - mean_ij e^f(x_i, y_j) / Z(y_j)``
    with ``Z = alpha m + (1 - alpha) q``, ``m(y) = mean_i e^f(x_i, y)`` over the K texts of the
    batch, and the critic ``f(x, y) = cos(A x, B y) / tau``. Distiller (arXiv 2109.11105) reports it
    as the best objective between layers.

    With ``alpha=1`` it is InfoNCE less ``log K``. ``I`` is never above ``log(K / alpha)``. The
    second mean goes over all pairs of the batch including a text with itself, as ``m`` does, so
    that both statements hold exactly. Large batches make the bound tight, as with in-batch
    negatives. Texts without a teacher vector are left out; fewer than two give no loss.

    Attributes:
        side: whose vectors: ``"query"``, ``"document"``, or ``"pair"`` of a cross-encoder.
        alpha: 1 has the least variance and the bound ``log K``; towards 0 bound and variance rise.
        tau: divides the cosine.
        dimension: of the trained linear maps A and B; None compares the vectors as they are, which
            then need one dimension.
        baseline: ``q``: ``"constant"`` 1, or ``"learned"``, log-linear in y.
    """

    side: VectorSide = "document"
    alpha: Positive = 0.9
    tau: Positive = 0.1
    dimension: Annotated[int, AtLeast(1)] | None = 128
    baseline: Literal["constant", "learned"] = "constant"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.alpha > 1:
            raise OptionError(
                f"MIAlpha(alpha={self.alpha:g}): alpha must be above 0 and at most 1."
            )

    def make_parameters(
        self, example: ScoreBatch, sample: FittingSample | None
    ) -> nn.Module | None:
        """The maps A and B and the baseline, as far as they are used.

        Raises:
            OptionError: the dimensions differ and ``dimension`` is None.
        """
        student, teacher = self.dimensions(example)
        if self.dimension is None and student != teacher:
            raise OptionError(
                f"{self}: the student's vectors have {student} dimensions and the teacher's"
                f" {teacher}; set dimension=128 or another, so that both are mapped to it."
            )
        heads = nn.ModuleDict()
        if self.dimension is not None:
            heads["student"] = nn.Linear(student, self.dimension, bias=False)
            heads["teacher"] = nn.Linear(teacher, self.dimension, bias=False)
        if self.baseline == "learned":
            heads["baseline"] = nn.Linear(teacher, 1)
        return heads if len(heads) else None

    def compute(self, batch: ScoreBatch) -> Tensor:
        """The negative bound over the texts with a teacher vector."""
        student, teacher = self.vectors(batch)
        count = len(student)
        if count < 2:
            return batch.zero()
        plain = self.dimension is None and self.baseline == "constant"
        heads = nn.ModuleDict() if plain else self.parameters_in(batch)
        assert isinstance(heads, nn.ModuleDict)
        level = teacher.new_zeros(count)
        if "baseline" in heads:
            level = heads["baseline"](teacher)[:, 0]
        if "student" in heads:
            student, teacher = heads["student"](student), heads["teacher"](teacher)
        critic = F.normalize(student, dim=-1) @ F.normalize(teacher, dim=-1).T / self.tau
        mean = critic.logsumexp(dim=0) - math.log(count)
        normalizer = mean
        if self.alpha < 1:
            normalizer = torch.logaddexp(
                mean + math.log(self.alpha), level + math.log(1 - self.alpha)
            )
        joint = (critic.diagonal() - normalizer).mean()
        return (mean - normalizer).exp().mean() - 1 - joint
