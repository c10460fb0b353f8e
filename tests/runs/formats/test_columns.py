"""Tables of text: what their columns mean is read from a header, taken where one reading is
possible, and refused elsewhere.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import Run, import_run, open_run
from tests.runs.formats.small import plain

IDS = ["0", "1", "2", "3", "21", "11", "31", "doc a", "doc"]


def numbered() -> Collection:
    """Ids of MS MARCO's kind, of which small ranks and scores are ids too."""
    return Collection.from_dicts(
        "numbered",
        {doc: f"text {doc}" for doc in IDS},
        {"0": "w", "1": "x", "2": "y", "q": "z"},
        {},
    )


def bring(
    tmp_path: Path, text: str | bytes, form: str | None = None, name: str = "file", **options: Any
) -> Run:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return import_run(
        tmp_path / name, numbered(), tmp_path / "run", form, overwrite=True, **options
    )


TWO = {"1": {"21": 32.5, "11": 30.25}}


@pytest.mark.parametrize(
    "text",
    [
        "1\t21\t1\t32.5\n1\t11\t2\t30.25\n",  # ColBERT's ranking.tsv
        "1\t21\t32.5\t1\n1\t11\t30.25\t2\n",
        "1\t21\t0\t32.5\n1\t11\t1\t30.25\n",
        "1 21 1 32.5\n1 11 2 30.25\n",
        "qid docno rank score\n1 21 1 32.5\n1 11 2 30.25\n",
        "pid\tqid\tscore\n21\t1\t32.5\n11\t1\t30.25\n",
        "\tqid\tpid\tscore\n0\t1\t21\t32.5\n1\t1\t11\t30.25\n",
        "Unnamed: 0,qid,pid,score\n0,1,21,32.5\n1,1,11,30.25\n",
        ",qid,pid,score\n0,1,21,32.5\n1,1,11,30.25\n",
        '"qid"\t"pid"\t"score"\n"1"\t"21"\t32.5\n"1"\t"11"\t30.25\n',
        "Score\tCorpus ID\tQuery-ID\r\n32.5\t21\t1\r\n\r\n30.25\t11\t1\r\n",
        "#qid\tpid\tscore\n1\t21\t32.5\n1\t11\t30.25\n",
        "qid\tdocno\tquery\tscore\n1\t21\twhat is it\t32.5\n1\t11\twhat\t30.25\n",
        "qid Q0 docno rank score name\n1 Q0 21 1 32.5 t\n1 Q0 11 2 30.25 t\n",
        "0\t1\t21\t1\t32.5\n1\t1\t11\t2\t30.25\n",
        "1\t21\t32.5\t\n1\t11\t30.25\t\n",
        "1 Q0 21 1 32.5 t\n1\tQ0\t11\t2\t30.25\tt\n",
        "1\t21\t32.5\tbm25\n1\t11\t30.25\tbm25\n",
        "1,21,32.5\n1,11,30.25\n",
        "qid pid label score\n1 21 1 32.5\n1 11 0 30.25\n",
        b"\xef\xbb\xbf1\t21\t32.5\n1\t11\t30.25\n",
        b"\xef\xbb\xbfpid\tqid\tscore\n21\t1\t32.5\n11\t1\t30.25\n",
    ],
)
def test_one_reading(tmp_path: Path, text: str | bytes) -> None:
    assert plain(bring(tmp_path, text)) == TWO


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "1\t21\t11\n",
            (
                "query, document, score; or query, document, rank; or query, positive document,"
                " negative document"
            ),
        ),
        ("1\t21\t1\n1\t11\t2\n", "--columns query,document,score or --columns query,document,rank"),
        ("1\t21\t2.0\n1\t11\t1.0\n", "in 3 ways"),
        ("1\t21\t3\n1\t11\t3\n", "query, document, score; or query, positive"),
        ("1\t2010.5\t2104.5\n", "query, document, score; or query, positive"),
        ("q\td1\td2\n", "without a score or rank"),
        (
            "1\t21\t1\t32\n1\t11\t2\t30\n",
            "query, document, rank, score; or query, document, score, rank",
        ),
        (
            "0\t1\t21\t32.5\n1\t2\t11\t30.5\n",
            "query, document, rank, score; or row number, query, document, score",
        ),
        ("1\t0\t21\t1\n1\t0\t11\t2\n", "query, 0, document, score; or query, 0, document, rank"),
        ("1\t0\t2\t0.5\n", "query, 0, document, score; or query, document, rank, score"),
        ("1 2 1 21 11\n3 4 1 11 21\n", "has 5 columns"),
        ("1 Q0 21 32.5 1 t\n", "has 6 columns"),
        ("0 1 21 1 32.5 t\n1 1 11 2 31.5 t\n", "row number, query, document, rank, score, tag"),
        ("one two\n", "has 2 columns.*For another layout give --format, one of trec, tsv"),
        ("# made by us\n1\t21\t32.5\n", "line 1 .*'# made by us'"),
        (
            "id\tpassage_x\tmodel\n1\t21\t0.5\n1\t11\t0.25\n",
            "line 1: the score 'model' is not a number. If the line names columns",
        ),
        (
            "qid\tpid\t0\n1\t21\t0.5\n",
            "'qid', 'pid', '0', and no known name of the score or the rank",
        ),
        (
            "qid\tdocid\tdocno\tscore\n1\t5\t21\t0.5\n",
            "several columns that could be the document: docid, docno",
        ),
        ("qid\tpos\tneg\n1\t21\t11\n", "no known name of the document"),
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("1\t21\t0.5\n1\t11\t0.25\t\n", "line 2 .*has 4 fields, separated by tabs, and 3"),
        ("qid\tpid\tscore\n1\t21\n", "line 2 .*has 2 fields"),
        ("qid\tpid\tscore\n", "holds no row"),
        (b"\xff\xfe1\x00\t\x00", "is text in UTF-16"),
        (b"PK\x03\x04....", "is a ZIP archive"),
    ],
)
def test_no_reading_or_several_are_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(IrdistillError, match=words):
        bring(tmp_path, text)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("1\t21\t11\n", "query,document,score", {"1": {"21": 11.0}}),
        ("1\t21\t11\n", ["qid", "pid", "score"], {"1": {"21": 11.0}}),
        ("1\t21\t1\n1\t11\t2\n", "query,document,rank", {"1": {"21": None, "11": None}}),
        ("21\t1\t0.5\n", "document,query,score", {"1": {"21": 0.5}}),
        ("x\t1\t-\t21\t0.5\n", "-,query,-,document,score", {"1": {"21": 0.5}}),
        ("id\tp\tm\n1\t21\t0.5\n", "query=id,document=p,score=m", {"1": {"21": 0.5}}),
        ("qid\tpid\tbm25\tscore\n1\t21\t7\t0.5\n", "score=bm25", {"1": {"21": 7.0}}),
        ("qid\tpid\t0\n1\t21\t0.5\n", "score=0", {"1": {"21": 0.5}}),
        ("qid\tdocid\tdocno\tscore\n1\t5\t21\t0.5\n", "document=docno", {"1": {"21": 0.5}}),
        ("qid\tpid\tscore\n1\t21\t0.5\n", "query,document,score", {"1": {"21": 0.5}}),
    ],
)
def test_the_user_names_the_columns(
    tmp_path: Path, text: str, columns: Any, expected: dict
) -> None:
    run = bring(tmp_path, text, columns=columns)
    assert plain(run) == expected and "columns" in run.identity.producer


@pytest.mark.parametrize(
    ("text", "form", "columns", "words"),
    [
        (
            "pid\tqid\tscore\n21\t1\t0.5\n",
            None,
            "query,document,score",
            "the header calls a column 'pid', and --columns says that it is the query",
        ),
        ("1\t21\t0.5\n", None, "query,document", "no known name of the score or the rank"),
        ("1\t21\t0.5\n", None, "query,document,rank,score", "names 4"),
        ("1\t21\t0.5\n", None, "query,text,score", "has 'text'; document, query, rank, score or -"),
        ("1\t21\t0.5\n", None, "query,query,score", "a role twice"),
        ("1\t21\t0.5\n", None, "query,document=x,score", "mixes two ways"),
        ("qid\tpid\ts\n1\t21\t1\n", None, "score=t", "and the header has none"),
        (
            "1 Q0 21 1 0.5 t\n",
            "trec",
            "query,document,score",
            "files of the format trec have fixed ones",
        ),
    ],
)
def test_columns_that_do_not_fit(
    tmp_path: Path, text: str, form: str | None, columns: str, words: str
) -> None:
    with pytest.raises(IrdistillError, match=words):
        bring(tmp_path, text, form, columns=columns)


def test_the_format_tsv_takes_whole_numbers_for_scores_but_not_ranks(tmp_path: Path) -> None:
    assert plain(bring(tmp_path, "1\t21\t5\n1\t11\t9\n", "tsv")) == {"1": {"11": 9.0, "21": 5.0}}
    assert plain(bring(tmp_path, "1\t21\t2\n1\t11\t1\n", "tsv")) == {"1": {"21": 2.0, "11": 1.0}}
    assert plain(bring(tmp_path, "1\t21\t1\t32.5\n1\t11\t2\t30.25\n", "tsv")) == TWO
    with pytest.raises(IrdistillError, match="--columns query,document,rank"):
        bring(tmp_path, "1\t21\t1\n1\t11\t2\n", "tsv")
    assert plain(bring(tmp_path, "1 2 1 21 11\n3 4 2 11 21\n", "triples")) == {
        "1": {"11": 2.0, "21": 1.0},
        "2": {"21": 4.0, "11": 3.0},
    }


def test_what_the_first_lines_say_holds_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irdistill.collections.table_layout.SAMPLE", 1 << 10)
    lines = "".join(f"1\t0\t{'21' if i % 2 else '11'}\t{i % 2}.5\n" for i in range(200))
    with pytest.raises(
        IrdistillError, match="line 201: column 2 is '7', and it was 0 in the lines before"
    ):
        bring(tmp_path, lines + "1\t7\t21\t1.5\n")
    with pytest.raises(IrdistillError, match="line 201: column 5 is '5', and it was empty"):
        bring(tmp_path, lines.replace("\n", "\t\n") + "1\t0\t21\t1.5\t5\n")


TREC = "1 Q0 21 1 30.5 t\n1 Q0 11 2 32.5 t\n"


def test_ranks_of_a_trec_run_are_honored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert plain(bring(tmp_path, TREC)) == {"1": {"11": 32.5, "21": 30.5}}
    assert (
        "the ranks of 1 of 1 query contradict the scores (first: query '1')" in caplog.text
        and "--ranks" in caplog.text
    )
    caplog.clear()
    assert plain(bring(tmp_path, TREC, ranks=True)) == {"1": {"21": 2.0, "11": 1.0}}
    assert plain(bring(tmp_path, TREC, "rank-distillm", ranks=True)) == {
        "1": {"21": 2.0, "11": 1.0}
    }
    assert plain(
        bring(tmp_path, "1\t21\t1\n1\t11\t2\n", columns="query,document,rank", ranks=True)
    ) == {"1": {"21": 2.0, "11": 1.0}}
    assert not caplog.text
    bring(tmp_path, "1 Q0 21 1 1 t\n1 Q0 11 2 1 t\n2 Q0 21 1 5 t\n")
    assert "all scores of every query are equal" in caplog.text
    caplog.clear()
    bring(tmp_path, "1 Q0 21 1 1 t\n1 Q0 11 2 1 t\n2 Q0 21 1 5 t\n2 Q0 11 2 4 t\n1 Q0 31 0 2 t\n")
    bring(tmp_path, "1 Q0 21 1 1 t\n1 Q0 11 1 2 t\n")
    assert not caplog.text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 Q0 21 1 2 t\n1 Q0 11 1 3 t\n", "two documents of query '1' have the rank 1"),
        ("1\t21\t0.5\n", "has no column of ranks"),
    ],
)
def test_ranks_that_decide_nothing_are_refused(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(IrdistillError, match=words):
        bring(tmp_path, text, ranks=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("rank", "words"),
    [
        ("32.5", "the rank is '32.5', and a whole number"),
        ("-1", "the rank is '-1', and a whole number"),
        ("NA", "the rank is 'NA', and a whole number"),
        ("4294967297", "the rank is '4294967297', and a whole number"),
    ],
)
def test_ranks_that_are_none(tmp_path: Path, rank: str, words: str) -> None:
    with pytest.raises(IrdistillError, match=f"line 2: {words}"):
        bring(tmp_path, f"1 Q0 21 1 9 t\n1 Q0 11 {rank} 2 t\n", "trec")


def parquet(tmp_path: Path, **options: Any) -> Run:
    columns = {"query_id": ["1", "1", "1"], "doc_id": ["21", "11", "31"]} | options.pop("columns")
    pq.write_table(pa.table(columns), tmp_path / "x.parquet")
    return import_run(
        tmp_path / "x.parquet", numbered(), tmp_path / "run", overwrite=True, **options
    )


def test_ranks_in_parquet(tmp_path: Path) -> None:
    for rank in ([1, None, 2], [1, -1, 2], [1, 1.5, 2]):
        with pytest.raises(IrdistillError, match=r"row 2: the rank is (missing|-1|1\.5)"):
            parquet(tmp_path, columns={"rank": rank})
    scored = parquet(tmp_path, columns={"rank": [1, None, 2], "score": [3.0, 2.0, 1.0]})
    assert (
        plain(scored) == {"1": {"21": 3.0, "11": 2.0, "31": 1.0}}
        and scored.identity.producer["rows without rank"] == 1
    )
    by_rank = parquet(tmp_path, columns={"rank": [3, 1, 2], "score": [3.0, 2.0, 1.0]}, ranks=True)
    assert plain(by_rank) == {"1": {"11": 3.0, "31": 2.0, "21": 1.0}}
    with pytest.raises(IrdistillError, match=r"x\.parquet"):
        parquet(tmp_path, columns={"score": [[1.0], [2.0], [3.0]]})


def test_columns_of_parquet_have_names(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"pid": [21], "qid": [1], "bm25": [0.5], "score": [7.0]}), tmp_path / "a.parquet"
    )
    assert plain(import_run(tmp_path / "a.parquet", numbered(), tmp_path / "a")) == {
        "1": {"21": 7.0}
    }
    assert plain(
        import_run(tmp_path / "a.parquet", numbered(), tmp_path / "b", columns="score=bm25")
    ) == {"1": {"21": 0.5}}
    pq.write_table(
        pa.table({"pid": [21], "qid": [1], "docno": [21], "score": [7.0]}), tmp_path / "c.parquet"
    )
    with pytest.raises(
        IrdistillError, match="several columns that could be the document: pid, docno"
    ):
        import_run(tmp_path / "c.parquet", numbered(), tmp_path / "c")


@pytest.mark.parametrize(
    ("form", "line"),
    [
        (
            "flagembedding",
            (
                '{"query": "x", "pos": "text 21", "neg": "text 11", "pos_scores": 2, "neg_scores":'
                " [1]}"
            ),
        ),
        ("st-jsonl", '{"qid": 1, "pos": 21, "neg": {"bm25": "11"}}'),
        ("st-jsonl", '{"qid": 1, "pos": "21", "neg": ["11"]}'),
        (
            "tevatron",
            (
                '{"query_id": 1, "positive_passages": {"docid": "21"}, "negative_passages":'
                ' [{"docid": 11}]}'
            ),
        ),
        ("tevatron", '{"query_id": 1, "positive_document_ids": "21", "negative_document_ids": 11}'),
    ],
)
def test_a_list_of_one_may_lack_its_brackets(tmp_path: Path, form: str, line: str) -> None:
    for mark in (b"", b"\xef\xbb\xbf"):
        rows = plain(bring(tmp_path, mark + line.encode() + b"\n", name="x.jsonl"))
        assert rows == {
            "1": {
                "21": 2.0 if form == "flagembedding" else None,
                "11": 1.0 if form == "flagembedding" else None,
            }
        }


@pytest.mark.parametrize(
    ("docs", "scores"),
    [
        ('["21", "11"]', "[2.5, 1]"),
        ("['21', '11']", "[2.5, 1.0]"),
        ("['21' '11']", "[2.5 1. ]"),
        ("[21 11]", "[ 2.5  1.0 ]"),
        ("array(['21', '11'], dtype=object)", "array([2.5, 1. ])"),
    ],
)
def test_lists_written_as_text(tmp_path: Path, docs: str, scores: str) -> None:
    line = json.dumps({"query_id": "1", "document_ids": docs, "scores": scores})
    assert plain(bring(tmp_path, line, "pylate", "x.jsonl")) == {"1": {"21": 2.5, "11": 1.0}}
    cells = [
        f'"{cell.replace(chr(34), chr(34) * 2)}"'
        for cell in ("1", docs, scores.replace(" 1", "\n 1"))
    ]
    assert plain(
        bring(tmp_path, "query_id,document_ids,scores\n" + ",".join(cells) + "\n", name="x.csv")
    ) == {"1": {"21": 2.5, "11": 1.0}}


@pytest.mark.parametrize(
    "docs",
    [
        "21, 11",
        "[21, 11",
        "['21' ... '11']",
        "[['21'], ['11']]",
        "[f(21), 11]",
        "[21 11,, 1]",
        "['21', 11 + 1]",
    ],
)
def test_texts_that_are_no_lists(tmp_path: Path, docs: str) -> None:
    with pytest.raises(IrdistillError, match="line 1: "):
        bring(
            tmp_path,
            json.dumps({"query_id": "1", "document_ids": docs, "scores": "[2, 1]"}),
            "pylate",
            "x.jsonl",
        )
    with pytest.raises(IrdistillError, match=r"x\.csv, line \d: "):
        bring(tmp_path, f'query_id,document_ids,scores\n1,"{docs}","[2, 1]"\n', name="x.csv")


def test_numbers_of_many_digits(tmp_path: Path) -> None:
    for text, form in (
        (f'{{"1": {{"21": {10**400}}}}}', "disco"),
        (f"[1, [21, {10**400}]]", "colbert"),
    ):
        with pytest.raises(IrdistillError, match="is too large"):
            bring(tmp_path, text, form)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 Q0 21 32.5 1 t\n1 Q0 11 30.5 2 t\n", "line 1: the rank is '32.5', and a whole number"),
        ("1 Q0 21 -1 1 t\n", "the rank is '-1'"),
        ("1 Q0 21 1 1_0 t\n", "the score '1_0' is not a finite number"),
        ("0 1 21 1 32.5 t\n1 1 11 2 31.5 t\n", "can be read in 2 ways"),
        ("1\t21\t0.5\n", "3 columns, and six were expected.*runs import"),
    ],
)
def test_runs_that_are_evaluated_are_read_by_the_same_rules(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "run.txt").write_text(text)
    with pytest.raises(IrdistillError, match=words):
        open_run(tmp_path / "run.txt")


def test_tabs_and_spaces_in_a_trec_run(tmp_path: Path) -> None:
    assert plain(bring(tmp_path, "1\tQ0 21\t1  3.0 t\n1 Q0\t11 2\t2.0\tt\n")) == {
        "1": {"21": 3.0, "11": 2.0}
    }


def test_blank_lines_without_end(tmp_path: Path) -> None:
    (tmp_path / "run.txt.gz").write_bytes(
        gzip.compress(b"1 Q0 21 1 0.5 t\n" + b"\n" * (9 << 20), 1)
    )
    with pytest.raises(IrdistillError, match="1048576 blank lines in a row"):
        open_run(tmp_path / "run.txt.gz")


@pytest.mark.parametrize("separator", [" ", "  "])
def test_evaluated_runs_in_any_compression_with_a_header_and_a_mark(
    tmp_path: Path, separator: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = ("qid Q0 docno rank score name\n" + TREC).replace(" ", separator).encode()
    for name, data in {
        "a.run": text,
        "b.run.gz": gzip.compress(text),
        "c.zst": pa.compress(text, "zstd", asbytes=True),
        "d.bz2": __import__("bz2").compress(text),
        "e.xz": __import__("lzma").compress(text),
        "f.run": b"\xef\xbb\xbf" + text,
        "g.run": gzip.compress(text),
    }.items():
        (tmp_path / name).write_bytes(data)
        caplog.clear()
        run = open_run(tmp_path / name)
        assert (
            run.to_dict() == {"1": {"11": 32.5, "21": 30.5}} and run.identity.producer["tag"] == "t"
        )
        assert "the ranks of 1 of 1 query contradict the scores" in caplog.text
