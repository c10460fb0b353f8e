"""Losses on in-batch teacher scores: hand values, identities, gradients, and sentence-transformers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss
from torch import nn
from torch.nn import functional as F

from irdistill.errors import IrdistillError, OptionError
from irdistill.losses import (
    KL,
    MSE,
    InfoNCE,
    ListMLE,
    ListNet,
    Loss,
    MarginMSE,
    ScoreBatch,
    parse_loss,
    register,
)

NAN = math.nan
OVER_BATCH: list[Loss] = [
    KL(tau=0.5, negatives="batch"),
    KL(top=3, negatives="batch"),
    KL(negatives="batch") @ 3,
    ListNet(tau=0.5, negatives="batch"),
    ListMLE(negatives="batch"),
    MSE(scale=2, negatives="batch"),
    MarginMSE(negatives="batch"),
    MarginMSE(pairs="all", negatives="batch"),
]
GUIDED: list[Loss] = [
    InfoNCE(tau=0.5, masked="teacher", masked_in="all"),
    InfoNCE(tau=0.5, masked="teacher", margin=0.5, masked_in="all", negatives="batch"),
    InfoNCE(tau=0.5, masked="share", share=0.9, masked_in="all"),
]
ALL = [*OVER_BATCH, *GUIDED, KL(negatives="batch") + 0.5 * InfoNCE()]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def example() -> ScoreBatch:
    """Three lists of at most four documents, seven unique ones; some unscored, one suspected."""
    columns = torch.tensor([[0, 1, 2, 3], [4, 0, 2, 1], [5, 6, 0, 0]])
    every, teacher = normal(3, 7, seed=1), normal(3, 7, seed=2)
    teacher[0, 5] = teacher[1, 6] = NAN
    positives = torch.zeros(3, 7, dtype=torch.bool)
    positives[[0, 1, 2, 0], [0, 4, 5, 6]] = True
    return ScoreBatch(
        student=every.gather(1, columns),
        teacher=teacher.gather(1, columns),
        mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]),
        labels=torch.tensor([[1, 0, 0, 0], [2, 0, 0, 0], [1, 0, 1, 1]]),
        in_batch=every,
        columns=columns,
        teacher_in_batch=teacher,
        positives=positives,
    )


def as_lists(batch: ScoreBatch) -> ScoreBatch:
    """The same documents as plain lists of the whole batch, with the labels by hand."""
    labels = torch.zeros(3, 7)
    labels[0, 0], labels[1, 4], labels[2, 5] = 1, 2, 1
    return ScoreBatch(student=batch.in_batch, teacher=batch.teacher_in_batch, labels=labels)


def test_kl_over_the_batch_by_hand() -> None:
    batch = ScoreBatch(
        student=torch.zeros(2, 1),
        in_batch=torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.5, 0.0]]),
        columns=torch.tensor([[0], [1]]),
        teacher_in_batch=torch.tensor([[math.log(3.0), 0.0, NAN], [1.0, 1.0, 1.0]]),
    )
    first = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    total = 2 + math.exp(0.5)
    second = sum(math.log((1 / 3) / (math.exp(s) / total)) / 3 for s in (0.0, 0.5, 0.0))
    assert KL(negatives="batch")(batch).item() == pytest.approx((first + second) / 2, abs=1e-6)


@pytest.mark.parametrize(
    "loss",
    [loss for loss in OVER_BATCH if "@" not in str(loss)],
    ids=str,
)
def test_a_loss_over_the_batch_is_the_loss_of_lists_of_all_documents(loss: Any) -> None:
    plain = replace(loss, negatives="list")
    batch = example()
    value = loss(batch).item()
    assert value == pytest.approx(plain(as_lists(batch)).item(), rel=1e-12)
    assert value != pytest.approx(plain(batch).item(), rel=1e-3)


def test_a_cut_takes_the_teachers_first_documents_of_the_batch() -> None:
    batch, loss = example(), KL(negatives="batch")
    assert (loss @ 3)(batch).item() == pytest.approx((KL() @ 3)(as_lists(batch)).item())
    both = (loss + MSE(negatives="batch")) @ 3
    assert both(batch).item() == pytest.approx(((KL() + MSE()) @ 3)(as_lists(batch)).item())
    assert (loss @ 3 @ 2)(batch).item() == pytest.approx((KL() @ 2)(as_lists(batch)).item())
    assert (loss @ 2 @ 3)(batch).item() == pytest.approx((KL() @ 2)(as_lists(batch)).item())


def test_a_student_equal_to_its_teacher_has_no_loss() -> None:
    batch = example()
    equal = replace(batch, in_batch=batch.teacher_in_batch.nan_to_num(nan=7.0))  # type: ignore[union-attr]
    for loss in (KL(negatives="batch"), MSE(negatives="batch"), MarginMSE(negatives="batch")):
        assert loss(equal).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_the_order_of_lists_and_documents_changes_nothing(loss: Loss) -> None:
    batch, lists, documents = example(), [2, 0, 1], torch.tensor([3, 6, 0, 5, 1, 4, 2])
    place = documents.argsort()

    def moved(name: str) -> torch.Tensor:
        value = getattr(batch, name)[lists]
        return value[:, documents] if value.shape[1] == 7 else value

    names = ("student", "teacher", "mask", "labels", "in_batch", "teacher_in_batch", "positives")
    shuffled = ScoreBatch(
        **{name: moved(name) for name in names},
        columns=place[batch.columns[lists]],  # type: ignore[index]
    )
    assert loss(shuffled).item() == pytest.approx(loss(batch).item(), rel=1e-12)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_gradients(loss: Loss) -> None:
    batch = example()

    def value(student: torch.Tensor, every: torch.Tensor) -> torch.Tensor:
        return loss(replace(batch, student=student, in_batch=every))

    inputs = batch.student.requires_grad_(), batch.in_batch.requires_grad_()  # type: ignore[union-attr]
    assert torch.autograd.gradcheck(value, inputs, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_padding_changes_nothing(loss: Loss) -> None:
    batch = example()

    def wider(value: Any, fill: float) -> torch.Tensor:
        return F.pad(value, (0, 2), value=fill)

    padded = replace(
        batch,
        student=wider(batch.student, NAN),
        teacher=wider(batch.teacher, 99.0),
        mask=wider(batch.mask, 0),
        labels=wider(batch.labels, 3),
        columns=wider(batch.columns, 6),
    )
    assert loss(padded).item() == pytest.approx(loss(batch).item(), rel=1e-12)


@pytest.mark.parametrize("loss", OVER_BATCH, ids=str)
def test_nothing_scored_is_zero_with_a_zero_gradient(loss: Loss) -> None:
    every = normal(2, 4).requires_grad_()
    batch = ScoreBatch(
        student=every[:, :2],
        labels=torch.ones(2, 2),
        in_batch=every,
        columns=torch.tensor([[0, 1], [0, 1]]),
        teacher_in_batch=torch.full((2, 4), NAN),
    )
    value = loss(batch)
    value.backward()
    assert value.item() == 0.0 and torch.equal(every.grad, torch.zeros_like(every))  # type: ignore[arg-type]
    # a query that the student cannot read has no list
    unread = replace(batch, mask=torch.zeros(2, 2), teacher_in_batch=normal(2, 4, seed=3))
    assert loss(unread).item() == 0.0


def test_several_teachers_are_a_weighted_mean() -> None:
    batch = example()
    other = normal(3, 7, seed=5)
    both = replace(
        batch,
        teacher=torch.stack([batch.teacher, batch.teacher]),  # type: ignore[list-item]
        teacher_in_batch=torch.stack([batch.teacher_in_batch, other]),  # type: ignore[list-item]
    )
    second = replace(batch, teacher_in_batch=other)
    for loss in (KL(negatives="batch"), GUIDED[0], KL(negatives="batch") @ 3):
        one, two = loss(batch).item(), loss(second).item()
        assert loss(both).item() == pytest.approx((one + two) / 2)
        by_run = replace(both, teacher_weights=torch.tensor([1.0, 3.0]))
        assert loss(by_run).item() == pytest.approx((one + 3 * two) / 4)
    # weights that differ from list to list; each list has all documents of the batch
    loss = KL(negatives="batch")
    weights = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    alone = [loss(one.one_list(i)) for i, one in enumerate((batch, second, batch))]
    mixed = replace(both, teacher_weights=weights)
    assert loss(mixed).item() == pytest.approx(sum(value.item() for value in alone) / 3)


# -- masked false negatives
# ------------------------------------------------------------------------------------------------


def test_guided_infonce_by_hand() -> None:
    """The teacher scores one document of the other list above the positive, and one is unknown."""
    batch = ScoreBatch(
        student=torch.tensor([[0.4, 0.1]]),
        teacher=torch.tensor([[5.0, 6.0]]),
        labels=torch.tensor([[1, 0]]),
        in_batch=torch.tensor([[0.4, 0.1, 0.3, 0.2, 0.6]]),
        columns=torch.tensor([[0, 1]]),
        teacher_in_batch=torch.tensor([[0.8, 0.9, 0.85, 0.75, NAN]]),
    )

    def value(*negatives: float) -> float:
        return math.log(1 + sum(math.exp(s - 0.4) for s in negatives))

    def loss(**parameters: Any) -> Loss:
        return InfoNCE(tau=1, **parameters)

    cases: list[tuple[dict[str, Any], float]] = [
        ({"masked": "teacher"}, value(0.3, 0.2, 0.6)),
        ({"masked": "teacher", "masked_in": "all"}, value(0.2, 0.6)),
        ({"masked": "teacher", "masked_in": "all", "margin": 0.1}, value(0.6)),
        ({"masked": "teacher", "margin": 1.5}, value(0.3, 0.2, 0.6)),
        ({"masked": "share", "share": 1.0, "masked_in": "all"}, value(0.2, 0.6)),
        ({"masked": "share", "share": 0.9, "masked_in": "all"}, value(0.6)),
        ({"masked": "share", "share": 2.0, "masked_in": "all"}, value(0.1, 0.3, 0.2, 0.6)),
        (
            {"masked": "teacher", "masked_in": "all", "negatives": "batch", "margin": 0.02},
            value(0.2, 0.6),
        ),
    ]
    for parameters, expected in cases:
        assert loss(**parameters)(batch).item() == pytest.approx(expected, abs=1e-6), parameters


def test_each_positive_has_its_own_threshold() -> None:
    batch = ScoreBatch(
        student=torch.tensor([[0.4, 0.1]]),
        labels=torch.tensor([[1, 1]]),
        in_batch=torch.tensor([[0.4, 0.1, 0.3]]),
        columns=torch.tensor([[0, 1]]),
        teacher_in_batch=torch.tensor([[0.9, 0.5, 0.7]]),
    )
    loss = InfoNCE(tau=1, masked="teacher", masked_in="all", negatives="batch")
    # the second positive's only negative is scored above it
    assert loss(batch).item() == pytest.approx(math.log(1 + math.exp(-0.1)), abs=1e-6)


def test_a_share_of_a_negative_score() -> None:
    """Relative margins of GISTEmbed: the threshold is below the positive, whatever its sign."""
    batch = ScoreBatch(
        student=torch.tensor([[0.4]]),
        labels=torch.tensor([[1]]),
        in_batch=torch.tensor([[0.4, 0.1, 0.3]]),
        columns=torch.tensor([[0]]),
        teacher_in_batch=torch.tensor([[-0.5, -0.54, -0.56]]),
    )
    loss = InfoNCE(tau=1, masked="share", share=0.9, masked_in="all", negatives="batch")
    assert loss(batch).item() == pytest.approx(math.log(1 + math.exp(-0.1)), abs=1e-6)


class Fixed(nn.Module):
    """Stands in for a model: the column's features are the embedding."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"sentence_embedding": features[self.key]}


@pytest.mark.parametrize(
    ("strategy", "margin", "parameters"),
    [
        ("absolute", 0.0, {"masked": "teacher"}),
        ("absolute", 0.2, {"masked": "teacher", "margin": 0.2}),
        ("relative", 0.05, {"masked": "share", "share": 0.95}),
    ],
)
def test_sentence_transformers_gist_agrees(
    strategy: str, margin: float, parameters: dict[str, Any]
) -> None:
    """Their loss, run as installed, on the same vectors of model and guide."""
    peer = GISTEmbedLoss.__new__(GISTEmbedLoss)
    nn.Module.__init__(peer)
    peer.model, peer.guide = Fixed("model"), Fixed("guide")
    peer.temperature, peer.margin_strategy, peer.margin = 0.05, strategy, margin
    peer.similarity_fct, peer.cross_entropy_loss = (
        nn.CosineSimilarity(dim=-1),
        nn.CrossEntropyLoss(),
    )
    peer.must_retokenize = peer.contrast_anchors = peer.contrast_positives = False
    peer.gather_across_devices = False
    columns = [
        {"model": normal(6, 4, seed=seed), "guide": normal(6, 4, seed=seed + 9)}
        for seed in range(3)
    ]
    columns[1]["guide"] += columns[0]["guide"]  # the guide knows most positives
    theirs = peer([dict(column) for column in columns], torch.tensor([]))

    def cosines(model: str) -> torch.Tensor:
        query, *documents = (F.normalize(column[model], dim=1) for column in columns)
        return query @ torch.cat(documents).T

    student, guide = cosines("model"), cosines("guide")
    place = torch.arange(6)[:, None] + torch.tensor([[0, 6]])  # a positive and a negative
    batch = ScoreBatch(
        student=student.gather(1, place),
        teacher=guide.gather(1, place),
        labels=torch.tensor([[1, 0]] * 6),
        in_batch=student,
        columns=place,
        teacher_in_batch=guide,
    )
    masks = guide >= guide.gather(1, place[:, :1]) - margin
    assert 6 < masks.sum() < 60 and not masks.all(dim=1).any()
    loss = InfoNCE(tau=0.05, masked_in="all", **parameters)
    assert loss(batch).item() == pytest.approx(theirs.item(), rel=1e-9)
    assert loss(batch).item() != pytest.approx(InfoNCE(tau=0.05)(batch).item(), rel=1e-3)


# -- needs and errors
# ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "needs"),
    [
        ('KL(negatives="batch")', {"in_batch"}),
        ('MarginMSE(negatives="batch")', {"in_batch", "label"}),
        ('ListNet(by="label", negatives="batch")', {"label"}),
        ('InfoNCE(masked="teacher")', {"label", "order"}),
        ('InfoNCE(masked="teacher", margin=0.1)', {"label", "score"}),
        ('InfoNCE(masked="teacher", masked_in="all")', {"label", "order", "in_batch"}),
        ('InfoNCE(negatives="batch", masked="share", masked_in="all")', {"label", "in_batch"}),
        ('InfoNCE(negatives="batch", masked="share")', {"label", "in_batch"}),
        ('KL + KL(negatives="batch")', {"score", "in_batch"}),
    ],
)
def test_needs(expression: str, needs: set[str]) -> None:
    loss = parse_loss(expression)
    assert loss.needs == needs and parse_loss(str(loss)) == loss
    assert loss.uses_in_batch


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ('KL(negatives="all")', 'one of "list", "batch"'),
        ("InfoNCE(margin=0.1)", 'margin is for masked="teacher"'),
        ('InfoNCE(masked_in="all")', "needs a rule"),
        ('InfoNCE(masked="teacher", masked_in="all", negatives="list")', 'negatives="all" or'),
    ],
)
def test_parameters_without_effect(expression: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_loss(expression)


def test_missing_scores_are_an_error() -> None:
    batch = replace(example(), teacher_in_batch=None)
    with pytest.raises(ValueError, match="scores of one teacher"):
        KL(negatives="batch")(batch)
    with pytest.raises(ValueError, match="needs teacher_in_batch"):
        GUIDED[0](batch)
    with pytest.raises(ValueError, match="needs in_batch scores"):
        KL(negatives="batch")(ScoreBatch(student=torch.zeros(2, 3), teacher=torch.zeros(2, 3)))
    with pytest.raises(ValueError, match=r"shape \(3, 6\); in_batch scores of the same shape"):
        replace(batch, teacher_in_batch=torch.zeros(3, 6))
    with pytest.raises(ValueError, match="same shape"):
        ScoreBatch(student=torch.zeros(2, 3), teacher_in_batch=torch.zeros(2, 3))
    with pytest.raises(IrdistillError, match="no parameter negatives"):
        register("Unfinished", lists_of_batch=True)(type("Unfinished", (Loss,), {}))
