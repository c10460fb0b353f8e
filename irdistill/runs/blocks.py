"""Ranked lists as arrays: blocks of whole queries, in memory or in a nameless file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa

from irdistill.collections.byte_strings import PADDING, ByteStrings
from irdistill.runs.manifest import Manifest, RunIdentity
from irdistill.runs.ranked_lists import SCHEMA, RankedList
from irdistill.runs.run import Run
from irdistill.storage.files import digest, explain_os_errors, read_at

_COST = 36
"""Bytes that a document takes in memory, beside its id."""


class ListBlock(NamedTuple):
    """The lists of Q queries, n documents in all, each list in rank order.

    Attributes:
        query_ids: Q of them.
        edges: (Q + 1,) int64: the documents of query i are ``edges[i]`` to ``edges[i + 1] - 1``.
        docs: (n,) ids of the documents.
        scores: (n,) float32.
        hashes: (n,) uint64: ``docs.hashes()``.
    """

    query_ids: list[str]
    edges: np.ndarray
    docs: ByteStrings
    scores: np.ndarray
    hashes: np.ndarray

    def named_as_query(self) -> np.ndarray:
        """The rows whose document has the id of the query, int64."""
        queries, sizes = ByteStrings.of(self.query_ids), np.diff(self.edges)
        rows = np.flatnonzero(np.repeat(queries.hashes(), sizes) == self.hashes)
        owners = np.searchsorted(self.edges, rows, side="right") - 1
        return rows[queries.take(owners).equal(self.docs.take(rows))]

    def to_table(self) -> pa.Table:
        """Columns ``query_id, doc_id, rank, score, flag``."""
        sizes = np.diff(self.edges)
        places = np.repeat(np.arange(len(sizes)), sizes)
        return pa.Table.from_arrays(
            [
                pa.array(self.query_ids, pa.string()).take(pa.array(places)),
                self.docs.to_arrow(),
                pa.array((np.arange(1, len(places) + 1) - self.edges[places]).astype(np.int32)),
                pa.array(self.scores),
                pa.nulls(len(places), pa.string()),
            ],
            schema=SCHEMA,
        )


class _Place(NamedTuple):
    """Where a block lies in the file: its first byte, documents, and bytes of their ids."""

    start: int
    rows: int
    size: int


class BlockRun(Run):
    """A run of blocks, as one read from a TREC file is; what is beyond ``memory`` bytes lies in a
    nameless temporary file.

    The file goes with the process, also when it is killed. It takes 16 bytes and the id of each
    document. In memory are, for each query, its id and 8 bytes. The run's fingerprint is of its
    identity, which must contain a checksum of what it was read from.
    """

    def __init__(self, memory: int) -> None:
        """A run without lists: ``add`` blocks, then ``close``."""
        super().__init__()
        self._query_ids: list[str] = []
        self._rows = 0
        self._memory = memory
        self._starts = [0]
        self._edges: list[np.ndarray] = []
        self._blocks: list[tuple[ByteStrings, np.ndarray, np.ndarray] | _Place] = []
        self._file: IO[bytes] | None = None
        self._end = 0
        self._last: tuple[int, ListBlock] | None = None

    def add(self, block: ListBlock) -> None:
        """Append the lists of more queries.

        Raises:
            IrdistillError: the disk is full.
        """
        docs = block.docs.packed()
        self._query_ids += block.query_ids
        self._rows += len(docs)
        self._starts.append(len(self._query_ids))
        self._edges.append(block.edges)
        size = len(docs.data) - len(PADDING)
        self._memory -= size + _COST * len(docs)
        if self._memory >= 0:
            self._blocks.append((docs, block.scores, block.hashes))
            return
        with explain_os_errors(Path(tempfile.gettempdir())):
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
            for part in (
                block.hashes,
                docs.lengths.astype(np.int32),
                block.scores,
                docs.data[:size],
            ):
                self._file.write(part.data)
            self._file.flush()
        self._blocks.append(_Place(self._end, len(docs), size))
        self._end += 16 * len(docs) + size

    def close(self, identity: RunIdentity) -> None:
        """Say what the run is, after its last block."""
        count = len(self._query_ids)
        self._manifest = Manifest(
            identity, count, digest(self._query_ids), max(1, count), complete=True
        )

    def _block(self, number: int) -> ListBlock:
        one = self._blocks[number]
        ids = self._query_ids[self._starts[number] : self._starts[number + 1]]
        if not isinstance(one, _Place):
            return ListBlock(ids, self._edges[number], *one)
        assert self._file is not None
        data = read_at(self._file.fileno(), 16 * one.rows + one.size, one.start) + PADDING
        hashes = np.frombuffer(data, np.uint64, one.rows)
        lengths = np.frombuffer(data, np.int32, one.rows, 8 * one.rows).astype(np.int64)
        scores = np.frombuffer(data, np.float32, one.rows, 12 * one.rows)
        docs = ByteStrings(
            np.frombuffer(data, np.uint8, offset=16 * one.rows),
            np.cumsum(lengths) - lengths,
            lengths,
        )
        return ListBlock(ids, self._edges[number], docs, scores, hashes)

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self._query_ids

    @property
    def num_rows(self) -> int:
        """How many (query, document) rows."""
        return self._rows

    def blocks(self) -> Iterator[ListBlock]:
        """The lists as arrays, a block in memory at a time."""
        return map(self._block, range(len(self._blocks)))

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """The lists of each block."""
        return ((block.query_ids, block.to_table()) for block in self.blocks())

    def __getitem__(self, query_id: str) -> RankedList:
        place = self._positions[query_id]
        number = int(np.searchsorted(self._starts, place, side="right")) - 1
        if self._last is None or self._last[0] != number:
            self._last = number, self._block(number)
        block, place = self._last[1], place - self._starts[number]
        rows = slice(int(block.edges[place]), int(block.edges[place + 1]))
        return RankedList(query_id, block.docs.take(rows).texts(), block.scores[rows])
