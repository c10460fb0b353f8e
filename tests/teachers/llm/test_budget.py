"""The budget: which requests pass, wait or stop, over several starts of a job."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from irdistill import IrdistillError
from irdistill.teachers.llm import Message, Request
from irdistill.teachers.llm.budget import Budget, Prices, Spent
from irdistill.teachers.llm.remote import ServerModel
from tests.teachers.llm.chat_stub import ChatStub, Reply, always, completion, first

pytest.importorskip("openai")

#: 60 tokens read and 10 written, at 1 and 4 a thousand: 0.1 a request.
ANSWER = Reply(body=completion("ok", usage=(60, 10)))
PRICES = {"input": 1, "output": 4, "currency": "EUR", "per": 1000}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client does not wait before its retries."""
    clock = SimpleNamespace(sleep=lambda seconds: None, time=time.time)
    monkeypatch.setattr("openai._base_client.time", clock)


@pytest.fixture()
def stub() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda plan=None: stack.enter_context(ChatStub(plan or always(ANSWER)).running())


def model(server: ChatStub, folder: Path, **settings: Any) -> ServerModel:
    return ServerModel(
        "stub",
        {"url": server.url, "prices": PRICES},
        log=folder / "log.jsonl",
        **settings,
    )


def asks(count: int) -> list[Request]:
    """Requests of 108 bytes each, which are reserved at the 60 tokens that the server counts."""
    return [
        Request((Message("user", f"question {number} ".ljust(108, "x")),), max_tokens=10)
        for number in range(count)
    ]


def test_prices() -> None:
    assert Prices(2.0, 8.0, 0.5, per=1_000_000).cost(1_000_000, 500_000, 400_000) == pytest.approx(
        0.6 * 2 + 0.4 * 0.5 + 4
    )
    assert Prices(2.0, 8.0, per=1000).cost(10, 0, 5) == pytest.approx(0.02)
    assert Prices.of({}) is None and Prices.of(
        {"input": 1, "output": 2, "read": "2025-01-01"}
    ) == Prices(1, 2, read="2025-01-01")


def test_requests_in_flight_are_counted_at_their_worst() -> None:
    spent = [Spent()]
    budget = Budget(lambda: spent[0], Prices(1, 1, per=1), max_cost=10)
    entered, leave, third = threading.Event(), threading.Event(), threading.Event()

    def hold() -> None:
        with budget.reserve(Spent(1, 6, 6.0)):
            entered.set()
            leave.wait(30)
            spent[0] = Spent(1, 2, 2.0)

    def late() -> None:
        with budget.reserve(Spent(1, 5, 5.0)):
            third.set()

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(30)
    waiter = threading.Thread(target=late)
    waiter.start()
    assert not third.wait(0.1)
    leave.set()
    assert third.wait(30)
    holder.join()
    waiter.join()
    with pytest.raises(
        IrdistillError,
        match=r"max_cost=10 is spent: 1 requests took 2 tokens and 2 USD.* 8 USD are left.* 9 USD",
    ):
        budget.reserve(Spent(1, 9, 9.0)).__enter__()


@pytest.mark.parametrize(
    ("settings", "served"),
    [
        ({"max_requests": 7}, 7),
        ({"max_tokens_total": 500}, 7),
        ({"max_cost": 0.75}, 7),
        ({"max_cost": 0.75, "max_requests": 3}, 3),
    ],
)
@pytest.mark.parametrize("parallel", [1, 4])
def test_a_larger_budget_resumes(
    stub: Any, tmp_path: Path, settings: dict[str, Any], served: int, parallel: int
) -> None:
    server = stub()
    with pytest.raises(IrdistillError, match="is spent") as stop:
        model(server, tmp_path, parallel=parallel, **settings).answer(asks(20))
    assert sum(server.served.values()) == served
    assert f"{served} requests took {served * 70} tokens and {served / 10:g} EUR" in str(stop.value)
    assert str(tmp_path / "log.jsonl") in str(stop.value)
    with pytest.raises(IrdistillError, match="is spent"):
        model(server, tmp_path, parallel=parallel, **settings).answer(asks(20))
    assert sum(server.served.values()) == served
    answers = model(server, tmp_path, parallel=parallel, max_cost=2.1, max_requests=20).answer(
        asks(20)
    )
    assert [answer.text for answer in answers] == ["ok"] * 20
    assert len(server.served) == 20 and set(server.request_counts.values()) == {1}
    assert sum(answer.cost for answer in answers) == pytest.approx(2.0)


def test_the_cost_never_exceeds_the_budget_when_responses_are_lost(
    stub: Any, tmp_path: Path
) -> None:
    server = stub(always(Reply(cut=10)))
    with pytest.raises(IrdistillError, match="is spent"):
        model(server, tmp_path, max_requests=5, max_retries=50, parallel=2).answer(asks(3))
    assert sum(server.request_counts.values()) == 5


def test_refused_requests_are_not_counted(stub: Any, tmp_path: Path) -> None:
    server = stub(first(Reply(500, b"x"), Reply(429, b"x")))
    server_model = model(server, tmp_path, max_requests=4, parallel=2)
    assert len(server_model.answer(asks(4))) == 4
    assert sum(server.request_counts.values()) == 12 and server_model.log.spent.requests == 4


def test_long_prompts_are_reserved_by_earlier_token_counts(stub: Any, tmp_path: Path) -> None:
    """Texts with more tokens than estimated must not exceed the budget."""
    server = stub(lambda prompt, nth: Reply(body=completion("ok", usage=(len(prompt), 1))))
    long = [
        Request((Message("user", f"{number} " + "x" * 998),), max_tokens=1) for number in range(6)
    ]
    with pytest.raises(IrdistillError, match="is spent") as stop:
        model(server, tmp_path, parallel=1, max_tokens_total=3500).answer(long)
    spent = re.search(r"took (\d+) tokens", str(stop.value))
    assert spent is not None and int(spent[1]) == 3003
