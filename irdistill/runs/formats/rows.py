"""What readers of score files yield: several thousand rows (query, document, score) at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.byte_strings import ByteStrings
from irdistill.errors import InputError
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.score_file import ScoreFile

Value = TypeVar("Value")
LARGEST = 10**300
LAST_RANK = 2**31 - 1
"""The rank of a row that has a score and no rank."""
CHUNK = 1 << 17
"""Rows that a reader yields at a time."""


class Rows(NamedTuple):
    """n rows of a file.

    Attributes:
        queries: (n,) ids, or texts if ``by_text``; readers of lines yield ids as `ByteStrings`.
        docs: (n,) ids, or texts if ``by_text``; as ``queries``.
        scores: (n,) floats, as in the file: NaN and infinity too.
        lines: (n,) the number of each row's line (or record) in the file, from 1.
        unscored: (n,) whether the file says that there is no score; None if every row has one.
        ranks: (n,) whole numbers, in files whose ranks count; else None.
        by_text: the file names queries and documents by their texts.
    """

    queries: Sequence[str] | ByteStrings
    docs: Sequence[str] | ByteStrings
    scores: np.ndarray
    lines: np.ndarray
    unscored: np.ndarray | None = None
    ranks: np.ndarray | None = None
    by_text: bool = False


class Record(NamedTuple):
    """One query's entry in a file: its documents and their scores, None where not scored."""

    line: int
    query: str
    docs: list[str]
    scores: list[Any]


def rows_of_records(
    records: Iterable[Record], source: ScoreFile, by_text: bool = False
) -> Iterator[Rows]:
    """The rows of a stream of records, in chunks."""
    chunk: list[Record] = []
    count = 0
    for record in records:
        if len(record.docs) != len(record.scores):
            raise InputError(
                f"{source.path}, {source.unit} {record.line}: {len(record.docs)} documents and"
                f" {len(record.scores)} scores; one for each document was expected."
            )
        chunk.append(record)
        count += len(record.docs)
        if count >= CHUNK:
            yield _rows(chunk, source, by_text)
            chunk, count = [], 0
    if count:
        yield _rows(chunk, source, by_text)


def _rows(records: list[Record], source: ScoreFile, by_text: bool) -> Rows:
    sizes = [len(record.docs) for record in records]
    values = [score for record in records for score in record.scores]
    lines = np.repeat(np.array([record.line for record in records], np.int64), sizes)
    for row, value in enumerate(values):
        if type(value) not in (int, float, type(None)):
            raise InputError(
                f"{source.path}, {source.unit} {lines[row]}: the score {value!r} is not a number."
            )
    try:
        scores = np.array([np.nan if value is None else value for value in values], np.float64)
    except OverflowError:
        row = next(
            row
            for row, value in enumerate(values)
            if isinstance(value, int) and abs(value) > LARGEST
        )
        raise InputError(
            f"{source.path}, {source.unit} {lines[row]}: the score {str(values[row])[:20]}… is too"
            " large; a finite number that float32 can hold was expected."
        ) from None
    unscored = np.array([value is None for value in values], bool)
    return Rows(
        [record.query for record, size in zip(records, sizes, strict=True) for _ in range(size)],
        [doc for record in records for doc in record.docs],
        scores,
        lines,
        unscored if unscored.any() else None,
        None,
        by_text,
    )


def whole_ranks(source: ScoreFile, ranks: np.ndarray, lines: np.ndarray) -> np.ndarray:
    """Ranks as (n,) int64.

    Args:
        ranks: (n,) float64, NaN where there is none.
        lines: (n,) the number of each row's line.
    """
    good = (ranks >= 0) & (ranks <= np.iinfo(np.int32).max) & (ranks == np.floor(ranks))
    if not good.all():
        row = int(np.argmin(good))
        value = "missing" if np.isnan(ranks[row]) else f"{ranks[row]:.10g}"
        raise InputError(
            f"{source.path}, {source.unit} {lines[row]}: the rank is {value}, and a whole number"
            " from 0 or 1 was expected. Are the columns in another order?"
        )
    return ranks.astype(np.int64)


def id_text(value: Any) -> str:
    """An id as text: files of MS MARCO hold its numbers as numbers."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{value!r} is no id; text or a whole number was expected")


def number_or_text(name: str) -> int | str:
    """The number that an id spells, as files of MS MARCO expect it; any other id unchanged."""
    digits = name.removeprefix("-")
    if len(name) < 19 and name.isascii() and digits.isdigit() and str(int(name)) == name:
        return int(name)
    return name


def scored_documents(ranked: RankedList) -> list[tuple[str, float]]:
    """The documents with a score, best first; scores have the fewest digits that give the same
    float32 back.
    """
    return [
        (doc, float(str(score)))
        for doc, score in zip(ranked.doc_ids, ranked.scores, strict=True)
        if score == score
    ]


def relevant_documents(collection: Collection | None, query_id: str) -> set[str]:
    """The documents that are judged relevant to a query."""
    judged = collection.qrels.get(query_id, {}) if collection is not None else {}
    return {doc for doc, grade in judged.items() if grade > 0}


def split_rows(
    rows: Sequence[tuple[str, Value]], relevant: set[str]
) -> tuple[list[tuple[str, Value]], list[tuple[str, Value]]]:
    """The rows of relevant documents, and the other rows."""
    positive = [row for row in rows if row[0] in relevant]
    return positive, [row for row in rows if row[0] not in relevant]


@dataclass
class WriteOptions:
    """How a run is written.

    Attributes:
        tag: the last column of a TREC run.
        keep_empty: in formats with positives and negatives, write queries that lack one of them,
            with an empty list. The trainers that read these formats stop at such queries.
        one_sided: number of queries that were left out for this reason; counted while writing.
    """

    tag: str = "irdistill"
    keep_empty: bool = False
    one_sided: int = 0

    def accept(self, positive: Sequence[Any], negative: Sequence[Any]) -> bool:
        """Whether a query with these positives and negatives is written; counts the others."""
        if self.keep_empty or (positive and negative):
            return True
        self.one_sided += bool(positive or negative)
        return False


def as_list(value: Any, ids: bool = False) -> list[Any]:
    """A value as a list: null is empty, and a single entry is a list of one.

    Args:
        value: a list, an entry or None.
        ids: a number is an entry too.
    """
    if value is None:
        return []
    if isinstance(value, list):
        return value
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if isinstance(value, str | dict) or (ids and is_number):
        return [value]
    raise TypeError(f"{type(value).__name__!r} object is not iterable; a list was expected")
