"""Learning the teacher's states of pairs as subclasses of relevant and not relevant."""

from __future__ import annotations

from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from irdistill.errors import InputError
from irdistill.losses.batch import ScoreBatch
from irdistill.losses.loss_base import Loss, register
from irdistill.losses.parameter_checks import AtLeast, Positive
from irdistill.losses.representations import FittingSample, both_models

_CLASSES = 2  # not relevant, relevant


@register("LELP", needs={"score", "representation"})
class LELP(Loss):
    """Cross-entropy over subclasses into which the teacher's states fall (arXiv 2409.20449).

    Two classes are little to learn from. So, before the first step, for each class the teacher's
    pooled states are weighted by its probability of the class, the directions that its classifier
    reads are projected out, and the k strongest remaining directions ``u_j`` are found. Each
    direction makes two subclasses, one at either end::

        p(c, r | x) = p_T(c | x) * softmax_r [ +u_j . h / (sd_j * temperature),
                                               -u_j . h / (sd_j * temperature) ]

    with ``p_T(relevant) = sigmoid((t - threshold) / teacher_tau)``. The student learns ``-sum p log
    q`` over these ``2 * 2k`` logits. A linear layer on its pooled state makes them; the layer is
    trained beside the student and is not saved with it.

    The subclass logits do not change the weight of a class: ``z(c, r) = +-s / (2 tau) + log
    softmax_r(head_c)``. So ``logsumexp_r z(relevant, r) - logsumexp_r z(not relevant, r)`` is the
    student's score ``s / tau`` exactly, and the saved model is a plain cross-encoder with one
    output at the same cost. The head of the paper makes all logits freely instead.

    Attributes:
        directions: k for each class.
        tau: divides the scores of the student.
        teacher_tau: divides the scores of the teacher.
        threshold: the teacher's score at which relevant and not relevant are equally likely.
        temperature: of the subclasses; small ones make them hard.
    """

    has_parameters: ClassVar[bool] = True
    fits_to_sample: ClassVar[bool] = True
    directions: Annotated[int, AtLeast(1)] = 4
    tau: Positive = 1.0
    teacher_tau: Positive = 1.0
    threshold: float = 0.0
    temperature: Positive = 1.0

    @property
    def representations(self) -> frozenset[str]:
        """States of pairs."""
        return frozenset({"pairs"})

    def chances(self, scores: Tensor) -> Tensor:
        """(..., 2) the teacher's probabilities of *not relevant* and *relevant*."""
        logits = (scores - self.threshold) / self.teacher_tau
        return torch.stack([(-logits).sigmoid(), logits.sigmoid()], dim=-1)

    def make_parameters(self, example: ScoreBatch, sample: FittingSample | None) -> nn.Module:
        """The fitted subclasses and the student's head.

        Raises:
            InputError: the sample has too few states.
        """
        student = example.student_representations
        if sample is None or student is None or student.pairs is None:
            raise ValueError(f"{self} needs a FittingSample and the student's pairs")
        if len(sample.states) <= self.directions:
            raise InputError(
                f"{self}: only {len(sample.states)} pairs have a state; more than {self.directions}"
                " are needed."
            )
        classes = PseudoClasses(student.pairs.shape[-1], sample.states.shape[-1], self.directions)
        classes.fit(sample.states, self.chances(sample.scores), sample.classifier)
        return classes

    def compute(self, batch: ScoreBatch) -> Tensor:
        """Mean over the scored pairs that have a teacher state."""
        student, teacher = both_models(batch, "pairs")
        assert batch.teacher is not None
        usable = batch.scored & ~teacher.isnan().any(dim=-1)
        if not usable.any():
            return batch.zero()
        classes = self.parameters_in(batch)
        assert isinstance(classes, PseudoClasses)
        chances = self.chances(batch.teacher[usable])
        targets = classes.targets(teacher[usable].to(student.dtype), self.temperature)
        score = batch.student[usable] / self.tau
        class_logs = torch.stack([F.logsigmoid(-score), F.logsigmoid(score)], dim=-1)
        subclass_logits = classes.head(student[usable]).unflatten(-1, targets.shape[1:])
        logs = class_logs[..., None] + subclass_logits.log_softmax(dim=-1)
        return -(chances[..., None] * targets * logs).sum(dim=(1, 2)).mean()


class PseudoClasses(nn.Module):
    """The fitted directions of each class and the student's head, which is trained.

    Attributes:
        mean: (2, E) mean of the teacher's states by class.
        axes: (2, k, E) directions of length 1, strongest first.
        spread: (2, k) standard deviation along them.
        head: from the student's state (D) to 2 * 2k logits, class by class, +u before -u.
    """

    mean: Tensor
    axes: Tensor
    spread: Tensor

    def __init__(self, student: int, teacher: int, directions: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(_CLASSES, teacher))
        self.register_buffer("axes", torch.zeros(_CLASSES, directions, teacher))
        self.register_buffer("spread", torch.ones(_CLASSES, directions))
        self.head = nn.Linear(student, _CLASSES * 2 * directions)

    @torch.no_grad()
    def fit(self, states: Tensor, chances: Tensor, classifier: Tensor) -> None:
        """Find the directions.

        Args:
            states: (n, E).
            chances: (n, 2) the weight of each state in each class.
            classifier: (C, E).
        """
        states, weights, classifier = states.double(), chances.double(), classifier.double()
        unread = (
            torch.eye(states.shape[1], dtype=states.dtype, device=states.device)
            - torch.linalg.pinv(classifier) @ classifier
        )
        for number in range(_CLASSES):
            share = weights[:, number] / weights[:, number].sum().clamp_min(1e-12)
            mean = share @ states
            rest = (states - mean) @ unread
            values, axes = torch.linalg.eigh(rest.T @ (rest * share[:, None]))
            count = self.axes.shape[1]
            strongest = axes.T.flip(0)[:count]
            # the sign of an eigenvector is arbitrary: make its largest entry positive
            signs = strongest.gather(1, strongest.abs().argmax(dim=1, keepdim=True)).sign()
            self.mean[number], self.axes[number] = mean, strongest * signs
            self.spread[number] = values.flip(0)[:count].clamp_min(1e-12).sqrt()

    def targets(self, states: Tensor, temperature: float) -> Tensor:
        """(n, 2, 2k) shares of the subclasses in their classes, for teacher states (n, E)."""
        along = torch.einsum("nce,cke->nck", states[:, None] - self.mean, self.axes) / (
            self.spread * temperature
        )
        return torch.cat([along, -along], dim=-1).softmax(dim=-1)
