"""A small collection, and commands that score it with a stub of a server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from irdistill.cli.entry_point import main
from tests.teachers.llm.chat_stub import ChatStub, Reply, always

ROOT = Path(__file__).resolve().parents[2]
SECRET = "sk-never-to-be-written-123456789"
QUERIES, DEPTH, DOCUMENTS = 9, 6, 12
PAIRS = QUERIES * DEPTH


def write_collection(folder: Path) -> None:
    """A collection `set`, and candidates for it."""
    docs = {f"d{n}": f"text number {n}" for n in range(DOCUMENTS)}
    queries = {f"q{n}": f"question {n}" for n in range(QUERIES)}
    (folder / "set" / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", docs), ("queries", queries)):
        rows = [json.dumps({"_id": key, "title": "", "text": text}) for key, text in texts.items()]
        (folder / "set" / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    judged = "".join(f"{query}\td1\t1\n" for query in queries)
    (folder / "set" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    rows = [
        f"{query} Q0 d{(place * 5 + rank) % DOCUMENTS} {rank + 1} {10 - rank} x"
        for place, query in enumerate(queries)
        for rank in range(DEPTH)
    ]
    (folder / "candidates.txt").write_text("\n".join(rows) + "\n")


def score_arguments(out: str, *more: str, teacher: str = "stub.yaml") -> list[str]:
    return [
        "score",
        "set",
        "--candidates",
        "candidates.txt",
        "--teacher",
        teacher,
        "--out",
        out,
        *more,
    ]


def run_command(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def score(out: str, *more: str, teacher: str = "stub.yaml") -> int:
    return run_command(score_arguments(out, *more, teacher=teacher))


def kill_after(count: int, stub: ChatStub, arguments: Sequence[str]) -> None:
    """Run a Python command until the stub has answered so many requests, and kill it.

    Afterwards the stub answers all requests.
    """
    enough, dead = threading.Event(), threading.Event()

    def until_killed(prompt: str, nth: int) -> Reply:
        if sum(stub.served.values()) >= count:
            enough.set()
            dead.wait(120)
        return Reply()

    stub.plan = until_killed
    process = subprocess.Popen(
        [sys.executable, *arguments], env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        assert enough.wait(120)
    finally:
        process.kill()
        process.wait()
        dead.set()
    stub.plan = always(Reply())
