"""From a file's ids and texts to numbers of queries and rows of the corpus; what is unknown is
counted and named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.byte_strings import ByteStrings, group_starts
from irdistill.errors import IrdistillError
from irdistill.runs.formats.gather import ROW
from irdistill.runs.formats.rows import Rows
from irdistill.runs.formats.texts import AMBIGUOUS, TextIndex, query_texts
from irdistill.runs.score_file import ScoreFile

NAMED = 5
REMEMBERED = 1 << 19
"""Documents whose rows are remembered; looking one up takes a microsecond or two."""


class Numbering:
    """Numbers the rows of a file.

    Args:
        unknown: ``error`` or ``skip``: what becomes of rows that name a query or a document which
            the collection lacks.

    Attributes:
        left_out: rows left out for an unknown query, or else for an unknown document.
        named: the first of them, in words.
    """

    def __init__(self, collection: Collection, unknown: str = "error") -> None:
        if unknown not in ("error", "skip"):
            raise IrdistillError(f"unknown={unknown!r}: error or skip was expected.")
        self.left_out = {"queries": 0, "documents": 0}
        self.named: list[str] = []
        self._seen: set[tuple[str, str]] = set()
        self._collection, self._unknown = collection, unknown
        self._queries = {query_id: number for number, query_id in enumerate(collection.queries)}
        self._query_texts: dict[str, int] | None = None
        self._texts: TextIndex | None = None
        self._docs: dict[str, int] = {}

    def rows(self, rows: Rows, source: ScoreFile) -> np.ndarray:
        """(m,) of ``gather.ROW``, m at most n.

        Raises:
            IrdistillError: a score is NaN, infinite or too large for float32; or something is
                unknown and that is an error.
        """
        queries, docs = self._numbers(rows)
        with np.errstate(over="ignore"):
            scores = rows.scores.astype(np.float32)
        if rows.unscored is not None:
            scores[rows.unscored] = np.nan
        wrong = (
            ~np.isfinite(scores) if rows.unscored is None else ~np.isfinite(scores) & ~rows.unscored
        )
        if wrong.any():
            place = int(np.argmax(wrong))
            raise IrdistillError(
                f"{source.path}, {source.unit} {rows.lines[place]}: the score of query"
                f" {_name(rows.queries, place)!r} and document {_name(rows.docs, place)!r} is"
                f" {rows.scores[place]}, and a finite number that float32 can hold was expected."
            )
        known = (queries >= 0) & (docs >= 0)
        if not known.all():
            self._count(rows, queries, docs, source)
        result = np.zeros(int(known.sum()), ROW)
        result["query"], result["doc"], result["score"] = queries[known], docs[known], scores[known]
        result["line"] = np.minimum(rows.lines[known], np.iinfo(np.uint32).max)
        if rows.ranks is not None:
            result["rank"] = rows.ranks[known]
        return result

    def _numbers(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(rows.queries, ByteStrings) and isinstance(rows.docs, ByteStrings):
            starts = group_starts(rows.queries)
            runs = [self._queries.get(query, -1) for query in rows.queries.take(starts).texts()]
            numbers = np.repeat(np.array(runs, np.int64), np.diff(starts, append=len(rows.queries)))
            return numbers, self._collection.corpus.find_fields(rows.docs)
        assert not isinstance(rows.queries, ByteStrings) and not isinstance(rows.docs, ByteStrings)
        queries: dict[str, int] = self._queries
        lookup: Callable[[Sequence[str]], np.ndarray] = self._collection.corpus.find
        asked: Sequence[str] = rows.queries
        if rows.by_text:
            if self._query_texts is None or self._texts is None:
                self._query_texts, self._texts = (
                    query_texts(self._collection),
                    TextIndex(self._collection),
                )
            queries, lookup = self._query_texts, self._texts.find
            asked = [text.strip() for text in asked]
        numbers = np.fromiter((queries.get(query, -1) for query in asked), np.int64, len(asked))
        return numbers, self._rows_of(rows.docs, lookup)

    def _rows_of(
        self, docs: Sequence[str], lookup: Callable[[Sequence[str]], np.ndarray]
    ) -> np.ndarray:
        if len(self._docs) > REMEMBERED:
            self._docs.clear()
        new = [doc for doc in dict.fromkeys(docs) if doc not in self._docs]
        self._docs.update(zip(new, lookup(new).tolist(), strict=True))
        return np.fromiter(map(self._docs.__getitem__, docs), np.int64, len(docs))

    def _count(self, rows: Rows, queries: np.ndarray, docs: np.ndarray, source: ScoreFile) -> None:
        for kind, wrong, values, numbers in (
            ("queries", queries < 0, rows.queries, queries),
            ("documents", (docs < 0) & (queries >= 0), rows.docs, docs),
        ):
            self.left_out[kind] += int(wrong.sum())
            for place in np.flatnonzero(wrong).tolist() if len(self.named) < NAMED else ():
                value = _name(values, place)
                if (kind, value) in self._seen:
                    continue
                self._seen.add((kind, value))
                self.named.append(
                    _words(
                        kind, value, int(numbers[place]), rows, f"{source.unit} {rows.lines[place]}"
                    )
                )
                if len(self.named) == NAMED:
                    break
        if self._unknown == "error":
            raise IrdistillError(
                f"{source.path} names what {self._collection.id!r} does not hold: of the rows up to"
                f" {source.unit} {rows.lines[-1]}, {self.summary()}. Is it of another collection or"
                " split? --unknown skip leaves such rows out and counts them."
            )

    def summary(self) -> str:
        """The counts and the first names, in words."""
        return (
            f"{self.left_out['queries']} have an unknown query and {self.left_out['documents']} an"
            f" unknown document ({'; '.join(self.named)})"
        )


def _name(values: Sequence[str] | ByteStrings, place: int) -> str:
    return values.text(place) if isinstance(values, ByteStrings) else values[place]


def _words(kind: str, value: Any, number: int, rows: Rows, place: str) -> str:
    what = "query" if kind == "queries" else "document"
    shown = value if len(value) <= 60 else value[:59] + "…"
    if number == AMBIGUOUS:
        return f"the text {shown!r} of several {kind}, {place}"
    return (
        f"the {what} with the text {shown!r}, {place}"
        if rows.by_text
        else f"{what} {shown!r}, {place}"
    )
