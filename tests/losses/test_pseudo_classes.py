"""Losses over pseudo-classes of the teacher's states: what is found, what is parameters, hand values,
and what is missing.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from irdistill.errors import IrdistillError
from irdistill.losses import (
    LELP,
    BatchRepresentations,
    FittingSample,
    ScoreBatch,
    make_loss_parameters,
)
from irdistill.losses.pseudo_classes import PseudoClasses
from tests.losses.representation_batches import NAN, normal


def teacher_with_subclasses(
    count: int = 400,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """BatchRepresentations (n, 6) in which each class falls into two halves: of relevant pairs along axis 1, of
    others along axis 2.

    Axis 0 is what the classifier sees, and varies most. Also the scores, the classifier and the
    halves (-1 or 1).
    """
    relevant = torch.arange(count) % 2 == 0
    half = torch.where(normal(count, seed=3) > 0, 1.0, -1.0).double()
    states = 0.1 * normal(count, 6, seed=4)
    states[:, 0] += torch.where(relevant, 10.0, -10.0) + 5 * normal(count, seed=5)
    states[relevant, 1] += 2 * half[relevant]
    states[~relevant, 2] += 2 * half[~relevant]
    classifier = torch.zeros(1, 6).double()
    classifier[0, 0] = 2.0
    return states, torch.where(relevant, 20.0, -20.0).double(), classifier, half


def test_lelp_finds_the_subclasses_that_are_there_and_not_what_the_classifier_sees() -> None:
    states, scores, classifier, half = teacher_with_subclasses()
    loss = LELP(directions=2, temperature=0.2)
    classes = PseudoClasses(6, 6, 2).double()
    classes.fit(states, loss.chances(scores), classifier)
    assert abs(float(classes.axes[1, 0, 1])) == pytest.approx(1, abs=1e-3)  # relevant pairs: axis 1
    assert abs(float(classes.axes[0, 0, 2])) == pytest.approx(1, abs=1e-3)
    assert classes.axes[:, :, 0].abs().max() < 1e-9
    assert classes.axes.norm(dim=2).flatten().tolist() == pytest.approx([1] * 4)
    assert float(classes.spread[1, 0]) == pytest.approx(
        float(states[scores > 0, 1].std(correction=0)), rel=1e-2
    )
    shares = classes.targets(states, 0.2)
    assert shares.shape == (400, 2, 4) and torch.allclose(
        shares.sum(dim=2), torch.ones(400, 2).double()
    )
    student_vectors = shares[scores > 0, 1]
    up = student_vectors[:, 0] > student_vectors[:, 2]  # +u_1 against -u_1
    assert torch.equal(up, half[scores > 0] * classes.axes[1, 0, 1].sign() > 0)


def test_a_student_learns_the_subclasses() -> None:
    states, scores, classifier, half = teacher_with_subclasses()
    turned = states @ torch.linalg.qr(normal(6, 6, seed=7)).Q
    loss = LELP(directions=1, temperature=0.2)
    example = ScoreBatch(
        scores[None],
        scores[None],
        student_representations=BatchRepresentations(pairs=turned[None]),
        teacher_representations=BatchRepresentations(pairs=states[None]),
    )
    parameters = make_loss_parameters(loss, example, FittingSample(states, scores, classifier))
    classes = parameters[str(loss)]
    assert isinstance(classes, PseudoClasses)
    optimiser = torch.optim.Adam(classes.parameters(), lr=0.05)
    for _ in range(150):
        value = loss(
            ScoreBatch(
                scores[None],
                scores[None],
                student_representations=example.student_representations,
                teacher_representations=example.teacher_representations,
                parameters=parameters,
            )
        )
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert value.item() < 0.05  # -sum p log q of nearly hard subclasses
    said = classes.head(turned).unflatten(-1, (2, 2))[scores > 0, 1]
    right = (said[:, 0] > said[:, 1]) == (half[scores > 0] * classes.axes[1, 0, 1].sign() > 0)
    assert float(right.double().mean()) > 0.99


def lelp_example() -> tuple[LELP, dict[str, Any], dict[str, nn.Module]]:
    loss = LELP(directions=2, tau=0.7, teacher_tau=2, threshold=0.5)
    scores = normal(2, 3, seed=2)
    student_vectors, theirs = normal(2, 3, 4), normal(2, 3, 5, seed=1)
    fields = {
        "student": normal(2, 3, seed=6),
        "teacher": scores,
        "student_representations": BatchRepresentations(pairs=student_vectors),
        "teacher_representations": BatchRepresentations(pairs=theirs),
    }
    sample = FittingSample(normal(50, 5, seed=11), normal(50, seed=12), normal(1, 5, seed=13))
    return loss, fields, make_loss_parameters(loss, ScoreBatch(**fields), sample)


def test_lelp_by_hand_and_its_relevance_is_a_difference_of_log_sums() -> None:
    loss, fields, parameters = lelp_example()
    classes = parameters[str(loss)]
    assert isinstance(classes, PseudoClasses)
    total = 0.0
    for i in range(2):
        for j in range(3):
            s, t = float(fields["student"][i, j]) / 0.7, (float(fields["teacher"][i, j]) - 0.5) / 2
            head = classes.head(fields["student_representations"].pairs[i, j]).unflatten(-1, (2, 4))
            z = torch.stack([-s / 2 + head[0].log_softmax(0), s / 2 + head[1].log_softmax(0)])
            assert float(z[1].logsumexp(0) - z[0].logsumexp(0)) == pytest.approx(s, abs=1e-12)
            p_class = [1 / (1 + math.exp(t)), 1 / (1 + math.exp(-t))]
            for c in range(2):
                h = fields["teacher_representations"].pairs[i, j] - classes.mean[c]
                along = torch.stack(
                    [classes.axes[c, k] @ h / classes.spread[c, k] for k in range(2)]
                )
                p = torch.cat([along, -along]).softmax(0) * p_class[c]
                total -= float((p * z.flatten().log_softmax(0).reshape(2, 4)[c]).sum()) / 6
    assert loss(ScoreBatch(**fields, parameters=parameters)).item() == pytest.approx(
        total, abs=1e-9
    )


def test_lelp_leaves_out_what_has_no_score_or_state() -> None:
    loss, fields, parameters = lelp_example()
    mask = torch.tensor([[True, True, True], [True, True, False]])
    teacher, states = fields["teacher"].clone(), fields["teacher_representations"].pairs.clone()
    teacher[0, 1], states[1, 0] = NAN, NAN
    fields = fields | {
        "teacher": teacher,
        "teacher_representations": BatchRepresentations(pairs=states),
        "mask": mask,
    }
    kept = [(0, 0), (0, 2), (1, 1)]

    def only(values: torch.Tensor) -> torch.Tensor:
        return torch.stack([values[place] for place in kept])[None]

    few = {
        "student": only(fields["student"]),
        "teacher": only(teacher),
        "student_representations": BatchRepresentations(
            pairs=only(fields["student_representations"].pairs)
        ),
        "teacher_representations": BatchRepresentations(pairs=only(states)),
    }
    result = loss(ScoreBatch(**fields, parameters=parameters)).item()
    assert result == pytest.approx(loss(ScoreBatch(**few, parameters=parameters)).item(), abs=1e-12)
    none = fields | {"teacher": torch.full_like(teacher, NAN)}
    assert loss(ScoreBatch(**none, parameters=parameters)).item() == 0.0
    with pytest.raises(IrdistillError, match="only 2 pairs have a state; more than 2"):
        make_loss_parameters(
            loss, ScoreBatch(**fields), FittingSample(normal(2, 5), normal(2), normal(1, 5))
        )
