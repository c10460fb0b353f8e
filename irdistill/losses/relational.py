"""Losses between the similarities of texts, in the vectors of teacher and student."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from irdistill.losses.batch import ScoreBatch
from irdistill.losses.embedding import SIDES, TowerSide, VectorLoss
from irdistill.losses.listwise import masked_divergence
from irdistill.losses.loss_base import Loss, register
from irdistill.losses.parameter_checks import Positive


def relational_divergence(student: Tensor, teacher: Tensor, tau: float) -> Tensor:
    """``mean_i KL(A_T[i] || A_S[i])`` with ``A[i] = softmax over j != i of cos(x_i, x_j) / tau``.

    Args:
        student: (n, D) vectors of at least three texts.
        teacher: (n, E) vectors of the same texts.
        tau: divides the cosines of both models.

    Examples:
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> relational_divergence(3 * vectors, vectors, tau=0.02).abs() < 1e-6
        tensor(True)
    """
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    return masked_divergence(teacher @ teacher.T / tau, student @ student.T / tau, others)


@register("Relational", needs={"representation"})
class Relational(VectorLoss):
    """``mean_i KL(A_T[i] || A_S[i])`` with ``A[i] = softmax over j != i of cos(x_i, x_j) / tau``.

    The student learns which texts of the batch are close to each other. Only similarities are
    compared, so the dimensions of the two models may differ and nothing is projected. The
    similarity of a text with itself is 1 in every model and is left out: at ``tau=0.02`` it would
    take almost all of the softmax. Texts without a teacher vector are left out; fewer than three
    texts give no loss. O(n^2) of the n texts of the batch.

    Relational knowledge distillation (Park et al., arXiv 1904.05068) compares distances; here they
    are distributions, as in `TRG`.

    Attributes:
        side: whose vectors: of the ``"query"``s or of the unique ``"document"``s of the batch.
        tau: divides the cosines of both models.

    Examples:
        >>> from irdistill.losses import BatchRepresentations
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> batch = ScoreBatch(
        ...     torch.zeros(3, 2),
        ...     student_representations=BatchRepresentations(queries=2 * vectors),
        ...     teacher_representations=BatchRepresentations(queries=vectors),
        ... )
        >>> Relational()(batch).abs() < 1e-6
        tensor(True)
    """

    has_parameters: ClassVar[bool] = False
    side: TowerSide = "query"
    tau: Positive = 0.02

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the texts with a teacher vector."""
        student, teacher = self.vectors(batch)
        if len(student) < 3:
            return batch.zero()
        return relational_divergence(student, teacher, self.tau)


@register("SpreadOut")
class SpreadOut(Loss):
    """``mean cos(x_i, x_j)^2`` over pairs of different texts: vectors spread over the sphere.

    The second moment of the global orthogonal regularizer (Zhang et al. 2017, arXiv 1708.06320),
    as EmbeddingGemma (arXiv 2509.20354) adds it to its other losses. Random directions of D
    dimensions give 1 / D. It reads the student's vectors only. Fewer than two texts give no loss.

    Attributes:
        side: whose vectors: of the ``"query"``s or of the unique ``"document"``s of the batch.

    Examples:
        >>> from irdistill.losses import BatchRepresentations
        >>> vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
        >>> batch = ScoreBatch(
        ...     torch.zeros(3, 2), student_representations=BatchRepresentations(queries=vectors)
        ... )
        >>> SpreadOut()(batch)
        tensor(0.3333)
    """

    side: TowerSide = "query"

    @property
    def representations(self) -> frozenset[str]:
        """The field of the side."""
        return frozenset({SIDES[self.side]})

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the pairs of the batch.

        Raises:
            ValueError: the batch lacks the vectors.
        """
        vectors = getattr(batch.student_representations, SIDES[self.side], None)
        if vectors is None:
            raise ValueError(f"this needs the {SIDES[self.side]} in student_representations")
        if len(vectors) < 2:
            return batch.zero()
        unit = F.normalize(vectors, dim=-1)
        others = ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        return (unit @ unit.T)[others].square().mean()
