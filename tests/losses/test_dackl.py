"""DACKL: the mask, its guard, and what it is when the mask is open."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from irdistill.errors import IrdistillError
from irdistill.losses import DACKL, KL, ScoreBatch, make_loss_parameters, parse_loss
from irdistill.losses.dackl import features, rank_from_below

NAN = math.nan


class Bounds(nn.Module):
    """A network that says the same of every list."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.said = torch.tensor([low, high], dtype=torch.float64)

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.said.expand(len(seen), 2)


def batch(seed: int = 0, rows: int = 5, width: int = 7, **inputs: object) -> ScoreBatch:
    draw = torch.Generator().manual_seed(seed)
    teacher = 3 * torch.randn(rows, width, generator=draw).double()
    teacher[0, 3] = NAN
    mask = torch.ones(rows, width, dtype=torch.bool)
    mask[1, 2:] = False
    fields = {
        "student": torch.randn(rows, width, generator=draw).double(),
        "teacher": teacher,
        "mask": mask,
    }
    return ScoreBatch(**fields | inputs)  # type: ignore[arg-type]


def with_bounds(loss: DACKL, low: float, high: float, inputs: ScoreBatch) -> float:
    return float(
        loss(
            ScoreBatch(
                inputs.student,
                inputs.teacher,
                inputs.mask,
                inputs.labels,
                parameters={str(loss): Bounds(low, high)},
            )
        )
    )


def test_an_open_mask_is_kl() -> None:
    inputs = batch()
    expected = KL(tau=0.5, teacher_tau=2)(inputs).item()
    loss = DACKL(tau=0.5, teacher_tau=2)
    assert with_bounds(loss, -60, -60, inputs) == pytest.approx(expected, rel=1e-3)
    # a mask that collapses altogether is opened by its guard, and gains nothing
    everything = DACKL(tau=0.5, teacher_tau=2, least=7)
    assert with_bounds(everything, 60, 60, inputs) == pytest.approx(expected, rel=1e-6)


def test_the_mask_by_hand() -> None:
    """Four documents of ranks 1, 1/3, 2/3 and 0; lo at 0.5 and hi beyond the first."""
    loss = DACKL(width=0.1, least=1)
    scores = torch.tensor([[9.0, 1.0, 5.0, -2.0]], dtype=torch.float64)
    usable, none = torch.ones(1, 4, dtype=torch.bool), torch.zeros(1, 4, dtype=torch.bool)
    assert rank_from_below(scores, usable)[0].tolist() == pytest.approx([1, 1 / 3, 2 / 3, 0])
    # lo = 2 * sigmoid(a) - 1 = 0.5, hi = 2 * (1 - sigmoid(b)) = 1.5
    network = Bounds(math.log(3), -math.log(3))

    def edge(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    expected = [
        edge((rank - 0.5) / 0.1) * edge((1.5 - rank) / 0.1) for rank in (1, 1 / 3, 2 / 3, 0)
    ]
    result = loss.mask(network, scores, usable, none)
    assert result[0].tolist() == pytest.approx(expected, abs=1e-12)
    kept = torch.tensor([[False, False, False, True]])
    assert loss.mask(network, scores, usable, kept)[0].tolist() == pytest.approx(
        [*expected[:3], 1.0], abs=1e-12
    )
    m = torch.tensor(expected, dtype=torch.float64)
    teacher, student = (
        (m * scores[0].softmax(0)),
        (m * torch.tensor([0.3, 0.1, 0.2, 0.4], dtype=torch.float64).softmax(0)),
    )
    teacher, student = teacher / teacher.sum(), student / student.sum()
    by_hand = float((teacher * (teacher / student).log()).sum())
    inputs = ScoreBatch(
        torch.tensor([[0.3, 0.1, 0.2, 0.4]], dtype=torch.float64),
        scores,
        parameters={str(loss): network},
    )
    assert loss(inputs).item() == pytest.approx(by_hand, abs=1e-12)


def test_ranks_of_ties_and_of_what_is_not_usable() -> None:
    scores = torch.tensor([[2.0, 5.0, 2.0, 0.0, 9.0]])
    usable = torch.tensor([[True, True, True, True, False]])
    assert rank_from_below(scores, usable)[0].tolist() == pytest.approx([0.5, 1.0, 0.5, 0.0, 0.0])
    assert rank_from_below(torch.ones(1, 3), torch.ones(1, 3, dtype=torch.bool))[0].tolist() == [
        0.5,
        0.5,
        0.5,
    ]


def test_what_the_network_sees_does_not_change_with_shift_scale_or_padding() -> None:
    scores = torch.tensor([[4.0, 1.0, 0.0, -5.0]], dtype=torch.float64)
    usable = torch.ones(1, 4, dtype=torch.bool)
    seen = features(
        scores, usable, 1e9
    )  # of a flat teacher the entropy is 1 and does not change either
    assert torch.allclose(features(scores * 3 + 100, usable, 1e9), seen)
    padded, there = (
        torch.tensor([[4.0, NAN, 1.0, 0.0, -5.0, 0.0]], dtype=torch.float64),
        torch.tensor([[1, 0, 1, 1, 1, 0]]).bool(),
    )
    assert torch.allclose(features(padded, there, 1e9), seen)
    spread = math.sqrt(sum((s - 0.0) ** 2 for s in (4, 1, 0, -5)) / 4)
    assert seen[0, 0].item() == pytest.approx(4 / spread) and seen[0, 7].item() == pytest.approx(
        -5 / spread
    )
    assert seen[0, 8].item() == pytest.approx(1.0)
    assert seen[0, 9].item() == pytest.approx(3 / spread) and seen[0, 10].item() == pytest.approx(
        5 / spread
    )
    same = features(torch.ones(1, 4), usable, 1.0)
    assert torch.isfinite(same).all()


@pytest.mark.parametrize("least", [2.0, 4.0])
def test_the_guard_keeps_the_masks_mass(least: float) -> None:
    """A student that cannot learn tempts the network to mask all that is hard."""
    inputs = batch(rows=6, width=8, mask=torch.ones(6, 8, dtype=torch.bool))
    loss = DACKL(least=least)
    network = make_loss_parameters(loss, inputs)[str(loss)]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    assert inputs.teacher is not None
    usable, none = ~inputs.teacher.isnan(), torch.zeros(6, 8, dtype=torch.bool)
    masses, values = [], []
    for _ in range(150):
        value = loss(ScoreBatch(inputs.student, inputs.teacher, parameters={str(loss): network}))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        with torch.no_grad():
            masses.append(float(loss.mask(network, inputs.teacher, usable, none).sum(dim=1).mean()))
            values.append(float(value))
    assert masses[0] > 6.5  # it begins almost open
    assert min(masses) >= least - 1e-9
    assert masses[-1] < 6 and values[-1] < 0.9 * values[0]  # and it does learn to mask


def test_positives_ties_short_lists_and_half_precision() -> None:
    loss = DACKL(least=1)
    one = ScoreBatch(torch.zeros(1, 1), torch.ones(1, 1), parameters={})
    assert loss(one).item() == 0.0  # no list of two: the network is not even asked
    inputs = batch(labels=torch.tensor([[0, 0, 1, 0, 0, 0, 0]] * 5))
    network = Bounds(60, 60)
    assert inputs.teacher is not None
    mask = DACKL(least=0.5).mask(network, inputs.teacher, inputs.scored, inputs.relevant)
    assert mask[2].tolist() == pytest.approx([0, 0, 1, 0, 0, 0, 0], abs=1e-3)
    assert mask[1].tolist()[2:] == [0] * 5  # padding
    half = ScoreBatch(
        inputs.student.half(),
        inputs.teacher.half(),
        inputs.mask,
        parameters=make_loss_parameters(loss, batch()),
    )
    assert half.student.dtype == torch.float32
    half = ScoreBatch(
        inputs.student.half(),
        inputs.teacher.half(),
        inputs.mask,
        parameters=make_loss_parameters(loss, half),
    )
    assert torch.isfinite(loss(half)) and loss(half).dtype == torch.float32


def test_gradients_and_several_teachers() -> None:
    inputs = batch()
    loss = DACKL(tau=0.7, least=2)
    parameters = make_loss_parameters(loss, inputs)
    torch.nn.init.normal_(parameters[str(loss)][2].weight)  # type: ignore[index]

    def of(student: torch.Tensor) -> torch.Tensor:
        return loss(ScoreBatch(student, inputs.teacher, inputs.mask, parameters=parameters))

    assert torch.autograd.gradcheck(of, inputs.student.clone().requires_grad_())
    value = of(inputs.student)
    value.backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in parameters[str(loss)].parameters()
    )
    assert inputs.teacher is not None
    both = torch.stack([inputs.teacher, -inputs.teacher])
    parts = [
        loss(ScoreBatch(inputs.student, teacher, inputs.mask, parameters=parameters))
        for teacher in both
    ]
    together = loss(ScoreBatch(inputs.student, both, inputs.mask, parameters=parameters))
    assert together.item() == pytest.approx((parts[0] + parts[1]).item() / 2)


def test_in_expressions() -> None:
    loss = parse_loss("DACKL(tau=0.05, least=2)@4 + 0.5*KL")
    assert parse_loss(str(loss)) == loss and loss.needs == {"score"} and not loss.representations
    inputs = batch()
    parameters = make_loss_parameters(loss, inputs, seed=3)
    assert list(parameters) == ["DACKL(tau=0.05, least=2)"]
    one, same = (
        list(made[next(iter(made))].parameters())
        for made in (parameters, make_loss_parameters(loss, inputs, seed=3))
    )
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert torch.isfinite(
        loss(ScoreBatch(inputs.student, inputs.teacher, inputs.mask, parameters=parameters))
    )
    with pytest.raises(ValueError, match="make_loss_parameters"):
        loss(inputs)
    for wrong in ("DACKL(width=0)", "DACKL(least=-1)", "DACKL(tau=0)"):
        with pytest.raises(IrdistillError, match="above 0"):
            parse_loss(wrong)
