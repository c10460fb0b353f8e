"""Fixtures of tests with a stub of a server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from tests.teachers.llm.chat_stub import (
    ChatStub,
    Reply,
    always,
)


@pytest.fixture()
def stub() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda plan=None: stack.enter_context(ChatStub(plan or always(Reply())).running())


@pytest.fixture()
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would wait before its retries; it does not wait."""
    seconds: list[float] = []
    clock = SimpleNamespace(sleep=seconds.append, time=time.time)
    monkeypatch.setattr("openai._base_client.time", clock)
    return seconds
