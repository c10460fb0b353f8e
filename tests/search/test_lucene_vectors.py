"""Vectors in Lucene: HNSW against exact search, and impacts against the quantised dot product computed here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from irdistill.errors import IrdistillError
from irdistill.files import digest, write_json
from irdistill.search.exact import exact_search
from irdistill.search.lucene_vectors import LEVELS, LuceneHnsw, LuceneImpact
from irdistill.search.vectors import VectorStore
from tests.search.lucene_here import needs_lucene

pytestmark = needs_lucene


def _store(folder: Path, matrix: np.ndarray, similarity: str) -> VectorStore:
    folder.mkdir()
    matrix.astype(np.float32).tofile(folder / "vectors.bin")
    write_json(folder / "manifest.json", {"identity": {"storage": "float32", "similarity": similarity}, "rows": matrix.shape[0],
                                          "dimension": matrix.shape[1], "shards": [digest(matrix.tolist())]})
    return VectorStore(folder)


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
    store = _store(tmp_path / "vectors", matrix, similarity)
    index = LuceneHnsw(store, tmp_path / "lucene")
    (scores, rows), (more, _) = index.search_groups([queries, queries[:1]], 10)
    true_scores, true_rows = exact_search(matrix, [queries], 10)[0]
    found = np.mean([len(np.intersect1d(own, true)) / 10 for own, true in zip(rows, true_rows, strict=True)])
    assert found >= 0.95
    np.testing.assert_allclose(scores[:, 0], true_scores[:, 0], rtol=1e-5)
    np.testing.assert_allclose(scores, np.take_along_axis(queries @ matrix.T, rows, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(more[0], scores[0])
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "lucene").rglob("*")}
    np.testing.assert_array_equal(LuceneHnsw(store, tmp_path / "lucene").search(queries, 10)[1], rows)
    assert made.keys() <= set((tmp_path / "lucene").rglob("*")) and index.nbytes > matrix.nbytes


def test_hnsw_of_fewer_vectors_than_asked_for_and_of_long_ones(tmp_path: Path) -> None:
    few = LuceneHnsw(_store(tmp_path / "few", np.eye(3, dtype=np.float32), "cosine"), tmp_path / "lucene")
    scores, rows = few.search(np.array([[0.6, 0.8, 0.0]], dtype=np.float32), 10)
    assert rows.tolist() == [[1, 0, 2]] and scores[0].tolist() == pytest.approx([0.8, 0.6, 0.0])
    with pytest.raises(IrdistillError, match="1025 dimensions"):
        LuceneHnsw(_store(tmp_path / "long", np.zeros((2, 1025)), "dot"), tmp_path / "lucene")


class Rows:
    """Sparse vectors in memory."""

    def __init__(self, matrix: np.ndarray) -> None:
        self.matrix = csr_matrix(matrix.astype(np.float32))
        self.fingerprint = digest(matrix.tolist())

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def part(self, start: int, end: int) -> csr_matrix:
        return self.matrix[start:end]

    def rows_of(self, rows: np.ndarray) -> csr_matrix:
        return self.matrix[rows]


def test_impacts_are_the_quantised_dot_product(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    matrix = np.where(rng.random((300, 40)) < 0.2, rng.gamma(1.0, 1.0, (300, 40)), 0).astype(np.float32)
    matrix[7] = 0
    index = LuceneImpact(Rows(matrix), tmp_path)
    levels = np.rint(matrix * (LEVELS / matrix.max()))
    for number in range(8):
        query = csr_matrix(np.where(rng.random((1, 40)) < 0.15, rng.gamma(1.0, 1.0, (1, 40)), 0).astype(np.float32))
        expected = (levels @ query.toarray()[0]).astype(np.float32)
        rows, scores = index.candidates(query, 300)
        assert sorted(rows.tolist()) == np.flatnonzero(expected > 0).tolist()
        np.testing.assert_allclose(scores, expected[rows], rtol=1e-5)
        assert (np.diff(scores) <= 0).all()
        rows, scores = index.search(query, 10)
        true = matrix @ query.toarray()[0]
        np.testing.assert_allclose(scores, true[rows], rtol=1e-5)
        assert len(np.intersect1d(rows, np.argsort(-true)[:10])) >= 9, number


def test_impacts_of_nothing_and_below_nothing(tmp_path: Path) -> None:
    index = LuceneImpact(Rows(np.array([[1.0, 0], [0, 0]])), tmp_path)
    assert [part.tolist() for part in index.search(csr_matrix((1, 2), dtype=np.float32), 5)] == [[], []]
    with pytest.raises(IrdistillError, match="negative weight"):
        LuceneImpact(Rows(np.array([[1.0, -1.0]])), tmp_path)
