"""Tables of documents: columns by name, separators, encodings, and errors that name the row."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill.collections.collecting.collect_options import CollectOptions
from irdistill.collections.collecting.collect_report import CollectReport
from irdistill.collections.collecting.document_columns import DocumentColumns, choose_columns
from irdistill.collections.collecting.hub_dataset import parse_hub_name
from irdistill.collections.collecting.row_tables import open_table, table_documents
from irdistill.errors import InputError


def read(path: Path, report: CollectReport | None = None, **settings: Any) -> list[tuple[str, ...]]:
    options = CollectOptions(**settings)
    table = open_table(path, options)
    columns = choose_columns(table.names, path.name, options)
    documents = table_documents(table, columns, path.name, report or CollectReport())
    return [document[:3] for document in documents]


def written(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["_id", "Title", "text"], ("_id", "Title", ("text",))),
        (["Doc-ID", "content"], ("Doc-ID", None, ("content",))),
        (["id", "passage"], ("id", None, ("passage",))),
        (["text", "body", "url"], (None, None, ("text",))),
        (["docno", "headline", "full text"], ("docno", "headline", ("full text",))),
    ],
)
def test_columns_by_their_names(names: list[str], columns: tuple[Any, ...]) -> None:
    assert choose_columns(names, "t.csv", CollectOptions()) == DocumentColumns(*columns)


def test_columns_by_the_user() -> None:
    names = ["id", "key", "title", "abstract", "body"]
    options = CollectOptions(id="key", title="-", text=("abstract", "Body"))
    assert choose_columns(names, "t.csv", options) == ("key", None, ("abstract", "body"))
    assert choose_columns(names, "t.csv", CollectOptions(id="-", text=("body",))).id is None


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        (["id", "docid", "text"], {}, "several columns that could be the id: id, docid.*--id id"),
        (["abstract", "body"], {}, "joined: --text abstract body"),
        (["a", "b"], {}, r"columns 'a', 'b', and no known name of the text.*--text NAME"),
        (["id", "text"], {"title": "name"}, r"no column 'name' \(--title\); it has 'id', 'text'"),
        ([], {}, "no columns"),
    ],
)
def test_columns_are_never_guessed(
    names: list[str], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        choose_columns(names, "t.csv", CollectOptions(**settings))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_header_decides_the_separator_of_csv(tmp_path: Path, separator: str) -> None:
    rows = [["id", "title", "text"], ["a", "T", 'one, "two"\nthree; four'], ["b", "", "five"]]
    out = io.StringIO()
    csv.writer(out, delimiter=separator).writerows(rows)
    path = written(tmp_path, "docs.csv", out.getvalue())
    assert read(path) == [("a", "T", 'one, "two"\nthree; four'), ("b", "", "five")]


def test_tsv_has_no_quotes_unless_it_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, "docs.tsv", 'id\ttext\n1\t"quoted" word\n2\t"x"\n')
    assert read(path) == [("1", "", '"quoted" word'), ("2", "", '"x"')]
    path = written(tmp_path, "docs.tsv", 'id\ttext\n1\t"a\tb\nc"\n')
    with pytest.raises(InputError, match=r"row 1 of .* has 3 cells, and 2 .*add --quotes"):
        read(path)
    assert read(path, quotes=True) == [("1", "", "a\tb\nc")]


def test_table_without_a_header(tmp_path: Path) -> None:
    path = written(tmp_path, "collection.tsv", "0\tThe first.\n1\tThe second.\n")
    with pytest.raises(InputError, match=r"'0', 'The first.', and no known name of the text"):
        read(path)
    assert read(path, header=False, id="1", text=("2",)) == [
        ("0", "", "The first."),
        ("1", "", "The second."),
    ]


def test_rows_without_ids_are_numbered_and_empty_rows_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "title,text\nT,one\n,\n,two\nOnly title,\n")
    report = CollectReport()
    expected = [("a.csv:1", "T", "one"), ("a.csv:3", "", "two"), ("a.csv:4", "Only title", "")]
    assert read(path, report) == expected
    assert report.skipped == {"empty row": 1}
    assert report.skipped_files == [{"file": "a.csv:2", "reason": "empty row"}]


def test_several_text_columns_are_joined(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", "id,abstract,body\n1,A,B\n2,,B\n")
    assert read(path, text=("abstract", "body")) == [("1", "", "A\n\nB"), ("2", "", "B")]


def test_encodings_of_tables(tmp_path: Path) -> None:
    text = "id,text\n1,Größe und Straße in München\n"
    for encoding in ("utf-8", "utf-8-sig", "cp1252"):
        assert read(written(tmp_path, "a.csv", text.encode(encoding)))[0][2] == text[10:-1]
    with pytest.raises(InputError, match=r"cannot be read after row 0 .*--encoding"):
        read(written(tmp_path, "a.csv", text.encode("cp1252")), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "id,text\n1,a,b\n", "row 1 of .* has 3 cells, and 2 were expected"),
        ("a.csv", 'id,text\n1,"a" b\n', "cannot be read after row 0"),
        ("a.csv", "", "is empty"),
        ("a.csv", "id,text,text\n", "the column 'text' twice"),
        ("a.csv", "id,text\n,a\n", "row 1 of a.csv: the document id ''.*--id -"),
        ("a.jsonl", "\n", "is empty"),
        ("a.jsonl", '{"id": 1, "text": ["a"]}\n', "row 1 of a.jsonl has list in the column 'text'"),
        ("a.jsonl", '{"id": 1.5, "text": "a"}\n', "1.5 is float.*--id -"),
        ("a.jsonl", '{"id": 1, "text": "a"}\nnot json\n', "line 2 of .* is not JSON"),
        ("a.parquet", "PAR1 damaged", "cannot be read as Parquet"),
    ],
)
def test_errors_name_the_row(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(written(tmp_path, name, content))


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    rows = [{"id": 7, "title": None, "text": " one ", "x": [1]}, {"id": 8, "text": "two", "x": []}]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    assert read(written(tmp_path, "a.jsonl", lines)) == [("7", "", "one"), ("8", "", "two")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [("7", "", "one"), ("8", "", "two")]


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=6), st.sampled_from(["csv", "jsonl"]))
def test_written_tables_are_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], kind: str
) -> None:
    path = tmp_path_factory.mktemp("tables") / f"docs.{kind}"
    entries = [{"id": f"d{n}", "title": a, "text": b} for n, (a, b) in enumerate(rows)]
    with open(path, "w", encoding="utf-8", newline="") as stream:
        if kind == "csv":
            writer = csv.DictWriter(stream, ["id", "title", "text"], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(entries)
        else:
            stream.writelines(json.dumps(entry) + "\n" for entry in entries)
    expected = [
        (f"d{n}", " ".join(title.split()), text.strip())
        for n, (title, text) in enumerate(rows)
        if title.split() or text.strip()
    ]
    assert read(path) == expected


def test_names_of_datasets() -> None:
    assert parse_hub_name("hf:owner/name") == ("owner/name", "", "")
    assert parse_hub_name("hf:owner/name:config#train") == ("owner/name", "config", "train")
    with pytest.raises(InputError, match="write hf:OWNER/NAME"):
        parse_hub_name("hf:")
