"""Targets that cannot teach are refused or warned of before the first step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from irdistill.errors import IrdistillError
from irdistill.losses import REGISTRY, Loss, ScoreBatch, parse_loss, register
from irdistill.training.checks import check_needs, check_teacher
from irdistill.training.data.list_sampler import ListBatch


def batch(scores: list[list[float]]) -> ListBatch:
    teacher = np.array([scores], dtype=np.float32)
    shape = teacher.shape[1:]
    rows, labels = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.float32)
    return ListBatch(np.arange(shape[0]), rows, teacher, labels)


def check(loss: str, scores: list[list[float]], similarity: str = "cosine") -> list[str]:
    return check_teacher(parse_loss(loss), [batch(scores)], similarity)


def test_good_scores_pass() -> None:
    assert check("KL(tau=0.05, teacher_tau=2)", [[3.0, 1.0, -4.0]]) == []
    assert check("InfoNCE", [[float("nan")] * 3]) == []


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[1.0, float("inf"), 2.0]], "infinite"),
        ([[2.0, 2.0], [3.0, 3.0]], "the same score"),
        ([[1.0, float("nan")]], "fewer than two"),
    ],
)
def test_useless_scores_are_refused(scores: list[list[float]], said: str) -> None:
    with pytest.raises(IrdistillError, match=said):
        check("KL", scores)


def test_sigmoid_outputs_are_noticed() -> None:
    (warning,) = [
        w for w in check("KL(teacher_tau=0.2)", [[0.9999, 0.9995, 0.0001, 0.5]]) if "sigmoid" in w
    ]
    assert "75% of them" in warning


def test_one_hot_targets_are_noticed_with_a_temperature() -> None:
    (warning,) = check("KL(tau=0.05)", [[12.0, 0.0, -2.0], [11.0, -1.0, -3.0]])
    assert "almost one-hot" in warning and "Try teacher_tau=3.5" in warning
    assert check("KL(tau=0.05, teacher_tau=3.5)", [[12.0, 0.0, -2.0], [11.0, -1.0, -3.0]]) == []
    (warning,) = check("KL(teacher_tau=100)", [[2.0, 0.0, 1.0]])
    assert "almost uniform" in warning


def test_margins_a_cosine_cannot_reach() -> None:
    scores = [[10.0, 0.0], [9.0, -1.0]]
    with pytest.raises(IrdistillError, match=r"reaches at most 2. Write MarginMSE\(scale=10\)"):
        check("MarginMSE", scores)
    assert len(check("MarginMSE(scale=3)", scores)) == 1
    assert check("MarginMSE(scale=10)", scores) == []
    assert check("MarginMSE", scores, similarity="dot") == []


def test_needs() -> None:
    with pytest.raises(IrdistillError, match="needs relevance labels"):
        check_needs(parse_loss("KL + 0.1*InfoNCE"), labeled_queries=0, scored_items=9)
    with pytest.raises(IrdistillError, match="needs teacher scores"):
        check_needs(parse_loss("KL"), labeled_queries=3, scored_items=0)
    check_needs(parse_loss("InfoNCE"), labeled_queries=3, scored_items=0)


def test_a_custom_loss_is_checked_by_what_it_declares() -> None:
    class Copied(Loss):
        def compute(self, batch: ScoreBatch) -> torch.Tensor:
            return batch.zero()

    try:
        register("Copied", needs={"score"}, compares="margins")(Copied)
        with pytest.raises(IrdistillError, match="a cosine student with scale=1 reaches at most 2"):
            check_teacher(Copied(), [batch([[9.0, 0.0], [8.0, -1.0]])], "cosine")
    finally:
        REGISTRY.pop("Copied", None)


def test_distributions_near_uniform_are_noticed() -> None:
    (warning,) = check("KL(teacher_tau=10)", [[2.0, 0.0, 1.0], [1.0, 0.0, 2.0]])
    assert "almost uniform" in warning and "Try teacher_tau=0.5" in warning
