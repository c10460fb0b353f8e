"""Judgments without a collection."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from irdistill import IrdistillError
from irdistill.collections import read_judgments


def test_both_layouts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("q1 0 d1 2\nq1\t0\td2 -1\n\nq2 0 d1 0\n")
    (tmp_path / "b.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t-1\nq2\td1\t0\n")
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress((tmp_path / "a.txt").read_bytes()))
    for name in ("a.txt", "b.tsv", "c.txt.gz"):
        assert read_judgments(tmp_path / name).to_dict() == {"q1": {"d1": 2, "d2": -1}, "q2": {"d1": 0}}


@pytest.mark.parametrize(("text", "message"), [
    ("q1 0 d1 2\nq1 0 d2\n", "line 2 of .* is not a judgment"),
    ("q1 0 d1 2\nq1 0 d1 1\n", "twice and differently: 2 in line 1, 1 in line 2"),
    ("q1 d1 x y z\nq1 d1\n", "line 1 of .* is not a judgment"),
])
def test_bad_lines_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text(text)
    with pytest.raises(IrdistillError, match=message):
        read_judgments(tmp_path / "q.txt")
    with pytest.raises(IrdistillError, match="there is no file"):
        read_judgments(tmp_path / "absent.txt")
