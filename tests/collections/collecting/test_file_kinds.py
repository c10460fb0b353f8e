"""Title and text of each kind of file, against texts written by hand."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill.collections.collecting.decoding import SkippedFileError, decode
from irdistill.collections.collecting.file_kinds import KINDS, kind_of, suffix_of
from irdistill.collections.collecting.markup_text import read_html, read_markdown
from irdistill.collections.collecting.office_text import read_docx, read_pdf
from irdistill.collections.collecting.structured_text import read_plain, read_rst
from irdistill.collections.collecting.text_blocks import ExtractedText, TextBlocks

Reader = Callable[[bytes, "str | None"], ExtractedText]


def pdf(pages: list[list[str]], title: str = "", outline: dict[str, int] | None = None) -> bytes:
    """A PDF with lines of text on each page, a title, and an outline of line -> page."""
    pytest.importorskip("pypdf")
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = DictionaryObject(
        {
            NameObject("/Type"): NameObject("/Font"),
            NameObject("/Subtype"): NameObject("/Type1"),
            NameObject("/BaseFont"): NameObject("/Helvetica"),
        }
    )
    for lines in pages:
        page = writer.add_blank_page(612, 792)
        page[NameObject("/Resources")] = DictionaryObject(
            {NameObject("/Font"): DictionaryObject({NameObject("/F1"): font})}
        )
        stream = DecodedStreamObject()
        words = "".join(f"({line}) Tj 0 -20 Td\n" for line in lines)
        stream.set_data(f"BT /F1 12 Tf 72 700 Td\n{words}ET".encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    for name, number in (outline or {}).items():
        writer.add_outline_item(name, number)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def docx(blocks: list[tuple[str, str]], title: str = "") -> bytes:
    """A Word document of (style, text); the style ``table`` is a row with cells between bars."""
    pytest.importorskip("docx")
    from docx import Document

    document = Document()
    document.core_properties.title = title
    for style, text in blocks:
        if style == "table":
            cells = text.split("|")
            table = document.add_table(1, len(cells))
            for place, cell in enumerate(cells):
                table.cell(0, place).text = cell
        else:
            document.add_paragraph(text, style=style)
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def test_markdown() -> None:
    source = """---
title: "The guide"
---
# Install *now*

Use `pip`
to [install](http://x) it. ![A dog](d.png)

Second level
------------

- one
- two

  more

```python
# no heading
x = 1
```

| a | b |
|---|---|
| 1 | 2 |

<details><summary>More</summary><h3>Inner</h3><p>HTML text</p></details>

\\# no heading either
"""
    extracted = read_markdown(source.encode())
    assert extracted.title == "The guide"
    assert extracted.text == (
        "# Install now\n\nUse pip to install it. A dog\n\n## Second level\n\n- one\n- two\n\nmore\n\n"
        "    # no heading\n    x = 1\n\na | b\n1 | 2\n\nMore\n\n### Inner\n\nHTML text\n\n"
        "\\# no heading either"
    )


@pytest.mark.parametrize("marks", ["[", "*a **b ", "<a ", "[x](", "`` ` "])
def test_very_many_marks_in_a_paragraph_are_text(marks: str) -> None:
    long = (marks * 60_000).strip()
    began = time.process_time()
    text = read_markdown(f"# A *title*\n\n{long}\n\n*short* `one`\n".encode(), None)
    assert time.process_time() - began < 5
    assert (text.title, text.text) == ("A title", f"{long}\n\nshort one")


def test_the_first_heading_is_the_title_and_is_not_repeated() -> None:
    assert read_markdown(b"# Cats\n\nThey purr.") == ("Cats", "They purr.", "utf-8")
    assert read_markdown(b"Intro.\n\n# Cats\n\nThey purr.") == (
        "Cats",
        "Intro.\n\n# Cats\n\nThey purr.",
        "utf-8",
    )
    assert read_markdown(b"# Cats") == ("Cats", "Cats", "utf-8")
    assert read_markdown(b"---\n- no\n- title\n---\nText")[1] != ""


def test_html() -> None:
    page = """<!doctype html><html><head><title> Cats &amp; dogs </title><style>p {}</style></head>
    <body><nav>Home | About</nav><header><h1>Animals<a class="headerlink" href="#a">¶</a></h1></header>
    <h2>More <a href="#m">#</a></h2><p>They <b>purr</b><br>and <i>sl</i>eep.<script>alert(1)</script></p>
    <ul><li>one</li><li><p>two</p><p>more</p></li></ul>
    <pre>x = 1
  # y</pre>
    <table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td><b>2</b></td></tr></table>
    <dl><dt>term</dt><dd>its meaning</dd></dl>
    <img alt="A cat"><aside>Advert</aside><footer>(c)</footer></body></html>"""
    assert read_html(page.encode()) == (
        "Cats & dogs",
        "# Animals\n\n## More\n\nThey purr and sleep.\n\n- one\n- two\n\nmore\n\n    x = 1\n      # y\n\n"
        "a | b\n1 | 2\n\nterm\n\nits meaning\n\nA cat",
        "utf-8",
    )


def test_html_with_a_main_part_and_without_a_title() -> None:
    page = "<div>menu</div><main><h1>Cats</h1><p>They purr.</p></main><div>end</div>"
    assert read_html(page.encode()) == ("Cats", "They purr.", "utf-8")
    layout = "<table><tr><td><h2>Left</h2><p>a</p></td><td><ul><li>b</ul></td></tr></table>"
    assert read_html(layout.encode()).text == "a\n\n- b"
    assert read_html(layout.encode()).title == "Left"


def test_html_declares_its_encoding() -> None:
    page = '<meta charset="iso-8859-1"><p>Größe €</p>'.encode("cp1252")
    assert read_html(page) == ("", "Größe €", "cp1252")
    assert read_html("<p>Größe</p>".encode("utf-16")).text == "Größe"


@pytest.mark.parametrize("depth", [300, 200_000])
def test_deeply_nested_html_is_refused_at_once(depth: int) -> None:
    start = time.process_time()
    with pytest.raises(SkippedFileError, match="256 deep"):
        read_html(b"<p>x</p>" + b"<div>" * depth)
    assert time.process_time() - start < 2


def test_rst() -> None:
    source = """
Cats
====

They *purr*, see :class:`~zoo.Cat`, :ref:`the list <cats>` and ``code``.

.. note:: Careful.

.. comment

.. py:function:: feed(cat)
   :noindex:

   Feeds *one* cat.

   .. versionadded:: 1.2

      Also dogs.

Food
----

:Author: me
:orphan:

1. fish
2. milk

   cold

::

   # no heading

=====  =====
a      b
=====  =====
1      2
=====  =====
"""
    extracted = read_rst(source.encode())
    assert extracted.title == "Cats"
    assert extracted.text == (
        "They purr, see zoo.Cat, the list and code.\n\nCareful.\n\nfeed(cat)\n\nFeeds one cat.\n\n"
        "1.2\n\nAlso dogs.\n\n## Food\n\nAuthor: me\n\n- fish\n- milk\n\ncold\n\n    # no heading\n\n"
        "a | b\n1 | 2"
    )


def test_rst_reads_no_other_file(tmp_path: object) -> None:
    source = b".. include:: /etc/passwd\n\n.. csv-table::\n   :file: /etc/passwd\n\nEnd."
    assert "root" not in read_rst(source).text and "End." in read_rst(source).text


def test_plain_text_is_kept_as_it_is() -> None:
    text = "NAME\r\n  ls - list\r\n\r\n# not touched\r\n"
    assert read_plain(text.encode()) == ("", "NAME\n  ls - list\n\n# not touched", "utf-8")


def test_pdf() -> None:
    data = pdf([["Cats", "They purr", "and sleep."], ["Food", "Fish."]], "", {"Cats": 0, "Food": 1})
    assert read_pdf(data) == ("Cats", "They purr\nand sleep.\n\n# Food\n\nFish.", "")
    assert read_pdf(pdf([["One line", "more"]])).title == "One line"
    late = pdf([["Manual", "by me"], ["Index", "a"]], "", {"Index": 1})
    assert read_pdf(late) == ("Manual", "Manual\nby me\n\n# Index\n\na", "")
    assert read_pdf(pdf([["Text"]], "A title")).title == "A title"
    assert read_pdf(pdf([["Text"]], "Microsoft Word - draft.doc")).title == "Text"


def test_pdf_that_cannot_be_read() -> None:
    with pytest.raises(SkippedFileError, match="no text: its pages are images"):
        read_pdf(pdf([[]]))
    with pytest.raises(SkippedFileError, match="damaged: it cannot be read as PDF"):
        read_pdf(b"%PDF-1.7\nnothing")
    from pypdf import PdfReader, PdfWriter

    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([["secret"]]))))
    writer.encrypt("pass", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    with pytest.raises(SkippedFileError, match="encrypted"):
        read_pdf(out.getvalue())


def test_docx() -> None:
    blocks = [
        ("Title", "Cats"),
        ("Normal", "They purr."),
        ("Heading 2", "Food"),
        ("List Bullet", "fish"),
        ("List Bullet", "milk"),
        ("table", "a|b"),
    ]
    text = "They purr.\n\n## Food\n\n- fish\n- milk\n\na | b"
    assert read_docx(docx(blocks)) == ("Cats", text, "")
    assert read_docx(docx(blocks, "All cats")) == ("All cats", f"# Cats\n\n{text}", "")
    assert read_docx(docx([("Normal", "A line.\nMore")])).title == "A line."


def test_docx_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SkippedFileError, match="damaged: it cannot be read as Word document"):
        read_docx(b"PK\x03\x04")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", b"\0" * (1 << 21))
    monkeypatch.setattr("irdistill.collections.collecting.office_text._MOST_UNPACKED", 1 << 20)
    with pytest.raises(SkippedFileError, match="too large: it unpacks to 2 MiB"):
        read_docx(out.getvalue())


def test_only_headings_begin_with_a_hash() -> None:
    blocks = TextBlocks()
    blocks.heading(9, "deep")
    blocks.heading(1, "  ")
    for add in (blocks.paragraph, blocks.lines, blocks.item, blocks.code):
        add("# x")
    blocks.row(["# a", "b"])
    blocks.paragraph("#tag")
    lines = [line for line in blocks.text().splitlines() if line.startswith("# ")]
    assert lines == [] and blocks.text().startswith(
        "###### deep\n\n\\# x\n\n\\# x\n\n- # x\n\n    # x"
    )
    assert blocks.text().endswith("\n\n#tag")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(KINDS))
def test_any_bytes_are_read_or_refused(data: bytes, kind: object) -> None:
    """No reader fails with another error, and what is read can be written as UTF-8."""
    try:
        extracted = kind.read(data, None)  # type: ignore[attr-defined]
    except SkippedFileError:
        return
    assert (extracted.title + extracted.text).encode("utf-8") is not None


WORDS = st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=5).map(" ".join), min_size=1, max_size=5))
def test_paragraphs_survive_in_each_kind(paragraphs: list[str]) -> None:
    expected = "\n\n".join(" ".join(text.split()) for text in paragraphs)
    html = "".join(f"<p>{text}</p>" for text in paragraphs)
    plain = "\n\n".join(paragraphs)
    assert read_html(html.encode()).text == expected
    assert read_plain(plain.encode()).text == plain.strip("\n").rstrip()


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe, façade, mañana: “so” – €", "cp1252"),
        ("Le déjà-vu est très étrange, à côté de l'été.", "cp1252"),
        ("Привет, как дела? Это простой русский текст о книгах.", "cp1251"),
        ("これは日本語のテキストです。東京へ行きます。", "cp932"),
    ],
)
def test_encodings_are_detected(text: str, encoding: str) -> None:
    assert decode(text.encode(encoding)) == (text, encoding)


def test_byte_order_marks_and_the_named_encoding() -> None:
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert decode("ä\r\nb".encode(encoding))[0] == "ä\nb"
    assert decode(b"\xe4", "iso8859-1") == ("ä", "iso8859-1")
    with pytest.raises(SkippedFileError, match="wrong encoding: it is not utf-8"):
        decode(b"\xe4", "utf-8")
    with pytest.raises(SkippedFileError, match="binary: it has NUL bytes"):
        decode(b"a\0b")
    with pytest.raises(SkippedFileError, match="binary: 4 of 5 characters"):
        decode(b"\x01\x02\x03\x04a")


@pytest.mark.parametrize(
    ("name", "suffix", "kind"),
    [
        ("a/B.TXT", ".txt", "text"),
        ("b.md.gz", ".md", "Markdown"),
        (".md", "", None),
        ("README", "", None),
        ("x.tar.gz", ".tar", None),
        ("page.htm", ".htm", "HTML"),
    ],
)
def test_kinds_by_name(name: str, suffix: str, kind: str | None) -> None:
    known = kind_of(name)
    assert suffix_of(name) == suffix and (known.name if known else None) == kind
