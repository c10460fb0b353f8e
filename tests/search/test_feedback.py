"""Pseudo-relevance feedback: the moved vectors, what decides them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import irdistill as ird
from irdistill.collections import Collection
from irdistill.errors import OptionError, SettingsDifferError
from tests.students.tiny import tiny_backbone

DOCUMENTS = {
    "d1": "red cat sleeps",
    "d2": "blue dog runs",
    "d3": "green bird sings",
    "d4": "old fish swims",
}
RUN = {"q1": {"d2": 3.0, "d1": 2.0, "d3": 1.0}, "q2": {"d4": float("nan"), "d3": 1.0}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("model"), layers=1))


def collection() -> Collection:
    queries = {"q1": "cat", "q2": "bird", "q3": "fish"}
    return Collection.from_dicts("demo", DOCUMENTS, queries, {})


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_scores_are_those_of_the_moved_vector(model: str, tmp_path: Path) -> None:
    run = ird.retrieve(
        collection(),
        model,
        k=4,
        feedback=RUN,
        feedback_k=2,
        feedback_weight=0.25,
        precision="float32",
        out=tmp_path,
    )
    encoder = ird.load_student(model)
    documents = encoder.search_vectors(list(DOCUMENTS.values()), "document", "float32")
    queries = encoder.search_vectors(["cat", "bird", "fish"], "query", "float32")
    expected = [
        unit(0.75 * queries[0] + 0.25 * documents[[0, 1]].mean(axis=0)),
        unit(0.75 * queries[1] + 0.25 * documents[2]),  # a document without a score is none
        queries[2],  # the feedback run lacks the query
    ]
    for query, vector in zip(("q1", "q2", "q3"), expected, strict=True):
        scores = dict(zip(run[query].doc_ids, run[query].scores.tolist(), strict=True))
        for doc, score in zip(DOCUMENTS, (documents @ vector).tolist(), strict=True):
            assert scores[doc] == pytest.approx(score, abs=1e-5)


def test_without_weight_nothing_moves(model: str, tmp_path: Path) -> None:
    moved = ird.retrieve(
        collection(), model, k=4, feedback=RUN, feedback_weight=0, out=tmp_path / "a"
    )
    plain = ird.retrieve(collection(), model, k=4, out=tmp_path / "b")
    for query in plain.query_ids:
        assert moved[query].doc_ids == plain[query].doc_ids
        assert np.allclose(moved[query].scores, plain[query].scores, atol=1e-6)
    assert moved.fingerprint != plain.fingerprint
    settings = moved.identity.settings["feedback"]
    assert settings["k"] == 3 and settings["weight"] == 0 and len(settings["run"]) == 16
    with pytest.raises(SettingsDifferError, match="feedback"):
        ird.retrieve(collection(), model, k=4, feedback=RUN, out=tmp_path / "a")


def test_what_has_no_float_vectors_is_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="needs a dense model"):
        ird.retrieve(collection(), "bm25", feedback=RUN, out=tmp_path)
    with pytest.raises(OptionError, match="needs a dense model"):
        ird.retrieve(collection(), model, feedback=RUN, vectors="int8", out=tmp_path)
    with pytest.raises(OptionError, match="without feedback"):
        ird.retrieve(collection(), model, feedback_k=5, out=tmp_path)
