"""The text of a document from its blocks: headings, paragraphs, list items, code and table rows."""

from __future__ import annotations

import re
from typing import NamedTuple

_HEADING_LIKE = re.compile(r"^(#{1,6}(?:[ \t]|$))", re.MULTILINE)
_DEEPEST = 6
_CODE_INDENT = "    "


class ExtractedText(NamedTuple):
    """What a file holds.

    Attributes:
        title: empty if the file has none.
        encoding: of the characters; empty for formats that define it, such as PDF.
    """

    title: str
    text: str
    encoding: str = ""


class TextBlocks:
    """Collects the blocks of a document in their order.

    Blocks are separated by a blank line; items of a list and rows of a table follow each other
    directly. Only headings begin with ``#``: code is indented by four spaces, and such a line of a
    paragraph gets a backslash, as in Markdown.

    Examples:
        >>> blocks = TextBlocks()
        >>> blocks.heading(2, "Install"); blocks.paragraph("Use  pip."); blocks.code("# now")
        >>> blocks.text()
        '## Install\\n\\nUse pip.\\n\\n    # now'
        >>> blocks.extracted("").title
        'Install'
    """

    def __init__(self) -> None:
        self._blocks: list[tuple[str, str]] = []
        self._headings: list[tuple[int, str]] = []
        """The number of the block of each heading, and its text."""

    def heading(self, level: int, text: str) -> None:
        """Add a heading; levels above 6 count as 6."""
        words = " ".join(text.split())
        if words:
            self._headings.append((len(self._blocks), words))
            self._blocks.append(("heading", f"{'#' * min(level, _DEEPEST)} {words}"))

    def paragraph(self, text: str) -> None:
        """Add a paragraph; white space is collapsed."""
        self._add("paragraph", " ".join(text.split()))

    def lines(self, text: str) -> None:
        """Add a paragraph whose line breaks are kept."""
        kept = (" ".join(line.split()) for line in text.splitlines())
        self._add("paragraph", "\n".join(line for line in kept if line))

    def item(self, text: str) -> None:
        """Add an item of a list."""
        words = " ".join(text.split())
        self._add("item", f"- {words}" if words else "")

    def row(self, cells: list[str]) -> None:
        """Add a row of a table."""
        words = [" ".join(cell.split()) for cell in cells]
        self._add("row", " | ".join(words) if any(words) else "")

    def code(self, text: str) -> None:
        """Add lines whose white space is kept."""
        lines = text.expandtabs().strip("\n").splitlines()
        indented = (f"{_CODE_INDENT}{line.rstrip()}" if line.strip() else "" for line in lines)
        self._add("code", "\n".join(indented))

    def _add(self, kind: str, text: str) -> None:
        if text.strip():
            plain = text if kind == "code" else _HEADING_LIKE.sub(r"\\\1", text)
            self._blocks.append((kind, plain))

    def text(self, first: int = 0) -> str:
        """The blocks from ``first`` on as one text."""
        parts: list[str] = []
        before = ""
        for kind, text in self._blocks[first:]:
            if parts:
                parts.append("\n" if kind == before and kind in ("item", "row") else "\n\n")
            parts.append(text)
            before = kind
        return "".join(parts)

    def extracted(self, title: str, encoding: str = "") -> ExtractedText:
        """The text with its title, which is by default the first heading.

        A heading at the beginning that repeats the title is left out of the text.
        """
        words = " ".join(title.split()) or (self._headings[0][1] if self._headings else "")
        repeats = bool(self._headings) and self._headings[0] == (0, words)
        rest = self.text(1) if repeats else self.text()
        return ExtractedText(words, rest or (words if repeats else ""), encoding)
