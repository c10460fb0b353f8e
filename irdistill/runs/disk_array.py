"""An array that stays in its file: each slice is read when it is used."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from irdistill.errors import DamagedError
from irdistill.storage.checksums import CheckedFile
from irdistill.storage.files import open_descriptor, read_at

_HEADER_BYTES = 4096


class DiskArray:
    """A one-dimensional array in a ``.npy`` file.

    It is not a memory map: all pages of a map that are read at random count as memory of the
    process, which is too much for a billion rows. Threads and forked processes may share one; a
    pickled one opens the file again.

    Args:
        checks: compares each block with its checksum before it is first used.
    """

    def __init__(self, path: Path, checks: CheckedFile | None = None) -> None:
        self.path, self._checks = path, checks
        if checks is not None:
            checks.check(0, min(checks.bytes, _HEADER_BYTES))
        with open(path, "rb") as stream:
            np.lib.format.read_magic(stream)
            (self._count,), _, self.dtype = np.lib.format.read_array_header_1_0(stream)
            self._start = stream.tell()
        size, expected = path.stat().st_size, self._start + self._count * self.dtype.itemsize
        if size != expected:
            raise DamagedError(
                path,
                f"has {size} bytes and should have {expected}",
                f"Delete the folder {path.parent}; it is rebuilt from the run.",
            )
        self._file = open_descriptor(path)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, part: slice) -> np.ndarray:
        """The numbers of a slice without a step, (n,), read only."""
        start, stop, step = part.indices(self._count)
        if step != 1:
            raise IndexError(f"a slice has a step of {step}; only steps of 1 are supported")
        size = self.dtype.itemsize
        if self._checks is not None and not self._checks.whole:
            self._checks.check(self._start + start * size, self._start + max(start, stop) * size)
        return np.frombuffer(
            read_at(self._file, max(0, stop - start) * size, self._start + start * size),
            self.dtype,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return DiskArray, (self.path, self._checks)


@contextmanager
def array_stream(path: Path, kind: type[np.generic], count: int) -> Iterator[BinaryIO]:
    """A ``.npy`` file to which ``count`` numbers are appended as a stream; fsynced at the end.

    Unlike a memory map it keeps one part at a time in memory, however long the array.
    """
    with open(path, "wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream,
            {
                "descr": np.lib.format.dtype_to_descr(np.dtype(kind)),
                "fortran_order": False,
                "shape": (count,),
            },
        )
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
