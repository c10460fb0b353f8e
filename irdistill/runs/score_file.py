"""Score files as streams: decompressed, counted and hashed while they are read."""

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
from typing import IO, Any, Self

import pyarrow as pa

from irdistill.collections.text_files import decompress, is_damage
from irdistill.collections.text_lines import LONGEST_LINE, MOST_BLANK
from irdistill.console.progress_bars import progress
from irdistill.errors import DamagedError, InputError, NotFoundError
from irdistill.storage.ownership import replace_safely

BLOCK = 1 << 22


class ScoreFile:
    """A file that is being read; a context manager with a progress bar over its bytes.

    Args:
        columns: what the user says about the columns of a table.

    Attributes:
        unit: what positions in the file count: ``line``, ``row`` or ``query``.
        notes: what a reader noticed and the run's identity records, such as the tag of a TREC run.
    """

    def __init__(self, path: str | Path, columns: str | Sequence[str] | None = None) -> None:
        self.path, self.columns = Path(path), columns
        if not self.path.is_file():
            raise NotFoundError(f"there is no file {self.path}.")
        self.bytes = self.path.stat().st_size
        self.notes: dict[str, Any] = {}
        self.unit = "line"
        self._hash = hashlib.sha256()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._bar = self._stack.enter_context(progress(self.bytes, "B", self.path.name))
        self._raw = self._stack.enter_context(open(self.path, "rb", buffering=0))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def sha256(self) -> str:
        """The SHA-256 of the file on disk; reads what no reader has read."""
        while piece := self._raw.read(BLOCK):
            self._hash.update(piece)
            self._bar.update(len(piece))
        return self._hash.hexdigest()

    @contextmanager
    def binary(self) -> Iterator[IO[bytes]]:
        """The file's bytes, decompressed if their beginning says so, without a byte order mark."""
        try:
            raw = _CountedBytes(self._raw, self._hash, self._bar)
            yield decompress(io.BufferedReader(raw, BLOCK), self.path)
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            if not is_damage(error):
                raise
            raise self.damaged(error) from error

    def damaged(self, error: object) -> DamagedError:
        """The error for a file that cannot be read to its end."""
        return DamagedError(
            self.path,
            f"cannot be read to its end ({error}); it is truncated or damaged",
            "Download it again.",
        )

    def blocks(self) -> Iterator[bytes]:
        """The file in pieces of whole lines, about 4 MiB each; the last line may lack its end."""
        with self.binary() as stream:
            rest = b""
            blank = 0
            while piece := stream.read(BLOCK):
                blank = 0 if piece.strip() else blank + piece.count(b"\n")
                if blank > MOST_BLANK:
                    raise InputError(
                        f"{self.path} has {MOST_BLANK} blank lines in a row, and one row per line"
                        " was expected."
                    )
                end = piece.rfind(b"\n") + 1
                if not end:
                    rest += piece
                    if len(rest) > LONGEST_LINE:
                        raise InputError(
                            f"{self.path} has a line of more than {LONGEST_LINE >> 20} MiB, and"
                            " text with one row per line was expected; see --format."
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
        """The path itself, for readers that read at any position (Parquet)."""
        try:
            yield self.path
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise self.damaged(str(error).splitlines()[0]) from error

    def progress(self, share: float) -> None:
        """Move the bar, for a reader that does not use ``binary``."""
        self._bar.n = int(share * self.bytes)
        self._bar.refresh()


class _CountedBytes(io.RawIOBase):
    """Raw bytes, hashed and counted while they are read."""

    def __init__(self, raw: Any, checksum: Any, bar: Any) -> None:
        self._raw, self._hash, self._bar = raw, checksum, bar

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(buffer)
        self._hash.update(memoryview(buffer)[:count])
        self._bar.update(count)
        return int(count)


@contextmanager
def open_output(path: str | Path) -> Iterator[IO[bytes]]:
    """A stream to a file that gets its name when all is written.

    It is compressed if the name ends in .gz, .zst, .bz2 or .xz.
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
            compressed = bz2.BZ2File if path.suffix == ".bz2" else lzma.LZMAFile
            stream = stack.enter_context(compressed(raw, "wb"))
        yield stream
