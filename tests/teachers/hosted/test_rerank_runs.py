"""Runs scored by ``/rerank``: values, faults, limits, budgets, and jobs that are killed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.collections import Query
from irdistill.runs import open_run
from irdistill.teachers.hosted.hosted_requests import DUPLICATE, NOT_A_NUMBER, NOT_RETURNED
from irdistill.teachers.hosted.rerank_teacher import RerankTeacher
from irdistill.teachers.llm.served_model import ServingOptions
from irdistill.teachers.protocol import TextPair
from tests.teachers.hosted.hosted_stub import SHAPES, HostedStub, pair_score, write_card
from tests.teachers.llm.chat_stub import Reply, always, first
from tests.teachers.scoring_helpers import contents
from tests.teachers.server_runs import (
    DEPTH,
    PAIRS,
    QUERIES,
    SECRET,
    kill_after,
    run_command,
    score,
    score_arguments,
)

pytest.importorskip("openai")


def teacher(
    server: HostedStub, folder: Path, more: dict[str, Any] | None = None, **options: Any
) -> RerankTeacher:
    card = {"url": server.url, "shape": server.shape} | (more or {})
    options = {"log": folder / "log.jsonl", "max_retries": 1} | options
    return RerankTeacher("m", card, ServingOptions(**options))


def pairs(query: str, *texts: str) -> list[TextPair]:
    return [TextPair(Query(query, query), row, text) for row, text in enumerate(texts)]


def expected_scores() -> dict[tuple[str, str], float]:
    return {
        (f"q{query}", f"d{(query * 5 + rank) % 12}"): pair_score(
            f"question {query}", f"text number {(query * 5 + rank) % 12}"
        )
        for query in range(QUERIES)
        for rank in range(DEPTH)
    }


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_servers_scores(shape: str, stub: Any, folder: Path) -> None:
    server = stub(shape)
    write_card(
        server, parameters={"extra": 1}, limits={"texts": 4}, prices={"input": 1.0, "output": 0.0}
    )
    assert score("run") == 0
    run = open_run(folder / "run")
    scores = {
        (query, doc): float(value)
        for query in run.query_ids
        for doc, value in zip(run[query].doc_ids, run[query].scores, strict=True)
    }
    assert scores == expected_scores()
    assert [len(server.texts(body)) for body in server.bodies].count(4) == QUERIES
    assert {body["extra"] for body in server.bodies} == {1}
    assert ("model" in server.bodies[0]) == (shape != "tei")
    assert set(server.text_counts.values()) == {1} and len(server.text_counts) == PAIRS
    assert set(server.keys) == {f"Bearer {SECRET}"}
    producer = run.manifest.identity.producer
    assert producer["kind"] == "hosted-reranker" and producer["api"] == f"rerank ({shape})"
    assert producer["parameters"] == {"extra": 1} and producer["score"] == "probabilities"
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 8 and not [
        path for path in written if SECRET.encode() in path.read_bytes()
    ]


def test_a_killed_job_resumes_and_pays_for_no_pair_twice(stub: Any, folder: Path) -> None:
    parallel, killed = 3, stub("cohere")
    limits, prices = {"texts": 2}, {"search": 2.0, "per": 1000}
    write_card(killed, limits=limits, prices=prices)
    arguments = score_arguments("cut", "--parallel", str(parallel))
    kill_after(12, killed, ["-m", "irdistill", *arguments])
    log = folder / "cut.responses.jsonl"
    kept = sum('"key"' in line for line in log.open())
    assert 12 - parallel <= kept < 12 + parallel and not list((folder / "cut").glob("part-*"))
    assert score("cut", "--parallel", str(parallel)) == 0
    twice = [pair for pair, count in killed.text_counts.items() if count > 1]
    assert len(killed.text_counts) == PAIRS and len(twice) <= 2 * parallel

    whole = stub("cohere")
    write_card(whole, name="whole", limits=limits, prices=prices)
    assert score("whole", teacher="whole.yaml") == 0
    assert set(whole.text_counts.values()) == {1}
    assert contents(folder / "cut") == contents(folder / "whole")
    usage = open_run(folder / "cut").manifest.usage
    assert usage["requests"] == PAIRS / 2 and usage["pairs"] == PAIRS
    assert usage["cost"] == pytest.approx(PAIRS / 2 * 0.002)


def test_a_deeper_run_sends_only_new_pairs(stub: Any, folder: Path) -> None:
    server = stub()
    write_card(server)
    assert score("top", "--k", "4", "--responses", "shared.jsonl") == 0
    assert len(server.text_counts) == 4 * QUERIES
    assert score("all", "--responses", "shared.jsonl") == 0
    assert len(server.text_counts) == PAIRS and set(server.text_counts.values()) == {1}
    before = contents(folder / "all")
    assert score("all", "--overwrite", "--replay", "--responses", "shared.jsonl") == 0
    assert contents(folder / "all") == before and set(server.text_counts.values()) == {1}


def damaged(answer: dict[str, Any]) -> dict[str, Any]:
    """Drops index 0, repeats index 1, invalidates index 2, and adds a place that does not exist."""
    results = [result for result in answer["results"] if result["index"] != 0]
    for result in results:
        if result["index"] == 2:
            result["relevance_score"] = float("nan")
    again = next(result for result in results if result["index"] == 1)
    return answer | {"results": [*results, again, {"index": 17, "relevance_score": 9.0}]}


def test_missing_duplicate_and_unknown_indices_are_null(stub: Any, folder: Path) -> None:
    server = stub("jina", always(Reply(body=damaged)))
    model = teacher(server, folder)
    texts = ("a", "b", "c", "d")
    for _ in range(2):  # the second answer is from the log
        scores = model.score(pairs("q", *texts))
        assert scores.flags == [NOT_RETURNED, DUPLICATE, NOT_A_NUMBER, None]
        assert np.isnan(scores.values[:3]).all() and scores.values[3] == pair_score("q", "d")
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Reply(429, {"detail": "slow down"}, (("Retry-After", "3"),)),
        Reply(500, {"message": "oops"}),
        Reply(503, b"upstream"),
        Reply(cut=20),
        Reply(body=b'{"results": [{"index": 0,'),
        Reply(body={"results": "none"}),
        Reply(delay=1.5),
    ],
    ids=["429", "500", "503", "cut", "truncated", "no list", "slow"],
)
def test_a_passing_fault_is_retried(
    fault: Reply, stub: Any, folder: Path, waits: list[float]
) -> None:
    server = stub("jina", first(fault))
    scores = teacher(server, folder, timeout=0.5).score(pairs("q", "a", "b"))
    assert scores.flags is None
    assert scores.values.tolist() == [pair_score("q", "a"), pair_score("q", "b")]
    assert len(server.bodies) == 2 and len(waits) == 1
    assert (waits[0] == 3) == (fault.status == 429)


def test_a_request_that_is_too_large_is_halved(stub: Any, folder: Path) -> None:
    def refuse(prompt: str, nth: int) -> Reply:
        texts = prompt.split("|")[1:]
        if len(texts) > 2:
            return Reply(413, {"error": "batch size 5 > maximum allowed batch size 2"})
        return (
            Reply(422, {"error": "must have less than 512 tokens"}) if "huge" in texts else Reply()
        )

    server = stub("tei", refuse)
    texts = ("a", "b", "huge", "d", "e")
    for _ in range(2):
        scores = teacher(server, folder).score(pairs("q", *texts))
        assert scores.flags == [None, None, "too long", None, None]
        known = [pair_score("q", text) for text in texts if text != "huge"]
        assert np.delete(scores.values, 2).tolist() == known
    assert sorted(server.request_counts.values()) == [1] * len(server.request_counts)
    sent = sorted(len(server.texts(body)) for body in server.bodies)
    assert sent == [1, 2, 2, 3, 5]  # all; a, b and the rest; the huge one alone, d and e


def test_a_document_that_breaks_the_server_is_null_alone(
    stub: Any, folder: Path, waits: list[float]
) -> None:
    server = stub(
        "vllm", lambda prompt, nth: Reply(500, b"crash") if "poison" in prompt else Reply()
    )
    scores = teacher(server, folder).score(pairs("q", "a", "poison", "c", "d"))
    assert scores.flags == [None, "no answer", None, None]
    assert scores.values[[0, 2, 3]].tolist() == [pair_score("q", text) for text in "acd"]


def test_a_listwise_reranker_gets_its_documents_together(stub: Any, folder: Path) -> None:
    server = stub()
    model = teacher(server, folder, {"independent": False, "limits": {"texts": 3}})
    model.score(pairs("q", "a", "b", "c"))
    model.score(pairs("q", "a", "b"))
    assert [server.texts(body) for body in server.bodies] == [["a", "b", "c"], ["a", "b"]]
    assert model.identity["limits"] == {"texts": 3}


def test_a_list_that_a_listwise_reranker_does_not_get_together_is_reported(
    stub: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = teacher(stub(), folder, {"independent": False, "limits": {"texts": 3}})
    assert "lists_split" not in model.score(pairs("q", "a", "b", "c")).usage and not caplog.text
    scores = model.score([*pairs("q", "a", "b", "c"), *pairs("r", "a", "b", "c", "d")])
    assert scores.usage["lists_split"] == 1 and scores.flags is None
    assert "1 of 2 queries have too many for one" in caplog.text


def test_logits_that_look_like_probabilities_are_reported(
    stub: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def squeezed(answer: dict[str, Any]) -> dict[str, Any]:
        for result in answer["results"]:
            result["relevance_score"] = result["relevance_score"] / 10 + 0.5
        return answer

    server = stub("vllm")
    texts = [f"text {number}" for number in range(20)]
    teacher(server, folder, {"scores": "logits"}).score(pairs("q", *texts))
    assert not caplog.text
    server.plan = always(Reply(body=squeezed))
    teacher(server, folder).score(pairs("r", *texts))
    teacher(server, folder, {"scores": "logits"}).score(pairs("s", *texts[:19]))
    assert not caplog.text
    teacher(server, folder, {"scores": "logits"}).score(pairs("t", *texts))
    assert "returns logits, and all of 20 scores are between 0 and 1" in caplog.text


def test_limits_on_bytes_and_on_the_texts_sent(stub: Any, folder: Path) -> None:
    server = stub()
    model = teacher(server, folder, {"limits": {"bytes": 3000}, "truncates": True})
    scores = model.score(pairs("q", "a" * 1000, "b" * 1000, "c" * 4000))
    assert scores.flags == [None, None, "too long"]
    assert [len(json.dumps(body)) < 3000 for body in server.bodies] == [True, True]
    short = RerankTeacher(
        "m", {"url": server.url, "shape": "jina"}, ServingOptions(log=folder / "b.jsonl"), 10
    )
    scores = short.score(pairs("q", "a" * 11, "b" * 10))
    assert server.texts(server.bodies[-1]) == ["a" * 10, "b" * 10]
    assert scores.usage["passages_cut"] == 1 and short.identity["document_characters"] == 10


def test_documents_that_the_server_cuts_are_counted(
    stub: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = teacher(stub(), folder, {"limits": {"text_tokens": 100}, "truncates": True})
    assert model.score(pairs("q", "a" * 390, "b" * 420)).usage["documents_over_limit"] == 1
    assert "1 of 2 documents are longer than the 100 tokens that m reads" in caplog.text
    cutting = {"url": stub().url, "shape": "jina", "limits": {"text_tokens": 100}}
    options = ServingOptions(log=folder / "cut.jsonl")
    short = RerankTeacher("m", cutting | {"truncates": True}, options, document_characters=400)
    assert "documents_over_limit" not in short.score(pairs("q", "a" * 420)).usage


def test_search_units_are_billed_and_budgeted(
    stub: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = stub("cohere")
    write_card(server, prices={"search": 2.0, "per": 1000, "currency": "USD"})
    assert score("run", "--max-cost", "0.009", "--parallel", "1") == 1
    assert "the budget max_cost=0.009 is spent: 4 requests" in capsys.readouterr().err
    assert len(server.bodies) == 4
    assert score("run", "--max-cost", "0.019") == 0
    assert len(server.bodies) == QUERIES
    assert open_run(folder / "run").manifest.usage["cost"] == pytest.approx(0.018)


def test_requests_per_minute_are_spread(stub: Any, folder: Path) -> None:
    server = stub()
    model = teacher(server, folder, {"limits": {"requests_per_minute": 600}})
    began = time.monotonic()
    for query in ("q", "r", "s", "t"):
        model.score(pairs(query, "a"))
    assert time.monotonic() - began >= 0.3


def test_cards_without_a_shape_or_with_a_wrong_one_are_refused(
    stub: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = stub()
    for more, words in (
        ({"shape": "openai"}, "has the shape 'openai'"),
        ({"shape": "bing"}, "shape"),
        ({"limits": {"texts": 0}}, "texts"),
        ({"limits": {"documents": 3}}, "no setting 'documents'"),
        ({"settings": {"batch": 3}}, "has no setting batch"),
        ({"url": "https://user:pw@example.com"}, "contains a user, a password"),
        (
            {"key": "UNSET", "url": "https://example.com/v1"},
            "needs the key in the environment variable UNSET",
        ),
    ):
        write_card(server, **more)
        assert score("run") == 1
        message = capsys.readouterr().err
        assert words in message and "Traceback" not in message, message
    assert not server.bodies


def test_a_dry_run_knows_the_price_and_sends_nothing(
    stub: Any, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STUB_KEY")
    shared = ["set", "--candidates", "candidates.txt", "--teacher", "stub.yaml", "--dry-run"]
    server = stub()
    for shape, prices, cost in (
        # a query of 10 bytes and a text of 13 or 14: (10 // 3 + 8 + 14 // 3) tokens at 3 bytes each
        ("jina", {"input": 2.0, "output": 0.0, "per": 1000}, PAIRS * 15 * 3 / 4 * 2 / 1000),
        ("cohere", {"search": 2.0, "per": 1000}, QUERIES * 2 * 2 / 1000),
    ):
        limits = {"texts": 3}
        write_card(server, shape=shape, url="https://example.com/v1", prices=prices, limits=limits)
        assert run_command(["estimate", *shared, "--json", "cost.json"]) == 0
        figures = json.loads(Path("cost.json").read_text())
        assert figures["pairs"] == PAIRS and figures["sampled"] == 0
        assert figures["requests"]["value"] == QUERIES * 2
        assert figures["cost"]["value"] == pytest.approx(cost, rel=0.01)
        assert "nothing was sent" in capsys.readouterr().out
    assert not server.bodies and not list(folder.rglob("*.jsonl.lock"))
    assert (
        run_command(
            ["estimate", "set", "--candidates", "candidates.txt", "--teacher", "bm25", "--dry-run"]
        )
        == 1
    )
    assert "only hosted teachers know" in capsys.readouterr().err
