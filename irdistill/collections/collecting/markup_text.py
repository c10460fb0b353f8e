"""Text of HTML and Markdown."""

from __future__ import annotations

import re
from typing import Any

from irdistill.collections.collecting.decoding import SkippedFileError, decode
from irdistill.collections.collecting.text_blocks import ExtractedText, TextBlocks
from irdistill.errors import IrdistillError

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCK_TAGS = """
address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure
footer form header hr html legend li main menu nav ol p section summary table tbody td tfoot th
thead title tr ul
"""
_TAGS_LEFT_OUT = """
aside button canvas footer form head iframe input link meta nav noscript object script select style
svg template textarea
"""
_BLOCKS, _LEFT_OUT = frozenset(_BLOCK_TAGS.split()), frozenset(_TAGS_LEFT_OUT.split())
_LINK_SIGNS = frozenset({"#", "¶", "§"})
_ROLES_LEFT_OUT = frozenset({"navigation", "search", "contentinfo", "complementary", "banner"})
_LAYOUT_CELL = " | ".join(f"./td//{tag}" for tag in ("table", "pre", "ul", "ol", "div", *_HEADINGS))
"""What a cell of a table of data does not hold; old pages are laid out by tables."""
_CHARSET = re.compile(rb"<(?:meta|\?xml)[^>]{0,200}?(?:charset|encoding)\s*=\s*[\"']?\s*([\w.:-]+)")
_HEADER_BYTES = 4096
_MARK = re.compile(r"[\[*_`<!&\\]")
_MOST_MARKS = 1000
"""Marks of a paragraph whose markup is parsed. The time grows with the square of their number:
200,000 brackets took 11 s, and 1,000 take 2 ms.
"""
_FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)


def read_html(data: bytes, encoding: str | None = None) -> ExtractedText:
    """Title and text of an HTML page, without scripts, navigation, forms and footers.

    A page with one ``<main>`` is read from there on.

    Raises:
        SkippedFileError: the page cannot be read, or is nested too deeply.
    """
    declared = _CHARSET.search(data[:_HEADER_BYTES].lower())
    text, name = decode(data, encoding, declared[1].decode("ascii") if declared else "")
    root = _parsed(text)
    blocks = TextBlocks()
    if root is None:
        return blocks.extracted("", name)
    mains = root.xpath("//main | //*[@role='main']")
    _HtmlReader(blocks).read(mains[0] if len(mains) == 1 else root)
    title = root.find(".//head/title")
    return blocks.extracted(title.text or "" if title is not None else "", name)


def read_markdown(data: bytes, encoding: str | None = None) -> ExtractedText:
    """Title and text of a Markdown file. A ``title`` in its front matter is the title."""
    text, name = decode(data, encoding)
    title, body = _front_matter(text)
    blocks = TextBlocks()
    add_markdown(blocks, body)
    return blocks.extracted(title, name)


def add_markdown(blocks: TextBlocks, text: str) -> None:
    """Add the blocks of a text in Markdown."""
    from markdown_it import MarkdownIt

    reader = _MarkdownReader(blocks)
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.at("inline", _parse_inline)
    for token in parser.parse(text):
        reader.add(token)


def _parse_inline(state: Any) -> None:
    """Parse the markup inside of blocks, except of those with very many marks, which are text."""
    for token in state.tokens:
        if token.type == "inline" and _is_parsed(token.content):
            state.md.inline.parse(token.content, state.md, state.env, token.children)


def _is_parsed(line: str) -> bool:
    return len(line) <= _MOST_MARKS or len(_MARK.findall(line)) <= _MOST_MARKS


class _MarkdownReader:
    """Adds the blocks of tokens of markdown-it."""

    def __init__(self, blocks: TextBlocks) -> None:
        self.blocks = blocks
        self._open: list[str] = []
        """Tags of the headings, items and rows that the next words are in."""
        self._cells: list[str] = []

    def add(self, token: Any) -> None:
        """Add a token."""
        if token.type in ("heading_open", "list_item_open", "tr_open"):
            self._open.append(token.tag)
            self._cells = []
        elif token.type in ("heading_close", "list_item_close", "tr_close"):
            if self._open.pop() == "tr":
                self.blocks.row(self._cells)
        elif token.type == "inline":
            is_parsed = _is_parsed(token.content)
            self._words(_inline(token.children or []) if is_parsed else token.content)
        elif token.type in ("fence", "code_block"):
            self.blocks.code(token.content)
        elif token.type == "html_block" and (root := _parsed(token.content)) is not None:
            _HtmlReader(self.blocks).read(root)

    def _words(self, words: str) -> None:
        tag = self._open[-1] if self._open else ""
        if tag == "tr":
            self._cells.append(words)
        elif tag in _HEADINGS:
            self.blocks.heading(_HEADINGS[tag], words)
        elif tag == "li":
            self.blocks.item(words)
            self._open[-1] = ""
        else:
            self.blocks.paragraph(words)


def _inline(tokens: list[Any]) -> str:
    """The words of a line: code and image descriptions as they are, without markup."""
    words = []
    for token in tokens:
        if token.type in ("text", "code_inline", "image"):
            words.append(token.content)
        elif token.type in ("softbreak", "hardbreak"):
            words.append(" ")
    return "".join(words)


def _front_matter(text: str) -> tuple[str, str]:
    """The title in the front matter, and the text after it."""
    from irdistill.storage.plain_data import parse_yaml

    match = _FRONT_MATTER.match(text)
    if match is None:
        return "", text
    try:
        values = parse_yaml(match[1], "front matter")
    except IrdistillError:
        return "", text
    if not isinstance(values, dict):
        return "", text
    title = values.get("title")
    return title if isinstance(title, str) else "", text[match.end() :]


def _parsed(text: str) -> Any:
    """The root element of a page; None if it has no element."""
    from lxml import etree, html

    parser = html.HTMLParser(encoding="utf-8", huge_tree=False)
    if not text.strip():
        return None
    try:
        root = html.document_fromstring(text.encode("utf-8"), parser=parser)
    except (etree.LxmlError, ValueError) as error:
        if "empty" in str(error):
            return None
        raise SkippedFileError("damaged", f"it cannot be parsed as HTML ({error})") from error
    # some versions of libxml2 cut the tree there and say so, others do not
    cut = any(entry.type_name == "ERR_RESOURCE_LIMIT" for entry in parser.error_log)
    if cut or _is_deeper(root, 256):
        raise SkippedFileError("damaged", "its HTML elements are nested more than 256 deep")
    return root


def _is_deeper(root: Any, limit: int) -> bool:
    from lxml import etree

    depth = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        if depth > limit:
            return True
    return False


class _HtmlReader:
    """Adds the blocks of elements. The parser limits the depth of the recursion."""

    def __init__(self, blocks: TextBlocks) -> None:
        self.blocks = blocks
        self._words: list[str] = []
        self._item = False
        self._cells: list[str] | None = None

    def read(self, element: Any) -> None:
        """Add an element and all below it."""
        self._element(element)
        self._flush()

    def _element(self, element: Any) -> None:
        tag = element.tag
        if not isinstance(tag, str) or self._is_left_out(element, tag):
            return
        if tag in _HEADINGS and self._cells is None:
            self._flush()
            self.blocks.heading(_HEADINGS[tag], _text(element))
        elif tag == "pre" and self._cells is None:
            self._flush()
            self.blocks.code(_text(element))
        elif tag == "br":
            self._words.append("\n")
        elif tag == "img":
            self._words.append(f" {element.get('alt') or ''} ")
        elif tag == "tr" and self._cells is None and not element.xpath(_LAYOUT_CELL):
            self._row(element)
        elif tag in _BLOCKS:
            self._block(element, tag)
        else:
            self._children(element)

    def _is_left_out(self, element: Any, tag: str) -> bool:
        return (
            tag in _LEFT_OUT
            or element.get("role") in _ROLES_LEFT_OUT
            or element.get("hidden") is not None
            or _is_permanent_link(element)
        )

    def _block(self, element: Any, tag: str) -> None:
        self._flush()
        self._item = self._item or tag == "li"
        self._children(element)
        self._flush()
        if tag == "li":
            self._item = False

    def _row(self, element: Any) -> None:
        self._flush()
        self._cells = []
        for cell in element:
            if cell.tag in ("td", "th"):
                self._element(cell)
        cells, self._cells = self._cells, None
        self.blocks.row(cells)

    def _children(self, element: Any) -> None:
        if element.text:
            self._words.append(element.text)
        for child in element:
            self._element(child)
            if child.tail:
                self._words.append(child.tail)

    def _flush(self) -> None:
        """End the current block."""
        words = " ".join("".join(self._words).split())
        self._words = []
        if self._cells is not None:
            if words:
                self._cells.append(words)
        elif self._item:
            self.blocks.item(words)
            self._item = not words
        else:
            self.blocks.paragraph(words)


def _text(element: Any) -> str:
    """All text below an element, with line breaks, without permanent links to headings."""
    parts = [element.text or ""]
    for child in element:
        if isinstance(child.tag, str):
            if child.tag == "br":
                parts.append("\n")
            elif child.tag not in _LEFT_OUT and not _is_permanent_link(child):
                parts.append(_text(child))
        parts.append(child.tail or "")
    return "".join(parts)


def _is_permanent_link(element: Any) -> bool:
    """Whether an element is the sign beside a heading that links to it."""
    return element.tag == "a" and (element.text or "").strip() in _LINK_SIGNS and not len(element)
