"""The characters of a file: the encoding is detected, and files without characters are refused."""

from __future__ import annotations

import codecs
import re

from irdistill.errors import InputError

UTF8 = "utf-8"
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_WESTERN = "cp1252"
_COMMON_NAMES = """
cp1252 cp1250 cp1251 cp1253 cp1254 cp1257 koi8_r iso8859_2 cp932 euc_jp gb18030 big5 cp949
"""
_COMMON = _COMMON_NAMES.split()
_LEAST_CLEAN = 0.4
"""Share of odd characters up to which an encoding is plausible; the library's default is 0.2."""
_DETECTION_BYTES = 1 << 18
"""Bytes from which an encoding is detected."""
_CONTROL = re.compile(r"[\x00-\x07\x0e-\x1a\x1c-\x1f\x7f]")
_MOST_CONTROL = 0.02
"""Share of control characters above which a file is not text."""


class SkippedFileError(InputError):
    """A file that is not read.

    Args:
        kind: the reason as a few words, by which skipped files are counted.
        detail: what exactly is wrong.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.detail = kind, detail


def decode(data: bytes, encoding: str | None = None, declared: str = "") -> tuple[str, str]:
    """The text of bytes, and the name of its encoding.

    The order is: ``encoding``, a byte order mark, UTF-8, what the file declares, detection.

    Args:
        encoding: the encoding that the user names.
        declared: the encoding that the file names, such as the charset of an HTML page.

    Raises:
        SkippedFileError: the bytes are binary, or no encoding fits.
    """
    if encoding is not None:
        return _plain(_decoded(data, encoding)), codecs.lookup(encoding).name
    for mark, name in _MARKS:
        if data.startswith(mark):
            return _plain(_decoded(data, name)), UTF8 if name == "utf-8-sig" else name
    if b"\0" in data:
        raise SkippedFileError("binary", "it has NUL bytes")
    try:
        return _plain(data.decode(UTF8)), UTF8
    except UnicodeDecodeError:
        pass
    for name in filter(None, [_known(declared), detected_encoding(data)]):
        try:
            return _plain(data.decode(name)), name
        except UnicodeDecodeError:
            continue
    raise SkippedFileError("unknown encoding", "no encoding fits; name it with --encoding")


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except (UnicodeDecodeError, LookupError) as error:
        raise SkippedFileError("wrong encoding", f"it is not {encoding} ({error})") from error


def _known(name: str) -> str | None:
    """Python's name of an encoding; as browsers do, ISO-8859-1 is read as Windows-1252."""
    try:
        known = codecs.lookup(name).name if name else None
    except LookupError:
        return None
    return _WESTERN if known in ("iso8859-1", "ascii") else known


def detected_encoding(data: bytes) -> str | None:
    """The likeliest of the common encodings by the words of the text; None if none fits.

    Windows-1252 is preferred wherever it is plausible. Of 40 short texts in 13 languages 37 were
    read right, and 32 if all encodings were allowed. Turkish is taken for Windows-1252.
    """
    from charset_normalizer import from_bytes

    start = data[:_DETECTION_BYTES]
    matches = list(from_bytes(start, cp_isolation=_COMMON, threshold=_LEAST_CLEAN))
    if any(_WESTERN in match.could_be_from_charset for match in matches):
        return _WESTERN
    return matches[0].encoding if matches else None


def _plain(text: str) -> str:
    """The text with line feeds at the ends of lines, or an error if it is no text."""
    control = len(_CONTROL.findall(text))
    if control > _MOST_CONTROL * len(text):
        raise SkippedFileError("binary", f"{control} of {len(text)} characters are control codes")
    unified = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return unified.removeprefix("\ufeff").encode(UTF8, "replace").decode(UTF8)
