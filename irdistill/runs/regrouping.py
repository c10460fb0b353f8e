"""Grouping rows by query: partitioned in a temporary file, then sorted partition by partition."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from irdistill.collections.byte_strings import PADDING, ByteStrings, group_starts
from irdistill.runs.trec_rows import TrecRows
from irdistill.storage.files import explain_os_errors

_COST = 200
"""Bytes of memory that a row takes while it is sorted."""
_NUMBERS = np.dtype(
    [("query", "<i4"), ("length", "<i4"), ("rank", "<i4"), ("score", "<f4"), ("line", "<i8")]
)


class QueryRows(NamedTuple):
    """All rows of Q queries, grouped by query and otherwise in the order of the file.

    Attributes:
        query_ids: (Q,).
        edges: (Q + 1,) int64; the rows of query i are ``edges[i]`` to ``edges[i + 1] - 1``.
        docs: (n,) ids.
        ranks: (n,) int32.
        scores: (n,) float32.
        lines: (n,) int64 line numbers.
    """

    query_ids: list[str]
    edges: np.ndarray
    docs: ByteStrings
    ranks: np.ndarray
    scores: np.ndarray
    lines: np.ndarray


def regroup(read: Callable[[], Iterator[TrecRows]], memory: int) -> Iterator[QueryRows]:
    """Group rows by query; queries come in the order of their first rows.

    Memory holds about 100 bytes per query, and rows of ``memory`` bytes; the rows of one query must
    fit. The temporary file takes 24 bytes and the document id for each row; it is deleted with the
    process.

    Args:
        read: reads the file from its beginning, several thousand rows at a time; called twice.
        memory: bytes that rows may take at a time.
    """
    places: dict[str, int] = {}
    counts = np.zeros(0, np.int64)
    for piece in read():
        rows = _places(piece.queries, places)
        counts = np.concatenate([counts, np.zeros(len(places) - len(counts), np.int64)])
        counts += np.bincount(rows, minlength=len(counts))
    names, limit = list(places), max(1, memory // _COST)
    _, parts = np.unique((np.cumsum(counts) - 1) // limit, return_inverse=True)
    edges = np.searchsorted(parts, np.arange(int(parts.max(initial=-1)) + 2))
    with explain_os_errors(Path(tempfile.gettempdir())), tempfile.TemporaryFile() as stream:
        partitions: list[list[tuple[int, int, int]]] = [[] for _ in edges[1:]]
        batch: list[tuple[np.ndarray, ByteStrings]] = []
        size = 0
        for piece in read():
            numbers = np.empty(len(piece.lines), _NUMBERS)
            numbers["query"], numbers["length"] = _places(piece.queries, places), piece.docs.lengths
            numbers["rank"], numbers["score"] = piece.ranks, piece.scores
            numbers["line"] = piece.lines
            batch.append((numbers, piece.docs.packed()))
            size += len(numbers)
            if size >= limit:
                _write(stream, batch, parts, partitions)
                batch, size = [], 0
        _write(stream, batch, parts, partitions)
        for number, partition in enumerate(partitions):
            first, last = edges[number : number + 2].tolist()
            yield _sorted(_read(stream, partition), names[first:last], first)


def _places(queries: ByteStrings, places: dict[str, int]) -> np.ndarray:
    """(n,) the number of each row's query, in the order of first occurrence."""
    starts = group_starts(queries)
    numbers = [places.setdefault(name, len(places)) for name in queries.take(starts).texts()]
    return np.repeat(np.array(numbers, np.int64), np.diff(starts, append=len(queries)))


def _write(
    stream: IO[bytes],
    batch: Sequence[tuple[np.ndarray, ByteStrings]],
    parts: np.ndarray,
    partitions: list[list[tuple[int, int, int]]],
) -> None:
    """Append the rows of each partition; note their offset, count and bytes of ids."""
    if not batch:
        return
    numbers = np.concatenate([rows for rows, _ in batch])
    docs = ByteStrings.joined([ids for _, ids in batch])
    part = parts[numbers["query"]]
    order = np.argsort(part, kind="stable")
    edges = np.searchsorted(part[order], np.arange(len(partitions) + 1)).tolist()
    numbers, docs = numbers[order], docs.take(order).packed()
    ends = np.append(docs.starts, docs.starts[-1] + docs.lengths[-1])
    for partition, first, last in zip(partitions, edges[:-1], edges[1:], strict=True):
        if first < last:
            start, end = ends[[first, last]].tolist()
            partition.append((stream.tell(), last - first, end - start))
            stream.write(numbers[first:last].tobytes())
            stream.write(docs.data[start:end].tobytes())


def _read(
    stream: IO[bytes], partition: list[tuple[int, int, int]]
) -> tuple[np.ndarray, ByteStrings]:
    numbers, texts = [], []
    for start, rows, size in partition:
        stream.seek(start)
        numbers.append(np.frombuffer(stream.read(rows * _NUMBERS.itemsize), _NUMBERS))
        texts.append(stream.read(size))
    every = np.concatenate(numbers)
    lengths = every["length"].astype(np.int64)
    return every, ByteStrings(
        np.frombuffer(b"".join(texts) + PADDING, np.uint8), np.cumsum(lengths) - lengths, lengths
    )


def _sorted(rows: tuple[np.ndarray, ByteStrings], names: list[str], first: int) -> QueryRows:
    numbers, docs = rows
    order = np.argsort(numbers["query"], kind="stable")
    numbers = numbers[order]
    edges = np.searchsorted(numbers["query"], np.arange(first, first + len(names) + 1))
    return QueryRows(
        names,
        edges,
        docs.take(order),
        *(numbers[name].copy() for name in ("rank", "score", "line")),
    )
