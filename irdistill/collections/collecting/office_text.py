"""Text of PDF and of Word documents, with the libraries of the extra ``files``."""

from __future__ import annotations

import io
import logging
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from irdistill.collections.collecting.decoding import SkippedFileError
from irdistill.collections.collecting.text_blocks import ExtractedText, TextBlocks
from irdistill.errors import one_line

_MOST_UNPACKED = 1 << 28
"""Bytes of the unpacked parts of a Word document; 1 MB can hold 1 GB."""
_PLACEHOLDER = re.compile(r"untitled|microsoft word - .*|word document|\S+\.(?:docx?|pdf|tex|dvi)")
_LONGEST_TITLE = 200
_STYLE = re.compile(r"heading (\d)", re.IGNORECASE)


def read_pdf(data: bytes, encoding: str | None = None) -> ExtractedText:
    """Title and text of a PDF. Lines that its outline names are headings.

    Raises:
        SkippedFileError: it is encrypted, damaged, or has no text (scanned pages).
    """
    from pypdf import PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    blocks = TextBlocks()
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise SkippedFileError("encrypted", "it needs a password")
        headings = dict(_outline(reader.outline, 1))
        for page in reader.pages:
            _add_page(blocks, page.extract_text(), headings)
        title = str((reader.metadata or {}).get("/Title") or "")
    except SkippedFileError:
        raise
    except (Exception, RecursionError) as error:
        raise _damaged("PDF", error) from error
    if not blocks.text():
        raise SkippedFileError("no text", "its pages are images; recognize their text first")
    return _titled(blocks, title)


def _outline(entries: list[Any], level: int) -> Iterator[tuple[str, int]]:
    """The titles of an outline, and their levels."""
    for entry in entries:
        if isinstance(entry, list):
            yield from _outline(entry, level + 1)
        elif getattr(entry, "title", None):
            yield _plain(str(entry.title)), level


def _add_page(blocks: TextBlocks, text: str, headings: dict[str, int]) -> None:
    """Add the lines of a page; a blank line ends a paragraph."""
    lines: list[str] = []
    for line in [*text.encode("utf-8", "replace").decode("utf-8").splitlines(), ""]:
        level = headings.get(_plain(line))
        if level is None and line.strip():
            lines.append(line)
            continue
        blocks.lines("\n".join(lines))
        lines = []
        if level is not None:
            blocks.heading(level, line)


def _plain(line: str) -> str:
    return " ".join(line.split()).lower()


def read_docx(data: bytes, encoding: str | None = None) -> ExtractedText:
    """Title and text of a Word document. Paragraphs with heading styles are headings.

    Raises:
        SkippedFileError: it is damaged, or its unpacked parts are too large.
    """
    from docx import Document

    blocks = TextBlocks()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MOST_UNPACKED:
            raise SkippedFileError("too large", f"it unpacks to {unpacked >> 20} MiB")
        document = Document(io.BytesIO(data))
        for block in document.iter_inner_content():
            _add_word_block(blocks, block)
        title = document.core_properties.title or ""
    except SkippedFileError:
        raise
    except (Exception, RecursionError) as error:
        raise _damaged("Word document", error) from error
    return _titled(blocks, title)


def _add_word_block(blocks: TextBlocks, block: Any) -> None:
    if hasattr(block, "rows"):
        for row in block.rows:
            blocks.row([cell.text for cell in row.cells])
        return
    style = str(block.style.name or "") if block.style is not None else ""
    heading = _STYLE.fullmatch(style)
    if heading or style == "Title":
        blocks.heading(int(heading[1]) if heading else 1, block.text)
    elif style.startswith("List"):
        blocks.item(block.text)
    else:
        blocks.lines(block.text)


def _titled(blocks: TextBlocks, title: str) -> ExtractedText:
    """The text with the title of its properties, else its first line."""
    words = " ".join(title.split())
    if not words or _PLACEHOLDER.fullmatch(words.lower()):
        words = blocks.text().partition("\n")[0].lstrip("# ")[:_LONGEST_TITLE]
    return blocks.extracted(words)


def _damaged(what: str, error: BaseException) -> SkippedFileError:
    return SkippedFileError("damaged", f"it cannot be read as {what} ({one_line(error, 120)})")
