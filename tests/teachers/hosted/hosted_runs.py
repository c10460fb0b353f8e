"""A small collection, cards of the stub, and commands that score with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from irdistill.cli.entry_point import main
from tests.teachers.hosted.hosted_stub import HostedStub

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


def write_card(
    stub: HostedStub, kind: str = "hosted-reranker", name: str = "stub", **more: Any
) -> Path:
    """A card of the stub; ``settings`` and fields of the server."""
    settings = {"max_retries": 2} | more.pop("settings", {})
    server = {"url": stub.url, "name": "stub", "key": "STUB_KEY", "shape": stub.shape} | more
    card = {"name": name, "kind": kind, "model": "m", "settings": settings, "server": server}
    path = Path(f"{name}.yaml")
    path.write_text(yaml.safe_dump(card))
    return path


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


def contents(run: Path) -> dict[str, bytes]:
    """The files of a run."""
    return {
        path.name: path.read_bytes()
        for path in run.iterdir()
        if path.suffix in (".json", ".parquet")
    }
