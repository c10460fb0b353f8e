"""Responses of servers: text, labels and usage; implausible and damaged ones."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill import IrdistillError
from tests.teachers.llm.chat_stub import (
    Reply,
    always,
    completion,
    error,
    poison,
)
from tests.teachers.llm.server_models import PRICES, ask, lines, model

pytest.importorskip("openai")
pytestmark = pytest.mark.usefixtures("waits")


def test_labels_sum_the_tokens_that_begin_them(stub: Any, tmp_path: Path) -> None:
    top = {
        "yes": math.log(0.5),
        " yes": math.log(0.25),
        "Yes": math.log(0.1),
        "n": math.log(0.05),
        "yesterday": math.log(0.04),
    }
    server = stub(always(Reply(body=completion("yes", top=top))))
    answer = model(server, tmp_path).answer([ask("q", ("yes", "no", "maybe"))])[0]
    assert (
        answer.text == ""
        and answer.error is None
        and answer.labels is not None
        and answer.labels.dtype == np.float32
    )
    assert answer.labels[:2] == pytest.approx([math.log(0.75), math.log(0.05)], abs=1e-6)
    assert np.isnan(answer.labels[2])
    body = server.bodies[0]
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"]) == (True, 20, 1)
    again = model(server, tmp_path).answer([ask("q", ("yes", "no", "maybe"))])[0]
    assert (
        again.labels is not None
        and again.labels.tobytes() == answer.labels.tobytes()
        and sum(server.request_counts.values()) == 1
    )


@pytest.mark.parametrize(
    ("top", "labels", "expected"),
    [
        ({"rel": -1.0, "irre": -2.0}, ("relevant", "irrelevant"), [-1.0, -2.0]),
        ({"\u2581A": -1.0, "\u0120B": -2.0, "B": -9999.0}, ("A", "B"), [-1.0, -2.0]),
        ({"A": -1.0}, ("A1", "A2"), [None, None]),
        ({"A": -1.0}, (" A", "B"), [-1.0, None]),
        ({"yes": -1.0, "": -0.1, "\n": -0.2}, ("yes", "yesterday"), [-1.0, None]),
    ],
)
def test_a_token_counts_for_the_only_label_that_it_begins(
    stub: Any,
    tmp_path: Path,
    top: dict[str, float],
    labels: tuple[str, ...],
    expected: list[float | None],
) -> None:
    answer = model(stub(always(Reply(body=completion("", top=top)))), tmp_path).answer(
        [ask("q", labels)]
    )[0]
    assert answer.labels is not None
    assert [
        None if np.isnan(one) else pytest.approx(float(one)) for one in answer.labels
    ] == expected
    assert answer.error == (None if any(expected) else "labels not reported")


def test_without_log_probabilities_there_is_no_score(stub: Any, tmp_path: Path) -> None:
    server = stub(
        lambda prompt, nth: Reply(body=completion({"a": " yes, it is", "b": "yesterday"}[prompt]))
    )
    first_answer, second = model(server, tmp_path, {"labels": "text"}).answer(
        [ask("a", ("yes", "no")), ask("b", ("yes", "no"))]
    )
    assert (first_answer.text, first_answer.error) == (
        "yes",
        "no log-probabilities",
    ) and second.text == ""
    assert first_answer.labels is not None and np.isnan(first_answer.labels).all()
    assert "logprobs" not in server.bodies[0] and server.bodies[0]["max_tokens"] == 20
    assert (
        model(server, tmp_path, {"labels": "text"}).answer([ask("a", ("yes", "no"), 1)])[0].text
        == "yes"
    )
    assert server.bodies[-1]["max_tokens"] == 16
    (tmp_path / "other").mkdir()
    with pytest.raises(IrdistillError, match=r"reports no log-probabilities.*labels: text"):
        model(server, tmp_path / "other").answer([ask("a", ("yes", "no"))])


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 1_000_000,
        b'{"choices": ' * 5_000,
        b'{"usage": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'"' * 1_000_000,
    ],
)
def test_deep_nesting_is_a_fault_like_others(stub: Any, tmp_path: Path, body: bytes) -> None:
    server_model = model(stub(poison(Reply(body=body))), tmp_path, max_retries=1).answer(
        [ask("good"), ask("bad")]
    )
    assert [answer.error for answer in server_model] == [None, "no answer"]
    assert (
        "which is nested more than 64 levels deep" in lines(tmp_path)[-1]["why"] or body[:1] == b'"'
    )


def test_brackets_inside_texts_are_not_nesting(stub: Any, tmp_path: Path) -> None:
    text = '[[["' * 500 + "\\"
    assert (
        model(stub(always(Reply(body=completion(text)))), tmp_path).answer([ask("p")])[0].text
        == text
    )


@pytest.mark.parametrize(
    "usage",
    [
        (10**400, 1),
        (1, 10**400),
        (-1, 2),
        ("12", 3),
        (float("nan"), 1),
        (1e999, 1),
        (None, 1),
        (1.5, 2),
        (True, 1),
        ([1], 1),
        ({}, 1),
        (10, 2, 99),
        (9_999_999, 2),
        (10_000_001, 1),
    ],
    ids=str,
)
def test_implausible_token_counts_are_ignored(
    stub: Any, tmp_path: Path, usage: tuple[Any, ...]
) -> None:
    body = completion("fine", usage=None) | {
        "usage": dict(zip(("prompt_tokens", "completion_tokens"), usage[:2], strict=True))
    }
    if len(usage) > 2:
        body["usage"]["prompt_cache_hit_tokens"] = usage[2]
    server_model = model(
        stub(always(Reply(body=json.dumps(body).encode()))),
        tmp_path,
        {"prices": PRICES},
        max_tokens_total=100_000,
    )
    answers = server_model.answer([ask(f"p{number}" * 100) for number in range(3)])
    assert {(answer.text, answer.input_tokens, answer.cost) for answer in answers} == {
        ("fine", 0, 0.0)
    }
    assert 3 * 50 < server_model.log.spent.tokens < 3 * 200 and 0 < server_model.log.spent.cost < 5
    json.loads(
        (tmp_path / "log.jsonl").read_text().splitlines()[-1],
        parse_constant=lambda name: pytest.fail(name),
    )


def test_an_impossible_log_probability_is_ignored(stub: Any, tmp_path: Path) -> None:
    body = completion("yes", top={"yes": -1.0, "no": -2.0})
    body["choices"][0]["logprobs"]["content"][0]["top_logprobs"].append(
        {"token": "maybe", "logprob": 10**400}
    )
    with pytest.raises(IrdistillError, match="reports no log-probabilities"):
        model(stub(always(Reply(body=json.dumps(body).encode()))), tmp_path).answer(
            [ask("q", ("yes", "no"))]
        )


@pytest.mark.parametrize(
    "reply",
    [
        Reply(404, error("no \x1b[2J\x1b]0;title\x07 such\u202e model")),
        Reply(401, b"\x1b[31mred"),
        Reply(body=b"\x1b[2J no JSON"),
        Reply(500, b"\x9b2J busy"),
    ],
)
def test_control_characters_are_escaped_in_messages(
    stub: Any, tmp_path: Path, reply: Reply, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(IrdistillError) as stop:
        model(stub(always(reply)), tmp_path, max_retries=0).answer([ask("p")])
    shown = str(stop.value) + "".join(
        record.getMessage() for record in caplog.records if record.name.startswith("irdistill")
    )
    assert shown and not [letter for letter in shown if not letter.isprintable()]


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ({"content": "[2] > [1]", "reasoning_content": "[1] > [2]"}, ("[2] > [1]", None)),
        ({"content": None, "reasoning_content": "[1] > [2]"}, ("", "no answer")),
        ({"content": "", "reasoning": "[1]"}, ("", "no answer")),
        (
            {
                "content": [
                    {"type": "thinking", "thinking": [{"type": "text", "text": "[1]"}]},
                    {"type": "text", "text": "[2]"},
                ]
            },
            ("[2]", None),
        ),
        (
            {"content": [{"type": "reasoning", "text": "[1]"}, {"type": "text", "text": "[2]"}]},
            ("[2]", None),
        ),
    ],
)
def test_separate_thinking_of_a_server_is_not_an_answer(
    stub: Any, tmp_path: Path, message: dict[str, Any], answer: tuple[Any, Any]
) -> None:
    body = completion("")
    body["choices"][0]["message"] = {"role": "assistant"} | message
    server_model = model(stub(always(Reply(body=body))), tmp_path).answer([ask("p")])[0]
    assert (server_model.text, server_model.error) == answer


@pytest.mark.parametrize(
    ("finish", "written", "cut"),
    [
        ("length", 20, True),
        ("max_tokens", 5, True),
        ("MAX_TOKENS", 5, True),
        ("stop", 20, False),
        (None, 20, True),
        (None, 19, False),
    ],
)
def test_a_cut_answer_says_so_and_the_log_keeps_it(
    stub: Any, tmp_path: Path, finish: Any, written: int, cut: bool
) -> None:
    server = stub(always(Reply(body=completion("[2] > [1", usage=(10, written), finish=finish))))
    assert model(server, tmp_path).answer([ask("p")])[0].cut is cut
    assert (
        model(server, tmp_path, replay=True).answer([ask("p")])[0].cut is cut
        and sum(server.request_counts.values()) == 1
    )


def test_a_model_that_thinks_first_has_no_label(stub: Any, tmp_path: Path) -> None:
    top = {"<think>": -1e-5, "yes": -11.0, "no": -12.0}
    answer = model(stub(always(Reply(body=completion("", top=top)))), tmp_path).answer(
        [ask("q", ("yes", "no"))]
    )[0]
    assert (
        answer.error == "thinks first"
        and answer.labels is not None
        and np.isnan(answer.labels).all()
    )


@pytest.mark.parametrize("replay", [False, True])
def test_a_damaged_answer_is_requested_again_or_refused(
    stub: Any, tmp_path: Path, replay: bool
) -> None:
    server = stub()
    assert model(server, tmp_path).answer([ask("p"), ask("q")])[0].text == "echo p"
    log = tmp_path / "log.jsonl"
    log.write_bytes(log.read_bytes().replace(b"echo p", b"echo P"))
    if replay:
        with pytest.raises(
            IrdistillError,
            match=r"no answer to the request .* \(1 of its lines are damaged and ignored\)",
        ):
            model(server, tmp_path, replay=True).answer([ask("p")])
        return
    server_model = model(server, tmp_path)
    assert [answer.text for answer in server_model.answer([ask("p"), ask("q")])] == [
        "echo p",
        "echo q",
    ]
    assert server.request_counts == {"p": 2, "q": 1} and server_model.log.damaged == 1
