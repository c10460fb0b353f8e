"""What is written is read back as it was, in every format, for runs of all kinds."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import (
    FORMATS,
    MemoryRun,
    RankedList,
    RunIdentity,
    export_run,
    import_run,
    open_run,
)
from tests.runs.formats.small import plain, small

NAMES = {
    "trec": "x.run.gz",
    "tsv": "x.tsv",
    "triples": "x.tsv.zst",
    "st-jsonl": "x.jsonl",
    "st-pickle": "x.pkl.gz",
    "colbert": "x.json",
    "rank-distillm": "x.parquet",
    "flagembedding": "x.jsonl.gz",
    "tevatron": "x.jsonl",
    "disco": "x.json",
    "pylate": "x.parquet",
}
KEEPS_NULL = {"st-jsonl", "rank-distillm", "tevatron"}
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=4)
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
NUMBER = st.integers(0, 10**7).map(str)
SCORE = st.one_of(
    st.none(),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -1.0, 2.5]),
)
PLAIN_IDS = {"trec", "tsv", "triples"}


@st.composite
def cases(draw: st.DrawFn, form: str) -> tuple[Collection, MemoryRun]:
    """A collection and a run over it: ties, negative scores, nulls, empty lists, odd ids where the
    format can hold them.
    """
    ids = st.one_of(NUMBER, WORDS if form in PLAIN_IDS else ANY)
    docs = draw(st.lists(ids, min_size=2, max_size=8, unique=True))
    queries = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    judged = {
        query: {
            doc: draw(st.integers(0, 2))
            for doc in draw(st.lists(st.sampled_from(docs), unique=True))
        }
        for query in queries
    }
    collection = Collection.from_dicts(
        "drawn",
        {doc: (f"title {i}" if i % 2 else "", f"text {i}") for i, doc in enumerate(docs)},
        {query: f"question {i}" for i, query in enumerate(queries)},
        judged,
    )
    lists = []
    for query in queries:
        entries = draw(st.lists(st.sampled_from(docs), unique=True))
        lists.append(
            RankedList(
                query,
                entries,
                np.array(
                    [np.nan if (s := draw(SCORE)) is None else s for _ in entries], np.float32
                ),
            )
        )
    return collection, MemoryRun(RunIdentity("teacher", {}, collection.describe()), lists)


TWO_SIDED = {"st-jsonl", "flagembedding", "tevatron"}


def expected(
    form: str, collection: Collection, run: MemoryRun, keep_empty: bool = False
) -> dict[str, dict[str, float | None]]:
    rows = {
        query: {doc: s for doc, s in entries.items() if s is not None or form in KEEPS_NULL}
        for query, entries in plain(run).items()
    }
    if form == "triples" or (form in TWO_SIDED and not keep_empty):
        good = {
            query: {doc for doc, grade in row.items() if grade > 0}
            for query, row in collection.qrels.items()
        }
        rows = {
            query: entries
            for query, entries in rows.items()
            if 0 < len(entries.keys() & good[query]) < len(entries)
        }
    return {query: entries for query, entries in rows.items() if entries}


@pytest.mark.parametrize("form", FORMATS)
def test_there_and_back(tmp_path_factory: pytest.TempPathFactory, form: str) -> None:
    @given(
        cases(form),
        st.sampled_from([1 << 29, 1]),
        st.booleans() if form in TWO_SIDED else st.just(False),
    )
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    def check(case: tuple[Collection, MemoryRun], memory: int, keep_empty: bool) -> None:
        collection, run = case
        folder = tmp_path_factory.mktemp("trip")
        expected_lists = expected(form, collection, run, keep_empty)
        done = export_run(run, folder / NAMES[form], form, collection, keep_empty=keep_empty)
        assert (
            done.rows == sum(map(len, expected_lists.values()))
            and done.left_out == run.num_rows - done.rows
        )
        if expected_lists:
            back = import_run(
                folder / NAMES[form], collection, folder / "back", form, memory=memory
            )
            assert plain(back) == expected_lists
            assert [
                query for query in collection.queries if query in expected_lists
            ] == back.query_ids
            if form == "rank-distillm":
                assert {row.query_id: row.doc_ids for row in back} == {
                    q.query_id: q.doc_ids for q in run if q.doc_ids
                }
        else:
            with pytest.raises(IrdistillError):
                import_run(folder / NAMES[form], collection, folder / "back", form)

    check()


def run_of(collection: Collection) -> MemoryRun:
    rows = RankedList("7", ["20", "10", "30", "40"], np.array([0.1, 9.5, np.nan, -2], np.float32))
    return MemoryRun(
        RunIdentity("teacher", {}, collection.describe()),
        [rows, RankedList("8", ["d/ü"], np.array([3], np.float32))],
    )


WRITTEN = {
    "trec": (
        "7 Q0 10 1 9.5 irdistill\n7 Q0 20 2 0.1 irdistill\n7 Q0 40 3 -2.0 irdistill\n8 Q0 d/ü 1 3.0"
        " irdistill\n"
    ),
    "tsv": "query-id\tcorpus-id\tscore\n7\t10\t9.5\n7\t20\t0.1\n7\t40\t-2.0\n8\td/ü\t3.0\n",
    "triples": "9.5\t0.1\t7\t10\t20\n9.5\t-2.0\t7\t10\t40\n",
    "colbert": '[7, [10, 9.5], [20, 0.1], [40, -2.0]]\n[8, ["d/ü", 3.0]]\n',
    "disco": '{\n"7": {"10": 9.5, "20": 0.1, "40": -2.0},\n"8": {"d/ü": 3.0}\n}\n',
    "st-jsonl": '{"qid": 7, "pos": [10], "neg": {"run": [20, 40, 30]}}\n',
    "flagembedding": (
        '{"query": "what purrs", "pos": ["cats purr"], "neg": ["Dogs dogs bark", "birds sing"],'
        ' "pos_scores": [9.5], "neg_scores": [0.1, -2.0]}\n'
    ),
}


KEPT_EMPTY = {
    "st-jsonl": '{"qid": 8, "pos": [], "neg": {"run": ["d/ü"]}}\n',
    "flagembedding": (
        '{"query": "what barks", "pos": [], "neg": ["Füchse bellen"], "pos_scores": [],'
        ' "neg_scores": [3.0]}\n'
    ),
    "tevatron": (
        '{"query_id": "8", "query": "what barks", "positive_passages": [], "negative_passages":'
        ' [{"docid": "d/ü", "title": "", "text": "Füchse bellen", "score": 3.0}]}\n'
    ),
}


@pytest.mark.parametrize("form", KEPT_EMPTY)
def test_queries_with_an_empty_list_are_left_out_and_counted_or_kept(
    tmp_path: Path, form: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = export_run(run_of(small()), tmp_path / "a.x", form, small())
    assert (
        done.one_sided == 1
        and len((tmp_path / "a.x").read_text(encoding="utf-8").splitlines()) == 1
    )
    assert (
        "1 of 2 queries are left out, which have no document that is judged relevant, or no other"
        " one; --keep-empty" in caplog.text
    )
    kept = export_run(run_of(small()), tmp_path / "b.x", form, small(), keep_empty=True)
    assert kept.one_sided == 0 and kept.rows == done.rows + 1
    text = (tmp_path / "b.x").read_text(encoding="utf-8")
    assert text == (tmp_path / "a.x").read_text(encoding="utf-8") + KEPT_EMPTY[form]
    with pytest.raises(IrdistillError, match="the format trec has no lists of positives"):
        export_run(run_of(small()), tmp_path / "c.x", "trec", keep_empty=True)


def test_triples_count_the_queries_without_a_pair(tmp_path: Path) -> None:
    assert export_run(run_of(small()), tmp_path / "t.tsv", "triples", small()).one_sided == 1


def test_csv_of_lists_is_csv_and_is_read_back(tmp_path: Path) -> None:
    export_run(run_of(small()), tmp_path / "x.csv", "pylate")
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines() == [
        "query_id,document_ids,scores",
        '7,"[""10"", ""20"", ""40""]","[9.5, 0.1, -2.0]"',
        '8,"[""d/ü""]",[3.0]',
    ]
    assert plain(import_run(tmp_path / "x.csv", small(), tmp_path / "run")) == plain(
        run_of(small())
    ) | {"7": {"10": 9.5, "20": float(np.float32(0.1)), "40": -2.0}}


@pytest.mark.parametrize(
    ("form", "name", "words"),
    [
        (
            "pylate",
            "x.tsv",
            (
                "'.tsv', which files of the format pylate do not have; give --out a name that ends"
                " in .parquet or .csv or .jsonl"
            ),
        ),
        ("trec", "x.parquet", "'.parquet', which files of the format trec do not have"),
        ("disco", "x.pkl", "'.pkl', which files of"),
        ("rank-distillm", "x.csv", "a name that ends in .parquet"),
        ("pylate", "x.parquet.gz", "Parquet files are compressed inside"),
        ("trec", "x.run.zip", "compressed as .gz, .zst, .bz2 or .xz"),
        (None, "x.csv", "give --format"),
    ],
)
def test_a_name_that_says_something_else_is_refused(
    tmp_path: Path, form: str | None, name: str, words: str
) -> None:
    with pytest.raises(IrdistillError, match=re.escape(words)):
        export_run(run_of(small()), tmp_path / name, form)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2", ".xz"])
def test_every_compression_is_written_and_read(tmp_path: Path, ending: str) -> None:
    export_run(run_of(small()), tmp_path / f"x.run{ending}", "trec")
    assert (tmp_path / f"x.run{ending}").read_bytes()[:3] != b"7 Q"
    rows = {"7": {"10": 9.5, "20": float(np.float32(0.1)), "40": -2.0}, "8": {"d/ü": 3.0}}
    assert plain(import_run(tmp_path / f"x.run{ending}", small(), tmp_path / "run")) == rows
    assert open_run(tmp_path / f"x.run{ending}", small()).to_dict() == rows


@pytest.mark.parametrize("form", WRITTEN)
def test_the_bytes_that_are_written(tmp_path: Path, form: str) -> None:
    export_run(run_of(small()), tmp_path / "out.x", form, small())
    assert (tmp_path / "out.x").read_text(encoding="utf-8") == WRITTEN[form]


def test_python_itself_reads_the_pickle(tmp_path: Path) -> None:
    export_run(run_of(small()), tmp_path / "s.pkl")
    expected_lists: dict[Any, Any] = {
        7: {10: 9.5, 20: float(np.float32(0.1)), 40: -2.0},
        8: {"d/ü": 3.0},
    }
    assert pickle.loads((tmp_path / "s.pkl").read_bytes()) == expected_lists


def test_tevatron_lines_hold_titles_texts_and_scores(tmp_path: Path) -> None:
    export_run(run_of(small()), tmp_path / "t.jsonl", "tevatron", small())
    line = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])
    assert line["positive_passages"] == [
        {"docid": "10", "title": "", "text": "cats purr", "score": 9.5}
    ]
    assert line["negative_passages"][0] == {
        "docid": "20",
        "title": "Dogs",
        "text": "dogs bark",
        "score": 0.1,
    }
    assert line["negative_passages"][2] == {"docid": "30", "title": "", "text": "fish swim"}


def test_exports_that_cannot_be(tmp_path: Path) -> None:
    collection = Collection.from_dicts("odd", {"a b": "x", "c\td": "y"}, {"q": "z"})
    run = MemoryRun(
        RunIdentity("teacher", {}, collection.describe()),
        [RankedList("q", ["a b", "c\td"], np.array([2, 1], np.float32))],
    )
    for form in ("trec", "tsv"):
        with pytest.raises(IrdistillError, match="white space"):
            export_run(run, tmp_path / "x", form)
    with pytest.raises(IrdistillError, match="give --collection"):
        export_run(run, tmp_path / "x", "triples")
    with pytest.raises(IrdistillError, match="was made for the collection 'odd'"):
        export_run(run, tmp_path / "x", "triples", small())
    with pytest.raises(IrdistillError, match="cannot be told of which format"):
        export_run(run, tmp_path / "x.jsonl")
    assert list(tmp_path.iterdir()) == []
