"""Fixtures of the tests of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a collection of three documents and two queries, as the working folder."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    docs = {"cats": "cats purr and sleep", "dogs": "dogs bark at cats", "fish": "fish swim"}
    (tmp_path / "set" / "qrels").mkdir(parents=True)
    lines = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in docs.items()]
    (tmp_path / "set" / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "set" / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "bark"}\n{"_id": "q2", "text": "swim"}\n'
    )
    (tmp_path / "set" / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq1\tdogs\t1\nq2\tfish\t1\n"
    )
    return tmp_path
