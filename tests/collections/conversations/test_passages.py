"""Passages in their published formats: the same documents in the same order; errors name the line."""

from __future__ import annotations

import bz2
import gzip
import json
import zipfile
from pathlib import Path

import pytest

from irdistill.collections import Document, load_collection
from irdistill.collections.conversations.passages import passage_files, read_passages
from irdistill.errors import IrdistillError
from tests.collections.conversations import published

LINES = b'{"id": "a:0", "contents": "first"}\n{"_id": 2, "title": "T", "text": "second"}\n'
DOCUMENTS = [Document("a:0", "", "first", 1), Document("2", "T", "second", 2)]


def packed(folder: Path, kind: str) -> Path:
    path = folder / f"p.jsonl{kind}"
    if kind == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("in/p.jsonl", LINES)
            archive.writestr("in/README.md", "no passages")
    else:
        path.write_bytes({"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}[kind](LINES))
    return path


@pytest.mark.parametrize("kind", ["", ".gz", ".bz2", ".zip"])
def test_compressed_passages_are_read(kind: str, tmp_path: Path) -> None:
    assert list(read_passages(passage_files(packed(tmp_path, kind)))) == DOCUMENTS


def test_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "2.tsv").write_text('x\ta "quoted text\ny\tno more\n')
    packed(tmp_path, ".gz").rename(tmp_path / "a.jsonl.gz")
    (tmp_path / "README.md").write_text("no passages")
    assert list(read_passages(passage_files(tmp_path))) == [
        *DOCUMENTS,
        Document("x", "", 'a "quoted text', 3),
        Document("y", "", "no more", 4),
    ]


def test_table_with_a_header_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "w.tsv").write_text(
        'id\ttext\ttitle\n1\t"say ""it"""\tPage [SEP] Part\n2\t"two\n\nlines"\tPage [SEP] Other\n'
    )
    assert list(read_passages(passage_files(tmp_path / "w.tsv"))) == [
        Document("1", "Page Part", 'say "it"', 1),
        Document("2", "Page Other", "two\n\nlines", 2),
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "p.jsonl",
            b'{"id": "1", "contents": "x"}\n{"id": "2"}\n',
            'line 2 of .*p.jsonl has no "text" and no "contents"',
        ),
        (
            "p.jsonl",
            b'{"contents": "x"}\n',
            'line 1 of .*p.jsonl is broken: expected a non-empty "id"',
        ),
        (
            "p.tsv",
            b"1\tx\nno tab\n",
            "line 2 of .*p.tsv is broken: expected an id, a tab and a text",
        ),
        (
            "p.tsv",
            b"id\ttext\ttitle\n1\n",
            "line 2 of .*p.tsv has 1 columns; expected were id, text, title",
        ),
        ("p.jsonl.bz2", b"not packed", "ends or breaks after line 0"),
        ("p.jsonl.zip", b"not packed", "is a damaged archive"),
        ("p.trecweb", b"<DOC>", "is no passages in a format that is read"),
    ],
)
def test_message_names_the_broken_line(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(IrdistillError, match=said):
        list(read_passages(passage_files(tmp_path / name)))


def test_message_for_missing_passages_names_the_publisher(tmp_path: Path) -> None:
    published.topiocqa(tmp_path / "t")
    (tmp_path / "t" / "full_wiki_segments.tsv").unlink()
    with pytest.raises(
        IrdistillError,
        match=r"no passages: none of full_wiki_segments.tsv\*, passages.*zenodo.org/rec",
    ):
        load_collection(tmp_path / "t", cache=tmp_path / "c")


def test_corpus_txt_names_a_path_or_a_collection(tmp_path: Path) -> None:
    published.cast(tmp_path / "cast", 2021)
    (tmp_path / "cast" / "passages.jsonl").rename(tmp_path / "elsewhere.jsonl")
    (tmp_path / "cast" / "corpus.txt").write_text("../elsewhere.jsonl\n")
    first = load_collection(tmp_path / "cast", cache=tmp_path / "c")
    beir = tmp_path / "beir"
    published.lines(
        beir / "corpus.jsonl",
        [{"_id": key, "text": text} for key, text in published.PASSAGES.items()],
    )
    published.lines(beir / "queries.jsonl", [{"_id": "q", "text": "another question"}])
    (tmp_path / "cast" / "corpus.txt").write_text(str(beir))
    assert (
        load_collection(tmp_path / "cast", cache=tmp_path / "c").corpus.fingerprint
        == first.corpus.fingerprint
    )
    (tmp_path / "cast" / "corpus.txt").write_text("no-such/collection")
    (tmp_path / "cast" / "corpus-2021.txt").write_text("../elsewhere.jsonl")
    assert (
        load_collection(tmp_path / "cast", cache=tmp_path / "c").corpus.fingerprint
        == first.corpus.fingerprint
    )
    (tmp_path / "cast" / "corpus-2021.txt").write_text("\n")
    with pytest.raises(IrdistillError, match=r"corpus-2021.txt is empty"):
        load_collection(tmp_path / "cast", cache=tmp_path / "c")
    (tmp_path / "cast" / "corpus-2021.txt").unlink()
    with pytest.raises(IrdistillError, match=r"there is no collection 'no-such/collection'"):
        load_collection(tmp_path / "cast", cache=tmp_path / "c")


def test_changed_passages_are_compiled_again(tmp_path: Path) -> None:
    published.cast(tmp_path / "cast", 2021)
    first = load_collection(tmp_path / "cast", cache=tmp_path / "c").corpus.fingerprint
    again = load_collection(tmp_path / "cast", cache=tmp_path / "c")
    assert (
        again.corpus.fingerprint == first and len(list((tmp_path / "c/corpora").glob("[!.]*"))) == 1
    )
    with open(tmp_path / "cast" / "passages.jsonl", "a") as stream:
        stream.write(json.dumps({"id": "p4", "contents": "one more"}) + "\n")
    assert len(load_collection(tmp_path / "cast", cache=tmp_path / "c").corpus) == 4


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ('1\t"hello\tT1\n2\tworld\tT2\n', [("1", "T1", '"hello'), ("2", "T2", "world")]),
        ('1\t"Hello" he said\tT\n', [("1", "T", '"Hello" he said')]),
        ('1\t"a\tb ""c"""\tT\n', [("1", "T", 'a\tb "c"')]),
        ('1\tsaid "x\tT"1\n2\ty\t\n', [("1", 'T"1', 'said "x'), ("2", "", "y")]),
    ],
)
def test_quote_does_not_consume_other_rows(
    tmp_path: Path, rows: str, expected: list[tuple[str, str, str]]
) -> None:
    for mark in ("", "\ufeff"):
        (tmp_path / "p.tsv").write_text(mark + "id\ttext\ttitle\n" + rows, encoding="utf-8")
        assert [
            document[:3] for document in read_passages(passage_files(tmp_path / "p.tsv"))
        ] == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id\ttext\ttitle\n1\ta\tb\tT\n", "line 2 .*has 4 columns; expected were id, text, title"),
        ("id\ttext\ttitle\n1\ta\n2\tb\tT\n", "line 2 .*has 2 columns"),
        ('id\ttext\ttitle\n1\t"a\n2\tb\tT\n', "line 2 .*a quote is opened"),
        ('id\ttext\ttitle\n1\t"a\nb\n', "line 2 .*a quote is opened"),
        ("1\ta\tb\n", "line 1 .*has 3 columns, and without a header"),
    ],
)
def test_rows_of_another_width(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.tsv").write_text(text)
    with pytest.raises(IrdistillError, match=words):
        list(read_passages(passage_files(tmp_path / "p.tsv")))


def test_columns_of_passages_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "p.tsv").write_text("Title\tpassage_id\tcontents\nT\t7\tx\n")
    assert [document[:3] for document in read_passages(passage_files(tmp_path / "p.tsv"))] == [
        ("7", "T", "x")
    ]
