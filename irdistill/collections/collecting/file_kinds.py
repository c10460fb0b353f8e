"""The kinds of files that are documents, and the reader of each."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from typing import NamedTuple

from irdistill.collections.collecting.markup_text import read_html, read_markdown
from irdistill.collections.collecting.office_text import read_docx, read_pdf
from irdistill.collections.collecting.structured_text import read_plain, read_rst
from irdistill.collections.collecting.text_blocks import ExtractedText
from irdistill.collections.text_files import uncompressed_name
from irdistill.errors import MissingExtraError


class FileKind(NamedTuple):
    """A kind of files.

    Attributes:
        read: title and text of the bytes, with the encoding that the user names.
        library: its library, if it is that of the extra ``files``.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[bytes, str | None], ExtractedText]
    library: str = ""


PLAIN = FileKind("text", (".txt", ".text"), read_plain)
KINDS = (
    PLAIN,
    FileKind("Markdown", (".md", ".markdown"), read_markdown),
    FileKind("reStructuredText", (".rst",), read_rst),
    FileKind("HTML", (".html", ".htm", ".xhtml"), read_html),
    FileKind("PDF", (".pdf",), read_pdf, "pypdf"),
    FileKind("Word", (".docx",), read_docx, "docx"),
)
TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
"""Endings of tables, which hold a document in each row."""
SUFFIXES = ", ".join(suffix for kind in KINDS for suffix in kind.suffixes)
_KIND_OF = {suffix: kind for kind in KINDS for suffix in kind.suffixes}


def suffix_of(name: str) -> str:
    """The ending of a file name in lower case, without that of a compression.

    Examples:
        >>> suffix_of("guide/Install.MD.gz")
        '.md'
    """
    stem, dot, ending = uncompressed_name(name).lower().rpartition(".")
    return f".{ending}" if dot and stem else ""


def kind_of(name: str) -> FileKind | None:
    """The kind of a file by its name; None if it is unknown or a table."""
    return _KIND_OF.get(suffix_of(name))


def is_table(name: str) -> bool:
    """Whether a file is a table by its name."""
    return suffix_of(name) in TABLES


def require_libraries(kinds: Iterable[FileKind], place: str) -> None:
    """Check that the libraries of kinds are installed.

    Raises:
        MissingExtraError: one is not.
    """
    for kind in kinds:
        if kind.library and importlib.util.find_spec(kind.library) is None:
            pattern = " ".join(f"'*{suffix}'" for suffix in kind.suffixes)
            why = (
                f"{place} holds {kind.name} files (leave them out with --exclude {pattern}), which"
            )
            raise MissingExtraError(kind.library, "files", why)
