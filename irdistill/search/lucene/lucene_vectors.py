"""Vectors in Lucene: its HNSW graph for dense ones, and an impact index for sparse ones.

Lucene gives the candidates, and they are scored again with the stored vectors, so that scores are
those of exact search. HNSW: Malkov and Yashunin 2016, arXiv:1603.09320. Impacts: Lin and Ma 2021,
arXiv:2106.14807.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from irdistill.collections import Corpus
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.search.lucene.jvm import java_class, java_errors
from irdistill.search.lucene.lucene_index import LuceneIndex, index_writer, write_texts
from irdistill.search.ranking import SearchHits, best_rows
from irdistill.search.vectors.exact_search import sort_by_score_and_row
from irdistill.search.vectors.vector_store import SparseStore, VectorStore

_FIELD = "vector"
_DIMENSIONS = 1024
_BLOCK = 1024
_SPARE = 32  # candidates beyond k: levels order documents a little differently from weights
LEVELS = 255
"""Of a quantised weight: it is kept as the number of times that its word occurs in a document."""


class LuceneHnsw:
    """A graph over all vectors of a store, kept on disk; Lucene's own defaults of 16 neighbours and
    a beam of 100.
    """

    kind = "lucene"
    settings: Mapping[str, Any] = {
        "kind": "lucene-hnsw",
        "neighbours": 16,
        "ef_construction": 100,
        "ef_search": 128,
    }

    def __init__(self, store: VectorStore, folder: str | Path) -> None:
        """Build the index, or open the one that is there.

        Args:
            folder: of indexes over this store.

        Raises:
            IrdistillError: the vectors are too long for Lucene, or Java or Pyserini is missing.
        """
        if store.dimension > _DIMENSIONS:
            raise IrdistillError(
                f"the vectors have {store.dimension} dimensions, and Lucene takes at most"
                f" {_DIMENSIONS}; use the index hnsw."
            )
        self.store = store
        self._cosine = store.identity["similarity"] == "cosine"
        self._index = LuceneIndex.build(
            {"vectors": store.fingerprint, **self.settings}, self._write, Path(folder)
        )

    @property
    def nbytes(self) -> int:
        """The size of the index on disk; it holds the vectors too."""
        return self._index.nbytes

    def _write(self, folder: Path) -> None:
        document, stored = (
            java_class("org.apache.lucene.document.Document"),
            java_class("org.apache.lucene.document.StoredField"),
        )
        field, kinds = (
            java_class(f"org.apache.lucene.{name}")
            for name in ("document.KnnFloatVectorField", "index.VectorSimilarityFunction")
        )
        kind = kinds.DOT_PRODUCT if self._cosine else kinds.MAXIMUM_INNER_PRODUCT
        rows = len(self.store)
        with index_writer(folder) as writer, progress(rows, "documents", "Lucene index") as bar:
            for start in range(0, rows, _BLOCK):
                vectors = np.asarray(self.store.matrix[start : start + _BLOCK], dtype=np.float32)
                for row, vector in enumerate(vectors.tolist(), start):
                    if not any(vector):
                        continue  # of a document without tokens, which is never found
                    made = document()
                    made.add(stored("id", str(row)))
                    made.add(field(_FIELD, vector, kind))
                    writer.addDocument(made)
                bar.update(len(vectors))

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, k') float32 and rows (Q, k') int64 of queries (Q, D), best first; k' = min(k,
        N).

        Where the graph finds fewer, the row is -1 and the score -inf.
        """
        k = min(k, len(self.store))
        scores = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        rows = np.full((len(vectors), k), -1, dtype=np.int64)
        queries = java_class("org.apache.lucene.search.KnnFloatVectorQuery")
        beam = max(int(self.settings["ef_search"]), k)
        for place, vector in enumerate(np.ascontiguousarray(vectors, dtype=np.float32)):
            if not vector.any():
                continue
            with java_errors("searching"):
                asked = queries(_FIELD, vector.tolist(), beam)
            found = np.array(self._index.hits(asked, k, by_id=False)[0], dtype=np.int64)
            rows[place, : len(found)] = found
            scores[place, : len(found)] = (
                np.asarray(self.store.matrix[found], dtype=np.float32) @ vector
            )
        return sort_by_score_and_row(scores, rows)

    def search_groups(
        self, groups: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """``search`` of several groups of queries."""
        return [self.search(group, k) for group in groups]


class LuceneImpact:
    """An inverted index of quantised weights: the score in Lucene is the sum over words of query
    weight times level.

    Levels are whole multiples of the greatest weight / 255, rounded, as Anserini keeps them; a word
    whose level is 0 is lost to the search. What is found is scored again with the true weights.
    """

    settings: Mapping[str, Any] = {"kind": "lucene-impact", "levels": LEVELS}

    def __init__(self, store: SparseStore, folder: str | Path) -> None:
        """Build the index, or open the one that is there.

        Raises:
            IrdistillError: a weight is negative, or Java or Pyserini is missing.
        """
        self.store = store
        self._index = LuceneIndex.build(
            {"vectors": store.fingerprint, **self.settings}, self._write, Path(folder)
        )
        with java_errors("preparing an impact index"):
            self._index.searcher.setSimilarity(
                java_class("io.anserini.search.similarity.ImpactSimilarity")()
            )

    @property
    def nbytes(self) -> int:
        """The size of the index on disk."""
        return self._index.nbytes

    def _parts(self) -> Iterator[tuple[int, csr_matrix]]:
        for start in range(0, len(self.store), _BLOCK):
            yield start, self.store.part(start, min(start + _BLOCK, len(self.store))).tocsr()

    def _write(self, folder: Path) -> None:
        greatest = max(
            (float(part.data.max()) for _, part in self._parts() if part.nnz), default=0.0
        )
        if any(part.nnz and part.data.min() < 0 for _, part in self._parts()):
            raise IrdistillError(
                "a document has a negative weight, which an impact index cannot hold; use the flat"
                " index."
            )
        write_texts(folder, self._documents(greatest), len(self.store), "-impact", "-pretokenized")

    def _documents(self, greatest: float) -> Iterator[tuple[str, str]]:
        for start, part in self._parts():
            levels = (
                np.rint(part.data * (LEVELS / greatest)).astype(np.int64)
                if greatest
                else np.zeros(part.nnz, np.int64)
            )
            for row in range(part.shape[0]):
                own = slice(part.indptr[row], part.indptr[row + 1])
                words = np.repeat(part.indices[own], levels[own]).tolist()
                yield str(start + row), " ".join(map(str, words))

    def candidates(self, query: csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k best rows (k,) int64 of one query (1, V), and their scores in levels (k,) float32,
        best first.
        """
        terms, boosts, lucene = (
            java_class(f"org.apache.lucene.{name}")
            for name in ("search.TermQuery", "search.BoostQuery", "index.Term")
        )
        should = java_class("org.apache.lucene.search.BooleanClause$Occur").SHOULD
        with java_errors("searching"):
            builder = java_class("org.apache.lucene.search.BooleanQuery$Builder")()
            for word, weight in zip(query.indices.tolist(), query.data.tolist(), strict=True):
                if weight > 0:
                    builder.add(boosts(terms(lucene("contents", str(word))), weight), should)
            asked = builder.build()
        ids, scores = self._index.hits(asked, k)
        return np.array(ids, dtype=np.int64), scores

    def search(self, queries: csr_matrix, corpus: Corpus, k: int) -> list[SearchHits]:
        """About the k best documents of each query (Q, V), with their true scores."""
        found = []
        for query in (queries[row] for row in range(queries.shape[0])):
            rows, _ = self.candidates(query, k + _SPARE)
            scores = np.asarray(self.store.rows_of(rows) @ query.toarray()[0], dtype=np.float32)
            found.append(best_rows(corpus, scores, k, rows, above=0.0))
        return found
