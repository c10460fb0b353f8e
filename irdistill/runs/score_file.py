"""Score files as streams: decompressed while counted and hashed, written whole or not at all."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import pyarrow as pa

from irdistill.collections.text_files import decompress, is_damage
from irdistill.collections.text_lines import LONGEST_LINE, MOST_BLANK
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.storage.ownership import replace_safely

BLOCK = 1 << 22


class ScoreFile:
    """One file that is being imported; a context manager with a progress bar over its bytes.

    Attributes:
        unit: what is counted when a place in the file is named: ``line``, ``row`` or ``query``.
        columns: what the user says of the columns of a table
            (`irdistill.collections.column_names.parse_columns`).
        notes: what a reader found that belongs in the run's identity (the tag of a TREC run, say).
    """

    def __init__(self, path: str | Path, columns: str | Sequence[str] | None = None) -> None:
        self.path, self.columns = Path(path), columns
        if not self.path.is_file():
            raise IrdistillError(f"there is no file {self.path}.")
        self.bytes = self.path.stat().st_size
        self.notes: dict[str, Any] = {}
        self.unit = "line"
        self._hash = hashlib.sha256()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._bar = self._stack.enter_context(progress(self.bytes, "B", self.path.name))
        self._raw = self._stack.enter_context(open(self.path, "rb", buffering=0))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def sha256(self) -> str:
        """The SHA-256 of the whole file, as it lies on disk; reads what no reader has read."""
        _drain(self._raw, self._hash, self._bar)
        return self._hash.hexdigest()

    @contextmanager
    def binary(self) -> Iterator[IO[bytes]]:
        """The file's bytes, decompressed where its first bytes say so, without a byte order mark.

        Raises:
            IrdistillError: the file is truncated or damaged.
        """
        try:
            yield self._opened()
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if not is_damage(error):
                raise
            raise self.damaged(error) from error

    def damaged(self, error: object) -> IrdistillError:
        """The error for a file that cannot be read to its end."""
        return IrdistillError(
            f"{self.path} cannot be read to its end ({error}); it is truncated or damaged. Fetch it"
            " again."
        )

    def _opened(self) -> IO[bytes]:
        return decompress(
            io.BufferedReader(_Counted(self._raw, self._hash, self._bar), BLOCK), self.path
        )

    def blocks(self) -> Iterator[bytes]:
        """The file in pieces of whole lines, about 4 MiB each; the last may lack its line's end."""
        with self.binary() as stream:
            rest = b""
            blank = 0
            while piece := stream.read(BLOCK):
                blank = 0 if piece.strip() else blank + piece.count(b"\n")
                if blank > MOST_BLANK:
                    raise IrdistillError(
                        f"{self.path} has {MOST_BLANK} blank lines in a row, and a row a line was"
                        " expected."
                    )
                end = piece.rfind(b"\n") + 1
                if not end:
                    rest += piece
                    if len(rest) > LONGEST_LINE:
                        raise IrdistillError(
                            f"{self.path} has a line of more than {LONGEST_LINE >> 20} MiB, and"
                            " text with a row a line was expected; see --format."
                        )
                    continue
                yield rest + piece[:end]
                rest = piece[end:]
            if rest:
                yield rest

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines that are not blank, each with its number from 1."""
        number = 0
        for block in self.blocks():
            for line in block.split(b"\n"):
                number += 1
                if line.strip():
                    yield number, line
            number -= block.endswith(b"\n")

    @contextmanager
    def seekable(self) -> Iterator[Path]:
        """The path itself, for readers that jump about in a file (Parquet)."""
        try:
            yield self.path
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise self.damaged(str(error).splitlines()[0]) from error

    def progress(self, share: float) -> None:
        """Move the bar, for a reader that does not read through ``binary``."""
        self._bar.n = int(share * self.bytes)
        self._bar.refresh()


class _Counted(io.RawIOBase):
    """Raw bytes on their way to a reader."""

    def __init__(self, raw: Any, checksum: Any, bar: Any) -> None:
        self._raw, self._hash, self._bar = raw, checksum, bar

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer)
        self._hash.update(memoryview(buffer)[:count])
        self._bar.update(count)
        return int(count)


def _drain(raw: Any, checksum: Any, bar: Any) -> None:
    while piece := raw.read(BLOCK):
        checksum.update(piece)


@contextmanager
def open_output(path: str | Path) -> Iterator[IO[bytes]]:
    """A stream to a file that takes its place when all is written; compressed where the name ends
    in .gz, .zst, .bz2 or .xz.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        raw = stack.enter_context(open(stack.enter_context(replace_safely(path)), "wb"))
        stream: Any = raw
        if path.suffix == ".gz":
            # mtime 0: the same run gives the same bytes
            stream = stack.enter_context(gzip.GzipFile(path.stem, "wb", fileobj=raw, mtime=0))
        elif path.suffix == ".zst":
            stream = stack.enter_context(
                pa.CompressedOutputStream(pa.PythonFile(raw, mode="w"), "zstd")
            )
        elif path.suffix in (".bz2", ".xz"):
            stream = stack.enter_context(
                (bz2.BZ2File if path.suffix == ".bz2" else lzma.LZMAFile)(raw, "wb")
            )
        yield stream
