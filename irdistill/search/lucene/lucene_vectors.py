"""Vectors in Lucene: an HNSW graph for dense vectors, and an impact index for sparse ones.

Lucene provides candidates, which are rescored with the stored vectors, so scores are exact.
HNSW: Malkov and Yashunin 2016, arXiv:1603.09320. Impacts: Lin and Ma 2021,
arXiv:2106.14807.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from irdistill.collections import Corpus
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError
from irdistill.search.lucene.jvm import java_class, java_errors
from irdistill.search.lucene.lucene_index import LuceneIndex, index_texts, index_writer
from irdistill.search.ranking import SearchHits, best_rows
from irdistill.search.vectors.brute_force import sort_by_score_and_row
from irdistill.search.vectors.vector_store import SparseStore, VectorStore

_FIELD = "vector"
_DIMENSIONS = 1024
_BLOCK = 1024
_EXTRA = 32  # candidates beyond k: levels rank documents slightly differently from weights
LEVELS = 255
"""Levels of a quantized weight, stored as the number of occurrences of its term."""


class LuceneHnsw:
    """A graph over all vectors of a store, with Lucene's defaults of 16 neighbors and beam 100."""

    kind = "lucene"
    settings: Mapping[str, Any] = {
        "kind": "lucene-hnsw",
        "neighbours": 16,
        "ef_construction": 100,
        "ef_search": 128,
    }

    def __init__(self, store: VectorStore, folder: str | Path) -> None:
        """Build the index, or open the existing one."""
        if store.dimension > _DIMENSIONS:
            raise InputError(
                f"the vectors have {store.dimension} dimensions; Lucene allows at most"
                f" {_DIMENSIONS}. Use the index hnsw."
            )
        self.store = store
        self._cosine = store.identity["similarity"] == "cosine"
        self._index = LuceneIndex.build(
            {"vectors": store.fingerprint, **self.settings}, self._write, Path(folder)
        )
        self.nbytes = self._index.nbytes

    def _write(self, folder: Path) -> None:
        document_class, stored, field = (
            java_class(f"org.apache.lucene.document.{name}")
            for name in ("Document", "StoredField", "KnnFloatVectorField")
        )
        similarities = java_class("org.apache.lucene.index.VectorSimilarityFunction")
        similarity = (
            similarities.DOT_PRODUCT if self._cosine else similarities.MAXIMUM_INNER_PRODUCT
        )
        rows = len(self.store)
        with index_writer(folder) as writer, progress(rows, "documents", "Lucene index") as bar:
            for start in range(0, rows, _BLOCK):
                vectors = np.asarray(self.store.matrix[start : start + _BLOCK], dtype=np.float32)
                for row, vector in enumerate(vectors.tolist(), start):
                    if not any(vector):
                        continue  # a document without tokens, which is never retrieved
                    document = document_class()
                    document.add(stored("id", str(row)))
                    document.add(field(_FIELD, vector, similarity))
                    writer.addDocument(document)
                bar.update(len(vectors))

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Scores (Q, k') float32 and rows (Q, k') int64 of queries (Q, D), best first.

        k' = min(k, N). Where the graph finds fewer, the row is -1 and the score -inf.
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
                query = queries(_FIELD, vector.tolist(), beam)
            hits = np.array(self._index.hits(query, k, by_id=False)[0], dtype=np.int64)
            vectors_found = np.asarray(self.store.matrix[hits], dtype=np.float32)
            rows[place, : len(hits)] = hits
            scores[place, : len(hits)] = vectors_found @ vector
        return sort_by_score_and_row(scores, rows)

    def search_groups(
        self, groups: Sequence[np.ndarray], k: int
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """`search` of several groups of queries."""
        return [self.search(group, k) for group in groups]


class LuceneImpact:
    """An inverted index of quantized weights.

    Lucene's score is the sum over terms of query weight times level. Levels are weights in units
    of the largest weight / 255, rounded, as in Anserini; a term with level 0 is not indexed.
    Candidates are rescored with the exact weights.
    """

    settings: Mapping[str, Any] = {"kind": "lucene-impact", "levels": LEVELS}

    def __init__(self, store: SparseStore, folder: str | Path) -> None:
        """Build the index, or open the existing one."""
        self.store = store
        self._index = LuceneIndex.build(
            {"vectors": store.fingerprint, **self.settings}, self._write, Path(folder)
        )
        self.nbytes = self._index.nbytes
        with java_errors("preparing an impact index"):
            self._index.searcher.setSimilarity(
                java_class("io.anserini.search.similarity.ImpactSimilarity")()
            )

    def _parts(self) -> Iterator[tuple[int, csr_matrix]]:
        for start in range(0, len(self.store), _BLOCK):
            yield start, self.store.part(start, min(start + _BLOCK, len(self.store))).tocsr()

    def _write(self, folder: Path) -> None:
        largest = max(
            (float(part.data.max()) for _, part in self._parts() if part.nnz), default=0.0
        )
        if any(part.nnz and part.data.min() < 0 for _, part in self._parts()):
            raise InputError(
                "a document has a negative weight, which an impact index cannot store; use the flat"
                " index."
            )
        index_texts(folder, self._documents(largest), len(self.store), "-impact", "-pretokenized")

    def _documents(self, largest: float) -> Iterator[tuple[str, str]]:
        for start, part in self._parts():
            levels = (
                np.rint(part.data * (LEVELS / largest)).astype(np.int64)
                if largest
                else np.zeros(part.nnz, np.int64)
            )
            for row in range(part.shape[0]):
                entries = slice(part.indptr[row], part.indptr[row + 1])
                words = np.repeat(part.indices[entries], levels[entries]).tolist()
                yield str(start + row), " ".join(map(str, words))

    def candidates(self, query: csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Top k rows (k,) int64 of a query (1, V), and their scores in levels (k,) float32."""
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
            ids, scores = self._index.hits(builder.build(), k)
        return np.array(ids, dtype=np.int64), scores

    def search(self, queries: csr_matrix, corpus: Corpus, k: int) -> list[SearchHits]:
        """Approximate top k documents of each query (Q, V), with exact scores."""
        hits = []
        for query in (queries[row] for row in range(queries.shape[0])):
            rows, _ = self.candidates(query, k + _EXTRA)
            scores = np.asarray(self.store.rows_of(rows) @ query.toarray()[0], dtype=np.float32)
            hits.append(best_rows(corpus, scores, k, rows, above=0.0))
        return hits
