"""Vectors in Lucene: HNSW against exact search, and impacts against quantized products."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.search import RetrieveOptions, recall, retrieve
from irdistill.search.array_shards import write_arrays
from irdistill.search.lucene.lucene_vectors import LEVELS, LuceneHnsw, LuceneImpact
from irdistill.search.vectors.brute_force import exact_search
from irdistill.search.vectors.vector_store import SparseStore, VectorStore
from tests.search.lucene_support import needs_lucene
from tests.search.tiny_collection import make_collection
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_colbert, tiny_splade

pytestmark = needs_lucene


def _dense(folder: Path, matrix: np.ndarray, similarity: str) -> VectorStore:
    identity = {"kind": "dense", "dimension": matrix.shape[1], "similarity": similarity}
    write_arrays(
        folder,
        identity,
        VectorStore.layout(matrix.shape[1], "float32"),
        len(matrix),
        100,
        lambda start, end: VectorStore.arrays(matrix[start:end].astype(np.float32)),
    )
    return VectorStore(folder)


def _sparse(folder: Path, matrix: np.ndarray) -> SparseStore:
    write_arrays(
        folder,
        {"kind": "sparse", "dimension": matrix.shape[1]},
        SparseStore.layout(matrix.shape[1], "float32"),
        len(matrix),
        100,
        lambda start, end: SparseStore.arrays(csr_matrix(matrix[start:end].astype(np.float32))),
    )
    return SparseStore(folder)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_hnsw_finds_what_exact_search_finds(similarity: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((600, 16)).astype(np.float32)
    queries = rng.standard_normal((20, 16)).astype(np.float32)
    if similarity == "cosine":
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    else:
        matrix *= rng.uniform(0.1, 9, (600, 1)).astype(np.float32)  # lengths matter
    store = _dense(tmp_path / "vectors", matrix, similarity)
    index = LuceneHnsw(store, tmp_path / "lucene")
    (scores, rows), (more, _) = index.search_groups([queries, queries[:1]], 10)
    true_scores, true_rows = exact_search(matrix, [queries], 10)[0]
    results = np.mean(
        [
            len(np.intersect1d(expected, true)) / 10
            for expected, true in zip(rows, true_rows, strict=True)
        ]
    )
    assert results >= 0.95
    np.testing.assert_allclose(scores[:, 0], true_scores[:, 0], rtol=1e-5)
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ matrix.T, rows, 1), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(more[0], scores[0])
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "lucene").rglob("*")}
    np.testing.assert_array_equal(
        LuceneHnsw(store, tmp_path / "lucene").search(queries, 10)[1], rows
    )
    assert made.keys() <= set((tmp_path / "lucene").rglob("*")) and index.nbytes > matrix.nbytes


def test_hnsw_with_few_vectors_and_with_too_many_dimensions(tmp_path: Path) -> None:
    few = LuceneHnsw(
        _dense(tmp_path / "few", np.eye(3, dtype=np.float32), "cosine"), tmp_path / "lucene"
    )
    scores, rows = few.search(np.array([[0.6, 0.8, 0.0]], dtype=np.float32), 10)
    assert rows.tolist() == [[1, 0, 2]] and scores[0].tolist() == pytest.approx([0.8, 0.6, 0.0])
    with pytest.raises(IrdistillError, match="1025 dimensions"):
        LuceneHnsw(_dense(tmp_path / "long", np.zeros((2, 1025)), "dot"), tmp_path / "lucene")


def test_impacts_are_quantized_products(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    matrix = np.where(rng.random((300, 40)) < 0.2, rng.gamma(1.0, 1.0, (300, 40)), 0).astype(
        np.float32
    )
    matrix[7] = 0
    index = LuceneImpact(_sparse(tmp_path / "sparse", matrix), tmp_path / "lucene")
    corpus = Collection.from_dicts("c", {f"d{row}": "x" for row in range(300)}, {}).corpus
    levels = np.rint(matrix * (LEVELS / matrix.max()))
    for _ in range(8):
        query = csr_matrix(
            np.where(rng.random((1, 40)) < 0.15, rng.gamma(1.0, 1.0, (1, 40)), 0).astype(np.float32)
        )
        expected = (levels @ query.toarray()[0]).astype(np.float32)
        rows, scores = index.candidates(query, 300)
        assert sorted(rows.tolist()) == np.flatnonzero(expected > 0).tolist()
        np.testing.assert_allclose(scores, expected[rows], rtol=1e-5)
        assert (np.diff(scores) <= 0).all()
        (hits,) = index.search(query, corpus, 10)
        true = matrix @ query.toarray()[0]
        np.testing.assert_allclose(hits.scores, true[hits.rows], rtol=1e-5)
        np.testing.assert_allclose(hits.scores, -np.sort(-true)[:10], rtol=1e-5)


def test_impacts_without_terms_and_with_negative_weights(tmp_path: Path) -> None:
    corpus = Collection.from_dicts("c", {"a": "x", "b": "x"}, {}).corpus
    index = LuceneImpact(
        _sparse(tmp_path / "sparse", np.array([[1.0, 0], [0, 0]])), tmp_path / "lucene"
    )
    queries = csr_matrix(np.array([[0, 0], [2.0, 1.0]], dtype=np.float32))
    assert [
        (hits.rows.tolist(), hits.scores.tolist()) for hits in index.search(queries, corpus, 5)
    ] == [([], []), ([0], [2.0])]
    with pytest.raises(IrdistillError, match="negative weight"):
        LuceneImpact(_sparse(tmp_path / "negative", np.array([[1.0, -1.0]])), tmp_path / "lucene")


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_models_search_with_lucene(kind: str, tmp_path: Path) -> None:
    collection = make_collection(90)
    model = str(
        tiny_backbone(tmp_path / "model", layers=2)
        if kind == "dense"
        else tiny_splade(tmp_path / "model")
    )
    run = retrieve(
        collection,
        model,
        tmp_path / "run",
        6,
        RetrieveOptions(index="lucene", precision="float32"),
        work=tmp_path / "work",
    )
    share = recall(run)
    assert share is not None and share >= 0.9
    assert (
        run.identity.settings["index"]["kind"]
        == {"dense": "lucene-hnsw", "sparse": "lucene-impact"}[kind]
    )
    exact = retrieve(
        collection,
        model,
        tmp_path / "exact",
        200,
        RetrieveOptions(index="flat", precision="float32"),
        work=tmp_path / "work",
    )
    for results in run:
        true = dict(
            zip(
                exact[results.query_id].doc_ids,
                exact[results.query_id].scores.tolist(),
                strict=True,
            )
        )
        assert results.scores.tolist() == pytest.approx(
            [true[doc] for doc in results.doc_ids], rel=1e-5
        )
    with pytest.raises(IrdistillError, match="a late-interaction model has no index 'lucene'"):
        retrieve(
            collection,
            str(tiny_colbert(tmp_path / "late")),
            tmp_path / "other",
            options=RetrieveOptions(index="lucene"),
            work=tmp_path / "work",
        )
