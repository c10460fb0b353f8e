"""Fixtures of tests with a stub of a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
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
