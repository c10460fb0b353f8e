"""Learning the teacher's embedding of pairs as finer classes than relevant and not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irdistill.errors import IrdistillError
from irdistill.losses.base import Loss, register
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.representations import FittingSample

_CLASSES = 2  # not relevant, relevant


@register("LELP")
@dataclass(frozen=True)
class LELP(Loss):
    """Cross-entropy over pseudo-subclasses that the teacher's states fall into within each class
    (LELP, arXiv 2409.20449).

    Two classes are little to learn from. So, before the first step, the teacher's pooled states are
    taken class by class (weighted by its probability of the class), what its classifier sees is
    projected out, and the k strongest directions ``u_j`` of the rest are found. Each direction
    makes two subclasses, one at either end::

        p(c, r | x) = p_T(c | x) * softmax_r [ +u_j . h / (sd_j * temperature), -u_j . h / (sd_j *
        temperature) ]

    with ``p_T(relevant) = sigmoid((t - threshold) / teacher_tau)``. The student learns ``-sum p log
    q`` over these ``2 * 2k`` logits, made by a linear layer on its own pooled state that is learnt
    beside it and is not saved with it.

    The logits of a class are kept apart from its weight: ``z(c, r) = +-s / (2 tau) + log
        softmax_r(head_c)``. So ``logsumexp_r
    z(relevant, r) - logsumexp_r z(not relevant, r)`` is the student's score ``s / tau`` exactly,
    and the saved model is a plain cross-encoder with one output, which costs what it did. This
    split is ours; the paper's head makes all logits freely.

    Attributes:
        directions: k of each class.
        tau, teacher_tau: divide the scores of student and teacher.
        threshold: the teacher's score of a document that it holds to be as likely relevant as not.
        temperature: of the subclasses; small ones make them hard.
    """

    has_parameters: ClassVar[bool] = True
    fits_to_sample: ClassVar[bool] = True
    directions: int = 4
    tau: float = 1.0
    teacher_tau: float = 1.0
    threshold: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self.check_whole("directions", 1)
        self.check_positive("tau", "teacher_tau", "temperature")
        if isinstance(self.threshold, bool) or not isinstance(self.threshold, int | float):
            raise IrdistillError(f"LELP(threshold={self.threshold!r}): threshold must be a number.")
        object.__setattr__(self, "threshold", float(self.threshold))

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"score", "representation"})

    @property
    def representations(self) -> frozenset[str]:
        return frozenset({"pairs"})

    def chances(self, scores: Tensor) -> Tensor:
        """(..., 2) the teacher's probabilities of *not relevant* and *relevant*."""
        logits = (scores - self.threshold) / self.teacher_tau
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=-1)

    def make_parameters(self, example: ScoreBatch, sample: FittingSample | None) -> nn.Module:
        if (
            sample is None
            or example.student_representations is None
            or example.student_representations.pairs is None
        ):
            raise ValueError(
                f"{self} is fitted to a sample of the teacher's states, and needs the student's"
                " pairs"
            )
        if len(sample.states) <= self.directions:
            raise IrdistillError(
                f"{self}: only {len(sample.states)} pairs have a state; more than {self.directions}"
                " are needed."
            )
        made = PseudoClasses(
            example.student_representations.pairs.shape[-1],
            sample.states.shape[-1],
            self.directions,
        )
        made.fit(sample.states, self.chances(sample.scores), sample.classifier)
        return made

    def compute(self, batch: ScoreBatch) -> Tensor:
        own, theirs = (
            getattr(states, "pairs", None)
            for states in (batch.student_representations, batch.teacher_representations)
        )
        if own is None or theirs is None:
            raise ValueError(
                "this needs the pairs in student_representations and teacher_representations"
            )
        assert batch.teacher is not None
        there = batch.scored & ~theirs.isnan().any(dim=-1)
        if not there.any():
            return batch.zero()
        classes = self.parameters_in(batch)
        assert isinstance(classes, PseudoClasses)
        chances = self.chances(batch.teacher[there])
        targets = classes.targets(theirs[there].to(own.dtype), self.temperature)
        score = batch.student[there] / self.tau
        weights = torch.stack([F.logsigmoid(-score), F.logsigmoid(score)], dim=-1)
        found = weights[..., None] + classes.head(own[there]).unflatten(
            -1, targets.shape[1:]
        ).log_softmax(dim=-1)
        return -(chances[..., None] * targets * found).sum(dim=(1, 2)).mean()


class PseudoClasses(nn.Module):
    """The directions of each class, fitted once, and the student's head, which learns.

    Attributes:
        mean: (2, E) of the teacher's states, class by class.
        axes: (2, k, E) of length 1, strongest first.
        spread: (2, k) standard deviation along them.
        head: from the student's state (D) to 2 * 2k logits, class by class, +u before -u.
    """

    mean: Tensor
    axes: Tensor
    spread: Tensor

    def __init__(self, own: int, theirs: int, directions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(_CLASSES, theirs))
        self.register_buffer("axes", torch.zeros(_CLASSES, directions, theirs))
        self.register_buffer("spread", torch.ones(_CLASSES, directions))
        self.head = nn.Linear(own, _CLASSES * 2 * directions)

    @torch.no_grad()
    def fit(self, states: Tensor, chances: Tensor, classifier: Tensor) -> None:
        """Find the directions.

        Args:
            states: (n, E), chances: (n, 2) the weight of each state in each class, classifier: (C,
                E).
        """
        given, weights, seen = states.double(), chances.double(), classifier.double()
        blind = (
            torch.eye(given.shape[1], dtype=given.dtype, device=given.device)
            - torch.linalg.pinv(seen) @ seen
        )
        for number in range(_CLASSES):
            share = weights[:, number] / weights[:, number].sum().clamp_min(1e-12)
            mean = share @ given
            rest = (given - mean) @ blind
            values, axes = torch.linalg.eigh(rest.T @ (rest * share[:, None]))
            count = self.axes.shape[1]
            strongest = axes.T.flip(0)[:count]
            # an eigenvector's sign is arbitrary: the largest entry is made positive, so that it is
            # the same everywhere
            signs = strongest.gather(1, strongest.abs().argmax(dim=1, keepdim=True)).sign()
            self.mean[number], self.axes[number] = mean, strongest * signs
            self.spread[number] = values.flip(0)[:count].clamp_min(1e-12).sqrt()

    def targets(self, states: Tensor, temperature: float) -> Tensor:
        """(n, 2, 2k) the share of each subclass in its class, of the teacher's states (n, E)."""
        along = torch.einsum("nce,cke->nck", states[:, None] - self.mean, self.axes) / (
            self.spread * temperature
        )
        return torch.cat([along, -along], dim=-1).softmax(dim=-1)
