"""What a validation measures: searches of a corpus, reranked candidates, or the loss on lists."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from torch import Tensor

from irdistill.collections.passage_corpus import reading_corpus
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.measures import per_query
from irdistill.losses import Loss, ScoreBatch
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity
from irdistill.search.passage_choice import PassageChoice
from irdistill.search.passage_ranking import MAXP
from irdistill.search.retrieve_options import CodeOptions, Index
from irdistill.search.searchers import CorpusSearcher, open_searcher
from irdistill.students.encoding import encode_batches
from irdistill.students.interaction_layers import InteractionStudent
from irdistill.training.data.collate import Collator, TrainBatch
from irdistill.training.data.list_source import ListSource
from irdistill.training.data.query_order import InOrder

if TYPE_CHECKING:
    from irdistill.collections import Collection, Corpus, Query
    from irdistill.students.student_base import Student

_DEPTH = 100
"""Documents per query that a measure without a cut-off looks at, as many as `retrieve` finds."""
_QUERIES = 32
"""Queries whose candidates are encoded together."""


@dataclass(frozen=True)
class MeasuredQueries:
    """Queries and judgments over one corpus.

    Attributes:
        name: of the collection.
        qrels: query -> document -> grade; a query without a list counts as 0.
        measures: names of measures.
    """

    name: str
    corpus: Corpus
    queries: Sequence[Query]
    qrels: Mapping[str, Mapping[str, int]]
    measures: tuple[str, ...]

    @classmethod
    def of(
        cls, name: str, collection: Collection, query_ids: Sequence[str], measures: tuple[str, ...]
    ) -> MeasuredQueries:
        """Some judged queries of a collection."""
        return cls(
            name,
            collection.corpus,
            [collection.queries[query_id] for query_id in query_ids],
            {query_id: collection.qrels[query_id] for query_id in query_ids},
            measures,
        )

    @cached_property
    def choice(self) -> PassageChoice | None:
        """Chooses the passages that stand for documents; None if they are not split."""
        return None if self.corpus.passages is None else PassageChoice(self.corpus)

    @property
    def k(self) -> int:
        """Documents per query that the measures look at."""
        cuts = [measure.params.get("cutoff") for measure in parse_measures(self.measures)]
        return max(cut or _DEPTH for cut in cuts)

    @property
    def judged_rows(self) -> list[int]:
        """Rows of the judged documents in the corpus."""
        doc_ids = list(dict.fromkeys(doc_id for judged in self.qrels.values() for doc_id in judged))
        return [row for row in self.corpus.find(doc_ids).tolist() if row >= 0]

    def figures(self, lists: Iterable[RankedList]) -> dict[str, float]:
        """The measures of some lists, as `irdistill.evaluate` computes them."""
        run = MemoryRun(RunIdentity("student", {}, {"id": self.name}), lists)
        result = per_query(self.qrels, run, self.measures)
        return {name: result.figure(name) for name in result.values}


class ValidationSet(Protocol):
    """Measures the current weights of a student on some queries.

    Attributes:
        name: of the collection.
        texts: number of texts, or of pairs, that are encoded each time.
    """

    name: str
    texts: int

    def measure(self) -> dict[str, float]:
        """The measures by name."""
        ...


class SearchedSet:
    """Searches documents with a student of one of the kinds that have vectors.

    Vectors of a frozen document tower are encoded once and stored; those of one that is trained are
    encoded each time.

    Args:
        corpus: the documents to search, all or a sample.
        work: folder of stored vectors; the cache folder by default.
        scratch: folder of the vectors of one validation.
        index: what is searched.
    """

    def __init__(
        self,
        queries: MeasuredQueries,
        student: Student,
        corpus: Corpus,
        work: str | Path | None,
        scratch: Path,
        index: Index | CodeOptions = "flat",
    ) -> None:
        self.index: Index | CodeOptions = index
        self.queries, self.student, self.corpus = queries, student, corpus
        self.work, self.scratch, self.name = work, scratch, queries.name
        self.frozen = not student.learns("document")
        self.texts = len(queries.queries) + (0 if self.frozen else len(reading_corpus(corpus)))

    @cached_property
    def _stored(self) -> CorpusSearcher:
        return open_searcher(self.corpus, self.student, self.index, self.work)

    def measure(self) -> dict[str, float]:
        """The measures of the documents that the student ranks first."""
        if self.frozen:
            return self.queries.figures(self._search(self._stored))
        shutil.rmtree(self.scratch, ignore_errors=True)  # of a killed training
        try:
            searcher = open_searcher(self.corpus, self.student, self.index, self.scratch)
            return self.queries.figures(list(self._search(searcher)))
        finally:
            shutil.rmtree(self.scratch, ignore_errors=True)

    def _search(self, searcher: CorpusSearcher) -> Iterator[RankedList]:
        queries, k = self.queries.queries, self.queries.k
        extra = max((len(query.excluded) for query in queries), default=0)
        vectors = searcher.encode([query.text for query in queries])
        hits = next(iter(searcher.search([vectors], k + extra)))
        for query, top in zip(queries, hits, strict=True):
            ranked = RankedList(query.id, self.corpus.ids_at(top.rows), top.scores)
            yield ranked.without(query.excluded, k)


class RerankedSet:
    """Reranks candidates with a student that reads pairs or scores them by trained layers.

    Args:
        candidates: for each query rows (n,) of documents, or of a passage of each if they are
            split.
    """

    def __init__(
        self, queries: MeasuredQueries, student: Student, candidates: Sequence[np.ndarray]
    ) -> None:
        self.queries, self.student, self.name = queries, student, queries.name
        self.candidates = candidates
        pairs = sum(map(len, candidates))
        self.texts = pairs if "pair" in student.sides else pairs + len(candidates)

    def measure(self) -> dict[str, float]:
        """The measures of the reranked candidates."""
        return self.queries.figures(self._rerank())

    def _rerank(self) -> Iterator[RankedList]:
        corpus, score = reading_corpus(self.queries.corpus), self._scores
        pairs = list(zip(self.queries.queries, self.candidates, strict=True))
        for start in range(0, len(pairs), _QUERIES):
            part = pairs[start : start + _QUERIES]
            rows = np.unique(np.concatenate([candidates for _, candidates in part]))
            texts = dict(zip(rows.tolist(), corpus.texts(rows), strict=True))
            for (query, candidates), scores in zip(part, score(part, texts), strict=True):
                yield RankedList(query.id, self._ids(candidates), scores)

    def _ids(self, candidates: np.ndarray) -> list[str]:
        """The ids of the documents of candidates."""
        corpus = self.queries.corpus
        if corpus.passages is None:
            return corpus.ids_at(candidates)
        return corpus.ids_at(corpus.passages.documents_of(candidates))

    def _scores(
        self, part: Sequence[tuple[Query, np.ndarray]], texts: Mapping[int, str]
    ) -> list[np.ndarray]:
        """For each query the scores (n,) of its candidates; NaN for a text without tokens."""
        if isinstance(self.student, InteractionStudent):
            return self._layer_scores(self.student, part, texts)
        pairs = [(query.text, texts[row]) for query, rows in part for row in rows.tolist()]
        scores = np.empty(len(pairs), np.float32)

        def take(places: np.ndarray, encoded: Tensor) -> bool:
            logits = encoded.reshape(len(places), -1)[:, 0].float()
            scores[places] = logits.cpu().numpy()
            return bool(logits.isfinite().all())

        encode_batches(self.student, pairs, "pair", "auto", None, False, take)  # type: ignore[arg-type]
        return np.split(scores, np.cumsum([len(rows) for _, rows in part])[:-1])

    @staticmethod
    def _layer_scores(
        student: InteractionStudent,
        part: Sequence[tuple[Query, np.ndarray]],
        texts: Mapping[int, str],
    ) -> list[np.ndarray]:
        queries = student.encode([query.text for query, _ in part], "query")
        documents = dict(zip(texts, student.encode(list(texts.values()), "document"), strict=True))
        lists = []
        for query, (_, rows) in zip(queries, part, strict=True):
            states = [documents[row] for row in rows.tolist()]
            scores = np.full(len(rows), np.nan, np.float32)
            readable = [place for place, tokens in enumerate(states) if len(tokens) and len(query)]
            if readable:
                scores[readable] = student.compare(query, [states[place] for place in readable])
            lists.append(scores)
        return lists


class HeldOutLists:
    """The loss on held-out lists, which are the same each time.

    Args:
        collator: of the held-out lists.
        texts: number of texts of all lists.
    """

    def __init__(self, collator: Collator, loss: Loss, batch_size: int, texts: int) -> None:
        self.collator, self.expression, self.texts = collator, loss, texts
        self.order = InOrder(len(collator.sampler.query_ids), batch_size)
        collator.sampler.order = self.order

    def loss(self, score: Callable[[TrainBatch], ScoreBatch]) -> float:
        """The mean loss over the lists.

        Args:
            score: the scores of a batch without dropout.
        """
        total, lists = 0.0, 0
        for batch in map(self.collator, range(self.order.steps)):
            scores = score(batch)
            value = float(sum(weight * term(scores) for weight, term in self.expression.terms))
            total, lists = total + len(batch.mask) * value, lists + len(batch.mask)
        return total / lists


def candidate_rows(
    queries: MeasuredQueries, depth: int, source: Run | ListSource | None, work: Any = None
) -> list[np.ndarray]:
    """For each query the rows (n,) of its best ``depth`` documents, best first.

    Of documents that are split, they are the rows of the passages that stand for them.

    Args:
        source: a run or a compiled run; BM25 searches if it is None.
        work: folder of the index of BM25; the cache folder by default.
    """
    if source is None:
        from irdistill.search.lexical.first_stages import open_lexical
        from irdistill.search.lexical.passage_bm25 import PassageBM25

        extra = max((len(query.excluded) for query in queries.queries), default=0)
        bm25 = open_lexical("bm25", reading_corpus(queries.corpus), work=work)
        search = bm25.search
        if queries.corpus.passages is not None:
            search = PassageBM25(queries.corpus, bm25, MAXP).search
        lists = {
            ranked.query_id: _list_rows(queries, query, ranked)
            for query, ranked in zip(
                queries.queries, search(queries.queries, depth + extra), strict=True
            )
        }
    elif isinstance(source, Run):
        lists = {
            query.id: _list_rows(queries, query, source[query.id])
            for query in queries.queries
            if query.id in source
        }
    else:
        lists = {
            query.id: np.asarray(source.list(source.index[query.id])[0], np.int64)
            for query in queries.queries
            if query.id in source.index
        }
    none = np.empty(0, np.int64)
    return [
        _without(lists.get(query.id, none), queries.corpus, query.excluded)[:depth]
        for query in queries.queries
    ]


def _list_rows(queries: MeasuredQueries, query: Query, ranked: RankedList) -> np.ndarray:
    """The rows of the documents of a list, or of the passages that stand for them."""
    rows = queries.corpus.rows(ranked.doc_ids)
    choice = queries.choice
    if choice is None or not len(rows):
        return rows
    return choice.passages.rows(rows, choice.best(query, ranked))


def _without(rows: np.ndarray, corpus: Corpus, excluded: Sequence[str]) -> np.ndarray:
    if not excluded:
        return rows
    documents = rows if corpus.passages is None else corpus.passages.documents_of(rows)
    return rows[~np.isin(documents, corpus.find(excluded))]


def sampled_corpus(
    queries: MeasuredQueries, candidates: Sequence[np.ndarray], size: int, seed: int
) -> Corpus:
    """A corpus of the judged documents and the candidates of all queries, and of random documents.

    Args:
        candidates: for each query rows (n,), as `candidate_rows` returns them.
        size: number of documents, if there are not more that are judged or candidates.
    """
    from irdistill.collections import Corpus

    corpus, random = queries.corpus, np.random.default_rng([seed, 5])
    if size >= len(corpus):
        return corpus
    places = np.concatenate(candidates)
    if corpus.passages is not None:
        places = corpus.passages.documents_of(places)
    rows = {*queries.judged_rows, *places.tolist()}
    while len(rows) < size:
        rows.update(random.integers(0, len(corpus), size - len(rows)).tolist())
    sample = Corpus.in_memory(corpus.document(row) for row in sorted(rows))
    if corpus.passages is None:
        return sample
    return sample.with_passages(corpus.passages.of_documents(sorted(rows)))
