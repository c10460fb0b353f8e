"""Open text files: decompressed by content, without a byte order mark, with clear errors."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from irdistill.errors import InputError

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
"""Endings of compressed files. The first bytes of a file decide whether it is compressed."""
LARGEST_TEXT = 1 << 28
"""Bytes of the largest text that is read whole; published conversations have up to 90 MB."""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_UTF8_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
_BUFFER = 1 << 20


def uncompressed_name(path: str | Path) -> str:
    """The file name without the ending of a compression: ``run.txt.gz`` is ``run.txt``."""
    name = Path(path).name
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def decompress(stream: Any, name: str | Path) -> io.BufferedReader:
    """The content of a stream after decompression, without the byte order mark of UTF-8.

    Args:
        stream: bytes, as from ``open(path, "rb")``.
        name: what error messages call the file.
    """
    reader: io.BufferedReader = (
        stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream, _BUFFER)
    )
    start = reader.peek(8)[:8]
    if start.startswith(b"PK\x03\x04"):
        raise InputError(f"{name} is a ZIP archive; unpack it first.")
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is not None:
        reader = io.BufferedReader(_decompressor(kind, reader), _BUFFER)
    start = reader.peek(4)[:4]
    for mark, encoding in _OTHER_MARKS.items():
        if start.startswith(mark):
            raise InputError(
                f"{name} is text in {encoding}, and UTF-8 was expected; convert the file."
            )
    if start.startswith(_UTF8_MARK):
        reader.read(len(_UTF8_MARK))
    return reader


def _decompressor(kind: str, reader: io.BufferedReader) -> Any:
    if kind == "gzip":
        return gzip.GzipFile(fileobj=reader)
    if kind == "bz2":
        return bz2.BZ2File(reader)
    if kind == "xz":
        return lzma.LZMAFile(reader)
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(reader, mode="r"), "zstd")


class _OwningReader(io.BufferedReader):
    """A reader of decompressed bytes that also closes the file."""

    def __init__(self, reader: Any, file: IO[bytes]) -> None:
        super().__init__(reader, _BUFFER)
        self._file = file

    def close(self) -> None:
        super().close()
        self._file.close()


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a file and decompress it; the caller closes it."""
    file = open(path, "rb")  # noqa: SIM115 - the reader closes it
    try:
        with explain_damage(path, " after line 0"):
            reader = decompress(file, path)
            if reader is file and path.suffix in SUFFIXES and reader.peek(1):
                raise EOFError(
                    f"it does not begin as a {path.suffix} file does; if it was unpacked already,"
                    " rename it"
                )
    except BaseException:
        file.close()
        raise
    return reader if reader is file else _OwningReader(reader, file)


@contextmanager
def explain_damage(name: str | Path, place: str = "") -> Iterator[None]:
    """Turn errors of a damaged archive into an InputError that names the file and the place."""
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if not is_damage(error):
            raise
        if place:
            raise InputError(
                f"{name} ends or breaks{place} ({error}); the archive is damaged. Get it again."
            ) from error
        raise InputError(
            f"{name} cannot be read to its end ({error}); it is truncated or damaged. Get it again."
        ) from error


def is_damage(error: BaseException) -> bool:
    """Whether an error means that an archive is damaged, not that the disk or the system failed."""
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, EOFError | zlib.error | lzma.LZMAError)


def read_text(path: Path) -> str:
    """The whole text of a small file."""
    with open_bytes(path) as stream, explain_damage(path):
        data = stream.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise InputError(
            f"{path} has more than {LARGEST_TEXT >> 20} MiB of text and is read whole. Split it, or"
            " convert it to lines (JSONL, TSV)."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert the file."
        ) from error
