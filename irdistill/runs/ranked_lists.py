"""One query's ranked list, and its form as Arrow columns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irdistill.errors import InputError

SCHEMA = pa.schema(
    [
        ("query_id", pa.string()),
        ("doc_id", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("flag", pa.string()),
    ]
)
UNSCORED = "unscored"
PASSAGE = pa.field("passage", pa.int32())
"""A column that only runs of collections with passages have, after the others."""


class RankedList(NamedTuple):
    """One query's documents, best first.

    Attributes:
        scores: (n,) float32; NaN stands for *not scored* (null on disk).
        flags: for each document why its score is null or doubtful, or None; None if no document
            has a flag.
        passages: (n,) int32: the number of the best passage of each document, from 0, and -1 where
            it is not known; None if the documents were read whole.
    """

    query_id: str
    doc_ids: list[str]
    scores: np.ndarray
    flags: list[str | None] | None = None
    passages: np.ndarray | None = None

    def without(self, excluded: Collection[str], k: int | None = None) -> RankedList:
        """The k best documents that are not in ``excluded`` (all of them if k is None)."""
        places = [place for place, doc_id in enumerate(self.doc_ids) if doc_id not in excluded][:k]
        return self if len(places) == len(self.doc_ids) else self.take(places)

    def take(self, places: Sequence[int]) -> RankedList:
        """The documents at some places, in this order."""
        return RankedList(
            self.query_id,
            [self.doc_ids[place] for place in places],
            self.scores[places],
            None if self.flags is None else [self.flags[place] for place in places],
            None if self.passages is None else self.passages[places],
        )


def rank_order(doc_ids: Sequence[str], scores: np.ndarray) -> np.ndarray | None:
    """The order of trec_eval: score, then document id, both descending; unscored documents last.

    Documents without a score keep their order.

    Returns:
        (n,) positions, or None if the list is in this order already.
    """
    order = np.argsort(-scores, kind="stable")
    values = scores[order]
    ties = np.flatnonzero(values[1:] == values[:-1])
    if len(ties):
        start = 0
        for end in [*(np.flatnonzero(values[1:] != values[:-1]) + 1).tolist(), len(values)]:
            if end - start > 1 and not np.isnan(values[start]):
                order[start:end] = sorted(
                    order[start:end].tolist(), key=lambda i: doc_ids[i], reverse=True
                )
            start = end
    return None if np.array_equal(order, np.arange(len(order))) else order


def ranked(row: RankedList) -> RankedList:
    """Check one list and put it in rank order."""
    query_id, doc_ids, flags = row.query_id, list(row.doc_ids), row.flags
    passages = None if row.passages is None else np.asarray(row.passages, np.int32)
    scores = np.asarray(row.scores, dtype=np.float32)
    if scores.shape != (len(doc_ids),) or (flags is not None and len(flags) != len(doc_ids)):
        raise InputError(
            f"the list of query {query_id!r} has {len(doc_ids)} documents, scores of shape"
            f" {scores.shape} and {'no' if flags is None else len(flags)} flags; one of each was"
            " expected for every document."
        )
    if passages is not None and passages.shape != (len(doc_ids),):
        raise InputError(
            f"the list of query {query_id!r} has {len(doc_ids)} documents and passages of shape"
            f" {passages.shape}; one for each document was expected, -1 if it is not known."
        )
    if len(set(doc_ids)) != len(doc_ids):
        twice = next(doc for i, doc in enumerate(doc_ids) if doc in doc_ids[:i])
        raise InputError(
            f"the list of query {query_id!r} has the document {twice!r} twice; give each once."
        )
    if np.isinf(scores).any():
        place = int(np.flatnonzero(np.isinf(scores))[0])
        raise InputError(
            f"the score of query {query_id!r} and document {doc_ids[place]!r} is {scores[place]}; a"
            " finite number was expected, or NaN for a document that has no score."
        )
    empty = np.isnan(scores)
    if empty.any():
        flags = list(flags) if flags is not None else [None] * len(doc_ids)
        for place in np.flatnonzero(empty).tolist():
            flags[place] = flags[place] or UNSCORED
    order = rank_order(doc_ids, scores)
    if order is not None:
        places = order.tolist()
        doc_ids, scores = [doc_ids[i] for i in places], scores[order]
        flags = None if flags is None else [flags[i] for i in places]
        passages = None if passages is None else passages[order]
    return RankedList(query_id, doc_ids, scores, flags, passages)


def to_table(lists: Iterable[RankedList]) -> pa.Table:
    """The rows of several lists as a table; each list is checked and put in rank order.

    The result is that of `ranked` for each list, but computed over all rows at once, at about a
    million rows per second.
    """
    rows = list(lists)
    sizes = np.array([len(row.doc_ids) for row in rows], dtype=np.int64)
    lists_of_scores = [np.asarray(row.scores, dtype=np.float32) for row in rows]
    one_dimensional = all(values.ndim == 1 for values in lists_of_scores)
    scores = np.concatenate([np.empty(0, np.float32), *lists_of_scores] if one_dimensional else [])
    if (
        not one_dimensional
        or [len(values) for values in lists_of_scores] != sizes.tolist()
        or np.isinf(scores).any()
        or any(
            len(set(row.doc_ids)) != len(row.doc_ids)
            or (row.flags is not None and len(row.flags) != len(row.doc_ids))
            or (row.passages is not None and len(row.passages) != len(row.doc_ids))
            for row in rows
        )
    ):
        for row in rows:
            ranked(row)
    doc_ids = list(chain.from_iterable(row.doc_ids for row in rows))
    starts = np.cumsum(sizes) - sizes
    order = _order_within(doc_ids, scores, lists_of_scores, starts, sizes)
    flags = pa.nulls(len(doc_ids), pa.string())
    if any(row.flags for row in rows):
        flags = pa.array(
            list(chain.from_iterable(row.flags or [None] * len(row.doc_ids) for row in rows)),
            pa.string(),
        )
    empty = np.isnan(scores)
    if empty.any():
        flags = pc.if_else(pc.and_(pa.array(empty), pc.is_null(flags)), UNSCORED, flags)
    docs, places = pa.array(doc_ids, pa.string()), pa.array(order)
    ids = pa.array([row.query_id for row in rows], pa.string())
    table = pa.Table.from_arrays(
        [
            ids.take(pa.array(np.repeat(np.arange(len(rows)), sizes))),
            docs.take(places),
            pa.array((np.arange(len(doc_ids)) - np.repeat(starts, sizes) + 1).astype(np.int32)),
            pa.array(scores[order], pa.float32(), from_pandas=True),
            flags.take(places) if flags.null_count < len(flags) else flags,
        ],
        schema=SCHEMA,
    )
    passages = _passage_column(rows, sizes)
    return table if passages is None else table.append_column(PASSAGE, passages.take(places))


def _passage_column(rows: Sequence[RankedList], sizes: np.ndarray) -> pa.Array | None:
    """The best passages of all rows, null where not known; None if no list names any."""
    if all(row.passages is None for row in rows):
        return None
    numbers = np.concatenate(
        [
            np.full(size, -1, np.int32)
            if row.passages is None
            else np.asarray(row.passages, np.int32)
            for row, size in zip(rows, sizes.tolist(), strict=True)
        ]
    )
    return pa.array(numbers, pa.int32(), mask=numbers < 0)


def _order_within(
    doc_ids: list[str],
    scores: np.ndarray,
    lists_of_scores: Sequence[np.ndarray],
    starts: np.ndarray,
    sizes: np.ndarray,
) -> np.ndarray:
    """`rank_order` of each list, as (rows,) int64 positions among all rows."""
    orders = (np.argsort(-values, kind="stable") for values in lists_of_scores)
    order = np.concatenate([np.empty(0, np.int64), *orders])
    order += np.repeat(starts, sizes)
    values = scores[order]
    order_ties(order, values, starts, lambda rows: [doc_ids[row] for row in rows.tolist()])
    return order


def order_ties(
    order: np.ndarray,
    scores: np.ndarray,
    starts: np.ndarray,
    names: Callable[[np.ndarray], list[str]],
) -> bool:
    """Put equal scores of one list in the order of trec_eval, in place.

    Args:
        order: (rows,) positions of the rows, grouped by list and by falling score.
        scores: (rows,) in that order.
        starts: where each list begins.
        names: returns the document ids at some positions.

    Returns:
        Whether there were equal scores.
    """
    tied = scores[1:] == scores[:-1]
    tied[starts[(starts > 0) & (starts < len(scores))] - 1] = False
    places = np.flatnonzero(tied)
    for run in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if len(places) else ():
        tie = order[int(run[0]) : int(run[-1]) + 2]
        ids = names(tie)
        tie[:] = tie[sorted(range(len(tie)), key=ids.__getitem__, reverse=True)]
    return bool(len(places))


def column_scores(table: pa.Table) -> np.ndarray:
    """The score column, (rows,) float32 with NaN for null."""
    return table.column("score").to_numpy()


def column_passages(table: pa.Table) -> np.ndarray | None:
    """The passage column, (rows,) int32 with -1 for null; None if the table has none."""
    if PASSAGE.name not in table.column_names:
        return None
    numbers: np.ndarray = table.column(PASSAGE.name).fill_null(-1).to_numpy()
    return numbers


def boundaries(table: pa.Table) -> np.ndarray:
    """The rows of rank 1, where each query begins, and at the end the number of rows."""
    return np.append(np.flatnonzero(table.column("rank").to_numpy() == 1), table.num_rows)


def from_table(table: pa.Table, query_ids: Sequence[str]) -> Iterator[RankedList]:
    """The lists of a table, one per query id in order; empty for a query without rows."""
    edges = boundaries(table)
    present = table.column("query_id").take(pa.array(edges[:-1])).to_pylist()
    doc_ids, scores = table.column("doc_id").to_pylist(), column_scores(table)
    flags = (
        table.column("flag").to_pylist()
        if table.column("flag").null_count < table.num_rows
        else None
    )
    passages = column_passages(table)
    at = 0
    for query_id in query_ids:
        if at < len(present) and present[at] == query_id:
            start, end = int(edges[at]), int(edges[at + 1])
            at += 1
            some = flags[start:end] if flags is not None else []
            yield RankedList(
                query_id,
                doc_ids[start:end],
                scores[start:end],
                some if any(some) else None,
                None if passages is None else passages[start:end],
            )
        else:
            yield RankedList(query_id, [], np.empty(0, np.float32), None)
