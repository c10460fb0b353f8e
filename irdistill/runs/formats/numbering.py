"""From the ids and texts of a file to numbers of queries and rows of the corpus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.byte_strings import ByteStrings, group_starts
from irdistill.errors import InputError, OptionError, WrongCollectionError
from irdistill.runs.formats.gather import ROW
from irdistill.runs.formats.rows import Rows
from irdistill.runs.formats.texts import AMBIGUOUS, TextIndex, query_texts
from irdistill.runs.score_file import ScoreFile

EXAMPLES = 5
REMEMBERED = 1 << 19
"""Documents whose rows are remembered; a look-up takes one or two microseconds."""


class Numbering:
    """Numbers the rows of a file; rows of unknown queries or documents are counted or refused.

    Args:
        collection: whose queries and documents the file names.
        unknown: ``error`` or ``skip``: what to do with rows of unknown queries or documents.

    Attributes:
        left_out: rows left out because of an unknown query, or else an unknown document.
        examples: descriptions of the first of them.
    """

    def __init__(self, collection: Collection, unknown: str = "error") -> None:
        if unknown not in ("error", "skip"):
            raise OptionError(f"unknown={unknown!r}: error or skip was expected.")
        self.left_out = {"queries": 0, "documents": 0}
        self.examples: list[str] = []
        self._described: set[tuple[str, str]] = set()
        self._collection, self._unknown = collection, unknown
        self._queries = {query_id: number for number, query_id in enumerate(collection.queries)}
        self._query_texts: dict[str, int] | None = None
        self._texts: TextIndex | None = None
        self._docs: dict[str, int] = {}

    def rows(self, rows: Rows, source: ScoreFile) -> np.ndarray:
        """The rows as (m,) of ``gather.ROW``, m at most n."""
        queries, docs = self._numbers(rows)
        with np.errstate(over="ignore"):
            scores = rows.scores.astype(np.float32)
        wrong = ~np.isfinite(scores)
        if rows.unscored is not None:
            scores[rows.unscored] = np.nan
            wrong &= ~rows.unscored
        if wrong.any():
            row = int(np.argmax(wrong))
            raise InputError(
                f"{source.path}, {source.unit} {rows.lines[row]}: the score of query"
                f" {_text(rows.queries, row)!r} and document {_text(rows.docs, row)!r} is"
                f" {rows.scores[row]}, and a finite number that float32 can hold was expected."
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
            groups = [self._queries.get(query, -1) for query in rows.queries.take(starts).texts()]
            sizes = np.diff(starts, append=len(rows.queries))
            numbers = np.repeat(np.array(groups, np.int64), sizes)
            return numbers, self._collection.corpus.find_fields(rows.docs)
        assert not isinstance(rows.queries, ByteStrings) and not isinstance(rows.docs, ByteStrings)
        queries, names = self._queries, rows.queries
        find: Callable[[Sequence[str]], np.ndarray] = self._collection.corpus.find
        if rows.by_text:
            if self._query_texts is None or self._texts is None:
                self._query_texts = query_texts(self._collection)
                self._texts = TextIndex(self._collection)
            queries, find = self._query_texts, self._texts.find
            names = [text.strip() for text in names]
        numbers = np.fromiter((queries.get(query, -1) for query in names), np.int64, len(names))
        return numbers, self._rows_of(rows.docs, find)

    def _rows_of(
        self, docs: Sequence[str], find: Callable[[Sequence[str]], np.ndarray]
    ) -> np.ndarray:
        if len(self._docs) > REMEMBERED:
            self._docs.clear()
        new = [doc for doc in dict.fromkeys(docs) if doc not in self._docs]
        self._docs.update(zip(new, find(new).tolist(), strict=True))
        return np.fromiter(map(self._docs.__getitem__, docs), np.int64, len(docs))

    def _count(self, rows: Rows, queries: np.ndarray, docs: np.ndarray, source: ScoreFile) -> None:
        for kind, wrong, values, numbers in (
            ("queries", queries < 0, rows.queries, queries),
            ("documents", (docs < 0) & (queries >= 0), rows.docs, docs),
        ):
            self.left_out[kind] += int(wrong.sum())
            for row in np.flatnonzero(wrong).tolist():
                if len(self.examples) == EXAMPLES:
                    break
                value = _text(values, row)
                if (kind, value) not in self._described:
                    self._described.add((kind, value))
                    line = f"{source.unit} {rows.lines[row]}"
                    ambiguous = numbers[row] == AMBIGUOUS
                    self.examples.append(_describe(kind, value, ambiguous, rows.by_text, line))
        if self._unknown == "error":
            raise WrongCollectionError(
                f"{source.path} names what {self._collection.id!r} does not hold: of the rows up to"
                f" {source.unit} {rows.lines[-1]}, {self.summary()}. Is it of another collection or"
                " split? --unknown skip leaves such rows out and counts them."
            )

    def summary(self) -> str:
        """The counts and the examples, in words."""
        return (
            f"{self.left_out['queries']} have an unknown query and {self.left_out['documents']} an"
            f" unknown document ({'; '.join(self.examples)})"
        )


def _text(values: Sequence[str] | ByteStrings, row: int) -> str:
    return values.text(row) if isinstance(values, ByteStrings) else values[row]


def _describe(kind: str, value: str, ambiguous: bool, by_text: bool, line: str) -> str:
    shown = value if len(value) <= 60 else value[:59] + "…"
    if ambiguous:
        return f"the text {shown!r} of several {kind}, {line}"
    name = "query" if kind == "queries" else "document"
    return f"the {name} with the text {shown!r}, {line}" if by_text else f"{name} {shown!r}, {line}"
