"""Fixtures of tests with models behind servers."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest


@pytest.fixture()
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the client would wait before its retries; it does not wait."""
    seconds: list[float] = []
    clock = SimpleNamespace(sleep=seconds.append, time=time.time)
    monkeypatch.setattr("openai._base_client.time", clock)
    return seconds
