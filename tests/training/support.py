"""Helpers of the tests of training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.training.loop import TrainingLoop
from irdistill.training.options import TrainOptions
from irdistill.training.trainer import train
from tests.training.tiny import make_collection, make_student

LOSS = "KL(tau=0.2, teacher_tau=2) + 0.1*InfoNCE(tau=0.2)"
NAN = float("nan")


def digests(folder: Path) -> dict[str, str]:
    """Of all that must not depend on how the training went."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name not in ("journal.jsonl", ".lock")
    }


class ListsInMemory:
    """A compiled run made of a dictionary: query id → [(row, score)], best first."""

    def __init__(self, lists: Mapping[str, list[tuple[int, float]]]) -> None:
        self.query_ids = list(lists)
        self.index = {query_id: i for i, query_id in enumerate(self.query_ids)}
        self._lists = [
            (
                np.array([p[0] for p in pairs], dtype=np.int32),
                np.array([p[1] for p in pairs], np.float32),
            )
            for pairs in lists.values()
        ]

    def list(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        return self._lists[i]


def log(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "train_log.jsonl").read_text().splitlines()]


@contextmanager
def stopped_before(step: int) -> Iterator[None]:
    """Whatever is trained within is interrupted before it takes this step (from 0)."""
    inner = TrainingLoop.train_step

    def interrupted(self: TrainingLoop, current: int, batches: Any) -> None:
        if current == step:
            raise KeyboardInterrupt
        inner(self, current, batches)

    TrainingLoop.train_step = interrupted  # type: ignore[method-assign]
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
    finally:
        TrainingLoop.train_step = inner  # type: ignore[method-assign]


def stopped_after(
    steps: int, place: Path, out: Path, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> KeyboardInterrupt:
    """A training into which Ctrl-C is pressed in the step after these."""
    inner = TrainingLoop.train_step

    def press(self: TrainingLoop, step: int, batches: Any) -> None:
        if step == steps:
            raise KeyboardInterrupt
        inner(self, step, batches)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt) as stop:
        patched.setattr(TrainingLoop, "train_step", press)
        train(
            make_collection(),
            place / "scores",
            make_student(place / "backbone"),
            LOSS,
            out,
            options,
        )
    return stop.value
