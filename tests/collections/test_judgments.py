"""Judgments without a collection."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Collection, Qrels, read_judgments


@pytest.mark.parametrize("grade", [0.5, 1.9, np.float64(1.5), float("inf"), None, "x", 10**20])
def test_fractional_grades_are_refused(grade: Any) -> None:
    with pytest.raises(IrdistillError, match="query q, document d: the grade is"):
        Qrels({"q": {"d": grade}})
    with pytest.raises(IrdistillError, match="the grade is"):
        Collection.from_dicts("c", {"d": "text"}, {"q": "question"}, {"q": {"d": grade}})


def test_whole_numbers_become_ids() -> None:
    assert Qrels({7: {1: 2}}).to_dict() == {"7": {"1": 2}}  # type: ignore[dict-item]
    for judgments, message in (
        ({"q": {1.5: 1}}, "the document id 1.5 is float"),
        ({None: {"d": 1}}, "the query id None is NoneType"),
        ({7: {}, "7": {}}, "two queries of the judgments have the same id"),
        ({"q": {1: 0, "1": 0}}, "two documents of query 'q' have the same id"),
    ):
        with pytest.raises(IrdistillError, match=message):
            Qrels(judgments)


def test_both_layouts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("q1 0 d1 2\nq1\t0\td2 -1\n\nq2 0 d1 0\n")
    (tmp_path / "b.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1\nq2\td1\t0\n"
    )
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress((tmp_path / "a.txt").read_bytes()))
    for name in ("a.txt", "b.tsv", "c.txt.gz"):
        assert read_judgments(tmp_path / name).to_dict() == {
            "q1": {"d1": 2, "d2": -1},
            "q2": {"d1": 0},
        }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 0 d1 2\nq1 0 d2\n", "line 2 of .* is not a judgment"),
        ("q1 0 d1 2\nq1 0 d1 1\n", "twice and differently: 2 in line 1, 1 in line 2"),
        (
            "q1 0 d1 2\nq1 0 d2 1.5\n",
            "line 2 of .*: the grade is '1.5', and a whole number was expected",
        ),
        ("q1 0 d1 1_0\n", "line 1 of .*: the grade is '1_0', and a whole number was expected"),
        ("q1 0 d1 99999999999\n", "line 1 of .*: the grade is 99999999999; grades from"),
        ("q1 d1 x y z\nq1 d1\n", "line 1 of .* is not a judgment"),
    ],
)
def test_bad_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text(text)
    with pytest.raises(IrdistillError, match=message):
        read_judgments(tmp_path / "q.txt")
    with pytest.raises(IrdistillError, match="there is no file"):
        read_judgments(tmp_path / "absent.txt")


def test_size_of_text_read_whole_is_limited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("irdistill.collections.text_files.LARGEST_TEXT", 1 << 16)
    (tmp_path / "qrels.json.gz").write_bytes(
        gzip.compress(b"{" + b" " * (1 << 20) + b'"q": {"d": 1}}')
    )
    with pytest.raises(IrdistillError, match="more than 0 MiB of text"):
        read_judgments(tmp_path / "qrels.json.gz")
