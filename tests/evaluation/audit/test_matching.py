"""Temperatures and scales against known values."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch

from irdistill.evaluation.auditing.advice import advise
from irdistill.evaluation.auditing.margins import measure_margins
from irdistill.evaluation.auditing.matching import (
    StudentScores,
    entropy,
    match_temperatures,
    measure_sharpness,
    rounded,
    score_with_student,
    solve,
)
from irdistill.evaluation.auditing.query_sample import ScoredList
from irdistill.evaluation.auditing.scale import recognize_scale
from irdistill.losses import parse_loss
from irdistill.modeling.hardware import has_fast_bfloat16
from tests.evaluation.audit.audit_data import listed, small_collection
from tests.students.tiny import tiny_backbone
from tests.teachers.families import tiny_classifier
from tests.teachers.tiny import tiny_colbert, tiny_splade


def lists_of(
    deviation: float, seed: int = 3, count: int = 200, depth: int = 30
) -> dict[str, ScoredList]:
    table = np.random.default_rng(seed).normal(0, deviation, (count, depth))
    return {result.query_id: result for result in listed(table)}


def scaled(
    lists: dict[str, ScoredList], factor: float, similarity: str = "cosine"
) -> StudentScores:
    return StudentScores(
        "student",
        similarity,
        {q: ScoredList(q, f.doc_ids, f.scores * factor) for q, f in lists.items()},
    )


def test_entropy_by_hand() -> None:
    weights = np.array([math.e, 1]) / (math.e + 1)
    expected = -(weights * np.log(weights)).sum() / math.log(2)
    assert entropy([np.array([1.0, 0.0])], 1.0) == pytest.approx(expected)
    assert entropy([np.array([2.0, 0.0])], 2.0) == pytest.approx(expected)
    assert entropy([np.array([1e5, 0.0])], 1e-3) == pytest.approx(0.0)
    assert entropy([np.zeros(4), np.zeros(3)], 1.0) is None


def test_sharpness_by_hand() -> None:
    """softmax((log 3, 0) / 1) is (3/4, 1/4); at temperature log 3 / log 7 it is (7/8, 1/8)."""
    lists = [np.array([math.log(3), 0.0]), np.array([math.log(3), 0.0])]
    at_one = measure_sharpness(lists, None)
    assert [row.tau for row in at_one] == [1.0]
    assert at_one[0].best == pytest.approx(0.75)
    assert at_one[0].documents == pytest.approx((4 / 3) ** 0.75 * 4**0.25)
    assert at_one[0].entropy == entropy(lists, 1.0)
    rows = measure_sharpness(lists, 2.0)
    assert [row.tau for row in rows] == [0.5, 1.0, 2.0, 4.0, 8.0]
    assert rows[0].best == pytest.approx(0.9) and rows[2].best == pytest.approx(
        math.sqrt(3) / (1 + math.sqrt(3))
    )
    assert measure_sharpness([np.zeros(3)], None) == ()


def test_solve_inverts_entropy() -> None:
    lists = [result.scores for result in lists_of(5.0).values()]
    for tau in (0.3, 2.0, 40.0):
        assert solve(lists, entropy(lists, tau) or 0.0) == pytest.approx(tau, rel=1e-6)
    assert (
        solve([np.array([1.0, 1.0, 0.0])], 0.2) is None
    )  # two at the top: never below log 2 / log 3
    assert solve([np.zeros(3)], 0.5) is None


@pytest.mark.parametrize("factor", [0.02, 1.0, 7.0])
def test_temperature_and_scale_undo_the_students_scale(factor: float) -> None:
    lists = lists_of(2.0)
    result = match_temperatures(lists, scaled(lists, factor), {}, 8, 0)
    assert result.lists == 200 and result.teacher_tau == 1.0
    assert result.tau == pytest.approx(factor, rel=0.06)
    assert result.scale == pytest.approx(1 / factor, rel=0.06)
    assert result.student_entropy == pytest.approx(result.entropy, abs=0.03)


def test_flat_teacher_gets_half_of_the_entropy() -> None:
    result = match_temperatures(lists_of(0.05), None, {}, 8, 0)
    assert result.entropy_at_one is not None and result.entropy_at_one > 0.99
    assert result.teacher_tau is not None and result.teacher_tau < 0.05
    assert result.entropy == pytest.approx(0.5, abs=0.02)
    assert result.tau is None and result.scale is None


def test_training_lists_have_one_relevant_document() -> None:
    """Two documents of ten are relevant; with a gap of 100 a list of two is always sharp."""
    lists = {
        q: ScoredList(
            q,
            [f"d{place}" for place in range(10)],
            np.array([100, 100, *range(8)], float)[
                np.argsort(-np.array([100, 100, *range(8)], float), kind="stable")
            ],
        )
        for q in ("a", "b")
    }
    result = match_temperatures(lists, None, {q: {"d0": 1, "d1": 1} for q in lists}, 2, 0)
    assert result.lists == 2 and result.entropy_at_one == pytest.approx(0.0, abs=1e-12)


def advice(lists: dict[str, ScoredList], student: StudentScores | None, labelled: bool = True):  # type: ignore[no-untyped-def]
    ranked = list(lists.values())
    qrels = {one.query_id: {one.doc_ids[0]: 1} for one in ranked} if labelled else {}
    return advise(
        recognize_scale(ranked),
        match_temperatures(lists, student, {}, 8, 0),
        measure_margins(ranked, qrels, 0),
    )


def test_advice_is_in_the_loss_language() -> None:
    lists = lists_of(6.0)
    result = advice(lists, scaled(lists, 0.01))
    assert str(parse_loss(result.loss)) == result.loss and result.loss.startswith("KL(tau=")
    assert str(parse_loss(result.other)) == result.other and result.other.startswith(
        "MarginMSE(scale="
    )
    assert any("no two cosines reach" in sentence for sentence in result.words)
    assert 'pairs="all"' in advice(lists, scaled(lists, 0.01), labelled=False).other
    alone = advice(lists, None)
    assert alone.other is None and any("--student" in sentence for sentence in alone.words)


def test_margins_within_reach_give_no_warning() -> None:
    lists = lists_of(0.2)
    assert not any("Beware" in sentence for sentence in advice(lists, scaled(lists, 0.5)).words)


def test_spoilt_scores_get_no_loss() -> None:
    table = 1 / (1 + np.exp(-np.random.default_rng(0).normal(-4, 4, (80, 30))))
    result = advice({one.query_id: one for one in listed(table)}, None)
    assert result.loss is None and "raw logits" in result.words[0]


def test_ranks_get_a_loss_of_the_order() -> None:
    result = advice(
        {one.query_id: one for one in listed(np.tile(np.arange(20, 0, -1), (30, 1)))}, None
    )
    assert result.loss.startswith(("KL(", "RankNet")) and (
        result.other is None or "MarginMSE" not in result.other
    )


def test_rounded() -> None:
    assert (rounded(0.04567), rounded(123.4)) == (0.046, 120.0)


def test_student_scores_only_the_teachers_documents(tmp_path: Path) -> None:
    collection = small_collection(queries=3, depth=6)
    model = str(tiny_backbone(tmp_path / "model", layers=1))
    lists = {
        "t": {
            query: ScoredList(
                query, [f"{query}-d{d}" for d in (4, 2, 0)], np.array([3.0, 2.0, 1.0])
            )
            for query in collection.queries
        }
    }
    result = score_with_student(collection, lists, model, 0)
    assert result.similarity == "cosine" and list(result.lists) == list(collection.queries)
    part = result.lists["q1"]
    assert sorted(part.doc_ids) == ["q1-d0", "q1-d2", "q1-d4"]
    assert (np.diff(part.scores) <= 0).all() and np.abs(part.scores).max() <= 1 + 1e-6

    from irdistill.students import DenseStudent

    student = DenseStudent.load(model)
    query = student.encode([collection.queries["q1"].text], "query", normalize=True)[0]
    document = student.encode(
        [collection.corpus.text(collection.corpus.row(part.doc_ids[0]))], "document", normalize=True
    )[0]
    assert part.scores[0] == pytest.approx(float(query @ document), abs=1e-5)


@pytest.mark.parametrize(
    ("make", "library", "similarity"),
    [
        (tiny_splade, "SparseEncoder", "dot"),
        (tiny_colbert, "MultiVectorEncoder", "maxsim"),
        (partial(tiny_classifier, family="bert"), "CrossEncoder", "logit"),
    ],
)
def test_student_scores_equal_sentence_transformers(
    make: Any, library: str, similarity: str, tmp_path: Path
) -> None:
    collection = small_collection(queries=3, depth=6)
    model = str(make(tmp_path / "model"))
    docs = {query: [f"{query}-d{d}" for d in (4, 2, 0)] for query in collection.queries}
    lists = {
        "t": {
            query: ScoredList(query, part, np.array([3.0, 2.0, 1.0]))
            for query, part in docs.items()
        }
    }
    result = score_with_student(collection, lists, model, 0)
    assert result.similarity == similarity and list(result.lists) == list(collection.queries)
    plain = getattr(sentence_transformers, library)(model, device="cpu")
    for query, part in result.lists.items():
        assert sorted(part.doc_ids) == sorted(docs[query])
        query_text, texts = (
            collection.queries[query].text,
            [collection.corpus.text(collection.corpus.row(doc)) for doc in part.doc_ids],
        )
        if library == "CrossEncoder":
            expected = plain.predict(
                [(query_text, text) for text in texts], activation_fn=torch.nn.Identity()
            ).ravel()
        else:
            expected = (
                plain.similarity(plain.encode_query([query_text]), plain.encode_document(texts))
                .to_dense()[0]
                .numpy()
            )
        close = 0.03 if has_fast_bfloat16(torch.device("cpu")) else 1e-4
        np.testing.assert_allclose(part.scores, expected, rtol=close, atol=close)
        assert (np.diff(part.scores) <= 0).all()
