"""Record batches of documents, in memory or in a mapped file, read by row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from irdistill.collections.byte_strings import ByteStrings
from irdistill.storage.checksums import CheckedFile
from irdistill.storage.files import MappedPages

BATCH_ROWS = 4096
PAGE = 4096
FEW = 1000
"""Fewer ids than this are looked up one by one in a file that has not been checked completely."""
_WORD = 8
_HEADER_BYTES = 4096
_ID_BYTES = 256
"""Bytes that are counted as read for one of many ids, which are close together."""
SCHEMA = pa.schema([("doc_id", pa.string()), ("title", pa.string()), ("text", pa.string())])


class Document(NamedTuple):
    """A document of a corpus; ``line`` is its line in the file that it is read from."""

    id: str
    title: str
    text: str
    line: int = 0


def record_batch(documents: Sequence[Document]) -> Any:
    """Documents as an Arrow batch. It is made from buffers: ``pyarrow.array`` imports pandas."""
    arrays = []
    columns = zip(*((d.id, d.title, d.text) for d in documents), strict=True)
    for column in columns if documents else [()] * 3:
        data = [value.encode("utf-8") for value in column]
        offsets = np.zeros(len(data) + 1, dtype=np.int32)
        np.cumsum([len(value) for value in data], out=offsets[1:])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))]
        arrays.append(pa.Array.from_buffers(pa.string(), len(data), buffers))
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


class BatchChecks:
    """Checks the bytes of record batches in a mapped file before they are used.

    Args:
        address: the address of the file in memory.
        offsets: (batches + 1,) int64, where each batch begins in the file, and where the last ends.
    """

    def __init__(self, file: CheckedFile, address: int, offsets: np.ndarray) -> None:
        self.file, self._address, self._offsets = file, address, offsets
        file.check(0, int(offsets[0]))
        file.check(int(offsets[-1]), file.bytes)

    def header(self, number: int) -> None:
        """Check the header of a batch."""
        start, stop = self._offsets[number : number + 2].tolist()
        self.file.check(start, min(stop, start + _HEADER_BYTES))

    def batch(self, number: int) -> None:
        """Check a whole batch."""
        start, stop = self._offsets[number : number + 2].tolist()
        self.file.check(start, stop)

    def buffers(self, parts: Sequence[Any]) -> None:
        """Check whole buffers."""
        for part in parts:
            if part is not None:
                self.file.check(
                    part.address - self._address, part.address - self._address + part.size
                )

    def values(self, column: Any, places: np.ndarray) -> None:
        """Check some values of a string column."""
        _, edges, data = column.buffers()
        first = edges.address - self._address + 4 * places.astype(np.int64)
        self.file.check_ranges(first, first + 8)
        bounds = np.frombuffer(edges, np.int32)
        begin = (data.address if data is not None else 0) - self._address
        self.file.check_ranges(
            begin + bounds[places].astype(np.int64), begin + bounds[places + 1].astype(np.int64)
        )


class DocumentTable:
    """Record batches, in memory or in a mapped file, as one table with id, title and text.

    Args:
        source: a list of batches, or an Arrow file reader.
        starts: (batches + 1,) int64, the first row of each batch, and the number of rows.
        mapped: uint8, the bytes of the mapped file; None if the batches are in memory.
        checks: checks the file before it is used.
    """

    def __init__(
        self,
        source: Any,
        starts: np.ndarray,
        mapped: np.ndarray | None = None,
        pages: MappedPages | None = None,
        checks: BatchChecks | None = None,
    ) -> None:
        self._source = source
        self._mapped = np.asarray(mapped) if mapped is not None else None
        self._pages = pages or MappedPages()
        self._starts = starts
        self._checks = checks
        self._open: dict[int, Any] = {}

    def __iter__(self) -> Iterator[Any]:
        for number in range(len(self._starts) - 1):
            if self._checks is not None:
                self._checks.batch(number)
            batch = self._batch(number)
            yield batch
            self._pages.read(batch.nbytes)

    def _batch(self, number: int) -> Any:
        if number not in self._open:
            source = self._source
            if self._checks is not None:
                self._checks.header(number)
            self._open[number] = (
                source[number] if isinstance(source, list) else source.get_batch(number)
            )
        return self._open[number]

    @cached_property
    def _id_places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The bytes that contain the ids, and for each batch where the offsets and the text of its
        ids begin in them.
        """
        if self._mapped is None:
            columns = [batch.column(0) for batch in self]
            ids = pa.concat_arrays(columns) if columns else pa.array([], pa.string())
            offsets, text = (np.frombuffer(part or b"", np.uint8) for part in ids.buffers()[1:])
            gap = -len(offsets) % _WORD
            data = np.concatenate(
                [offsets, np.zeros(gap, np.uint8), text, np.zeros(_WORD, np.uint8)]
            )
            shifts = self._starts[:-1] * 4
            return data, shifts, np.full(len(shifts), len(offsets) + gap)
        base = self._mapped.ctypes.data
        places = []
        for number in range(len(self._starts) - 1):
            parts = self._batch(number).column(0).buffers()[1:]
            places.append([part.address - base if part is not None else 0 for part in parts])
            if self._checks is not None:
                self._checks.buffers(parts)
        both = np.array(places, np.int64).reshape(-1, 2)
        return self._mapped, both[:, 0], both[:, 1]

    def ids(self, rows: np.ndarray) -> ByteStrings:
        """The ids of many rows, without a Python object for each.

        The first call with many rows checks the ids of the whole file.
        """
        self._check(rows)
        if len(rows) < FEW and self._checks is not None and not self._checks.file.whole:
            return ByteStrings.of(self.take(0, rows))
        data, offsets_at, text_at = self._id_places
        self._pages.read(len(rows) * _ID_BYTES)
        numbers = np.searchsorted(self._starts, rows, side="right") - 1
        offsets = data[: len(data) // 4 * 4].view("<i4")
        places = (offsets_at[numbers] >> 2) + (rows - self._starts[numbers])
        starts = offsets[places].astype(np.int64)
        return ByteStrings(data, text_at[numbers] + starts, offsets[places + 1] - starts)

    def _check(self, rows: np.ndarray) -> None:
        if len(rows) and not (rows.min() >= 0 and rows.max() < self._starts[-1]):
            raise IndexError(
                f"rows {rows.min()} to {rows.max()} are not all in 0 to {self._starts[-1] - 1}"
            )

    def value(self, column: int, row: int) -> str:
        """The value of a row; column 0 is the id, 1 the title, 2 the text."""
        if not 0 <= row < self._starts[-1]:
            raise IndexError(f"row {row} is outside of the corpus (0 to {self._starts[-1] - 1})")
        self._pages.read(PAGE)
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        values, place = self._batch(number).column(column), int(row - self._starts[number])
        if self._checks is not None and not self._checks.file.whole:
            self._checks.values(values, np.array([place]))
        return values[place].as_py()

    def take(self, column: int, rows: np.ndarray) -> list[str]:
        """The values of many rows, in this order."""
        self._check(rows)
        if len(rows) < 16:
            return [self.value(column, int(row)) for row in rows]
        order = np.argsort(rows, kind="stable")
        numbers = np.searchsorted(self._starts, rows[order], side="right") - 1
        self._pages.read(len(rows) * PAGE)
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
