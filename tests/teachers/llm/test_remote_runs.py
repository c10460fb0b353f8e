"""Runs scored by a server: killed, resumed, replayed, overwritten, over budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from irdistill.runs import open_run
from irdistill.teachers.llm import llm_loading as loading
from tests.teachers.llm.asking import stand_in
from tests.teachers.llm.chat_stub import ChatStub, Reply, always, completion, error, poison
from tests.teachers.scoring_helpers import contents
from tests.teachers.server_runs import (
    DEPTH,
    PAIRS,
    SECRET,
    kill_after,
    score,
    score_arguments,
    write_collection,
)

pytest.importorskip("openai")


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A collection, and candidates for it."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STUB_KEY", SECRET)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loading, "_TEACHERS", stand_in())
    write_collection(tmp_path)
    return tmp_path


def card(server: ChatStub, name: str = "stub", **more: Any) -> None:
    prices = {"input": 0.003, "output": 0.07, "per": 10}
    declared = {"url": server.url, "name": "stub", "key": "STUB_KEY", "prices": prices} | more
    Path(f"{name}.yaml").write_text(
        yaml.safe_dump(
            {
                "name": name,
                "kind": "llm-pointwise",
                "backend": "openai",
                "model": "m",
                "settings": {"max_retries": 2},
                "server": declared,
            }
        )
    )


def logged(path: Path) -> int:
    return sum('"key"' in line and line.endswith("\n") for line in path.open())


def test_a_killed_job_resumes_and_pays_for_no_answer_twice(stub: Any, folder: Path) -> None:
    parallel, killed = 4, stub()
    card(killed)
    arguments = score_arguments("cut", "--parallel", str(parallel))
    kill_after(20, killed, ["-m", "tests.teachers.llm.asking", *arguments])
    log = folder / "cut.responses.jsonl"
    kept = logged(log)
    assert 20 - parallel <= kept < 20 + parallel
    assert not list((folder / "cut").glob("part-*"))
    assert score("cut", "--parallel", str(parallel)) == 0
    assert len(killed.served) == PAIRS and logged(log) == PAIRS
    twice = [prompt for prompt, count in killed.request_counts.items() if count > 1]
    assert len(twice) <= parallel and sum(killed.request_counts.values()) == PAIRS + len(twice)

    whole = stub()
    card(whole, "whole")
    assert score("whole", teacher="whole.yaml") == 0
    assert set(whole.request_counts.values()) == {1}
    assert contents(folder / "cut") == contents(folder / "whole")
    usage = open_run(folder / "cut").manifest.usage
    assert usage["requests"] == usage["pairs"] == PAIRS and usage["output_tokens"] == PAIRS
    assert usage["cost"] == pytest.approx((usage["tokens"] * 0.003 + PAIRS * 0.07) / 10)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 15 and not [
        path for path in written if SECRET.encode() in path.read_bytes()
    ]
    assert killed.keys[-1] == f"Bearer {SECRET}"


def test_overwriting_and_replaying_pay_nothing(
    stub: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = stub()
    card(server)
    assert score("run") == 0
    before = contents(folder / "run")
    assert score("run", "--overwrite") == 0
    assert score("again", "--responses", "run.responses.jsonl") == 0
    assert sum(server.request_counts.values()) == PAIRS and contents(
        folder / "again"
    ) == before == contents(folder / "run")
    monkeypatch.delenv("STUB_KEY")
    card(server, "gone", url="https://nowhere.example.com/v1")
    assert (
        score("replayed", "--replay", "--responses", "run.responses.jsonl", teacher="gone.yaml")
        == 0
    )
    assert contents(folder / "replayed") == before
    rows = (folder / "run.responses.jsonl").read_text().splitlines(keepends=True)
    (folder / "part.jsonl").write_text("".join(rows[:-1]))
    capsys.readouterr()
    assert score("missing", "--replay", "--responses", "part.jsonl", teacher="gone.yaml") == 1
    message = capsys.readouterr().err
    assert json.loads(rows[-1])["key"] in message and f"among its {PAIRS - 1}" in message


def test_a_larger_budget_resumes_a_stopped_command(
    stub: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = stub()
    card(server)
    assert score("run", "--max-requests", "20", "--parallel", "2") == 1
    message = capsys.readouterr().err
    assert (
        message.startswith("irdistill: the budget max_requests=20 is spent: 20 requests")
        and "Traceback" not in message
    )
    assert score("run", "--max-cost", "0.5") == 1
    assert (
        20 < sum(server.request_counts.values()) < PAIRS and "is spent" in capsys.readouterr().err
    )
    assert score("run", "--max-cost", "3") == 0
    assert set(server.request_counts.values()) == {1} and len(server.request_counts) == PAIRS
    card(server, "free", prices={})
    assert score("free", "--max-cost", "3", teacher="free.yaml") == 1
    assert "prices are not known" in capsys.readouterr().err


def test_unanswered_pairs_are_null_with_a_flag(stub: Any, folder: Path) -> None:
    texts = (folder / "set" / "queries.jsonl").read_text()
    (folder / "set" / "queries.jsonl").write_text(texts.replace("question 3", "bad 3"))
    server = stub(poison(Reply(400, error("too many tokens", "context_length_exceeded"))))
    card(server)
    assert score("run") == 0
    run = open_run(folder / "run")
    assert run.manifest.nulls == DEPTH and run["q3"].flags == ["too long"] * DEPTH
    assert all(
        flag is None for query in run.query_ids if query != "q3" for flag in run[query].flags or []
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--max-cost", "-1"), "--max-cost is '-1'"),
        (("--url", "ftp://x"), "begins with http"),
        (("--key", "NOT_SET", "--url", "https://host.example.com/v1"), "NOT_SET, which is not set"),
        (("--parallel", "0"), "--parallel is '0'"),
        (("--responses", "candidates.txt"), "is not a response log"),
    ],
)
def test_faulty_options_are_one_paragraph(
    stub: Any,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    card(stub())
    assert score("run", *options) == 1
    err = capsys.readouterr().err
    assert message in err and "Traceback" not in err and err.count("\n") == 1


def test_other_teachers_take_no_server(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert score("run", "--max-cost", "1", teacher="bm25") == 1
    assert "bm25 has no setting max_cost" in capsys.readouterr().err
    assert score("run", teacher="bm25") == 0 and not list(folder.glob("*.responses.jsonl"))


def test_a_run_without_a_score_ends_with_an_exit_code(
    stub: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card(stub(always(Reply(400, error("too many tokens", "context_length_exceeded")))))
    for _ in range(2):
        assert score("run") == 1
        message = capsys.readouterr().err
        assert (
            f"scored none of {PAIRS} documents (all too long). The run is saved in run" in message
            and "Traceback" not in message
        )
    assert (
        open_run(folder / "run").manifest.complete
        and logged(folder / "run.responses.jsonl") == PAIRS
    )


@pytest.mark.parametrize(
    ("before", "flag"),
    [
        ("", None),
        ("<think>[1] is good</think>", None),
        ("<think>", "cut"),
        ("I'm sorry, but ", "refused"),
    ],
)
def test_the_shipped_listwise_card_ranks_what_a_server_answers(
    stub: Any, folder: Path, capsys: pytest.CaptureFixture[str], before: str, flag: str | None
) -> None:
    server = stub(always(Reply(body=completion(f"{before}[2] > [1] > [4] > [3] > [6] > [5]"))))
    assert score("run", "--url", server.url, teacher="server-listwise") == (
        0 if flag is None else 1
    )
    run = open_run(folder / "run")
    assert (
        f"all {flag}" in capsys.readouterr().err
        if flag
        else run["q0"].doc_ids == ["d1", "d0", "d3", "d2", "d5", "d4"]
    )
    assert set(run["q0"].flags or [None]) == {flag}
    prompts = [
        message["content"]
        for body in server.bodies
        for message in body["messages"]
        if message["role"] == "user"
    ]
    assert any(
        "[6] text number 5" in prompt and "Search query: question 0" in prompt for prompt in prompts
    )
