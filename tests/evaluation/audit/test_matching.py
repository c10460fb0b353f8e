"""Temperatures and scales against values that are known beforehand."""

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
    rounded,
    score_with_student,
    solve,
)
from irdistill.evaluation.auditing.query_sample import ScoredList
from irdistill.evaluation.auditing.scale import recognize_scale
from irdistill.losses import parse_loss
from irdistill.modeling.hardware import has_fast_bfloat16
from tests.evaluation.audit.made import listed, made_collection
from tests.students.tiny import tiny_backbone
from tests.teachers.families import tiny_classifier
from tests.teachers.test_retrievers import tiny_colbert, tiny_splade


def lists_of(
    deviation: float, seed: int = 3, count: int = 200, depth: int = 30
) -> dict[str, ScoredList]:
    table = np.random.default_rng(seed).normal(0, deviation, (count, depth))
    return {found.query_id: found for found in listed(table)}


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


def test_solve_inverts_entropy() -> None:
    lists = [found.scores for found in lists_of(5.0).values()]
    for tau in (0.3, 2.0, 40.0):
        assert solve(lists, entropy(lists, tau) or 0.0) == pytest.approx(tau, rel=1e-6)
    assert (
        solve([np.array([1.0, 1.0, 0.0])], 0.2) is None
    )  # two at the top: never below log 2 / log 3
    assert solve([np.zeros(3)], 0.5) is None


@pytest.mark.parametrize("factor", [0.02, 1.0, 7.0])
def test_a_student_on_another_scale_gets_the_temperature_and_scale_that_undo_it(
    factor: float,
) -> None:
    lists = lists_of(2.0)
    found = match_temperatures(lists, scaled(lists, factor), {}, 8, 0)
    assert found.lists == 200 and found.teacher_tau == 1.0
    assert found.tau == pytest.approx(factor, rel=0.06)
    assert found.scale == pytest.approx(1 / factor, rel=0.06)
    assert found.student_entropy == pytest.approx(found.entropy, abs=0.03)


def test_a_teacher_that_is_too_flat_gets_half_of_the_entropy() -> None:
    found = match_temperatures(lists_of(0.05), None, {}, 8, 0)
    assert found.entropy_at_one is not None and found.entropy_at_one > 0.99
    assert found.teacher_tau is not None and found.teacher_tau < 0.05
    assert found.entropy == pytest.approx(0.5, abs=0.02)
    assert found.tau is None and found.scale is None


def test_lists_have_one_relevant_document_and_the_asked_length() -> None:
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
    found = match_temperatures(lists, None, {q: {"d0": 1, "d1": 1} for q in lists}, 2, 0)
    assert found.lists == 2 and found.entropy_at_one == pytest.approx(0.0, abs=1e-12)


def advice(lists: dict[str, ScoredList], student: StudentScores | None, labelled: bool = True):  # type: ignore[no-untyped-def]
    ranked = list(lists.values())
    qrels = {one.query_id: {one.doc_ids[0]: 1} for one in ranked} if labelled else {}
    return advise(
        recognize_scale(ranked),
        match_temperatures(lists, student, {}, 8, 0),
        measure_margins(ranked, qrels, 0),
    )


def test_losses_are_written_in_the_loss_language() -> None:
    lists = lists_of(6.0)
    found = advice(lists, scaled(lists, 0.01))
    assert str(parse_loss(found.loss)) == found.loss and found.loss.startswith("KL(tau=")
    assert str(parse_loss(found.other)) == found.other and found.other.startswith(
        "MarginMSE(scale="
    )
    assert any("no two cosines reach" in sentence for sentence in found.words)
    assert 'pairs="all"' in advice(lists, scaled(lists, 0.01), labelled=False).other
    alone = advice(lists, None)
    assert alone.other is None and any("--student" in sentence for sentence in alone.words)


def test_margins_within_reach_give_no_warning() -> None:
    lists = lists_of(0.2)
    assert not any("Beware" in sentence for sentence in advice(lists, scaled(lists, 0.5)).words)


def test_spoilt_scores_get_no_loss() -> None:
    table = 1 / (1 + np.exp(-np.random.default_rng(0).normal(-4, 4, (80, 30))))
    found = advice({one.query_id: one for one in listed(table)}, None)
    assert found.loss is None and "raw logits" in found.words[0]


def test_ranks_get_a_loss_of_the_order_or_a_temperature() -> None:
    found = advice(
        {one.query_id: one for one in listed(np.tile(np.arange(20, 0, -1), (30, 1)))}, None
    )
    assert found.loss.startswith(("KL(", "RankNet")) and (
        found.other is None or "MarginMSE" not in found.other
    )


def test_rounded() -> None:
    assert (rounded(0.04567), rounded(123.4)) == (0.046, 120.0)


def test_a_student_scores_only_the_teachers_documents(tmp_path: Path) -> None:
    held = made_collection(queries=3, depth=6)
    model = str(tiny_backbone(tmp_path / "model", layers=1))
    lists = {
        "t": {
            query: ScoredList(
                query, [f"{query}-d{d}" for d in (4, 2, 0)], np.array([3.0, 2.0, 1.0])
            )
            for query in held.queries
        }
    }
    found = score_with_student(held, lists, model, 0)
    assert found.similarity == "cosine" and list(found.lists) == list(held.queries)
    own = found.lists["q1"]
    assert sorted(own.doc_ids) == ["q1-d0", "q1-d2", "q1-d4"]
    assert (np.diff(own.scores) <= 0).all() and np.abs(own.scores).max() <= 1 + 1e-6

    from irdistill.students import DenseStudent

    student = DenseStudent.load(model)
    query = student.encode([held.queries["q1"].text], "query", normalize=True)[0]
    document = student.encode(
        [held.corpus.text(held.corpus.row(own.doc_ids[0]))], "document", normalize=True
    )[0]
    assert own.scores[0] == pytest.approx(float(query @ document), abs=1e-5)


@pytest.mark.parametrize(
    ("make", "library", "similarity"),
    [
        (tiny_splade, "SparseEncoder", "dot"),
        (tiny_colbert, "MultiVectorEncoder", "maxsim"),
        (partial(tiny_classifier, family="bert"), "CrossEncoder", "logit"),
    ],
)
def test_a_student_of_another_kind_scores_as_sentence_transformers_does(
    make: Any, library: str, similarity: str, tmp_path: Path
) -> None:
    held = made_collection(queries=3, depth=6)
    model = str(make(tmp_path / "model"))
    docs = {query: [f"{query}-d{d}" for d in (4, 2, 0)] for query in held.queries}
    lists = {
        "t": {
            query: ScoredList(query, own, np.array([3.0, 2.0, 1.0])) for query, own in docs.items()
        }
    }
    found = score_with_student(held, lists, model, 0)
    assert found.similarity == similarity and list(found.lists) == list(held.queries)
    plain = getattr(sentence_transformers, library)(model, device="cpu")
    for query, own in found.lists.items():
        assert sorted(own.doc_ids) == sorted(docs[query])
        asked, texts = (
            held.queries[query].text,
            [held.corpus.text(held.corpus.row(doc)) for doc in own.doc_ids],
        )
        if library == "CrossEncoder":
            expected = plain.predict(
                [(asked, text) for text in texts], activation_fn=torch.nn.Identity()
            ).ravel()
        else:
            expected = (
                plain.similarity(plain.encode_query([asked]), plain.encode_document(texts))
                .to_dense()[0]
                .numpy()
            )
        close = 0.03 if has_fast_bfloat16(torch.device("cpu")) else 1e-4
        np.testing.assert_allclose(own.scores, expected, rtol=close, atol=close)
        assert (np.diff(own.scores) <= 0).all()
