"""MultiValueCommand teachers in one batch: the loss is the (weighted) mean over them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from irdistill.losses import Loss, ScoreBatch, parse_loss

LOSSES = [
    parse_loss(text)
    for text in (
        "KL(tau=0.5)",
        "MarginMSE",
        "MSE(scale=2)",
        "KL@2",
        'InfoNCE(negatives="list")',
        "KL + 0.1*InfoNCE(tau=0.5)",
        'InfoNCE(tau=0.5, weights="teacher")',
        "CPRD(tau=0.5)",
        "ListNet",
        "ListMLE",
        "RankNet",
        "Preference",
        "ADRMSE",
        "ApproxNDCG",
        "LambdaLoss",
        'BCE(by="teacher")',
    )
]


def batch(teachers: int = 3, lists: int = 4) -> ScoreBatch:
    generator = torch.Generator().manual_seed(2)
    teacher = torch.randn(teachers, lists, 5, generator=generator, dtype=torch.float64)
    teacher[0, 1, 3] = torch.nan
    labels = torch.zeros(lists, 5)
    labels[:, 0] = 1
    return ScoreBatch(
        student=torch.randn(lists, 5, generator=generator, dtype=torch.float64),
        teacher=teacher,
        labels=labels,
        in_batch=torch.randn(lists, 9, generator=generator, dtype=torch.float64),
        columns=torch.arange(5).expand(lists, 5),
        positives=torch.zeros(lists, 9, dtype=torch.bool),
    )


def apart(loss: Loss, inputs: ScoreBatch) -> list[float]:
    assert inputs.teacher is not None
    return [
        float(loss(replace(inputs, teacher=scores, teacher_weights=None)))
        for scores in inputs.teacher
    ]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_the_loss_is_the_mean_of_those_against_each_teacher(loss: Loss) -> None:
    inputs = batch()
    one, two, three = apart(loss, inputs)
    assert float(loss(inputs)) == pytest.approx((one + two + three) / 3, rel=1e-12)
    weighted = replace(inputs, teacher_weights=torch.tensor([1.0, 3.0, 0.0]))
    assert float(loss(weighted)) == pytest.approx((one + 3 * two) / 4, rel=1e-12)
    alone = replace(inputs, teacher_weights=torch.tensor([0.0, 0.0, 5.0]))
    assert float(loss(alone)) == pytest.approx(three, rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_weights_of_one_teacher_give_its_gradient(loss: Loss) -> None:
    inputs = batch()
    gradients = []
    for stored in (
        replace(inputs, teacher_weights=torch.tensor([0.0, 1.0, 0.0])),
        replace(inputs, teacher=inputs.teacher[1]),
    ):  # type: ignore[index]
        student = stored.student.clone().requires_grad_()
        loss(replace(stored, student=student)).backward()
        gradients.append(student.grad)
    assert torch.allclose(*gradients)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_weights_list_by_list(loss: Loss) -> None:
    """By hand: each list as a batch of its own, its weighted mean over teachers, and the mean of
    these.
    """
    inputs = batch()
    weights = torch.tensor([[1.0, 0.0, 2.0, 1.0], [1.0, 1.0, 0.0, 1.0], [0.0, 0.0, 2.0, 6.0]])
    expected = 0.0
    for place in range(4):
        assert (
            inputs.teacher is not None and inputs.labels is not None and inputs.in_batch is not None
        )
        alone = ScoreBatch(
            student=inputs.student[place : place + 1],
            teacher=inputs.teacher[:, place : place + 1],
            labels=inputs.labels[place : place + 1],
            in_batch=inputs.in_batch[place : place + 1],
            columns=torch.arange(5)[None],
            positives=torch.zeros(1, 9, dtype=torch.bool),
        )
        student_vectors = weights[:, place] / weights[:, place].sum()
        expected += (
            sum(
                float(w) * value
                for w, value in zip(student_vectors, apart(loss, alone), strict=True)
            )
            / 4
        )
    assert float(loss(replace(inputs, teacher_weights=weights))) == pytest.approx(
        expected, rel=1e-6
    )


def test_equal_weights_list_by_list_are_the_plain_mean_of_a_loss_that_is_a_mean_over_lists() -> (
    None
):
    loss, inputs = parse_loss("KL(tau=0.5)"), batch()
    assert float(loss(replace(inputs, teacher_weights=torch.full((3, 4), 0.3)))) == pytest.approx(
        float(loss(inputs)), rel=1e-6
    )


@pytest.mark.parametrize("shape", [(2,), (4, 3), (3, 4, 5), ()])
def test_weights_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="teacher weights of shape"):
        replace(batch(), teacher_weights=torch.ones(shape))
    with pytest.raises(ValueError, match="teacher weights of shape"):
        replace(batch(), teacher=None, teacher_weights=torch.ones(3))


@pytest.mark.parametrize(
    "text",
    [
        'InfoNCE(tau=0.5, negatives="list")',
        "Hinge",
        'RankNet(by="label")',
        'ListNet(by="label")',
        'ListMLE(by="label")',
        "Preference",
        'ADRMSE(by="label")',
        'ApproxNDCG(by="label")',
        'LambdaLoss(by="label")',
        "BCE",
        "CPRD(tau=0.5)",
    ],
)
def test_a_suspected_document_is_no_negative_of_a_label(text: str) -> None:
    """The loss is that of the lists without it; losses of the teacher's numbers keep it."""
    inputs = replace(batch(1), in_batch=None)
    assert inputs.teacher is not None and inputs.mask is not None
    inputs = replace(inputs, teacher=inputs.teacher[0].nan_to_num())
    positives = torch.zeros(4, 9, dtype=torch.bool)
    positives[:, 0] = True
    positives[1, 3] = positives[2, 4] = True
    assert inputs.mask is not None
    without = inputs.mask.clone()
    without[1, 3] = without[2, 4] = False
    loss = parse_loss(text)
    marked = float(loss(replace(inputs, positives=positives)))
    assert marked == pytest.approx(float(loss(replace(inputs, mask=without))), rel=1e-9)
    assert marked != pytest.approx(float(loss(inputs)), rel=1e-3)
    for kept in ("KL", "MarginMSE", "RankNet"):
        assert float(parse_loss(kept)(replace(inputs, positives=positives))) == float(
            parse_loss(kept)(inputs)
        )
