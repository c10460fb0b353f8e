"""Searching a corpus with an encoder of any kind: vectors, the index over them, and what it finds
for a query.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from irdistill.collections import Corpus
from irdistill.console.progress import ProgressCallback
from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import Precision
from irdistill.modeling.truncation import Truncation
from irdistill.search.lucene.lucene_vectors import LuceneHnsw, LuceneImpact
from irdistill.search.multi_vector.multi_vector_index import maxsim_search, rerank
from irdistill.search.multi_vector.plaid_index import PlaidIndex
from irdistill.search.ranking import Hits, best_rows
from irdistill.search.sparse.seismic_index import SeismicIndex
from irdistill.search.sparse.sparse_index import SparseIndex
from irdistill.search.vectors.exact_search import exact_search
from irdistill.search.vectors.faiss_index import FaissIndex
from irdistill.search.vectors.vector_store import (
    SparseStore,
    Storage,
    Store,
    TokenStore,
    VectorStore,
    corpus_vectors,
)
from irdistill.students.base import Student

if TYPE_CHECKING:
    from irdistill.search.vectors.ray_encoding import RayEncoding

Index = Literal["flat", "hnsw", "ivfflat", "ivfpq", "sq8", "plaid", "seismic", "lucene"]

_FAISS = ("flat", "hnsw", "ivfflat", "ivfpq", "sq8")
INDEXES: Mapping[str, tuple[str, ...]] = {
    "dense": (*_FAISS, "lucene"),
    "late-interaction": (*_FAISS, "plaid"),
    "sparse": ("flat", "seismic", "lucene"),
}
"""The indexes of each kind of encoder; ``flat`` is exact for all."""

_SPARE = 32
"""Neighbours asked for beyond k, so that documents with equal scores at the cut-off are ordered by
id.
"""
_MOST_ABSENT = 1024
"""Of documents without a vector, which an approximate index holds all the same, so many more
neighbours are asked for.
"""
_TOKEN_NEIGHBOURS = 128
"""Of an index over tokens: at least so many nearest tokens of each query token give the candidates.
"""


class Engine(ABC):
    """Searches one corpus with one encoder.

    Attributes:
        settings: what determines the index.
        exact: whether what it finds are the true best.
        nbytes: what a search reads at most.
        truncation: how much of the documents the encoder did not read.
    """

    settings: Mapping[str, Any]
    exact: bool = True
    nbytes: int
    truncation: Truncation = Truncation()

    def __init__(self, corpus: Corpus, student: Student, precision: Precision) -> None:
        self.corpus, self.student, self.precision = corpus, student, precision

    def encode(self, texts: Sequence[str], done: ProgressCallback | None = None) -> Any:
        """The vectors of some queries, as ``search`` takes a group; ``done`` is told how many were
        encoded, batch by batch.
        """
        return self.student.search_vectors(texts, "query", self.precision, done=done)

    @abstractmethod
    def search(self, groups: Sequence[Any], k: int) -> Iterable[list[Hits]]:
        """The k best documents of each query of each group; a group's result depends on it
        alone.
        """

    def true_best(self, groups: Sequence[Any], k: int) -> Iterable[list[Hits]]:
        """As ``search``, exactly."""
        return self.search(groups, k)


class DenseEngine(Engine):
    """Inner products of one vector a text."""

    def __init__(
        self, corpus: Corpus, student: Student, precision: Precision, index: FaissIndex | LuceneHnsw
    ) -> None:
        super().__init__(corpus, student, precision)
        self.index, self.settings, self.exact, self.nbytes = (
            index,
            index.settings,
            index.kind == "flat",
            index.nbytes,
        )
        self._absent = (
            index.store.absent_rows
            if isinstance(index.store, VectorStore)
            else np.empty(0, np.int64)
        )

    def search(self, groups: Sequence[np.ndarray], k: int) -> Iterable[list[Hits]]:
        if self.exact:
            return self.true_best(groups, k)
        spare = _SPARE + min(len(self._absent), _MOST_ABSENT)
        return (
            self._hits(vectors, *found, k)
            for vectors, found in zip(
                groups, self.index.search_groups(groups, k + spare), strict=True
            )
        )

    def true_best(self, groups: Sequence[np.ndarray], k: int) -> Iterable[list[Hits]]:
        matrix = self.index.store.matrix
        given: dict[str, Any] = {"device": self.student.device, "skip": self._absent}
        found = exact_search(matrix, groups, k + _SPARE, **given)
        for vectors, (scores, rows) in zip(groups, found, strict=True):
            spare, written = _SPARE, vectors.any(axis=1)
            while (
                k < scores.shape[1] < len(matrix)
                and (scores[written, k - 1] == scores[written, -1]).any()
            ):
                spare *= 8  # more equal scores at the cut-off than were asked for
                scores, rows = exact_search(matrix, [vectors], k + spare, **given)[0]
            yield self._hits(vectors, scores, rows, k)

    def _hits(
        self, vectors: np.ndarray, scores: np.ndarray, rows: np.ndarray, k: int
    ) -> list[Hits]:
        """The best of each line; without documents that have no vector, and nothing for a query
        that has none.
        """
        best = []
        for vector, line, places in zip(vectors, scores, rows, strict=True):
            kept = (places >= 0) & (line > -np.inf) & ~np.isin(places, self._absent)
            best.append(best_rows(self.corpus, line[kept], k if vector.any() else 0, places[kept]))
        return best


class SparseEngine(Engine):
    """Inner products of sparse vectors, by the words of the query."""

    def __init__(
        self,
        corpus: Corpus,
        student: Student,
        precision: Precision,
        store: SparseStore,
        index: SparseIndex | SeismicIndex | LuceneImpact,
    ) -> None:
        super().__init__(corpus, student, precision)
        self.store, self.index, self.exact = store, index, isinstance(index, SparseIndex)
        self.settings, self.nbytes = index.settings, index.nbytes

    def search(self, groups: Sequence[Any], k: int) -> Iterable[list[Hits]]:
        return (self.index.search(group, self.corpus, k) for group in groups)

    def true_best(self, groups: Sequence[Any], k: int) -> Iterable[list[Hits]]:
        exact = self.index if isinstance(self.index, SparseIndex) else inverted_index(self.store)
        return (exact.search(group, self.corpus, k) for group in groups)


def _sparse_index(store: SparseStore, index: Index) -> SparseIndex | SeismicIndex | LuceneImpact:
    if index == "lucene":
        return LuceneImpact(store, store.folder / "lucene")
    return (
        SeismicIndex(store, store.folder / "seismic")
        if index == "seismic"
        else inverted_index(store)
    )


def inverted_index(store: SparseStore) -> SparseIndex:
    """The exact index of a sparse store, beside it."""
    return SparseIndex.build(store, store.folder / "inverted")


class MultiVectorEngine(Engine):
    """MaxSim: of all documents, or of those that an index over tokens gives as candidates."""

    def __init__(
        self,
        corpus: Corpus,
        student: Student,
        precision: Precision,
        store: TokenStore,
        index: FaissIndex | PlaidIndex,
    ) -> None:
        super().__init__(corpus, student, precision)
        self.store, self.index, self.exact = store, index, index.kind == "flat"
        by_tokens = isinstance(index, FaissIndex) and not self.exact
        self.settings = {
            **index.settings,
            **({"token_neighbours": _TOKEN_NEIGHBOURS} if by_tokens else {}),
        }
        self.nbytes = store.nbytes + (0 if self.exact else index.nbytes)
        self.mean = student.similarity == "meanmaxsim"

    def search(self, groups: Sequence[Sequence[np.ndarray]], k: int) -> Iterable[list[Hits]]:
        if self.exact:
            return self.true_best(groups, k)
        return ([self._two_stages(query, k) for query in group] for group in groups)

    def true_best(self, groups: Sequence[Sequence[np.ndarray]], k: int) -> Iterable[list[Hits]]:
        return maxsim_search(
            self.store, groups, self.corpus, k, mean=self.mean, device=self.student.device
        )

    def _two_stages(self, query: np.ndarray, k: int) -> Hits:
        rows = self._candidates(query, k)
        return rerank(
            self.store, query, rows, self.corpus, k, mean=self.mean, device=self.student.device
        )

    def _candidates(self, query: np.ndarray, k: int) -> np.ndarray:
        if not len(query):
            return np.empty(0, np.int64)
        if isinstance(self.index, PlaidIndex):
            return self.index.candidates(query, k)
        _, tokens = self.index.search(query, max(_TOKEN_NEIGHBOURS, k))
        return np.unique(np.searchsorted(self.store.starts, tokens[tokens >= 0], side="right") - 1)


def open_engine(
    corpus: Corpus,
    student: Student,
    index: Index = "flat",
    work: str | Path | None = None,
    precision: Precision = "auto",
    storage: Storage = "float32",
    seed: int = 42,
    encoding: RayEncoding | None = None,
) -> Engine:
    """Encode the corpus and build the index, or open what is there.

    Args:
        work: where vectors and indexes are kept; the cache folder where None.
        encoding: where the corpus is encoded; this process where None.

    Raises:
        IrdistillError: the student reads pairs, or this kind of student has no such index.
    """
    known = INDEXES.get(student.kind, ())
    if known and index not in known:
        raise IrdistillError(
            f"a {student.kind} model has no index {index!r}; give one of {', '.join(known)}."
        )
    store: Store = corpus_vectors(corpus, student, work, precision, storage, encoding)
    engine = _engine_of(corpus, student, index, precision, store, seed)
    engine.truncation = store.truncation
    return engine


def _engine_of(
    corpus: Corpus, student: Student, index: Index, precision: Precision, store: Store, seed: int
) -> Engine:
    """The engine of a kind of store, with its index built or opened."""
    if isinstance(store, SparseStore):
        return SparseEngine(corpus, student, precision, store, _sparse_index(store, index))
    if index == "lucene":
        assert isinstance(store, VectorStore)
        return DenseEngine(corpus, student, precision, LuceneHnsw(store, store.folder / "lucene"))
    if index == "plaid":
        assert isinstance(store, TokenStore)
        plaid = PlaidIndex.build(
            store, store.folder / f"plaid-{seed}", seed=seed, device=student.device
        )
        return MultiVectorEngine(corpus, student, precision, store, plaid)
    assert isinstance(store, VectorStore | TokenStore) and index != "seismic"
    built = FaissIndex.build(store, index, store.folder / f"{index}-{seed}", seed=seed)
    if isinstance(store, TokenStore):
        return MultiVectorEngine(corpus, student, precision, store, built)
    return DenseEngine(corpus, student, precision, built)
