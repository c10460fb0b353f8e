"""What must hold between losses, and the traps that peers fell into."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.losses import (
    ADRMSE,
    CPRD,
    KL,
    ApproxNDCG,
    Hinge,
    InfoNCE,
    LambdaLoss,
    ListMLE,
    ListNet,
    MarginMSE,
    Preference,
    RankNet,
    ScoreBatch,
)

NAN = math.nan


def scores(rows: int = 4, width: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rows, width, generator=draw).double(),
        torch.randn(rows, width, generator=draw).double() * 3,
    )


def value(loss: object, **fields: object) -> float:
    return float(loss(ScoreBatch(**fields)))  # type: ignore[operator, arg-type]


FULL = CPRD(tau=0.7, positive=False, negatives="list")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 7), st.booleans())
def test_cprd_on_the_full_list_is_list_mle(seed: int, width: int, ties: bool) -> None:
    student, teacher = scores(3, width, seed)
    teacher = teacher.round() if ties else teacher
    teacher[0, 0] = NAN
    batch = {"student": student, "teacher": teacher}
    assert value(FULL, **batch) == pytest.approx(value(ListMLE(tau=0.7), **batch), abs=1e-12)


def test_cprd_of_two_items_with_the_positive_first_is_info_nce() -> None:
    student, teacher = scores(5, 2)
    labels = torch.tensor([[1, 0], [0, 1], [1, 0], [0, 1], [1, 0]])
    batch = {"student": student, "teacher": teacher, "labels": labels}
    loss = CPRD(tau=0.3, negatives="list")
    assert value(loss, **batch) == pytest.approx(
        value(InfoNCE(tau=0.3, negatives="list"), **batch), abs=1e-12
    )


def test_cprd_with_nothing_valid_but_the_positive_is_info_nce_with_the_batch() -> None:
    student, teacher = scores(3, 3)
    in_batch = torch.cat([student, scores(3, 6, 9)[0]], dim=1)
    columns = torch.arange(3).expand(3, 3)
    labels = torch.tensor([[1, 0, 0]] * 3)
    fields = {
        "student": student,
        "teacher": teacher,
        "labels": labels,
        "in_batch": in_batch,
        "columns": columns,
    }
    assert value(CPRD(valid="score>99"), **fields) == pytest.approx(
        value(InfoNCE(tau=0.05), **fields), rel=1e-9
    )


def test_cprd_by_hand() -> None:
    student = torch.tensor([[0.2, 0.9, 0.1, 0.4]])
    teacher = torch.tensor([[5.0, 1.0, 4.0, 0.0]])  # order: 0, 2, 1, 3
    ordered = [0.2, 0.1, 0.9, 0.4]
    terms = [math.log(sum(math.exp(s) for s in ordered[j:])) - ordered[j] for j in range(3)]
    batch = {"student": student, "teacher": teacher}
    whole = CPRD(tau=1, positive=False, negatives="list")
    assert value(whole, **batch) == pytest.approx(sum(terms) / 3, abs=1e-6)
    rules = {
        "gap>3": 2,
        "gap>=5": 1,
        "score>0.5": 3,
        "score>=4": 2,
        "top<=2": 2,
        "top<2": 1,
        "prob>0.2": 2,
    }
    for rule, count in rules.items():
        result = value(CPRD(tau=1, positive=False, negatives="list", valid=rule), **batch)
        assert result == pytest.approx(sum(terms[:count]) / count, abs=1e-6), rule
    assert value(CPRD(tau=1, positive=False, negatives="list", valid="score>9"), **batch) == 0.0
    # documents of other lists stand in every denominator, and then the last item has a term as well
    in_batch, columns = torch.tensor([[0.2, 0.9, 0.1, 0.4, -0.3]]), torch.tensor([[0, 1, 2, 3]])
    terms = [
        math.log(sum(math.exp(s) for s in ordered[j:]) + math.exp(-0.3)) - ordered[j]
        for j in range(4)
    ]
    result = value(CPRD(tau=1, positive=False), **batch, in_batch=in_batch, columns=columns)
    assert result == pytest.approx(sum(terms) / 4, abs=1e-6)
    # the positive comes first, and needs no score
    labels, teacher = torch.tensor([[0, 0, 0, 1]]), torch.tensor([[5.0, 1.0, 4.0, NAN]])
    ordered = [0.4, 0.2, 0.1, 0.9]
    terms = [math.log(sum(math.exp(s) for s in ordered[j:])) - ordered[j] for j in range(3)]
    result = value(CPRD(tau=1, valid="gap>3"), student=student, teacher=teacher, labels=labels)
    assert result == pytest.approx(sum(terms[:2]) / 2, abs=1e-6)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.booleans())
def test_cprd_is_what_its_definition_says(seed: int, width: int, whole: bool) -> None:
    """Against a loop over items: ties, several or only relevant documents, unscored ones, padding,
    documents of the batch.
    """
    generator = torch.Generator().manual_seed(seed)
    student, teacher = scores(4, width, seed)
    teacher = teacher.round().masked_fill(torch.rand(4, width, generator=generator) < 0.2, NAN)
    labels = (torch.rand(4, width, generator=generator) < (1.0 if whole else 0.3)).int()
    mask = torch.rand(4, width, generator=generator) < 0.9
    extra = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    fields = {
        "student": student,
        "teacher": teacher,
        "labels": labels,
        "mask": mask,
        "in_batch": torch.cat([student, extra], dim=1),
        "columns": torch.arange(width).expand(4, width),
    }
    means = []
    for row in range(4):
        places = [
            (
                bool(labels[row, i]),
                -math.inf if teacher[row, i].isnan() else float(teacher[row, i]),
                i,
            )
            for i in range(width)
            if mask[row, i] and (labels[row, i] or not teacher[row, i].isnan())
        ]
        others = [float(s) for s in extra[row]] + [
            float(student[row, i]) for i in range(width) if not mask[row, i]
        ]
        terms = [
            math.log(
                sum(math.exp(float(student[row, j])) for *key, j in places if key <= [hit, score])
                + sum(map(math.exp, others))
            )
            - float(student[row, i])
            for hit, score, i in places
        ]
        means += [sum(terms) / len(terms)] if terms else []
    expected = sum(means) / len(means) if means else 0.0
    assert value(CPRD(tau=1), **fields) == pytest.approx(expected, abs=1e-9)


def test_cprd_does_not_see_a_shift_or_a_monotone_map() -> None:
    student, teacher = scores()
    before = value(FULL, student=student, teacher=teacher)
    assert value(FULL, student=student + 7, teacher=teacher.exp() - 100) == pytest.approx(
        before, abs=1e-12
    )


@pytest.mark.parametrize("rule", ["gap", "gap<2", "top>3", "margin>1", "score>x", ""])
def test_cprd_refuses_rules_it_cannot_read(rule: str) -> None:
    with pytest.raises(IrdistillError, match="valid must be written as"):
        CPRD(valid=rule)


def test_preference_without_a_teacher_is_ranknet() -> None:
    student, teacher = scores()
    labels = torch.tensor([[1, 0, 0, 2, 0, 0]] * 4)
    fields = {"student": student, "labels": (labels > 0).int()}
    plain = value(RankNet(by="label"), **fields)
    assert value(Preference(), **fields, teacher=torch.zeros_like(teacher)) == pytest.approx(
        plain, abs=1e-12
    )
    # at the teacher's margins it is log 2: the student is still pushed beyond them
    assert value(Preference(), student=teacher, teacher=teacher, labels=labels) == pytest.approx(
        math.log(2), abs=1e-12
    )
    by_hand = math.log(1 + math.exp(-0.5 * (2 * (1.0 - 0.0) - 3.0)))
    result = value(
        Preference(beta=0.5, scale=2),
        student=torch.tensor([[1.0, 0.0]]),
        teacher=torch.tensor([[3.0, 0.0]]),
        labels=torch.tensor([[1, 0]]),
    )
    assert result == pytest.approx(by_hand, abs=1e-6)


def test_list_net_is_kl_and_the_teachers_entropy() -> None:
    student, teacher = scores()
    teacher[1, 2:] = NAN
    p = (teacher / 2).masked_fill(teacher.isnan(), -torch.inf).softmax(1)
    entropy = -(p * p.clamp_min(1e-300).log()).sum(1).mean().item()
    batch = {"student": student, "teacher": teacher}
    assert value(ListNet(teacher_tau=2), **batch) == pytest.approx(
        value(KL(teacher_tau=2), **batch) + entropy, abs=1e-12
    )


def test_kl_top_keeps_the_teachers_best_and_the_positive() -> None:
    student, teacher = torch.tensor([[0.3, 0.1, 0.2, 0.9]]), torch.tensor([[1.0, 4.0, 3.0, 0.0]])
    labels = torch.tensor([[0, 0, 0, 1]])
    assert value(KL(top=2), student=student, teacher=teacher) == pytest.approx(
        value(KL(), student=student[:, 1:3], teacher=teacher[:, 1:3]), abs=1e-7
    )
    assert value(KL(top=2), student=student, teacher=teacher, labels=labels) == pytest.approx(
        value(KL(), student=student[:, 1:], teacher=teacher[:, 1:]), abs=1e-7
    )
    assert value(KL(top=9), student=student, teacher=teacher) == value(
        KL(), student=student, teacher=teacher
    )


def test_ranknet_hinge_and_margin_by_hand() -> None:
    student, teacher = (
        torch.tensor([[2.0, 0.5, 1.0]]),
        torch.tensor([[3.0, 3.0, 1.0]]),
    )  # the first two are tied: two pairs
    expected = (math.log(1 + math.exp(-(2.0 - 1.0))) + math.log(1 + math.exp(-(0.5 - 1.0)))) / 2
    assert value(RankNet(), student=student, teacher=teacher) == pytest.approx(expected, abs=1e-6)
    assert value(Hinge(by="teacher"), student=student, teacher=teacher) == pytest.approx(
        (0.0 + 1.5) / 2
    )
    assert value(
        Hinge(margin=2, scale=3, by="teacher"), student=student, teacher=teacher
    ) == pytest.approx((0.0 + 3.5) / 2)
    # a temperature divides: tau=2 sees half the differences
    halved = value(RankNet(), student=student / 2, teacher=teacher)
    assert value(RankNet(tau=2), student=student, teacher=teacher) == pytest.approx(
        halved, abs=1e-7
    )


def test_ranknet_needs_only_an_order() -> None:
    student, teacher = scores()
    ranks = teacher.argsort(1).argsort(1).double()
    for loss in (RankNet(), ListMLE(), ADRMSE(), ApproxNDCG(), LambdaLoss(), CPRD(positive=False)):
        by_rank = value(loss, student=student, teacher=ranks)
        assert value(loss, student=student, teacher=teacher) == pytest.approx(by_rank, abs=1e-12)


def test_adr_mse_reaches_zero_on_ties_and_grows_with_the_length_unless_normalised() -> None:
    student, teacher = (
        torch.tensor([[100.0, 0.0, 0.0, -100.0]]),
        torch.tensor([[9.0, 2.0, 2.0, 1.0]]),
    )
    assert value(ADRMSE(), student=student, teacher=teacher) == pytest.approx(
        0.0, abs=1e-9
    )  # argsort ranks would not
    reverse = {size: torch.arange(size).double()[None] * 50 for size in (10, 20)}
    plain = [value(ADRMSE(discount="none"), student=s, teacher=-s) for s in reverse.values()]
    even = [
        value(ADRMSE(discount="none", normalize=True), student=s, teacher=-s)
        for s in reverse.values()
    ]
    assert plain[1] / plain[0] == pytest.approx(4.0, rel=0.02)
    assert even[1] / even[0] == pytest.approx(1.0, rel=0.02)


def test_approx_ndcg_becomes_ndcg() -> None:
    student, labels = torch.tensor([[0.1, 0.9, 0.5]]), torch.tensor([[2, 0, 1]])
    dcg = (2**1 - 1) / math.log2(3) + (2**2 - 1) / math.log2(4)
    ideal = 3 + 1 / math.log2(3)
    assert value(ApproxNDCG(tau=1e-3, by="label"), student=student, labels=labels) == pytest.approx(
        1 - dcg / ideal, abs=1e-6
    )
    # by teacher: gains 1, 2/3, 1/3
    teacher = torch.tensor([[5.0, -7.0, 0.0]])
    dcg = (1 / 3) / math.log2(2) + (2 / 3) / math.log2(3) + 1 / math.log2(4)
    ideal = 1 + (2 / 3) / math.log2(3) + (1 / 3) / math.log2(4)
    assert value(ApproxNDCG(tau=1e-3), student=student, teacher=teacher) == pytest.approx(
        1 - dcg / ideal, abs=1e-6
    )


def test_info_nce_with_weights_and_with_a_share_masked() -> None:
    student, teacher, labels = (
        torch.tensor([[1.0, 0.0, 0.5]]),
        torch.tensor([[0.9, 0.6, 0.2]]),
        torch.tensor([[1, 0, 0]]),
    )
    w = [1 / (1 + math.exp(t)) for t in (0.6, 0.2)]
    expected = math.log(math.exp(1) + w[0] * math.exp(0.0) + w[1] * math.exp(0.5)) - 1
    fields = {"student": student, "labels": labels}
    assert value(InfoNCE(tau=1, weights="teacher"), **fields, teacher=teacher) == pytest.approx(
        expected, abs=1e-6
    )
    expected = math.log(math.exp(1) + math.exp(0.5)) - 1  # 0.6 > 0.6 * 0.9 is left out
    assert value(InfoNCE(tau=1, masked="share"), **fields, teacher=teacher) == pytest.approx(
        expected, abs=1e-6
    )


def test_margin_mse_over_all_pairs_counts_no_item_against_itself() -> None:
    """A mean over an N x N matrix with its zero diagonal would be (n - 1)/n of this."""
    student, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]])
    assert value(MarginMSE(pairs="all"), student=student, teacher=teacher) == pytest.approx(4.0)


def test_one_hot_teachers_make_kl_an_info_nce_on_their_choice() -> None:
    student, teacher = scores()
    sharp = value(KL(tau=0.5, teacher_tau=1e-3), student=student, teacher=teacher)
    chosen = value(
        InfoNCE(tau=0.5, negatives="list", positive_by="teacher"), student=student, teacher=teacher
    )
    assert sharp == pytest.approx(chosen, abs=1e-9)
