"""What readers give: some thousand rows of (query, document, score) with the places they stand at
in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.byte_strings import ByteStrings
from irdistill.errors import IrdistillError
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.score_file import ScoreFile

Value = TypeVar("Value")
LARGEST = 10**300
_NUMBERS = {int, float, type(None)}
LAST_RANK = 2**31 - 1
"""The rank of a row that has a score and no rank."""
CHUNK = 1 << 17
"""Rows that a reader hands on at a time."""


class Rows(NamedTuple):
    """n rows, as a file has them.

    Attributes:
        queries: (n,) ids, or texts where ``by_text``; readers of lines give ids as ``ByteStrings``.
        docs: (n,) ids, or texts where ``by_text``; as ``queries``.
        scores: (n,) float64; whatever the file says, NaN and infinity too.
        lines: (n,) the number of each row's line (or record) in the file, from 1.
        unscored: (n,) whether the file says that there is no score; None where every row has one.
        ranks: (n,) from 1, in files where ranks count; else None.
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
    """One query's entry in a file: its documents with their scores, None where there is none."""

    line: int
    query: str
    docs: list[str]
    scores: list[Any]


def gathered(records: Iterable[Record], source: ScoreFile, by_text: bool = False) -> Iterator[Rows]:
    """Rows of a stream of records, in chunks.

    Raises:
        IrdistillError: a score is not a number, or there is not one for every document; file and
            line are named.
    """
    held: list[Record] = []
    count = 0
    for record in records:
        if len(record.docs) != len(record.scores):
            raise IrdistillError(
                f"{source.path}, {source.unit} {record.line}: {len(record.docs)} documents and"
                f" {len(record.scores)} scores; one for each document was expected."
            )
        held.append(record)
        count += len(record.docs)
        if count >= CHUNK:
            yield _rows(held, source, by_text)
            held, count = [], 0
    if count:
        yield _rows(held, source, by_text)


def _rows(records: list[Record], source: ScoreFile, by_text: bool) -> Rows:
    sizes = [len(record.docs) for record in records]
    values = [score for record in records for score in record.scores]
    lines = np.repeat(np.array([record.line for record in records], np.int64), sizes)
    for place, value in enumerate(values):
        if type(value) not in _NUMBERS:
            raise IrdistillError(
                f"{source.path}, {source.unit} {lines[place]}: the score {value!r} is not a number."
            )
    unscored = np.array([value is None for value in values], bool)
    try:
        scores = np.array([np.nan if value is None else value for value in values], np.float64)
    except OverflowError:
        place = next(
            place
            for place, value in enumerate(values)
            if isinstance(value, int) and abs(value) > LARGEST
        )
        raise IrdistillError(
            f"{source.path}, {source.unit} {lines[place]}: the score {str(values[place])[:20]}… is"
            " too large; a finite number that float32 can hold was expected."
        ) from None
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

    Raises:
        IrdistillError: one is not a whole number from 0, or is larger than 32 bits hold; the line
            is named.
    """
    good = (ranks >= 0) & (ranks <= np.iinfo(np.int32).max) & (ranks == np.floor(ranks))
    if not good.all():
        place = int(np.argmin(good))
        value = "missing" if np.isnan(ranks[place]) else f"{ranks[place]:.10g}"
        raise IrdistillError(
            f"{source.path}, {source.unit} {lines[place]}: the rank is {value}, and a whole number"
            " from 0 or 1 was expected. Are the columns in another order?"
        )
    return ranks.astype(np.int64)


def name_of(value: Any) -> str:
    """An id as text: files of MS MARCO hold its numbers as numbers.

    Raises:
        TypeError: it is neither text nor a whole number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise TypeError(f"{value!r} is no id; text or a whole number was expected")


def number_or_name(name: str) -> int | str:
    """The number that an id is the usual spelling of, as files of MS MARCO want it; else the id."""
    if (
        len(name) < 19
        and name.isascii()
        and name.removeprefix("-").isdigit()
        and str(int(name)) == name
    ):
        return int(name)
    return name


def scored(found: RankedList) -> list[tuple[str, float]]:
    """The documents that have a score, best first; each score has the fewest digits that give its
    float32 back.
    """
    return [
        (doc, float(str(score)))
        for doc, score in zip(found.doc_ids, found.scores, strict=True)
        if score == score
    ]


def relevant(collection: Collection | None, query_id: str) -> set[str]:
    """The documents that are judged relevant to a query."""
    judged = collection.qrels.get(query_id, {}) if collection is not None else {}
    return {doc for doc, grade in judged.items() if grade > 0}


@dataclass
class WriteOptions:
    """How a run is written.

    Attributes:
        tag: the last column of a TREC run.
        keep_empty: in formats with positives and negatives, write queries that have none of the one
            or of the other, with an empty list. The trainers that read these formats stop at them.
        one_sided: queries that were left out for it; counted while writing.
    """

    tag: str = "irdistill"
    keep_empty: bool = False
    one_sided: int = 0

    def takes(self, positive: Sequence[Any], negative: Sequence[Any]) -> bool:
        """Whether a query with these sides is written; counts those that are not."""
        if self.keep_empty or (positive and negative):
            return True
        self.one_sided += bool(positive or negative)
        return False


def entries_of(value: Any, ids: bool = False) -> list[Any]:
    """The entries of a list; one that stands by itself is a list of one, and null is none.

    Args:
        ids: a number is an id.

    Raises:
        TypeError: it is something else.
    """
    if value is None:
        return []
    if isinstance(value, list):
        return value
    if isinstance(value, str | dict) or (
        ids and isinstance(value, int) and not isinstance(value, bool)
    ):
        return [value]
    raise TypeError(f"{type(value).__name__!r} object is not iterable; a list was expected")


def parted(
    rows: Sequence[tuple[str, Value]], wanted: set[str]
) -> tuple[list[tuple[str, Value]], list[tuple[str, Value]]]:
    """The rows of wanted documents, and the others."""
    return [row for row in rows if row[0] in wanted], [row for row in rows if row[0] not in wanted]
