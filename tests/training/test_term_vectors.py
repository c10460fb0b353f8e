"""Fitting term vectors: least squares against numpy's, block by block, and a query tower that finds
what BM25 finds.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csc_matrix

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.search.lexical.bm25 import BM25
from irdistill.training import term_vector_fitting as module
from irdistill.training.term_vector_fitting import fit_term_vectors, term_vectors
from tests.training.tiny import make_backbone, make_collection


def test_vectors_are_ridge_regressions_corrected_for_shrinkage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    scores = csc_matrix(random.random((30, 6)) * (random.random((30, 6)) < 0.4), dtype=np.float32)
    vectors = random.normal(size=(30, 4)).astype(np.float32)
    places, (scaled, fitted) = term_vectors(scores, vectors)
    assert places.tolist() == [0, 1, 2, 3, 4, 5]
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    spread = centred.T @ centred
    ridge = 1e-3 * np.trace(spread) / 4
    # ridge regression as least squares over rows added for the penalty
    rows = np.vstack([centred, np.sqrt(ridge) * np.eye(4)])
    for word in range(6):
        target = scores.toarray()[:, word].astype(np.float64)
        weights = np.sqrt(np.concatenate([np.where(target > 0, module._WEIGHT, 1.0), np.ones(4)]))
        expected = np.linalg.lstsq(
            rows * weights[:, None], np.concatenate([target, np.zeros(4)]) * weights, rcond=None
        )[0]
        np.testing.assert_allclose(fitted[word], expected, rtol=1e-5)
        plain = np.linalg.lstsq(rows, np.concatenate([target, np.zeros(4)]), rcond=None)[0]
        shrinkage = (target @ target) / (target @ (centred @ plain))
        np.testing.assert_allclose(scaled[word], plain * np.sqrt(shrinkage), rtol=1e-5)
        assert shrinkage > 1
    monkeypatch.setattr(module, "_BLOCK", 7)
    np.testing.assert_allclose(term_vectors(scores, vectors)[1][1], fitted, rtol=1e-5)
    # of many documents some are taken, and stand for all
    monkeypatch.setattr(module, "_MOST_ROWS", 8)
    sampled = term_vectors(scores, vectors)[1][1]
    assert np.all([np.corrcoef(*pair)[0, 1] > 0.9 for pair in zip(sampled, fitted, strict=True)])
    frequencies = np.diff(scores.indptr)
    kept, _ = term_vectors(scores, vectors, most=2)
    assert sorted(frequencies[kept]) == sorted(frequencies)[-2:]


def test_a_corpus_without_differences_is_refused() -> None:
    with pytest.raises(IrdistillError, match="documents that differ; 3 were given"):
        term_vectors(csc_matrix(np.ones((3, 2), np.float32)), np.ones((3, 4), np.float32))


def agreement(collection: Collection, student: object, bm25: BM25) -> float:
    """The mean correlation of a student's scores of all documents with BM25's."""
    texts = [query.text for query in collection.queries.values()]
    documents = student.search_vectors(
        collection.corpus.texts(range(len(collection.corpus))), "document"
    )  # type: ignore
    scores_of_terms = student.search_vectors(texts, "query") @ documents.T  # type: ignore
    return float(
        np.mean(
            [
                np.corrcoef(row, bm25.all_scores(text))[0, 1]
                for row, text in zip(scores_of_terms, texts, strict=True)
            ]
        )
    )


def test_the_fitted_tower_scores_more_as_bm25_does_and_documents_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    collection = make_collection(queries=20, documents=60)
    backbone = str(make_backbone(tmp_path / "backbone"))
    fitted = fit_term_vectors(collection, backbone, tmp_path / "out", tmp_path / "work")
    from irdistill.students import DenseStudent

    before, bm25 = DenseStudent.load(backbone), BM25(collection.corpus)
    assert agreement(collection, fitted, bm25) > agreement(collection, before, bm25) + 0.1
    assert fitted.document_identity()["weights"] == before.document_identity()["weights"]
    assert not fitted.learns("document") and not fitted.learns("query")  # they share everything
    assert DenseStudent(str(tmp_path / "out" / "model")).learns("query")
    again = fit_term_vectors(collection, backbone, tmp_path / "out", tmp_path / "work")
    assert again.weights_digest() == fitted.weights_digest()
    with pytest.raises(IrdistillError, match="has another model: collection"):
        fit_term_vectors(make_collection(queries=3), backbone, tmp_path / "out", tmp_path / "work")
    with pytest.raises(IrdistillError, match="has a query tower already"):
        fit_term_vectors(collection, fitted, tmp_path / "twice", tmp_path / "work")


def test_what_a_query_excludes_does_not_set_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    collection = make_collection(queries=6, documents=30)
    backbone = str(make_backbone(tmp_path / "backbone"))

    def digest(folder: str, **excluded: tuple[str, ...]) -> str:
        queries = {
            key: replace(query, excluded=excluded.get(key, ()))
            for key, query in collection.queries.items()
        }
        smaller = replace(collection, queries=queries)
        return fit_term_vectors(
            smaller, backbone, tmp_path / folder, tmp_path / "work"
        ).weights_digest()

    assert digest("a") == digest("b", q0=("no such document",)) != digest("c", q0=("d0",))
