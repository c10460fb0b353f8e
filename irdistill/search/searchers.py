"""Search a corpus with a model: its stored vectors, the index over them, and the top documents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from irdistill.collections import Corpus
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import OptionError
from irdistill.modeling.hardware import Precision
from irdistill.modeling.truncation import Truncation
from irdistill.search.lucene.lucene_vectors import LuceneHnsw, LuceneImpact
from irdistill.search.multi_vector.maxsim import maxsim_blocks, maxsim_search, rerank
from irdistill.search.multi_vector.plaid_index import PlaidIndex
from irdistill.search.passage_ranking import (
    MAXP,
    Aggregation,
    PassageScores,
    check_exact,
    deepen,
    document_scores,
    rank_documents,
)
from irdistill.search.ranking import EXTRA_NEIGHBORS, MAX_EXTRA_ABSENT, SearchHits, best_rows
from irdistill.search.retrieve_options import (
    INDEXES,
    CodeOptions,
    Index,
    RetrieveOptions,
    Storage,
)
from irdistill.search.sparse.seismic_index import SeismicIndex
from irdistill.search.sparse.sparse_index import SparseIndex
from irdistill.search.vectors.brute_force import exact_search, score_blocks
from irdistill.search.vectors.document_vectors import (
    VECTOR_TAU,
    DocumentFit,
    check_dense,
    fit_document_vectors,
)
from irdistill.search.vectors.faiss_index import FaissIndex
from irdistill.search.vectors.quantized_index import QuantizedIndex
from irdistill.search.vectors.text_encoder import TextEncoder
from irdistill.search.vectors.vector_store import (
    EncodeShards,
    SparseStore,
    Store,
    TokenStore,
    VectorStore,
    corpus_vectors,
)

_TOKEN_NEIGHBORS = 128
"""Fewest nearest tokens per query token whose documents become candidates."""


class CorpusSearcher(ABC):
    """Searches one corpus with one model.

    Attributes:
        settings: everything that determines the index.
        exact: whether the results are the exact top k.
        nbytes: most bytes that a search reads.
        sizes: these bytes by part, such as ``codes`` and ``rescoring``; empty for most indexes.
        truncation: how much of the documents the model did not read.
    """

    settings: Mapping[str, Any]
    exact: bool = True
    nbytes: int
    sizes: Mapping[str, int] = MappingProxyType({})
    truncation: Truncation = Truncation()

    def __init__(self, corpus: Corpus, student: TextEncoder, precision: Precision) -> None:
        self.corpus, self.student, self.precision = corpus, student, precision

    def encode(self, texts: Sequence[str], done: ProgressCallback | None = None) -> Any:
        """Encode queries into one group for `search`.

        Args:
            done: called with the number of encoded queries after each batch.
        """
        return self.student.search_vectors(texts, "query", self.precision, done=done)

    @abstractmethod
    def search(self, groups: Sequence[Any], k: int) -> Iterable[list[SearchHits]]:
        """Top k documents of each query; the results of a group depend on that group alone."""

    def search_exact(self, groups: Sequence[Any], k: int) -> Iterable[list[SearchHits]]:
        """Exact top k documents of each query."""
        return self.search(groups, k)

    @abstractmethod
    def score_blocks(self, groups: Sequence[Any]) -> Iterable[tuple[int, list[np.ndarray]]]:
        """The scores (Q, n) of all documents for each group, block by block, with the first row of
        each block; -inf where a document has no score.
        """


class DenseSearcher(CorpusSearcher):
    """Searches one vector per document by inner product."""

    def __init__(
        self,
        corpus: Corpus,
        student: TextEncoder,
        precision: Precision,
        index: FaissIndex | QuantizedIndex | LuceneHnsw,
    ) -> None:
        super().__init__(corpus, student, precision)
        self.index, self.settings, self.nbytes = index, index.settings, index.nbytes
        self.exact = index.kind == "flat"
        if isinstance(index, QuantizedIndex):
            self.sizes = index.sizes
        store = index.store
        self._absent = (
            store.absent_rows if isinstance(store, VectorStore) else np.empty(0, np.int64)
        )

    def search(self, groups: Sequence[np.ndarray], k: int) -> Iterable[list[SearchHits]]:
        """Top k documents of query vectors (Q, D)."""
        if self.exact:
            return self.search_exact(groups, k)
        neighbors = k  # an index of codes adds those that it scores again
        if not isinstance(self.index, QuantizedIndex):
            neighbors += EXTRA_NEIGHBORS + min(len(self._absent), MAX_EXTRA_ABSENT)
        results = self.index.search_groups(groups, neighbors)
        return (
            self._top(vectors, scores, rows, k)
            for vectors, (scores, rows) in zip(groups, results, strict=True)
        )

    def search_exact(self, groups: Sequence[np.ndarray], k: int) -> Iterable[list[SearchHits]]:
        """Exact top k documents of query vectors (Q, D)."""
        matrix, device = self.index.store.matrix, self.student.device
        results = exact_search(
            matrix, groups, k + EXTRA_NEIGHBORS, device=device, skip=self._absent
        )
        for vectors, (scores, rows) in zip(groups, results, strict=True):
            extra, not_empty = EXTRA_NEIGHBORS, vectors.any(axis=1)
            while (
                k < scores.shape[1] < len(matrix)
                and (scores[not_empty, k - 1] == scores[not_empty, -1]).any()
            ):
                extra *= 8  # more ties at the cut-off than extra neighbors
                scores, rows = exact_search(
                    matrix, [vectors], k + extra, device=device, skip=self._absent
                )[0]
            yield self._top(vectors, scores, rows, k)

    def score_blocks(self, groups: Sequence[np.ndarray]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Inner products with query vectors (Q, D)."""
        matrix, device = self.index.store.matrix, self.student.device
        for first, scores in score_blocks(matrix, groups, device=device, skip=self._absent):
            for lines, vectors in zip(scores, groups, strict=True):
                lines[~vectors.any(axis=1)] = -np.inf
            yield first, scores

    def _top(
        self, vectors: np.ndarray, scores: np.ndarray, rows: np.ndarray, k: int
    ) -> list[SearchHits]:
        """Top k per query, without absent documents; nothing for a query without a vector."""
        hits = []
        for vector, line, neighbors in zip(vectors, scores, rows, strict=True):
            kept = (neighbors >= 0) & (line > -np.inf) & ~np.isin(neighbors, self._absent)
            count = k if vector.any() else 0
            hits.append(best_rows(self.corpus, line[kept], count, neighbors[kept]))
        return hits


class SparseSearcher(CorpusSearcher):
    """Searches sparse vectors by inner product, through the terms of the query."""

    def __init__(
        self,
        corpus: Corpus,
        student: TextEncoder,
        precision: Precision,
        store: SparseStore,
        index: SparseIndex | SeismicIndex | LuceneImpact,
    ) -> None:
        super().__init__(corpus, student, precision)
        self.store, self.index, self.exact = store, index, isinstance(index, SparseIndex)
        self.settings, self.nbytes = index.settings, index.nbytes

    def search(self, groups: Sequence[Any], k: int) -> Iterable[list[SearchHits]]:
        """Top k documents of query vectors (Q, V)."""
        return (self.index.search(group, self.corpus, k) for group in groups)

    def search_exact(self, groups: Sequence[Any], k: int) -> Iterable[list[SearchHits]]:
        """Exact top k documents of query vectors (Q, V)."""
        exact = self._exact_index()
        return (exact.search(group, self.corpus, k) for group in groups)

    def score_blocks(self, groups: Sequence[Any]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """Inner products with query vectors (Q, V)."""
        return self._exact_index().score_blocks(groups)

    def _exact_index(self) -> SparseIndex:
        return self.index if isinstance(self.index, SparseIndex) else inverted_index(self.store)


def inverted_index(store: SparseStore) -> SparseIndex:
    """Exact index of a sparse store, in its folder."""
    return SparseIndex.build(store, store.folder / "inverted")


class MultiVectorSearcher(CorpusSearcher):
    """Searches by MaxSim: all documents, or the candidates of an index over tokens."""

    def __init__(
        self,
        corpus: Corpus,
        student: TextEncoder,
        precision: Precision,
        store: TokenStore,
        index: FaissIndex | PlaidIndex,
    ) -> None:
        super().__init__(corpus, student, precision)
        self.store, self.index, self.exact = store, index, index.kind == "flat"
        self.settings = dict(index.settings)
        if isinstance(index, FaissIndex) and not self.exact:
            self.settings["token_neighbours"] = _TOKEN_NEIGHBORS
        self.nbytes = store.nbytes + (0 if self.exact else index.nbytes)
        self.mean = student.similarity == "meanmaxsim"

    def search(self, groups: Sequence[Sequence[np.ndarray]], k: int) -> Iterable[list[SearchHits]]:
        """Top k documents of queries (tokens, D)."""
        if self.exact:
            return self.search_exact(groups, k)
        return ([self._two_stages(query, k) for query in group] for group in groups)

    def search_exact(
        self, groups: Sequence[Sequence[np.ndarray]], k: int
    ) -> Iterable[list[SearchHits]]:
        """Exact top k documents of queries (tokens, D)."""
        device = self.student.device
        return maxsim_search(self.store, groups, self.corpus, k, mean=self.mean, device=device)

    def score_blocks(
        self, groups: Sequence[Sequence[np.ndarray]]
    ) -> Iterator[tuple[int, list[np.ndarray]]]:
        """MaxSim with queries (tokens, D)."""
        return maxsim_blocks(self.store, groups, mean=self.mean, device=self.student.device)

    def _two_stages(self, query: np.ndarray, k: int) -> SearchHits:
        """Rerank the candidates of the index by exact MaxSim."""
        rows, device = self._candidates(query, k), self.student.device
        return rerank(self.store, query, rows, self.corpus, k, mean=self.mean, device=device)

    def _candidates(self, query: np.ndarray, k: int) -> np.ndarray:
        if not len(query):
            return np.empty(0, np.int64)
        if isinstance(self.index, PlaidIndex):
            return self.index.candidates(query, k)
        _, tokens = self.index.search(query, max(_TOKEN_NEIGHBORS, k))
        return np.unique(np.searchsorted(self.store.starts, tokens[tokens >= 0], side="right") - 1)


class PassageSearcher(CorpusSearcher):
    """Searches passages, and ranks their documents.

    Args:
        corpus: the documents, with their passages.
        passages: searches the corpus of the passages.
        aggregation: how scores of passages become scores of documents. An approximate index can
            be used with MaxP only.
    """

    def __init__(
        self, corpus: Corpus, passages: CorpusSearcher, aggregation: Aggregation = MAXP
    ) -> None:
        super().__init__(corpus, passages.student, passages.precision)
        if not passages.exact:
            check_exact(aggregation, f"the index {passages.settings['kind']}")
        self.passages, self.aggregation = passages, aggregation
        self.exact, self.nbytes, self.sizes = passages.exact, passages.nbytes, passages.sizes
        self.truncation, self.sizes = passages.truncation, passages.sizes
        self.settings = {**passages.settings, "aggregate": aggregation.settings()}

    def encode(self, texts: Sequence[str], done: ProgressCallback | None = None) -> Any:
        """Encode queries into one group for `search`."""
        return self.passages.encode(texts, done)

    def search(self, groups: Sequence[Any], k: int) -> Iterable[list[SearchHits]]:
        """Top k documents of each query, with the best passage of each."""
        if self.exact:
            return self.search_exact(groups, k)
        return (
            deepen(
                lambda depth, group=group: next(iter(self.passages.search([group], depth))),  # type: ignore[misc]
                self.corpus,
                k,
            )
            for group in groups
        )

    def search_exact(self, groups: Sequence[Any], k: int) -> Iterable[list[SearchHits]]:
        """Exact top k documents of each query, from the scores of all passages."""
        blocks = (PassageScores(*block) for block in self.passages.score_blocks(groups))
        return rank_documents(blocks, self.corpus, self.aggregation, k)

    def score_blocks(self, groups: Sequence[Any]) -> Iterator[tuple[int, list[np.ndarray]]]:
        """The scores of documents."""
        blocks = (PassageScores(*block) for block in self.passages.score_blocks(groups))
        return document_scores(blocks, self.corpus, self.aggregation)


def open_searcher(
    corpus: Corpus,
    student: TextEncoder,
    index: Index | CodeOptions = "flat",
    work: str | Path | None = None,
    precision: Precision = "auto",
    storage: Storage = "float32",
    seed: int = 42,
    encode_shards: EncodeShards | None = None,
) -> CorpusSearcher:
    """Encode the corpus and build the index, or open the existing ones.

    The passages of a corpus that has any are searched instead of its documents, which are ranked by
    MaxP.

    Args:
        index: an index of float vectors, or the short codes of a dense model.
        encode_shards: encodes the corpus elsewhere, see `EncodeShards` (default: this process).
    """
    known = INDEXES.get(student.kind, ())
    if known and isinstance(index, str) and index not in known:
        raise OptionError(
            f"a {student.kind} model has no index {index!r}; choose one of {', '.join(known)}."
        )
    if isinstance(index, CodeOptions) and student.kind != "dense":
        raise OptionError(
            f"vectors={index.vectors} was given for a {student.kind} model; short codes are for"
            " dense models, so leave it out."
        )
    read = reading_corpus(corpus)
    store: Store = corpus_vectors(read, student, work, precision, storage, encode_shards)
    searcher = _searcher(read, student, index, precision, store, seed)
    searcher.truncation = store.truncation
    return searcher if corpus.passages is None else PassageSearcher(corpus, searcher)


def open_vector_searcher(
    corpus: Corpus,
    student: TextEncoder,
    options: RetrieveOptions,
    work: str | Path | None = None,
    encode_shards: EncodeShards | None = None,
) -> CorpusSearcher:
    """Encode the passages of a corpus, fit one vector for each document, and build the index.

    Args:
        corpus: the documents, with their passages.

    Raises:
        OptionError: the model is not dense.
    """
    check_dense(student)
    passages = corpus.passages
    assert passages is not None
    store: VectorStore = corpus_vectors(
        passages.corpus, student, work, options.precision, options.storage, encode_shards
    )
    fit = DocumentFit(tau=options.aggregate_tau or VECTOR_TAU)
    vectors = fit_document_vectors(corpus, store, student, fit, options.precision)
    documents, index = corpus.with_passages(None), options.searched
    searcher = _searcher(documents, student, index, options.precision, vectors, options.seed)
    searcher.truncation = store.truncation
    searcher.settings = {**searcher.settings, "aggregate": {"method": "vector", **asdict(fit)}}
    return searcher


def _searcher(
    corpus: Corpus,
    student: TextEncoder,
    index: Index | CodeOptions,
    precision: Precision,
    store: Store,
    seed: int,
) -> CorpusSearcher:
    """The searcher for a kind of store, with its index built or opened."""
    shared, folder = (corpus, student, precision), store.folder
    if isinstance(index, CodeOptions):
        assert isinstance(store, VectorStore)
        return DenseSearcher(*shared, QuantizedIndex.build(store, index, folder / index.vectors))
    if isinstance(store, SparseStore):
        sparse: SparseIndex | SeismicIndex | LuceneImpact
        if index == "lucene":
            sparse = LuceneImpact(store, folder / "lucene")
        elif index == "seismic":
            sparse = SeismicIndex(store, folder / "seismic")
        else:
            sparse = inverted_index(store)
        return SparseSearcher(*shared, store, sparse)
    if index == "lucene":
        assert isinstance(store, VectorStore)
        return DenseSearcher(*shared, LuceneHnsw(store, folder / "lucene"))
    if index == "plaid":
        assert isinstance(store, TokenStore)
        plaid = PlaidIndex.build(store, folder / f"plaid-{seed}", seed=seed, device=student.device)
        return MultiVectorSearcher(*shared, store, plaid)
    assert isinstance(store, VectorStore | TokenStore) and index != "seismic"
    faiss_index = FaissIndex.build(store, index, folder / f"{index}-{seed}", seed=seed)
    if isinstance(store, TokenStore):
        return MultiVectorSearcher(*shared, store, faiss_index)
    return DenseSearcher(*shared, faiss_index)
