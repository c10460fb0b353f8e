"""Ranked lists as arrays: blocks of whole queries, in memory or in a temporary file."""

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
"""Bytes per document in memory, besides its id."""


class ListBlock(NamedTuple):
    """The lists of Q queries, n documents in total, each list in rank order.

    Attributes:
        query_ids: (Q,).
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
        """The rows whose document has the same id as the query, int64."""
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
    """Position of a block in the file: its first byte, documents, and bytes of their ids."""

    start: int
    rows: int
    size: int


class BlockRun(Run):
    """A run of blocks, as read from a TREC file; a temporary file holds what exceeds the memory.

    The file has no name and is deleted with the process. It takes 16 bytes and the id for each
    document. Memory holds the id of each query and 8 bytes. The fingerprint is a hash of the
    identity, which must contain a checksum of the file that the run was read from. Call ``add`` for
    each block, then ``close``.

    Args:
        memory: bytes of blocks to keep in memory.
    """

    def __init__(self, memory: int) -> None:
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
        """Append the lists of more queries."""
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
        """Set the identity, after the last block."""
        count = len(self._query_ids)
        self._manifest = Manifest(
            identity, count, digest(self._query_ids), max(1, count), complete=True
        )

    def _block(self, number: int) -> ListBlock:
        block = self._blocks[number]
        ids = self._query_ids[self._starts[number] : self._starts[number + 1]]
        if not isinstance(block, _Place):
            return ListBlock(ids, self._edges[number], *block)
        assert self._file is not None
        data = read_at(self._file.fileno(), 16 * block.rows + block.size, block.start) + PADDING
        hashes = np.frombuffer(data, np.uint64, block.rows)
        lengths = np.frombuffer(data, np.int32, block.rows, 8 * block.rows).astype(np.int64)
        scores = np.frombuffer(data, np.float32, block.rows, 12 * block.rows)
        docs = ByteStrings(
            np.frombuffer(data, np.uint8, offset=16 * block.rows),
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
        """Number of (query, document) rows."""
        return self._rows

    def blocks(self) -> Iterator[ListBlock]:
        """The lists as arrays, one block in memory at a time."""
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
