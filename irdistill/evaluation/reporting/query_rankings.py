"""The ranked lists of one query as pages show them: documents, judgments and matched words."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from irdistill.collections import Collection, Query
from irdistill.runs import RankedList, Run
from irdistill.runs.named_passages import list_texts
from irdistill.search.lexical.matched_words import matched_excerpt, matched_spans

EXCERPT = 220
"""Characters of a document that are shown."""
_LONGEST = 100_000
"""Characters of a document in which words are matched."""
_JUDGMENTS = 5


class ShownDocument(NamedTuple):
    """A document with the words of the query.

    Attributes:
        passage: number of the passage that ``text`` is of; None where documents are whole.
        spans, title_spans: start and end of matched words, in characters.
        before, after: whether the text goes on before and after what is shown.
    """

    id: str
    passage: int | None
    title: str
    text: str
    spans: list[tuple[int, int]]
    title_spans: list[tuple[int, int]]
    before: bool
    after: bool


class ShownRow(NamedTuple):
    """A document in one list.

    Attributes:
        document: its number among the documents of the query.
        grade: as judged; None if it is not judged.
        ranks: its rank in the list of each system; None where it is not found.
    """

    document: int
    score: str
    grade: int | None
    ranks: list[int | None]
    flag: str | None


class ShownJudgment(NamedTuple):
    """A relevant document and its rank in the list of each system; None where it is not found."""

    id: str
    grade: int
    ranks: list[int | None]


class ShownQuery(NamedTuple):
    """The lists of one query.

    Attributes:
        history: the turns before the query.
        relevant: number of documents with a grade above 0.
        judgments: the first of these, by falling grade.
        lengths: number of scored documents of each system.
        lists: one of each system, best first.
    """

    id: str
    text: str
    history: list[str]
    relevant: int
    judgments: list[ShownJudgment]
    lengths: list[int]
    lists: list[list[ShownRow]]
    documents: list[ShownDocument]


class QueryRankings:
    """Reads the lists of single queries, from several threads.

    Args:
        runs: system -> run of the collection.
        k: documents shown per list.
    """

    def __init__(self, collection: Collection, runs: Mapping[str, Run], k: int = 10) -> None:
        self.collection, self.runs, self.k = collection, dict(runs), k
        self._lock = Lock()

    def query(self, query_id: str) -> ShownQuery:
        """The lists of a query; empty for a system that does not have it."""
        query = self.collection.queries.get(query_id) or Query(query_id, "")
        grades = self.collection.qrels.get(query_id, {})
        with self._lock:  # a run keeps the part that was read last
            lists = [run.get(query_id) for run in self.runs.values()]
        relevant = [(doc_id, grade) for doc_id, grade in grades.items() if grade > 0]
        rankings = [_scored(ranked) for ranked in lists]
        ranks = [{doc: rank for rank, doc in enumerate(r.doc_ids, 1)} for r in rankings]
        numbers: dict[tuple[str, int | None], int] = {}
        rows = [
            [
                ShownRow(
                    numbers.setdefault((doc_id, passage), len(numbers)),
                    shown_score(score),
                    grades.get(doc_id),
                    [system.get(doc_id) for system in ranks],
                    flag,
                )
                for doc_id, score, passage, flag in _entries(ranked, self.k)
            ]
            for ranked in rankings
        ]
        return ShownQuery(
            query_id,
            query.text,
            [turn.text for turn in query.history],
            len(relevant),
            [
                ShownJudgment(doc_id, grade, [system.get(doc_id) for system in ranks])
                for doc_id, grade in sorted(relevant, key=lambda pair: -pair[1])[:_JUDGMENTS]
            ],
            [len(ranked.doc_ids) for ranked in rankings],
            rows,
            [self._document(query.text, *name) for name in numbers],
        )

    def _document(self, query: str, doc_id: str, passage: int | None) -> ShownDocument:
        corpus, title, text = self.collection.corpus, "", ""
        if corpus.has(doc_id):
            if passage is None:
                document = corpus.document(corpus.row(doc_id))
                title, text = document.title, document.text
            else:
                number = np.array([passage], np.int32)
                text = list_texts(corpus, _list([doc_id], np.zeros(1, np.float32), number))[0]
        title, text = " ".join(title.split()), " ".join(text.split())
        part = matched_excerpt(query, text[:_LONGEST], EXCERPT)
        spans = matched_spans(query, title)
        before, after = part.start > 0, part.end < len(text)
        return ShownDocument(doc_id, passage, title, part.text, part.spans, spans, before, after)


def shown_score(score: float) -> str:
    """A score as lists show it.

    Examples:
        >>> shown_score(12.34567), shown_score(0.00001234)
        ('12.3457', '1.23e-05')
    """
    return f"{score:.3g}" if 0 < abs(score) < 0.001 else f"{score:.4f}"


def _scored(ranked: RankedList | None) -> RankedList:
    """The documents that have a score."""
    if ranked is None:
        return _list([], np.empty(0, np.float32), None)
    places = np.flatnonzero(~np.isnan(ranked.scores)).tolist()
    return ranked if len(places) == len(ranked.doc_ids) else ranked.take(places)


def _list(doc_ids: list[str], scores: np.ndarray, passages: np.ndarray | None) -> RankedList:
    return RankedList("", doc_ids, scores, None, passages)


def _entries(ranked: RankedList, k: int) -> list[tuple[str, float, int | None, str | None]]:
    """Document, score, best passage and flag of the first k documents."""
    docs, scores = ranked.doc_ids[:k], ranked.scores[:k].tolist()
    passages: list[Any] = [None] * len(docs)
    if ranked.passages is not None:
        passages = [number if number >= 0 else None for number in ranked.passages[:k].tolist()]
    flags = [None] * len(docs) if ranked.flags is None else ranked.flags[:k]
    return list(zip(docs, scores, passages, flags, strict=True))
