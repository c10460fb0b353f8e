"""Every loss against values worked out by hand and against sentence-transformers' own code."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss

from irdistill.losses import (
    ADRMSE,
    BCE,
    CPRD,
    KL,
    MSE,
    ApproxNDCG,
    Cut,
    Hinge,
    InfoNCE,
    LambdaLoss,
    ListMLE,
    ListNet,
    Loss,
    MarginMSE,
    Preference,
    RankNet,
    ScoreBatch,
)

NAN = math.nan
#: Losses that look at one document at a time: lists of one document teach them something.
POINTWISE = (MSE, BCE)
ALL = [
    KL(),
    KL(tau=0.5, teacher_tau=2),
    MSE(scale=3),
    MarginMSE(),
    MarginMSE(pairs="all"),
    InfoNCE(),
    InfoNCE(negatives="list", masked="teacher"),
    InfoNCE(positive_by="teacher"),
    KL() + 0.1 * InfoNCE(tau=0.5),
    Cut(KL(), 2),
    KL(top=2),
    InfoNCE(masked="share", weights="teacher"),
    BCE(),
    BCE(by="teacher"),
    RankNet(),
    RankNet(tau=2, by="label"),
    Hinge(),
    Hinge(by="teacher"),
    Preference(beta=0.5),
    ListNet(),
    ListNet(by="label"),
    ListMLE(),
    ListMLE(by="label"),
    ADRMSE(),
    ADRMSE(normalize=True, by="label", discount="none"),
    ApproxNDCG(),
    ApproxNDCG(by="label"),
    LambdaLoss(),
    LambdaLoss(scheme="ndcg1", by="label"),
    LambdaLoss(scheme="ndcg2", k=2),
    CPRD(),
    CPRD(positive=False, negatives="list"),
    CPRD(valid="gap>1"),
    CPRD(valid="top<=2", positive=False),
]
BY_NAME = {"argvalues": ALL, "ids": [str(loss) for loss in ALL]}


def example(dtype: torch.dtype = torch.float64) -> ScoreBatch:
    generator = torch.Generator().manual_seed(1)
    return ScoreBatch(
        student=torch.randn(3, 4, generator=generator, dtype=torch.float64).to(dtype),
        teacher=torch.tensor(
            [[4.0, 1.0, 0.5, NAN], [2.0, 3.0, -1.0, 0.0], [1.0, 2.0, NAN, NAN]]
        ).to(dtype),
        mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]),
        labels=torch.tensor([[1, 0, 0, 0], [1, 2, 0, 0], [0, 1, 0, 0]]),
        in_batch=torch.randn(3, 6, generator=generator, dtype=torch.float64).to(dtype),
        columns=torch.tensor([[0, 1, 2, 3], [4, 0, 2, 1], [5, 3, 0, 0]]),
    )


def test_kl_by_hand() -> None:
    batch = ScoreBatch(student=torch.zeros(1, 2), teacher=torch.tensor([[math.log(3.0), 0.0]]))
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert KL()(batch).item() == pytest.approx(expected, abs=1e-6)
    halved = ScoreBatch(student=torch.zeros(1, 2), teacher=torch.tensor([[2 * math.log(3.0), 0.0]]))
    assert KL(teacher_tau=2)(halved).item() == pytest.approx(
        expected, abs=1e-6
    )  # temperatures divide
    sharp = ScoreBatch(student=torch.tensor([[0.1, 0.0]]), teacher=torch.zeros(1, 2))
    p = 1 / (1 + math.exp(-2.0))
    expected = -0.5 * math.log(2 * p) - 0.5 * math.log(2 * (1 - p))
    assert KL(tau=0.05)(sharp).item() == pytest.approx(expected, abs=1e-6)


def test_kl_is_teacher_against_student_and_never_negative() -> None:
    one = ScoreBatch(student=torch.tensor([[0.0, 0.0]]), teacher=torch.tensor([[3.0, 0.0]]))
    other = ScoreBatch(student=torch.tensor([[3.0, 0.0]]), teacher=torch.tensor([[0.0, 0.0]]))
    p = torch.softmax(torch.tensor([3.0, 0.0]), 0)
    assert KL()(one).item() == pytest.approx((p * (p / 0.5).log()).sum().item(), abs=1e-6)
    assert KL()(other).item() == pytest.approx((0.5 * (0.5 / p).log()).sum().item(), abs=1e-6)


def test_kl_is_zero_at_equality_and_does_not_see_a_shift() -> None:
    scores = torch.tensor([[3.0, 1.0, -2.0], [0.5, 0.25, 9.0]])
    assert KL()(ScoreBatch(student=scores, teacher=scores)).item() == 0.0
    assert KL()(ScoreBatch(student=scores - 4, teacher=scores)).item() == pytest.approx(
        0.0, abs=1e-6
    )
    assert KL(tau=0.1, teacher_tau=1)(ScoreBatch(student=scores / 10, teacher=scores)).item() < 1e-6


def test_margin_mse_by_hand() -> None:
    batch = ScoreBatch(
        student=torch.tensor([[3.0, 1.0, 0.0]]),
        teacher=torch.tensor([[5.0, 4.0, -1.0]]),
        labels=torch.tensor([[1, 0, 0]]),
    )
    assert MarginMSE()(batch).item() == pytest.approx(((2 - 1) ** 2 + (3 - 6) ** 2) / 2)
    assert MarginMSE(pairs="all")(batch).item() == pytest.approx((1 + 9 + 16) / 3)
    assert MarginMSE(scale=2)(batch).item() == pytest.approx(((4 - 1) ** 2 + (6 - 6) ** 2) / 2)
    shifted = ScoreBatch(student=batch.student + 7, teacher=batch.teacher - 3, labels=batch.labels)
    assert MarginMSE()(shifted).item() == pytest.approx(MarginMSE()(batch).item(), abs=1e-5)


def test_mse_by_hand() -> None:
    batch = ScoreBatch(
        student=torch.tensor([[1.0, 2.0, 5.0]]), teacher=torch.tensor([[3.0, 2.0, NAN]])
    )
    assert MSE()(batch).item() == pytest.approx(2.0)
    assert MSE(scale=2)(batch).item() == pytest.approx((1 + 4) / 2)


def test_infonce_by_hand() -> None:
    batch = ScoreBatch(student=torch.tensor([[1.0, 0.0, 0.5]]), labels=torch.tensor([[1, 0, 0]]))
    expected = math.log(math.exp(2) + 1 + math.exp(1)) - 2
    assert InfoNCE(tau=0.5)(batch).item() == pytest.approx(expected, abs=1e-6)


def test_infonce_leaves_out_other_positives_and_copies() -> None:
    student = torch.tensor(
        [[1.0, 0.8, 1.0, 0.0]]
    )  # two positives, a copy of the first, one negative
    batch = ScoreBatch(
        student=student,
        labels=torch.tensor([[1, 2, 0, 0]]),
        columns=torch.tensor([[0, 1, 0, 2]]),
        in_batch=torch.tensor([[1.0, 0.8, 0.0, 0.3, 0.9]]),
        positives=torch.tensor([[True, True, False, False, True]]),
    )
    first = math.log(math.exp(1.0) + math.exp(0.0) + math.exp(0.3)) - 1.0
    # for the second positive too: column 0 is known to be relevant, wherever it stands
    second = math.log(math.exp(0.8) + math.exp(0.0) + math.exp(0.3)) - 0.8
    assert InfoNCE(tau=1)(batch).item() == pytest.approx((first + second) / 2, abs=1e-6)
    in_batch = (
        math.log(math.exp(1.0) + math.exp(0.3))
        - 1.0
        + math.log(math.exp(0.8) + math.exp(0.3))
        - 0.8
    )
    assert InfoNCE(tau=1, negatives="batch")(batch).item() == pytest.approx(in_batch / 2, abs=1e-6)


def test_infonce_masks_what_the_teacher_thinks_as_good() -> None:
    batch = ScoreBatch(
        student=torch.tensor([[1.0, 0.0, 0.5]]),
        teacher=torch.tensor([[2.0, 3.0, 1.0]]),
        labels=torch.tensor([[1, 0, 0]]),
    )
    masked = InfoNCE(tau=1, masked="teacher")(batch)
    assert masked.item() == pytest.approx(math.log(1 + math.exp(-0.5)), abs=1e-6)
    best = InfoNCE(tau=1, positive_by="teacher")(
        ScoreBatch(student=batch.student, teacher=batch.teacher)
    )
    assert best.item() == pytest.approx(math.log(math.e + 1 + math.exp(0.5)), abs=1e-6)


def test_sum_weight_cut_and_several_teachers() -> None:
    batch = example()
    total = (KL() + 0.1 * InfoNCE())(batch)
    assert total.item() == pytest.approx(KL()(batch).item() + 0.1 * InfoNCE()(batch).item())
    whole = ScoreBatch(
        student=torch.tensor([[0.0, 5.0, 1.0]]), teacher=torch.tensor([[2.0, NAN, 9.0]])
    )
    top = ScoreBatch(student=torch.tensor([[0.0, 1.0]]), teacher=torch.tensor([[2.0, 9.0]]))
    assert Cut(MSE(), 1)(whole).item() == pytest.approx((1.0 - 9.0) ** 2)
    assert (KL() @ 2)(whole).item() == pytest.approx(KL()(top).item())
    first, second = batch.teacher, torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 3, dtype=torch.float64)
    both = replace(batch, teacher=torch.stack([first, second]))
    apart = [replace(batch, teacher=teacher) for teacher in (first, second)]
    for loss in (KL(), MarginMSE(), KL() @ 2):
        assert loss(both).item() == pytest.approx(sum(loss(one).item() for one in apart) / 2)


@pytest.mark.parametrize("loss", **BY_NAME)
def test_gradients(loss: Loss) -> None:
    fixed = example()

    def value(student: torch.Tensor, in_batch: torch.Tensor) -> torch.Tensor:
        return loss(
            ScoreBatch(
                student=student,
                teacher=fixed.teacher,
                mask=fixed.mask,
                labels=fixed.labels,
                in_batch=in_batch,
                columns=fixed.columns,
            )
        )

    assert fixed.in_batch is not None
    assert torch.autograd.gradcheck(
        value,
        (fixed.student.requires_grad_(), fixed.in_batch.requires_grad_()),
        eps=1e-6,
        atol=1e-5,
    )


@pytest.mark.parametrize("loss", **BY_NAME)
def test_half_precision_is_computed_in_float32(loss: Loss) -> None:
    half = loss(example(torch.float16))
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss(example()).item(), rel=1e-2)


@pytest.mark.parametrize("loss", **BY_NAME)
def test_padding_changes_nothing(loss: Loss) -> None:
    batch = example()

    def wider(value: torch.Tensor | None, fill: float) -> torch.Tensor | None:
        return None if value is None else torch.nn.functional.pad(value, (0, 3), value=fill)

    student, mask = wider(batch.student, NAN), wider(batch.mask, 0)
    assert student is not None
    student.requires_grad_()
    padded = ScoreBatch(
        student=student,
        teacher=wider(batch.teacher, 99.0),
        mask=mask,
        labels=wider(batch.labels, 1),
        columns=wider(batch.columns, 1),
        in_batch=batch.in_batch,
    )
    value = loss(padded)
    value.backward()
    assert value.item() == pytest.approx(loss(batch).item(), rel=1e-12)
    assert torch.isfinite(student.grad).all()  # type: ignore[arg-type]
    assert (student.grad[:, 4:] == 0).all()  # type: ignore[index]


@pytest.mark.parametrize("loss", **BY_NAME)
@pytest.mark.parametrize("kind", ["all null", "lists of one", "all padding"])
def test_nothing_to_learn_is_zero_with_a_zero_gradient(loss: Loss, kind: str) -> None:
    width = 1 if kind == "lists of one" else 3
    student = torch.randn(2, width, requires_grad=True)
    mask = torch.full((2, width), kind != "all padding")
    teacher = torch.full((2, width), 1.0 if kind == "lists of one" else NAN)
    labels = torch.zeros(2, width) if kind == "all null" else torch.ones(2, width)
    if isinstance(loss, POINTWISE) and kind == "lists of one":
        return
    if kind == "all null" and loss == BCE():
        return
    value = loss(ScoreBatch(student=student, teacher=teacher, mask=mask, labels=labels))
    value.backward()
    assert value.item() == 0.0
    assert torch.equal(student.grad, torch.zeros_like(student))  # type: ignore[arg-type]


class Fixed(torch.nn.Module):
    """Stands in for a model: the column's features are the embedding."""

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features["x"]}


def test_sentence_transformers_agrees() -> None:
    """Their losses, run as installed, on the same embeddings."""
    generator = torch.Generator().manual_seed(2)
    query = torch.randn(5, 8, generator=generator)
    columns = [torch.randn(5, 8, generator=generator) for _ in range(4)]
    teacher = torch.randn(5, 4, generator=generator) * 3
    student = torch.stack([(query * column).sum(1) for column in columns], dim=1)
    labels = torch.tensor([[1, 0, 0, 0]] * 5)
    batch = ScoreBatch(student=student, teacher=teacher, labels=labels)
    features = [{"x": query}] + [{"x": column} for column in columns]
    model = Fixed()
    theirs = MarginMSELoss(model)(features, teacher)
    assert MarginMSE()(batch).item() == pytest.approx(theirs.item(), rel=1e-6)
    theirs = DistillKLDivLoss(model, student_temperature=0.5, teacher_temperature=2.0)(
        features, teacher
    )
    assert KL(tau=0.5, teacher_tau=2)(batch).item() * 0.5**2 == pytest.approx(
        theirs.item(), rel=1e-5
    )


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"expected \(2, 3\) or \(T, B, N\)"):
        ScoreBatch(student=torch.zeros(2, 3), teacher=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="columns"):
        ScoreBatch(student=torch.zeros(2, 3), in_batch=torch.zeros(2, 4))
