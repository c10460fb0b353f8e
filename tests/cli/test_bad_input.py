"""Bad input on the command line: one clear paragraph, exit code 1, and what was there before is
untouched.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from irdistill.cli.entry_point import main


def snapshot(place: Path) -> dict[str, bytes]:
    """The content of all files below a folder, except locks and the cache."""
    return {
        str(path.relative_to(place)): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file() and "cache" not in path.relative_to(place).parts
    }


@pytest.fixture()
def made(folder: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run("retrieve", "set", "--out", "bm25") == 0
    capsys.readouterr()
    return folder


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    return int(stop.value.code or 0)


def refused(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that must fail; return its error message."""
    before = snapshot(place)
    assert run(*arguments) == 1
    assert snapshot(place) == before
    err = capsys.readouterr().err
    last = err.strip().splitlines()[-1]
    assert last.startswith("irdistill: ") and "Traceback" not in err
    return last


def test_an_unknown_collection(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere" in refused(made, capsys, "retrieve", "nowhere", "--out", "other")


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "set", "bm25", "--seed", "-1"),
        ("evaluate", "set", "bm25", "--seed", str(2**32)),
        ("report", "bm25", "--out", "a.html", "--documents", "-1"),
        ("report", "bm25", "--out", "a.html", "--queries", "-1"),
        (
            "estimate",
            "set",
            "--candidates",
            "bm25",
            "--teacher",
            "bm25",
            "--hourly-price",
            "-1",
        ),
        (
            "score",
            "set",
            "--candidates",
            "bm25",
            "--teacher",
            "bm25",
            "--out",
            "other",
            "--shard",
            "²/3",
        ),
        ("runs", "import", "a.trec", "--collection", "set", "--out", "other", "--memory", "0"),
    ],
)
def test_numbers_out_of_range(
    made: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    before = snapshot(made)
    assert run(*arguments) == 1 and snapshot(made) == before
    message = capsys.readouterr().err
    assert arguments[-2] in message and arguments[-1] in message


@pytest.mark.parametrize("model", ["./nowhere", "package:no_such_package/model"])
def test_an_unknown_model(made: Path, capsys: pytest.CaptureFixture[str], model: str) -> None:
    message = refused(
        made, capsys, "score", "set", "--candidates", "bm25", "--teacher", model, "--out", "other"
    )
    assert model.removeprefix("package:").split("/")[0] in message


def test_qrels_that_name_a_missing_document(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(made / "set" / "qrels" / "test.tsv", "a") as stream:
        stream.write("q1\tbirds\t1\n")
    message = refused(made, capsys, "retrieve", "set", "--out", "other")
    assert "line 4 of" in message and "'birds'" in message


def test_candidates_of_another_collection(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open(made / "set" / "corpus.jsonl", "a") as stream:
        stream.write(json.dumps({"_id": "birds", "title": "", "text": "birds sing"}) + "\n")
    message = refused(
        made, capsys, "score", "set", "--candidates", "bm25", "--teacher", "bm25", "--out", "other"
    )
    assert "bm25" in message and "fingerprint" in message


def test_a_truncated_part(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    part = made / "bm25" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-20])
    message = refused(
        made, capsys, "score", "set", "--candidates", "bm25", "--teacher", "bm25", "--out", "other"
    )
    assert "part-00000.parquet" in message


def test_a_score_that_is_no_number(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "bad.txt").write_text("q1 Q0 dogs 1 2.5 x\nq2 Q0 fish 1 nan x\n")
    message = refused(
        made, capsys, "runs", "import", "bad.txt", "--collection", "set", "--out", "other"
    )
    assert "line 2" in message and "nan" in message


def test_a_model_without_tokenizer(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "model").mkdir()
    (made / "model" / "config.json").write_text(
        '{"model_type": "bert", "architectures": ["BertForSequenceClassification"]}'
    )
    message = refused(
        made,
        capsys,
        "score",
        "set",
        "--candidates",
        "bm25",
        "--teacher",
        "./model",
        "--kind",
        "cross-encoder",
        "--out",
        "other",
    )
    assert "tokenizer" in message


def test_an_empty_query(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (made / "set" / "queries.jsonl").write_text(
        '{"_id": "q1", "text": " "}\n{"_id": "q2", "text": "swim"}\n'
    )
    message = refused(made, capsys, "retrieve", "set", "--out", "other")
    assert "q1" in message and "line 1" in message
    (made / "set" / "queries.jsonl").write_text(
        '{"_id": "q1", "text": "bark"}\n{"_id": "q2", "text": "swim"}\n'
    )
    assert "query" in refused(made, capsys, "search", "set", " ", "--model", "bm25")


def test_a_full_disk_and_then_room_again(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["score", "set", "--candidates", "bm25", "--teacher", "bm25", "--part-queries", "1"]
    assert run(*command, "--out", "whole") == 0
    sync, calls = os.fsync, iter(range(1000))

    def full(descriptor: int) -> None:
        if next(calls) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        assert run(*command, "--out", "other") == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the disk is full" in last and "Existing files are intact" in last
    assert run(*command, "--out", "other") == 0
    parts = {
        name.split("/")[1]: data
        for name, data in snapshot(made).items()
        if name.startswith("other/part-")
    }
    assert parts == {
        name.split("/")[1]: data
        for name, data in snapshot(made).items()
        if name.startswith("whole/part-")
    }
    assert len(parts) == 2


def test_no_permission(
    made: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(
        *args: Any, **kwargs: Any
    ) -> Any:  # the tests may run as root, whom nothing is forbidden
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    (made / "other").mkdir()
    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    message = refused(
        made, capsys, "score", "set", "--candidates", "bm25", "--teacher", "bm25", "--out", "other"
    )
    assert "there is no permission to write there" in message
