"""TREC files read in blocks: the rows that a reader of single lines would give, whatever their
order, ties and white space.
"""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.collections.byte_strings import ByteStrings
from irdistill.evaluation import evaluate
from irdistill.runs import MemoryRun, RankedList, RunIdentity, open_run
from irdistill.runs.line_fields import decimals
from irdistill.runs.trec import StreamedRun, read_trec

ROWS = st.dictionaries(
    st.tuples(
        st.sampled_from(["q1", "10", "2", "é"]),
        st.sampled_from(["a", "b", "ab", "B", "é", "z9", '"q"', "NA", "null"]),
    ),
    st.sampled_from([-1.5, 0.0, -0.0, 1.0, 1.0 + 1e-9, 2.5e-8, 3.0]),
    min_size=1,
)


@settings(max_examples=40, deadline=None)
@given(
    rows=ROWS,
    separator=st.sampled_from([" ", "\t", "  ", " \t", "\x0b"]),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    zipped=st.booleans(),
)
def test_every_layout_gives_the_ranked_lists(
    rows: dict[tuple[str, str], float],
    separator: str,
    end: str,
    zipped: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    path = tmp_path_factory.mktemp("run") / ("run.txt.gz" if zipped else "run.txt")
    text = "".join(
        separator.join([query, "Q0", doc, "1", repr(score), "tag"]) + end
        for (query, doc), score in rows.items()
    )
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    run = read_trec(path)
    queries = list(dict.fromkeys(query for query, _ in rows))
    expected = MemoryRun(
        RunIdentity("imported", {}, {}),
        [
            RankedList(
                query,
                [doc for other, doc in rows if other == query],
                np.array(
                    [score for (other, _), score in rows.items() if other == query], np.float32
                ),
            )
            for query in queries
        ],
    )
    assert run.query_ids == queries and run.num_rows == len(rows)
    for query in queries:
        assert run[query].doc_ids == expected[query].doc_ids
        np.testing.assert_array_equal(run[query].scores, expected[query].scores)
        assert run[query].flags is None
    assert [one.doc_ids for one in run] == [one.doc_ids for one in expected]
    assert run.identity.producer["tag"] == "tag"
    for memory in (0, 300, 1000):  # of blocks in a file, and of rows that are regrouped one by one
        again = read_trec(path, memory=memory)
        assert again.fingerprint == run.fingerprint and again.num_rows == run.num_rows
        assert pa.concat_tables(again.tables()).equals(pa.concat_tables(run.tables()))
        assert [(one.query_id, one.doc_ids, one.scores.tolist()) for one in again] == [
            (one.query_id, one.doc_ids, one.scores.tolist()) for one in run
        ]
        assert again[queries[-1]].doc_ids == expected[queries[-1]].doc_ids


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q Q0 a 1 2 t\nq Q0 b 1 t\n", "line 2: 5 columns"),
        ("q Q0 a 1 2 t\nq Q0 b 1 inf t\n", "line 2: the score 'inf'"),
        ("q Q0 a 1 2 t\nq Q0 b 1 1e39 t\n", "line 2: the score '1e39'"),
        ("q Q0 a 1 2 t\nr Q0 a 1 2 t\nq Q0 a 1 1 t\n", "line 3: the document 'a' comes twice"),
        ("", "it holds no line"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "run.txt").write_text(text)
    with pytest.raises(IrdistillError, match=message):
        open_run(tmp_path / "run.txt")


def test_bytes_that_are_no_text_and_half_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"q Q0 \xff 1 2 t\n")
    lines = "".join(f"q Q0 d{number} 1 2 t\n" for number in range(999)).encode()
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(lines)[:-9])
    for name in ("a.txt", "b.txt.gz"):
        with pytest.raises(IrdistillError, match="truncated or damaged"):
            open_run(tmp_path / name)


def test_queries_of_another_split_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collection = Collection.from_dicts("c", {"a": "x", "b": "y"}, {"q": "text"}, {"q": {"a": 1}})
    (tmp_path / "run.txt").write_text("r Q0 zzz 1 2 t\nq Q0 b 1 2 t\nr Q0 a 1 9 t\nq Q0 a 2 3 t\n")
    run = open_run(tmp_path / "run.txt", collection)
    assert run.to_dict() == {"q": {"a": 3.0, "b": 2.0}}
    assert "left out 1 query that c does not have (first: r)" in caplog.text
    (tmp_path / "strange.txt").write_text("r Q0 a 1 2 t\n")
    with pytest.raises(IrdistillError, match="none of its 1 query is in 'c'"):
        open_run(tmp_path / "strange.txt", collection)
    again = open_run(tmp_path / "run.txt", collection)
    assert again.fingerprint == run.fingerprint
    (tmp_path / "run.txt").write_text("q Q0 b 1 2 t\n")
    assert open_run(tmp_path / "run.txt", collection).fingerprint != run.fingerprint


@pytest.mark.parametrize("block", [1, 40, 300])
@pytest.mark.parametrize("shuffled", [False, True])
def test_queries_longer_than_a_block_and_lines_in_any_order(
    block: int, shuffled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irdistill.runs.score_file.BLOCK", block)
    draw = np.random.default_rng(3)
    sizes = draw.integers(1, 60, 12).tolist()
    lines = [
        f"q{query:02} Q0 d{doc} 1 {draw.integers(0, 20) / 4} t\n"
        for query, size in enumerate(sizes)
        for doc in range(size)
    ]
    if shuffled:
        lines = [lines[place] for place in draw.permutation(len(lines))]
    (tmp_path / "run.txt").write_text("".join(lines))
    rows = [line.split() for line in lines]
    expected = {
        query: sorted(
            ((float(score), doc) for one, _, doc, _, score, _ in rows if one == query), reverse=True
        )
        for query in dict.fromkeys(row[0] for row in rows)
    }
    run = read_trec(tmp_path / "run.txt", memory=3000)
    assert run.query_ids == list(expected)
    for one in run:
        assert list(zip(one.scores.tolist(), one.doc_ids, strict=True)) == expected[one.query_id]
    (tmp_path / "run.txt").write_text("".join([*lines, lines[5]]))
    named = (
        f"line {len(lines) + 1}: the document '{rows[5][2]}' comes twice for query '{rows[5][0]}'"
    )
    with pytest.raises(IrdistillError, match=named):
        read_trec(tmp_path / "run.txt", memory=3000)


@given(
    st.lists(
        st.one_of(
            st.floats().map(repr),
            st.floats(width=32).map(lambda value: str(np.float32(value))),
            st.decimals(-10, 10, places=6).map(str),
            st.integers().map(str),
            st.text("0123456789.-+e_ax", min_size=1, max_size=20),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_numbers_are_read_as_float_reads_them(texts: list[str]) -> None:
    values, wrong = decimals(ByteStrings.of(texts))
    for place, text in enumerate(texts):
        try:
            expected = float(text) if "_" not in text else None
        except ValueError:
            expected = None
        if expected is None:  # trec_eval reads 1_000 as 1, Python as 1000
            assert place in wrong
            continue
        assert place not in wrong
        np.testing.assert_equal(values[place], expected)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """After 150,000 lines (7 MB), 600,000 lines take no more."""
    lines = [f" Q0 clueweb12-0000tw-{doc:07} {doc} {-doc}.25 t\n" for doc in range(1500)]
    for queries in (100, 400):
        with open(tmp_path / f"{queries}.txt", "w") as stream:
            for query in range(queries):
                stream.writelines(f"{query}{line}" for line in lines)
    code = """if True:
        import sys
        from pathlib import Path
        from irdistill.runs.trec import read_trec
        peaks = []
        for queries in (100, 100, 400):
            run = read_trec(Path(sys.argv[1]) / f"{queries}.txt", memory=1 << 20)
            assert run.num_rows == 1500 * queries == sum(table.num_rows for table in run.tables())
            peaks += [int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:")]
        print(peaks[2] - peaks[1])"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 50


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_file_is_measured_while_it_is_read(
    shuffled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the figures and the fingerprint of the stored run, also where queries come in pieces."""
    monkeypatch.setattr("irdistill.runs.score_file.BLOCK", 200)
    draw = np.random.default_rng(5)
    documents = [f"d{doc}" for doc in range(40)]
    lines = [
        f"q{query} Q0 {doc} {rank} {draw.integers(0, 9)} t\n"
        for query in range(9)
        for rank, doc in enumerate(documents)
    ]
    if shuffled:
        lines = [lines[place] for place in draw.permutation(len(lines))]
    (tmp_path / "run.txt").write_text("".join(lines))
    qrels = {
        f"q{query}": {doc: int(draw.integers(0, 3)) for doc in documents[:20]}
        for query in range(10)
    }
    collection = Collection.from_dicts(
        "c", dict.fromkeys(documents, "x"), dict.fromkeys(qrels, "y"), qrels
    )
    whole = read_trec(tmp_path / "run.txt", collection)
    for judged, run in ((collection, whole), (collection.qrels, read_trec(tmp_path / "run.txt"))):
        rows = evaluate(judged, {"a": tmp_path / "run.txt"}, "nDCG@10 AP Bpref").rows
        assert (
            rows == evaluate(judged, {"a": run}, "nDCG@10 AP Bpref").rows
            and rows[0].run == run.fingerprint
        )
    again = StreamedRun(tmp_path / "run.txt", collection)
    assert (
        again.query_ids == whole.query_ids
        and len(again) == 9
        and again["q3"].doc_ids == whole["q3"].doc_ids
    )
