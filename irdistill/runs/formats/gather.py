"""Grouping the rows of a score file by query, in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

import numpy as np

from irdistill.errors import InputError, OptionError
from irdistill.runs.rank_faults import RankFaults
from irdistill.storage.files import explain_os_errors

ROW = np.dtype(
    [("query", "<i4"), ("doc", "<i4"), ("score", "<f4"), ("rank", "<i4"), ("line", "<u4")]
)
"""``rank``: 0 in files without ranks, -1 for a score of a pair that another file names."""

ROW_COST = 120
"""Bytes of memory per row while rows are sorted."""

BUCKETS = 64
DUPLICATES = ("error", "first", "mean")


class QueryScores(NamedTuple):
    """One query's rows, by rank; in the file's order if ranks are equal or absent.

    Attributes:
        query: its number.
        docs: (n,) int32 rows of the corpus.
        scores: (n,) float32, NaN where not scored.
    """

    query: int
    docs: np.ndarray
    scores: np.ndarray


class Gather:
    """Sorts rows by query; what does not fit into memory goes to temporary files, 20 bytes a row.

    The temporary files have no name and are deleted with the process. A context manager: ``add``
    rows, call ``settle`` once, then iterate over the queries in the order of their numbers.

    Args:
        folder: where the temporary files are.
        memory: bytes that rows may take at a time. The rows of one query must fit.
        duplicates: the score of a pair that has several different ones: ``error``, the ``first`` in
            the file, or the ``mean``. A pair that is repeated with the same score is one row.

    Attributes:
        repeated: rows that were merged into another row, after ``settle``.
        counts: (queries,) int64 rows of each query, after ``settle``.
        rank_faults: how ranks and scores agree, after ``settle``.
    """

    def __init__(
        self,
        queries: int,
        folder: Path,
        name: Callable[[int, int], str],
        memory: int = 1 << 29,
        duplicates: str = "error",
    ) -> None:
        if duplicates not in DUPLICATES:
            raise OptionError(
                f"duplicates={duplicates!r}: one of {', '.join(DUPLICATES)} was expected."
            )
        self.counts = np.zeros(queries, np.int64)
        self.repeated = 0
        self.spilled = 0
        self.rank_faults = RankFaults()
        self._queries, self._folder, self._name = max(1, queries), folder, name
        self._duplicates = duplicates
        self._limit = max(4, memory // ROW_COST)
        self._buffer: list[np.ndarray] = []
        self._buffered_rows = 0
        self._buckets: list[IO[bytes]] = []
        self._pieces: list[int] = []
        self._settled: IO[bytes] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
        self._buffer = []

    def add(self, rows: np.ndarray) -> None:
        """Add rows, (n,) of ``ROW``."""
        for start in range(0, len(rows), self._limit):
            piece = rows[start : start + self._limit]
            if self._buffer and self._buffered_rows + len(piece) > self._limit:
                self._spill()
            self._buffer.append(piece)
            self._buffered_rows += len(piece)

    def _take_buffer(self) -> np.ndarray:
        rows = np.concatenate(self._buffer) if self._buffer else np.empty(0, ROW)
        self._buffer, self._buffered_rows = [], 0
        return rows

    def _temporary(self) -> IO[bytes]:
        return self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))

    def _spill(self) -> None:
        if not self._buckets:
            with explain_os_errors(self._folder):
                self._buckets = [self._temporary() for _ in range(BUCKETS)]
        rows = self._combined(self._take_buffer(), last=False)
        self.spilled += len(rows)
        bucket = rows["query"].astype(np.int64) * BUCKETS // self._queries
        order = np.argsort(bucket, kind="stable")
        edges = np.searchsorted(bucket[order], np.arange(BUCKETS + 1))
        with explain_os_errors(self._folder):
            for number, stream in enumerate(self._buckets):
                stream.write(rows[order[edges[number] : edges[number + 1]]].tobytes())
        self.counts += np.bincount(rows["query"], minlength=len(self.counts))

    def settle(self) -> None:
        """Make pairs unique, after the last ``add``."""
        if not self._buckets:
            self._buffer = [self._by_rank(self._combined(self._take_buffer(), last=True))]
            self.counts = np.bincount(self._buffer[0]["query"], minlength=len(self.counts))
            return
        self._spill()
        counts, self.counts = self.counts, np.zeros_like(self.counts)
        with explain_os_errors(self._folder):
            self._settled = self._temporary()
            for stream in self._buckets:
                stream.flush()
            for number, stream in enumerate(self._buckets):
                for rows in self._cuts(stream, number, counts):
                    whole = self._by_rank(self._combined(rows, last=True))
                    self._settled.write(whole.tobytes())
                    self._pieces.append(len(whole))
                    self.counts += np.bincount(whole["query"], minlength=len(self.counts))
                stream.truncate(0)
        self._buckets = []

    def _cuts(self, stream: IO[bytes], number: int, counts: np.ndarray) -> Iterator[np.ndarray]:
        """A bucket in ranges of queries that fit into memory; the file is read once per range."""
        first, end = (-(-edge * self._queries // BUCKETS) for edge in (number, number + 1))
        while first < end:
            sums = np.cumsum(counts[first:end])
            last = first + max(1, int(np.searchsorted(sums, self._limit, side="right")))
            stream.seek(0)
            kept = []
            while data := stream.read(ROW.itemsize * max(1024, self._limit // 8)):
                rows = np.frombuffer(data, ROW)
                kept.append(rows[(rows["query"] >= first) & (rows["query"] < last)])
            if kept:
                yield np.concatenate(kept)
            first = last

    def _by_rank(self, rows: np.ndarray) -> np.ndarray:
        rows = rows[np.lexsort((rows["rank"], rows["query"]))]
        self.rank_faults = self.rank_faults.add(rows["query"], rows["rank"], rows["score"])
        return rows

    def __iter__(self) -> Iterator[QueryScores]:
        for rows in self._settled_pieces():
            edges = np.flatnonzero(np.diff(rows["query"])) + 1
            for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(rows)], strict=True):
                if end > start:
                    query = rows[start:end]
                    yield QueryScores(int(query["query"][0]), query["doc"], query["score"])

    def _settled_pieces(self) -> Iterator[np.ndarray]:
        if self._settled is None:
            yield from self._buffer
            return
        self._settled.seek(0)
        for size in self._pieces:
            yield np.frombuffer(self._settled.read(size * ROW.itemsize), ROW)

    def _combined(self, rows: np.ndarray, last: bool) -> np.ndarray:
        """One row per pair, in the order of the file; ``last`` drops scores of unnamed pairs."""
        if not len(rows) or (self._duplicates == "mean" and not last):
            return rows
        key = rows["query"].astype(np.int64) << 32 | rows["doc"]
        order = np.argsort(key, kind="stable")
        key = key[order]
        new = np.append(True, key[1:] != key[:-1])
        side = rows["rank"] < 0
        if new.all() and not (last and side.any()):
            return rows
        starts = np.flatnonzero(new)
        group = np.cumsum(new) - 1
        score = rows["score"][order]
        places = np.arange(len(rows))
        scored = ~np.isnan(score)
        first = np.minimum.reduceat(np.where(scored, places, len(rows) - 1), starts)
        chosen = score[first]
        # of a pair without any score `first` may point into another pair
        chosen[np.add.reduceat(scored, starts) == 0] = np.nan
        if self._duplicates == "error":
            self._refuse(
                rows[order], np.flatnonzero(scored & (score != chosen[group])), first[group]
            )
        elif self._duplicates == "mean":
            sums = np.add.reduceat(np.where(scored, score, 0).astype(np.float64), starts)
            with np.errstate(invalid="ignore"):
                chosen = (sums / np.add.reduceat(scored, starts)).astype(np.float32)
        named = ~side[order]
        kept = np.minimum.reduceat(np.where(named, places, len(rows)), starts)
        has_name = np.add.reduceat(named, starts) > 0
        self.repeated += int(named.sum()) - int(has_name.sum())
        keep = has_name if last else np.ones(len(starts), bool)
        kept = np.where(has_name, kept, starts)[keep]
        result = rows[order[kept]]
        result["score"] = chosen[keep]
        return result[np.argsort(order[kept], kind="stable")]

    def _refuse(self, rows: np.ndarray, wrong: np.ndarray, first: np.ndarray) -> None:
        if not len(wrong):
            return
        kept: Any = rows[first[wrong[0]]]
        other: Any = rows[wrong[0]]
        raise InputError(
            f"{self._name(int(kept['query']), int(kept['doc']))} has two scores: {kept['score']!s}"
            f" (line {kept['line']}) and {other['score']!s} (line {other['line']}). Give"
            " --duplicates first to keep the first in the file, or --duplicates mean for the mean"
            " of all."
        )
