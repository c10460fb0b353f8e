"""A model behind a server: what it answers, and what it does when the server misbehaves."""

from __future__ import annotations

import gzip
import json
import logging
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.teachers.llm import Answer, LanguageModel, Message, Request
from irdistill.teachers.llm.remote import ServerModel
from tests.teachers.llm.chat_stub import (
    OK,
    ChatStub,
    Reply,
    always,
    completion,
    endless,
    error,
    first,
    poison,
)
from tests.teachers.llm.server_models import PRICES, ask, lines, model

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("waits")


def test_text_answers_come_in_order_with_usage_and_cost(stub: Any, tmp_path: Path) -> None:
    another = threading.Event()

    def plan(prompt: str, nth: int) -> Reply:
        if prompt == "p0":
            another.wait(30)
        another.set()
        return Reply(body=completion(f"<{prompt}>", usage=(100, 7, 40)))

    server = stub(plan)
    server_model = model(server, tmp_path, {"prices": PRICES}, parallel=4)
    assert isinstance(server_model, LanguageModel) and server_model.parallel == 4
    answers = server_model.answer([ask(f"p{n}") for n in range(12)])
    assert [answer.text for answer in answers] == [f"<p{n}>" for n in range(12)]
    assert answers[3] == Answer(
        "<p3>", None, None, 100, 7, 40, (60 * 2.0 + 40 * 1.0 + 7 * 10.0) / 1000
    )
    assert 1 < server.most <= 4
    body = server.bodies[0]
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("stub", 0, 20)
    assert "logprobs" not in body and "stream" not in body
    assert len(lines(tmp_path)) == 12 and lines(tmp_path)[0]["model"] == "stub-2025"


FAULTS = {
    "429": Reply(429, error("slow down"), (("Retry-After", "0"),)),
    "500": Reply(500, error("oops")),
    "503 in plain text": Reply(503, b"upstream"),
    "a cut connection": Reply(cut=25),
    "garbage": Reply(body=b"<html>busy</html>"),
    "a list": Reply(body=[1, 2]),
    "an empty body": Reply(body=b""),
    "no choices": Reply(body={"choices": []}),
    "two choices": Reply(body=completion("x") | {"choices": completion("x")["choices"] * 2}),
    "no message": Reply(body={"choices": [{"index": 0, "message": None}]}),
}


@pytest.mark.parametrize("name", FAULTS)
def test_temporary_faults_are_retried(
    stub: Any, tmp_path: Path, waits: list[float], name: str
) -> None:
    server = stub(first(FAULTS[name], FAULTS[name]))
    answers = model(server, tmp_path, parallel=3).answer([ask(f"p{n}") for n in range(5)])
    assert [(answer.text, answer.error) for answer in answers] == [
        (f"echo p{n}", None) for n in range(5)
    ]
    assert set(server.request_counts.values()) == {3}
    if name != "429":
        assert len(waits) == 10 and all(0.3 <= seconds <= 1 for seconds in waits)


def test_a_slow_answer_times_out_and_is_retried(stub: Any, tmp_path: Path) -> None:
    never = threading.Event()

    def plan(prompt: str, nth: int) -> Reply:
        if nth == 1:
            never.wait(30)
        return Reply()

    server = stub(plan)
    # More than one retry only where the machine is busy.
    answers = model(server, tmp_path, timeout=0.4, max_retries=50).answer([ask("p")])
    never.set()
    kept = lines(tmp_path)
    assert (
        answers[0].text == "echo p"
        and kept[-1]["text"] == "echo p"
        and server.request_counts["p"] >= 2
    )
    assert kept[0]["why"] == "nothing within the time limit" and kept[0]["spent"]["requests"] == 1
    assert kept[0]["spent"]["tokens"] > 20


def test_retry_after_is_respected(stub: Any, tmp_path: Path, waits: list[float]) -> None:
    busy, down = (
        Reply(429, error("slow"), (("Retry-After", "7"),)),
        Reply(503, error("slow"), (("Retry-After-Ms", "2500"),)),
    )
    server = stub(first(busy, down))
    assert model(server, tmp_path).answer([ask("p")])[0].text == "echo p"
    assert waits == [7, 2.5]
    for status in (429, 503):
        server = stub(
            poison(Reply(status, error("come back tomorrow"), (("Retry-After", "86400"),)))
        )
        with pytest.raises(IrdistillError, match="asks to wait 86400 seconds"):
            model(server, tmp_path).answer([ask("bad")])
        assert sum(server.request_counts.values()) == 1


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "429"])
def test_one_request_that_always_fails_is_flagged(stub: Any, tmp_path: Path, name: str) -> None:
    server = stub(poison(FAULTS[name]))
    requests = [ask("good"), ask("bad one"), ask("bad two", ("yes", "no"))]
    answers = model(server, tmp_path, max_retries=2, parallel=2).answer(requests)
    assert [answer.error for answer in answers] == [None, "no answer", "no answer"]
    assert (
        answers[1].text == ""
        and answers[2].labels is not None
        and np.isnan(answers[2].labels).all()
    )
    assert server.request_counts["bad one"] == 3
    model(server, tmp_path).answer([ask("bad one")])
    assert server.request_counts["bad one"] == 3


@pytest.mark.parametrize("name", FAULTS)
def test_a_server_that_fails_always_stops_the_job(stub: Any, tmp_path: Path, name: str) -> None:
    server = stub(always(FAULTS[name]))
    with pytest.raises(
        IrdistillError,
        match=r"the server http://127.0.0.1:\d+/v1 gave .*run the same command again",
    ):
        model(server, tmp_path, max_retries=1, parallel=2).answer([ask(f"p{n}") for n in range(6)])
    assert not [line for line in lines(tmp_path) if "key" in line]


def test_a_server_that_does_not_run_is_reported(
    stub: Any, tmp_path: Path, waits: list[float]
) -> None:
    with ChatStub(always(Reply())).running() as server:
        gone = server.url
    with pytest.raises(IrdistillError, match=r"gave no connection.*Check that it runs"):
        ServerModel("m", {"url": gone}, log=tmp_path / "log.jsonl", max_retries=2).answer(
            [ask("p")]
        )
    assert len(waits) == 2 and lines(tmp_path) == []


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (Reply(401, error("Incorrect key")), "answered 401.*Incorrect key.*needs a key"),
        (Reply(403, error("forbidden")), "answered 403.*no permission"),
        (Reply(404, error("no such model")), "answered 404.*Check the url"),
        (
            Reply(400, error("unknown parameter: foo")),
            "answered 400.*unknown parameter: foo.*parameters",
        ),
        (Reply(429, error("quota", "insufficient_quota")), "answered 429.*no credit left"),
    ],
)
def test_errors_of_every_request_raise(
    stub: Any, tmp_path: Path, reply: Reply, message: str
) -> None:
    server = stub(always(reply))
    with pytest.raises(IrdistillError, match=message):
        model(server, tmp_path, parallel=2).answer([ask(f"p{n}") for n in range(40)])
    assert sum(server.request_counts.values()) < 10


@pytest.mark.parametrize(
    ("reply", "flag"),
    [
        (
            Reply(
                400,
                error(
                    "This model's maximum context length is 4096 tokens", "context_length_exceeded"
                ),
            ),
            "too long",
        ),
        (Reply(400, error("the request exceeds the available context size")), "too long"),
        (Reply(413, b"payload"), "too long"),
        (Reply(400, error("filtered", "content_filter")), "refused"),
        (Reply(body=completion("", refusal="I cannot")), "refused"),
        (Reply(body=completion("half an ans", finish="content_filter")), "refused"),
        (Reply(body=completion("", finish="length")), "cut"),
        (Reply(body=completion("", finish="stop")), "no answer"),
    ],
)
def test_errors_of_one_request_are_flags(
    stub: Any, tmp_path: Path, reply: Reply, flag: str
) -> None:
    server = stub(poison(reply))
    good, bad, labelled = model(server, tmp_path).answer(
        [ask("good"), ask("bad"), ask("bad", ("yes", "no"))]
    )
    assert good.error is None and (bad.error, bad.text) == (flag, "")
    assert labelled.labels is not None and np.isnan(labelled.labels).all() and labelled.error
    assert server.request_counts["bad"] == 2


def test_the_name_of_the_token_limit_is_learned_once(stub: Any, tmp_path: Path) -> None:
    server = stub()
    refusal = error(
        "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
        "unsupported_parameter",
    )
    server.plan = lambda prompt, nth: (
        Reply(400, refusal) if "max_tokens" in server.bodies[-1] else Reply()
    )
    server_model = model(server, tmp_path, parallel=1)
    assert [answer.text for answer in server_model.answer([ask(f"p{n}") for n in range(5)])] == [
        f"echo p{n}" for n in range(5)
    ]
    assert len(server.bodies) == 6 and server.bodies[-1]["max_completion_tokens"] == 20


def test_parameters_and_the_beginning_of_an_answer_reach_the_server(
    stub: Any, tmp_path: Path
) -> None:
    server = stub()
    request = Request((Message("user", "q"), Message("assistant", "The answer is")))
    model(
        server, tmp_path, {"parameters": {"temperature": None, "seed": 3, "max_tokens": 9}}
    ).answer([request])
    body = server.bodies[0]
    assert body["messages"][-1] == {"role": "assistant", "content": "The answer is"}
    assert body["seed"] == 3 and body["max_tokens"] == 9 and "temperature" not in body


def test_missing_usage_counts_the_worst_case_for_the_budget_only(
    stub: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = stub(always(Reply(body=completion("fine", usage=None))))
    server_model = model(server, tmp_path, {"prices": PRICES})
    answer = server_model.answer([ask("p" * 300)])[0]
    assert (answer.input_tokens, answer.cost, answer.text) == (0, 0.0, "fine")
    assert (
        server_model.log.spent.requests == 1
        and server_model.log.spent.tokens > 100
        and server_model.log.spent.cost > 0.2
    )
    assert "does not report plausible token counts" in caplog.text


def test_the_same_request_at_the_same_time_is_paid_once(stub: Any, tmp_path: Path) -> None:
    server = stub(always(Reply(delay=0.05)))
    server_model = model(server, tmp_path, parallel=8)
    results: list[list[Answer]] = []
    threads = [
        threading.Thread(target=lambda: results.append(server_model.answer([ask("same")] * 4)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.request_counts["same"] == 1 and {
        answer.text for row in results for answer in row
    } == {"echo same"}


def test_threads_together_keep_to_the_limit(stub: Any, tmp_path: Path) -> None:
    full = threading.Event()

    def plan(prompt: str, nth: int) -> Reply:
        if server.flying >= 3:
            full.set()
        full.wait(30)
        return Reply(delay=0.01)

    server = stub(plan)
    server_model = model(server, tmp_path, parallel=3)
    threads = [
        threading.Thread(target=server_model.answer, args=([ask(f"{n} {m}") for m in range(5)],))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.most == 3 and len(server.served) == 20


@pytest.mark.parametrize(
    ("server", "settings", "message"),
    [
        ({"url": "localhost:8000"}, {}, "begins with http"),
        ({}, {}, "begins with http"),
        ({"url": "http://user:pass@host/v1"}, {}, "the server host contains a user"),
        (
            {"url": "https://host/v1?key=abc"},
            {},
            "the server host contains a user, a password or a query",
        ),
        (
            {"url": "https://host/v1", "key": "NO_SUCH_VARIABLE"},
            {},
            "NO_SUCH_VARIABLE, which is not set",
        ),
        ({"url": "http://127.0.0.1/v1", "adress": 1}, {}, "adress"),
        ({"url": "http://127.0.0.1/v1", "labels": "guess"}, {}, "labels is 'guess'"),
        ({"url": "http://127.0.0.1/v1", "parameters": {"n": 2}}, {}, "set n, which irdistill sets"),
        ({"url": "http://127.0.0.1/v1", "prices": {"input": 1}}, {}, "input and output are needed"),
        (
            {"url": "http://127.0.0.1/v1", "prices": {"input": "a", "output": 1}},
            {},
            "input is 'a'; expected a number",
        ),
        ({"url": "http://127.0.0.1/v1"}, {"max_cost": 1.0}, "prices are not known"),
        ({"url": "http://127.0.0.1/v1"}, {"max_requests": 0}, "max_requests=0"),
        ({"url": "http://127.0.0.1/v1"}, {"parallel": 0}, "parallel=0"),
        ({"url": "http://127.0.0.1/v1"}, {"time_limit": 0}, "time_limit=0"),
        ({"url": "http://127.0.0.1/v1"}, {"timeout": float("nan")}, "timeout=nan"),
    ],
)
def test_faulty_declarations_stop(
    server: dict[str, Any], settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(IrdistillError, match=message) as stop:
        ServerModel("m", server, log=tmp_path / "log.jsonl", **settings)
    assert "pass" not in str(stop.value).replace("password", "") and "abc" not in str(stop.value)


def test_the_key_goes_to_the_server_and_nowhere_else(
    stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "sk-very-secret-0123456789"
    monkeypatch.setenv("STUB_KEY", secret)
    caplog.set_level(logging.DEBUG)

    def plan(prompt: str, nth: int) -> Reply:
        if prompt == "quoted":
            return Reply(401, error(f"Incorrect API key provided: {secret}"))
        if prompt == "garbled":
            return Reply(body=f"your key is {secret}".encode())
        return Reply(500, error(f"failed for {secret}")) if nth == 1 else Reply()

    server = stub(plan)
    server_model = model(server, tmp_path, {"key": "STUB_KEY"}, max_retries=1)
    assert server_model.answer([ask("p")])[0].text == "echo p"
    assert server_model.answer([ask("garbled")])[0].error == "no answer"
    with pytest.raises(IrdistillError, match=r"provided: \*\*\*.*variable STUB_KEY") as stop:
        server_model.answer([ask("quoted")])
    assert set(server.keys) == {f"Bearer {secret}"}
    shown = [
        str(stop.value),
        repr(stop.value),
        repr(server_model),
        repr(server_model.identity),
        json.dumps(server_model.identity),
        caplog.text,
    ]
    shown += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(shown) >= 7 and not [text for text in shown if secret in text]


def test_another_host_gets_no_key_of_the_card(
    stub: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARD_KEY", "sk-of-the-card")
    monkeypatch.setenv("MY_KEY", "sk-mine")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    server, card = (
        stub(),
        {"url": "https://api.example.com/v1", "key": "CARD_KEY", "prices": PRICES},
    )
    ServerModel("m", card, url=server.url, log=tmp_path / "a.jsonl").answer([ask("p")])
    ServerModel("m", card, url=server.url, key="MY_KEY", log=tmp_path / "b.jsonl").answer(
        [ask("p")]
    )
    plain = ServerModel(
        "m",
        card | {"url": server.url.replace("http:", "https:")},
        url=server.url,
        log=tmp_path / "c.jsonl",
    )
    plain.answer([ask("p")])
    assert server.keys == ["Bearer none", "Bearer sk-mine", "Bearer none"]
    with pytest.raises(IrdistillError, match="prices are not known"):
        ServerModel("m", card, url=server.url, max_cost=1.0)


def test_the_identity_has_the_name_instead_of_the_address(stub: Any, tmp_path: Path) -> None:
    one, other = stub(), stub()
    first_model, second = (
        model(server, tmp_path, {"name": "pool", "parameters": {"seed": 1}})
        for server in (one, other)
    )
    assert first_model.identity == second.identity and first_model.identity["server"] == "pool"
    assert first_model.answer([ask("p")]) == second.answer([ask("p")])
    assert one.request_counts["p"] == 1 and not other.request_counts
    assert model(one, tmp_path).identity["server"] == one.url


ENDLESS = {
    "a body without end": endless(OK, b'{"a": "'),
    "an error without end": endless(OK.replace(b"200 OK", b"500 X"), b'{"a": "'),
    "a refusal without end": endless(OK.replace(b"200 OK", b"400 X"), b"x"),
    "a byte now and then": endless(OK, piece=b" ", pause=0.02),
    "headers now and then": endless(b"HTTP/1.1 200 OK\r\nX: ", piece=b"x", pause=0.02),
    "continue for ever": endless(piece=b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.02),
    "what was compressed": Reply(
        body=gzip.compress(b" " * 50_000_000), headers=(("Content-Encoding", "gzip"),)
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_endless_response_is_aborted(stub: Any, tmp_path: Path, name: str) -> None:
    server = stub(poison(ENDLESS[name]))
    began = time.monotonic()
    server_model = model(server, tmp_path, time_limit=0.3, timeout=5, max_retries=5, parallel=1)
    good, bad, another = server_model.answer([ask("good"), ask("bad"), ask("good again")])
    assert (good.error, bad.error, another.text) == (None, "no answer", "echo good again")
    assert (
        server.request_counts["bad"] == 2
        and server.sent < 100 * 2**20
        and time.monotonic() - began < 10
    )
    why = lines(tmp_path)[-2]["why"]
    assert any(
        word in why
        for word in ("more than 8 MiB", "had not ended after 0.3 seconds", "compressed response")
    )
    server.plan = always(ENDLESS[name])
    with pytest.raises(
        IrdistillError,
        match=r"the server .* gave a .*response .*tried 2 times. Check what answers there",
    ):
        server_model.answer([ask("bad once more")])
    assert server.request_counts["bad once more"] == 2
