"""Columns of judgments in every layout, compression and folder."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pyarrow as pa
import pytest

from irdistill import IrdistillError
from irdistill.collections import load_collection, read_judgments

ONE = {"q1": {"d1": 2, "d2": 0}}


@pytest.mark.parametrize(
    "text",
    [
        "q1 0 d1 2\nq1 0 d2 0\n",
        "q1\tQ0\td1\t2.0\nq1\tQ0\td2\t0\n",
        "q1\td1\t2\nq1\td2\t0\n",
        "q1 d1 2\nq1 d2 0\n",
        "q1\t0\td1 2\nq1\t0\td2 0\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
        "corpus-id\tquery-id\tscore\nd1\tq1\t2\nd2\tq1\t0\n",
        "q\td\tscore\nq1\td1\t2\nq1\td2\t0\n",
        "\tqid\tdocno\tlabel\n0\tq1\td1\t2\n1\tq1\td2\t0\n",
        "qid,docid,relevance,score\nq1,d1,2,0.5\nq1,d2,0,0.25\n",
        "q1\td1\t2\t\nq1\td2\t0\t\n",
        "0\tq1\td1\t2\n1\tq1\td2\t0\n",
        "q1 4.5 d1 2\nq1 5 d2 0\n",
        "topic iter docno rel\r\nq1 0 d1 2\r\n\r\nq1 0 d2 0\r\n",
        b"\xef\xbb\xbfq1 0 d1 2\nq1 0 d2 0\n",
        (
            '{"query-id": "q1", "corpus-id": "d1", "score": 2}\n{"query-id": "q1", "corpus-id":'
            ' "d2", "score": 0}\n'
        ),
        '{"q1": {"d1": 2,\n"d2": 0}}',
        '"query-id"\t"corpus-id"\t"score"\n"q1"\t"d1"\t2\n"q1"\t"d2"\t0\n',
    ],
)
def test_unambiguous_layouts_are_read(tmp_path: Path, text: str | bytes) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    for name, content in (
        ("a", data),
        ("b.gz", gzip.compress(data)),
        ("c.zst", pa.compress(data, "zstd", asbytes=True)),
        ("d.bz2", bz2.compress(data)),
        ("e.tsv", gzip.compress(data)),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_judgments(tmp_path / name).to_dict() == ONE


def test_ids_with_spaces_are_not_split(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("q1\tdoc a\t1\n")
    assert read_judgments(tmp_path / "a.tsv").to_dict() == {"q1": {"doc a": 1}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("q1\td1\t1.5\n", "line 1 of .*: the grade is '1.5', and a whole number"),
        ("q1\td1\t1\nq1\td\t2\t1\n", "line 2 of .*has 4 fields, separated by tabs, and 3"),
        ("q1 d1 high\n", "line 1 of .*is not a judgment"),
        ("q1\td1\n", "line 1 of .*is not a judgment"),
        ("1\t21\t11\n", "query, document, grade; or query, positive"),
        ("1 0 21\n", "query, document, grade; or query, 0, document"),
        (
            "1\t5\t1\n1\t6\t2\n1\t7\t3\n1\t8\t4\n",
            "query, document, grade; or query, document, rank",
        ),
        ("0\t7\t21\t1\n", "row number, query, document, grade"),
        ("id\tpassage\trelevant\nq1\td1\t1\nq1\td2\t1\n", "line 1 of .*: the grade is 'relevant'"),
        (
            "qid\tdocid\tdocno\trel\n1\t2\t3\t1\n",
            (
                "several columns that could be the document: docid, docno. .*--qrels-columns"
                " document=docid"
            ),
        ),
        ("# ours\nq1\td1\t1\n", "line 1 of .*looks like a comment"),
        ("q1 d1 0 1 0.5\n", "has 5 columns"),
        ("q1\t\t1\nq1\td\t1\n", "line 1 of .*is not a judgment"),
        ('{"query-id": "q1", "corpus-id": "d1"}\n', "no known name of the grade"),
        ('{"query-id": "q1", "corpus-id": "d1", "score": null}\n', "the grade is None"),
        (b"\xff\xfeq\x001\x00", "UTF-16"),
        ("q1 0 d1 " + "9" * 30 + "\n", "grades from"),
        ("qid,docid,rel\n1,2\r1,1\n", r"the line '1,2\\r1,1' cannot be read as CSV"),
    ],
)
def test_ambiguous_or_unknown_layouts_are_refused(
    tmp_path: Path, text: str | bytes, words: str
) -> None:
    (tmp_path / "a.tsv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(IrdistillError, match=words):
        read_judgments(tmp_path / "a.tsv")


def test_many_blank_lines_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tsv.gz").write_bytes(gzip.compress(b"q1 0 d1 1\n" + b"\n" * ((1 << 20) + 1), 1))
    with pytest.raises(IrdistillError, match="1048576 blank lines before line 1048578"):
        read_judgments(tmp_path / "a.tsv.gz")


def test_user_names_the_columns_of_judgments(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("1\t21\t11\n")
    assert read_judgments(tmp_path / "a.tsv", "query,document,grade").to_dict() == {"1": {"21": 11}}
    assert read_judgments(tmp_path / "a.tsv", ["qid", "pid", "score"]).to_dict() == {
        "1": {"21": 11}
    }
    (tmp_path / "b.tsv").write_text("qid\tdocid\tdocno\trel\n1\t2\t3\t1\n")
    assert read_judgments(tmp_path / "b.tsv", "document=docno").to_dict() == {"1": {"3": 1}}


def folder(path: Path, qrels: dict[str, bytes]) -> Path:
    (path / "qrels").mkdir(parents=True)
    (path / "corpus.jsonl.gz").write_bytes(
        gzip.compress(b'{"_id": "d1", "text": "x"}\n{"_id": "d2", "text": "y"}\n')
    )
    (path / "queries.jsonl.gz").write_bytes(gzip.compress(b'{"_id": "q1", "text": "x"}\n'))
    for name, content in qrels.items():
        (path / name).write_bytes(content)
    return path


TSV, LINES = (
    b"query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
    (
        b'{"query-id": "q1", "corpus-id": "d1", "score": 2}\n{"query-id": "q1", "corpus-id": "d2",'
        b' "score": 0}\n'
    ),
)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("test.tsv", TSV),
        ("test.tsv.gz", gzip.compress(TSV, mtime=0)),
        ("test.jsonl", LINES),
        ("test.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("test.txt", b"q1 0 d1 2\nq1 0 d2 0\n"),
        ("test.tsv.zst", pa.compress(TSV, "zstd", asbytes=True)),
    ],
)
def test_judgments_of_a_folder(tmp_path: Path, name: str, content: bytes) -> None:
    here = folder(tmp_path / "set", {f"qrels/{name}": content})
    assert load_collection(here, cache=tmp_path / "cache").qrels.to_dict() == ONE
    assert load_collection(f"{here}#test", cache=tmp_path / "cache").qrels.to_dict() == ONE


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            {"qrels/test.tsv": TSV, "qrels/test.jsonl": LINES},
            "has test.jsonl and test.tsv, and either could be meant",
        ),
        ({"qrels/test.parquet": b"PAR1"}, "Not read: qrels/test.parquet"),
        ({"qrels.tsv": TSV}, "Not read: qrels.tsv. Judgments are expected as qrels/SPLIT.tsv"),
        (
            {"qrels/dev.tsv.gz": gzip.compress(TSV, mtime=0)},
            "Splits in that folder: dev. Choose one: .*#dev",
        ),
    ],
)
def test_unread_judgment_files_are_reported(
    tmp_path: Path, files: dict[str, bytes], words: str
) -> None:
    with pytest.raises(IrdistillError, match=words):
        load_collection(folder(tmp_path / "set", files), cache=tmp_path / "cache")


def test_folders_with_a_hash_in_their_names(tmp_path: Path) -> None:
    here = folder(tmp_path / "c#1" / "my#set", {"qrels/test.tsv": TSV, "qrels/dev.tsv": TSV})
    for name in (f"{here}", f"{here}#test", f"{here}#dev", f"{here}/"):
        assert load_collection(name, cache=tmp_path / "cache").qrels.to_dict() == ONE
    folder(tmp_path / "c#1" / "my", {"qrels/set.tsv": TSV})
    with pytest.raises(
        IrdistillError, match="is a folder and could be the split 'set' of the folder"
    ):
        load_collection(here, cache=tmp_path / "cache")
    assert load_collection(f"{here}/", cache=tmp_path / "cache").qrels.to_dict() == ONE
