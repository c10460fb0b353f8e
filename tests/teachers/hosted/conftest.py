"""Fixtures of tests with hosted models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.teachers.hosted.hosted_stub import HostedStub
from tests.teachers.server_runs import SECRET, write_collection


@pytest.fixture()
def stub() -> Iterator[Any]:
    with ExitStack() as stack:
        yield lambda shape="jina", plan=None: stack.enter_context(HostedStub(shape, plan).running())


@pytest.fixture()
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a collection and candidates."""
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("STUB_KEY", SECRET)
    monkeypatch.chdir(tmp_path)
    write_collection(tmp_path)
    return tmp_path
