"""TREC files read by columns: the same rows as line by line, whatever their order, ties and white space."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.runs import MemoryRun, RankedList, RunIdentity, open_run
from irdistill.runs.trec import _by_columns, _by_lines, read_trec

ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["q1", "10", "2", "é"]), st.sampled_from(["a", "b", "ab", "B", "é", "z9", '"q"', "NA", "null"])),
    st.sampled_from([-1.5, 0.0, -0.0, 1.0, 1.0 + 1e-9, 2.5e-8, 3.0]), min_size=1,
)


@settings(max_examples=80, deadline=None)
@given(rows=ROWS, separator=st.sampled_from([" ", "\t", "  "]), end=st.sampled_from(["\n", "\r\n", "\n\n"]), zipped=st.booleans())
def test_every_layout_gives_the_ranked_lists(rows: dict[tuple[str, str], float], separator: str, end: str, zipped: bool,
                                             tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("run") / ("run.txt.gz" if zipped else "run.txt")
    text = "".join(separator.join([query, "Q0", doc, "1", repr(score), "tag"]) + end for (query, doc), score in rows.items())
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    found = read_trec(path)
    queries = list(dict.fromkeys(query for query, _ in rows))
    expected = MemoryRun(RunIdentity("imported", {}, {}), [
        RankedList(query, [doc for own, doc in rows if own == query],
                   np.array([score for (own, _), score in rows.items() if own == query], np.float32)) for query in queries])
    assert found.query_ids == queries and found.num_rows == len(rows)
    for query in queries:
        assert found[query].doc_ids == expected[query].doc_ids
        np.testing.assert_array_equal(found[query].scores, expected[query].scores)
        assert found[query].flags is None
    assert [one.doc_ids for one in found] == [one.doc_ids for one in expected]
    quick = _by_columns(path)
    assert (quick is None) == (separator == "  ")
    assert found.identity.producer["tag"] == "tag"
    if quick is not None:
        slow = _by_lines(path, None)
        assert quick.queries == slow.queries and quick.documents.equals(slow.documents)
        np.testing.assert_array_equal(quick.scores.astype(np.float32), slow.scores.astype(np.float32))


@pytest.mark.parametrize(("text", "message"), [
    ("q Q0 a 1 2 t\nq Q0 b 1 t\n", "line 2: 5 columns"),
    ("q Q0 a 1 2 t\nq Q0 b 1 inf t\n", "line 2: the score 'inf'"),
    ("q Q0 a 1 2 t\nq Q0 b 1 1e39 t\n", "line 2: the score '1e39'"),
    ("q Q0 a 1 2 t\nr Q0 a 1 2 t\nq Q0 a 1 1 t\n", "line 3: the document 'a' comes twice"),
    ("", "it holds no line"),
])
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


def test_queries_of_another_split_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held = Collection.from_dicts("c", {"a": "x", "b": "y"}, {"q": "text"}, {"q": {"a": 1}})
    (tmp_path / "run.txt").write_text("r Q0 zzz 1 2 t\nq Q0 b 1 2 t\nr Q0 a 1 9 t\nq Q0 a 2 3 t\n")
    found = open_run(tmp_path / "run.txt", held)
    assert found.to_dict() == {"q": {"a": 3.0, "b": 2.0}}
    assert "1 queries are not in c and were left out (first: r)" in caplog.text
    (tmp_path / "strange.txt").write_text("r Q0 a 1 2 t\n")
    with pytest.raises(IrdistillError, match="none of its 1 queries is in 'c'"):
        open_run(tmp_path / "strange.txt", held)
    again = open_run(tmp_path / "run.txt", held)
    assert again.fingerprint == found.fingerprint
    (tmp_path / "run.txt").write_text("q Q0 b 1 2 t\n")
    assert open_run(tmp_path / "run.txt", held).fingerprint != found.fingerprint
