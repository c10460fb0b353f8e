"""One way to open files of text: decompressed by their content, without a byte order mark, with
clear errors.
"""

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

from irdistill.errors import IrdistillError

SUFFIXES = (".gz", ".zst", ".bz2", ".xz")
"""Endings of compressed files. Whether a file is compressed is decided by its first bytes, not by
its name.
"""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz"}
_UTF8_MARK = b"\xef\xbb\xbf"
_OTHER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\x00\x00\xfe\xff": "UTF-32"}
_BUFFER = 1 << 20


def uncompressed_name(path: str | Path) -> str:
    """The name of a file without the ending of its compression: ``run.txt.gz`` is ``run.txt``."""
    name = Path(path).name
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def decompress(stream: Any, name: str | Path) -> io.BufferedReader:
    """The content of a stream, decompressed where its first bytes say so, behind a byte order mark
    of UTF-8.

    Args:
        stream: bytes, as ``open(path, "rb")`` gives them.
        name: what error messages call the file.

    Raises:
        IrdistillError: the content is a ZIP archive, or is text in UTF-16 or UTF-32.
    """
    reader: io.BufferedReader = (
        stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream, _BUFFER)
    )
    start = reader.peek(8)[:8]
    if start.startswith(b"PK\x03\x04"):
        raise IrdistillError(f"{name} is a ZIP archive; unpack it first.")
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is not None:
        reader = io.BufferedReader(_decompressor(kind, reader), _BUFFER)
    start = reader.peek(4)[:4]
    for mark, encoding in _OTHER_MARKS.items():
        if start.startswith(mark):
            raise IrdistillError(
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


class _Owning(io.BufferedReader):
    """A reader of decompressed bytes that closes the file beneath it."""

    def __init__(self, reader: Any, file: IO[bytes]) -> None:
        super().__init__(reader, _BUFFER)
        self._file = file

    def close(self) -> None:
        super().close()
        self._file.close()


def open_bytes(path: Path) -> io.BufferedReader:
    """A file for reading, as `decompress`; the caller closes it.

    Raises:
        IrdistillError: as `decompress`, or the archive is damaged at its start.
    """
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
    return reader if reader is file else _Owning(reader, file)


@contextmanager
def explain_damage(name: str | Path, place: str = "") -> Iterator[None]:
    """Turn what the libraries raise on damaged archives into an IrdistillError that names the file,
    and the place in it.
    """
    try:
        yield
    except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if not is_damage(error):
            raise
        if place:
            raise IrdistillError(
                f"{name} ends or breaks{place} ({error}); the archive is damaged, get it again."
            ) from error
        raise IrdistillError(
            f"{name} cannot be read to its end ({error}); it is truncated or damaged. Fetch it"
            " again."
        ) from error


def is_damage(error: BaseException) -> bool:
    """Whether an error says that an archive is damaged, and not that the disk or the system
    failed.
    """
    if isinstance(error, OSError):
        return error.errno is None
    return isinstance(error, EOFError | zlib.error | lzma.LZMAError)


LARGEST_TEXT = 1 << 28
"""Bytes of the largest text that is read as a whole: the JSON files of published conversations have
up to 90 MB.
"""


def read_text(path: Path) -> str:
    """The whole text of a small file.

    Raises:
        IrdistillError: it is not UTF-8, too large, or as `open_bytes`.
    """
    with open_bytes(path) as stream, explain_damage(path):
        data = stream.read(LARGEST_TEXT + 1)
    if len(data) > LARGEST_TEXT:
        raise IrdistillError(
            f"{path} has more than {LARGEST_TEXT >> 20} MiB of text, and is read as a whole; split"
            " it, or give it as lines (JSONL, TSV)."
        )
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise IrdistillError(
            f"{path} is not UTF-8 ({error.reason} at byte {error.start}); convert the file."
        ) from error
