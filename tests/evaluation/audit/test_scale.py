"""Each scale is recognized, and only the output of a sigmoid is called a sigmoid."""

from __future__ import annotations

import numpy as np
import pytest

from irdistill.evaluation.auditing.scale import recognize_scale
from tests.evaluation.audit.audit_data import listed

LISTS, DEPTH = 60, 50


def normal(mean: float, deviation: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, (LISTS, DEPTH))


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def cross_encoder(seed: int = 0) -> np.ndarray:
    """Logits as a cross-encoder gives them: most documents near -9, a few near +4."""
    random = np.random.default_rng(seed)
    relevant = random.random((LISTS, DEPTH)) < 0.1
    return np.where(
        relevant, random.normal(4, 3, (LISTS, DEPTH)), random.normal(-9, 2.5, (LISTS, DEPTH))
    )


def bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32)


@pytest.mark.parametrize(
    "logits",
    [cross_encoder(), normal(-4, 3), normal(0, 3), normal(6, 3), normal(-2, 2.5), normal(0, 12)],
    ids=["cross-encoder", "low", "centered", "high", "mild", "wide"],
)
def test_sigmoid_is_recognized(logits: np.ndarray) -> None:
    result = recognize_scale(listed(sigmoid(logits)))
    assert result.kind == "sigmoid"
    assert result.spoilt and "raw logits" in result.remedy and "sigmoid" in result.words
    inside = np.mean(
        (sigmoid(logits).astype(np.float32) <= 0.01) | (sigmoid(logits).astype(np.float32) >= 0.99)
    )
    assert result.ends == pytest.approx(inside, abs=1e-3)


def jaccard() -> np.ndarray:
    random = np.random.default_rng(2)
    return random.integers(0, 6, (LISTS, DEPTH)) / random.integers(7, 30, (LISTS, DEPTH))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (cross_encoder(), "raw"),
        (normal(0, 3), "raw"),
        (normal(0.45, 0.15).clip(0.02, 0.93), "cosine"),
        (normal(0.1, 0.2).clip(-0.9, 0.95), "cosine"),
        (np.random.default_rng(0).beta(2, 5, (LISTS, DEPTH)), "cosine"),
        (np.random.default_rng(0).random((LISTS, DEPTH)), "unit interval"),
        (jaccard(), "cosine"),
        (softmax(cross_encoder()), "softmax"),
        (np.log(softmax(cross_encoder())), "log-softmax"),
        (np.log(sigmoid(normal(2, 4))), "log-probability"),
        (-np.abs(normal(9, 3)), "raw"),
        (np.tile(np.arange(DEPTH, 0, -1), (LISTS, 1)), "ranks"),
        (1 / (60 + np.tile(np.arange(1, DEPTH + 1), (LISTS, 1))), "ranks"),
        (np.random.default_rng(0).integers(0, 4, (LISTS, DEPTH)), "grades"),
        (
            (lambda v: (v - v.min(1, keepdims=True)) / np.ptp(v, axis=1, keepdims=True))(
                normal(0, 1)
            ),
            "min-max",
        ),
        (
            (lambda v: (v - v.mean(1, keepdims=True)) / v.std(1, keepdims=True))(normal(3, 2)),
            "centered",
        ),
        (np.full((LISTS, DEPTH), 0.5), "constant"),
        (np.array([[0.0, 1.0, 0.5]]), "too few"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_scales(values: np.ndarray, kind: str) -> None:
    result = recognize_scale(listed(values))
    assert result.kind == kind
    assert result.spoilt == (kind in ("softmax", "log-probability"))


def test_ranks_with_omitted_documents() -> None:
    """A listwise teacher gives n, n - 1 … and stops where it omits documents."""
    lists = listed(np.tile(np.arange(20, 0, -1), (10, 1)))
    short = [
        result._replace(doc_ids=result.doc_ids[:12], scores=result.scores[:12])
        for result in lists[:5]
    ]
    assert recognize_scale([*short, *lists[5:]]).kind == "ranks"


def test_cosine_of_the_producer_needs_the_range() -> None:
    squashed = listed(sigmoid(normal(-4, 3)))
    assert recognize_scale(squashed, {"kind": "retriever", "similarity": "cosine"}).kind == "cosine"
    assert recognize_scale(squashed, {"kind": "cross-encoder"}).kind == "sigmoid"
    assert (
        recognize_scale(listed(cross_encoder()), {"kind": "retriever", "similarity": "cosine"}).kind
        == "raw"
    )


def test_half_precision_grids() -> None:
    logits = cross_encoder()
    assert recognize_scale(listed(bfloat16(logits))).grid == "bfloat16"
    assert recognize_scale(listed(logits.astype(np.float16))).grid == "float16"
    assert recognize_scale(listed(logits)).grid is None
    assert recognize_scale(listed(np.tile(np.arange(DEPTH, 0, -1), (LISTS, 1)))).grid is None
    assert recognize_scale(listed(bfloat16(sigmoid(logits)))).kind == "sigmoid"
    assert "0.125" in recognize_scale(listed(bfloat16(logits))).grid_words
