"""Bars are drawn on every terminal, and only there."""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from irdistill.console import progress_bars as module
from irdistill.console.progress_bars import ProgressRelay, progress, show_activity, with_progress
from irdistill.search.array_shards import ShardOptions, write_arrays
from irdistill.students import DenseStudent
from tests.students.tiny import tiny_backbone


def terminal(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make standard error a terminal on which bars appear at once; return its other end."""
    reader, writer = os.openpty()
    monkeypatch.setattr(sys, "stderr", os.fdopen(writer, "w"))
    monkeypatch.setattr(module, "_DELAY", 0)
    return reader


def read_until(reader: int, *texts: str, seconds: float = 10.0) -> str:
    """Read the terminal until it has shown one of the texts; return everything that it has shown."""
    shown = ""
    end = time.monotonic() + seconds
    while not any(text in shown for text in texts) and time.monotonic() < end:
        if select.select([reader], [], [], 0.1)[0]:
            shown += os.read(reader, 10_000).decode()
    return shown


def test_terminal_without_a_size_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = terminal(monkeypatch)
    with progress(4, "texts", "encode") as bar:
        bar.update(3)
        bar.refresh()
    shown = read_until(reader, "3/4")
    assert "encode:" in shown and "3/4" in shown


def test_step_that_cannot_be_counted_shows_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = terminal(monkeypatch)
    monkeypatch.setattr(module, "_REFRESH", 0.01)
    with show_activity("solve"):
        time.sleep(0.1)
    assert "solve: 00:00" in read_until(reader, "solve: 00:00")


def test_logs_get_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with show_activity("solve"):
        assert list(with_progress([1, 2], "texts", "encode")) == [1, 2]
    assert capsys.readouterr().err == ""


def test_encoding_counts_every_batch(tmp_path: Path) -> None:
    student = DenseStudent(str(tiny_backbone(tmp_path / "backbone", layers=1)), device="cpu")
    counts: list[int] = []
    student.search_vectors(
        ["cat", "dog and bird", "fish"] * 10, "document", "float32", 20, done=counts.append
    )
    assert sum(counts) == 30 and len(counts) > 5


def test_progress_is_shown_while_a_shard_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = terminal(monkeypatch)
    relay = ProgressRelay()

    def make(start: int, end: int) -> dict[str, np.ndarray]:
        relay(3)
        return {"a": np.zeros(end - start)}

    options = ShardOptions(relay=relay)
    write_arrays(tmp_path / "arrays", {"x": 1}, {"a": ("float32", ())}, 10, 6, make, options)
    shown = read_until(reader, "0/10", "3/10")
    assert "0/10" in shown or "3/10" in shown
