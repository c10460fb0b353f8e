"""Record batches of documents, from memory or from a mapped file, read by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from irdistill.checksums import CheckedFile

_HEADER_BYTES = 4096

SCHEMA = pa.schema([("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string())])


class Document(NamedTuple):
    """A document on its way into a corpus; ``line`` is where the file has it."""

    id: str
    title: str
    text: str
    line: int = 0


def record_batch(documents: Sequence[Document]) -> Any:
    """Documents as an Arrow batch (from buffers: ``pyarrow.array`` would import pandas)."""
    arrays = []
    for column in ([d.id for d in documents], [d.title for d in documents], [d.text for d in documents]):
        data = [value.encode("utf-8") for value in column]
        offsets = np.zeros(len(data) + 1, dtype=np.int32)
        np.cumsum([len(value) for value in data], out=offsets[1:])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))]
        arrays.append(pa.Array.from_buffers(pa.string(), len(data), buffers))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


class BatchChecks:
    """Checks the bytes of record batches in a mapped file before they are used.

    Args:
        address: where the file lies in memory.
        offsets: (batches + 1,) int64, where each batch begins in the file, and where the last one ends.
    """

    def __init__(self, file: CheckedFile, address: int, offsets: np.ndarray) -> None:
        self.file, self._address, self._offsets = file, address, offsets
        file.check(0, int(offsets[0]))
        file.check(int(offsets[-1]), file.bytes)

    def header(self, number: int) -> None:
        """Check what describes a batch."""
        start, stop = self._offsets[number : number + 2].tolist()
        self.file.check(start, min(stop, start + _HEADER_BYTES))

    def batch(self, number: int) -> None:
        """Check all of a batch."""
        start, stop = self._offsets[number : number + 2].tolist()
        self.file.check(start, stop)

    def values(self, column: Any, places: np.ndarray) -> None:
        """Check some values of a column of texts."""
        _, edges, data = column.buffers()
        first = edges.address - self._address + 4 * places.astype(np.int64)
        self.file.check_ranges(first, first + 8)
        bounds = np.frombuffer(edges, np.int32)
        begin = (data.address if data is not None else 0) - self._address
        self.file.check_ranges(begin + bounds[places].astype(np.int64), begin + bounds[places + 1].astype(np.int64))


class Batches:
    """Record batches, from memory or a mapped file, seen as one table. ``starts`` is (batches + 1,) int64.

    Args:
        checks: of a file, what is checked before it is used.
    """

    def __init__(self, source: Any, starts: np.ndarray, checks: BatchChecks | None = None) -> None:
        self._source = source
        self._starts = starts
        self._checks = checks
        self._open: dict[int, Any] = {}

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self._starts) - 1):
            if self._checks is not None:
                self._checks.batch(number)
            yield self._batch(number)

    def _batch(self, number: int) -> Any:
        if number not in self._open:
            source = self._source
            if self._checks is not None:
                self._checks.header(number)
            self._open[number] = source[number] if isinstance(source, list) else source.get_batch(number)
        return self._open[number]

    def value(self, column: int, row: int) -> str:
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"row {row} is outside of the corpus (0 to {self._starts[-1] - 1})")
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        values, place = self._batch(number).column(column), int(row - self._starts[number])
        if self._checks is not None and not self._checks.file.whole:
            self._checks.values(values, np.array([place]))
        return values[place].as_py()

    def take(self, column: int, rows: np.ndarray) -> list[str]:
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._starts[-1]):
            raise IndexError(f"rows {rows.min()} to {rows.max()} are not all in 0 to {self._starts[-1] - 1}")
        if len(rows) < 16:
            return [self.value(column, int(row)) for row in rows]
        order = np.argsort(rows, kind="stable")
        numbers = np.searchsorted(self._starts, rows[order], side="right") - 1
        result = np.empty(len(rows), dtype=object)
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(rows)]
        for first, last in pairwise(edges):
            places = order[first:last]
            within = rows[places] - self._starts[numbers[first]]
            values = self._batch(int(numbers[first])).column(column)
            if self._checks is not None and not self._checks.file.whole:
                self._checks.values(values, within)
            local = pa.Array.from_buffers(pa.int64(), len(within), [None, pa.py_buffer(within)])
            result[places] = values.take(local).to_pylist()
        return result.tolist()
