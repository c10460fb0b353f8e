"""Text of reStructuredText, and of plain text."""

from __future__ import annotations

import re
from typing import Any

from irdistill.collections.collecting.decoding import SkippedFileError, decode
from irdistill.collections.collecting.text_blocks import ExtractedText, TextBlocks
from irdistill.errors import one_line

_ROLE = re.compile(r":[\w:+.-]+:`([^`]*)`")
_TARGET = re.compile(r"\s*<[^<>]*>$")
_DIRECTIVE = re.compile(r"\.\. [\w:+.-]+::[ \t]*(.*)")
_OPTION = re.compile(r"\s+:[\w-]+:(?:\s|$)")
_SETTINGS = {
    "file_insertion_enabled": False,
    "raw_enabled": False,
    "report_level": 5,
    "halt_level": 5,
    "_disable_config": True,
    "smart_quotes": False,
    "doctitle_xform": False,
    "docinfo_xform": False,
    "line_length_limit": 1 << 20,
    "input_encoding": "unicode",
}
"""Settings of docutils: nothing outside of the text is read, and faults do not end the parsing."""


def read_plain(data: bytes, encoding: str | None = None) -> ExtractedText:
    """A text file as it is; it has no title."""
    text, name = decode(data, encoding)
    return ExtractedText("", text.strip("\n").rstrip(), name)


def read_rst(data: bytes, encoding: str | None = None) -> ExtractedText:
    """Title and text of reStructuredText. Directives of Sphinx count as their content.

    Raises:
        SkippedFileError: the text cannot be parsed.
    """
    text, name = decode(data, encoding)
    blocks = TextBlocks()
    _RstReader(blocks).read(_doctree(text), 0)
    return blocks.extracted("", name)


def _doctree(text: str) -> Any:
    """The parsed text."""
    from docutils.core import publish_doctree

    try:
        return publish_doctree(text, settings_overrides=dict(_SETTINGS))
    except (Exception, SystemExit) as error:
        detail = f"it cannot be parsed as reStructuredText ({one_line(error, 120)})"
        raise SkippedFileError("damaged", detail) from error


class _RstReader:
    """Adds the blocks of a tree of docutils."""

    def __init__(self, blocks: TextBlocks) -> None:
        self.blocks = blocks

    def read(self, node: Any, level: int) -> None:
        """Add the blocks below a node.

        Args:
            level: how many sections the node is in.
        """
        for child in node.children:
            self._block(child, level)

    def _block(self, node: Any, level: int) -> None:
        kind = type(node).__name__
        if kind == "section":
            self.read(node, level + 1)
        elif kind in ("title", "subtitle", "rubric"):
            self.blocks.heading(max(1, level), _words(node))
        elif kind in ("paragraph", "term", "caption", "attribution", "line", "image"):
            self.blocks.paragraph(_words(node) or node.get("alt", ""))
        elif kind in ("literal_block", "doctest_block", "math_block"):
            self.blocks.code(node.astext())
        elif kind == "list_item":
            self._item(node, level)
        elif kind == "row":
            self.blocks.row([_words(entry) for entry in node.children])
        elif kind == "field":
            name, body = map(_words, node.children)
            self.blocks.paragraph(f"{name}: {body}" if body.strip() else "")
        elif kind == "option_list_item":
            self.blocks.paragraph("  ".join(_words(part) for part in node.children))
        elif kind == "system_message":
            self._unknown_directive(node)
        elif kind not in ("comment", "substitution_definition", "target", "meta", "raw"):
            self.read(node, level)

    def _item(self, node: Any, level: int) -> None:
        first, rest = node.children[:1], node.children[1:]
        if first and type(first[0]).__name__ == "paragraph":
            self.blocks.item(_words(first[0]))
        else:
            rest = node.children
        for child in rest:
            self._block(child, level)

    def _unknown_directive(self, node: Any) -> None:
        """A directive that docutils does not know, such as those of Sphinx: its argument, and its
        content as reStructuredText.
        """
        for child in node.children:
            if type(child).__name__ != "literal_block":
                continue
            first, _, rest = child.astext().partition("\n")
            directive = _DIRECTIVE.match(first)
            if directive is None:
                continue
            self.blocks.paragraph(_without_roles(directive[1]))
            lines = [line for line in rest.split("\n") if not _OPTION.match(line)]
            content = _dedented(lines)
            if content.strip():
                self.read(_doctree(content), _DEEP)


_DEEP = 3
"""The level of headings in the content of a directive."""


def _dedented(lines: list[str]) -> str:
    import textwrap

    return textwrap.dedent("\n".join(lines)).strip("\n")


def _words(node: Any) -> str:
    """The words of a node, without roles of Sphinx that docutils does not know."""
    return _without_roles(node.astext())


def _without_roles(text: str) -> str:
    return _ROLE.sub(lambda match: _TARGET.sub("", match[1]).lstrip("~!"), text)
