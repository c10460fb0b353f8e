"""The log of a training."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.storage.files import write_text
from irdistill.training.log_rows import row_numbers

_SECONDS = 5.0
"""Most seconds between writes of the log, so that a slow training can be watched."""


class StepRecord(NamedTuple):
    """What the log says about a step (counted from 1).

    Attributes:
        terms: (n,) the weighted terms of the loss, named by ``names``.
        extra: further entries of the row, computed when it is written.
    """

    step: int
    learning_rate: float
    names: list[str]
    terms: Tensor
    extra: Callable[[], Mapping[str, Any]]


class TrainingLog:
    """``train_log.jsonl``: a line for each step, and for each evaluation.

    Steps are kept on the device until they are written, so that no step waits for the GPU.

    Args:
        path: the file.
        writes: whether this process writes it.
        track: passes the numbers of a step to the experiment trackers.
    """

    def __init__(
        self, path: Path, writes: bool, track: Callable[[dict[str, float], int], None]
    ) -> None:
        self.path, self.writes, self.track = path, writes, track
        self._waiting: list[StepRecord] = []
        self._written = time.monotonic()

    def add(self, record: StepRecord) -> None:
        """Keep the record of a step for the next write."""
        self._waiting.append(record)

    def due(self) -> bool:
        """Whether this process has written nothing for some seconds."""
        return self.writes and time.monotonic() - self._written >= _SECONDS

    def write(self) -> None:
        """Write the steps since the last call.

        Raises:
            IrdistillError: a loss is not finite.
        """
        lines = []
        for record in self._waiting:
            values = record.terms.tolist()
            loss = sum(values)
            if not all(map(math.isfinite, values)):
                raise IrdistillError(
                    f"the loss became {loss} at step {record.step}. Lower the learning rate, use"
                    f" float32, or raise the temperature of {', '.join(record.names)}; the last"
                    " checkpoint is kept."
                )
            row = {"step": record.step, "loss": loss, "learning_rate": record.learning_rate}
            if len(values) > 1:
                row["terms"] = dict(zip(record.names, values, strict=True))
            row |= record.extra()
            lines.append(json.dumps(row) + "\n")
            self.track(row_numbers(row), record.step)
        self._waiting.clear()
        self._written = time.monotonic()
        self._append("".join(lines))

    def write_row(self, row: dict[str, Any]) -> None:
        """Write a line after those of the steps before it."""
        self.write()
        self._append(json.dumps(row) + "\n")
        self.track(row_numbers(row), row["step"])

    def _append(self, text: str) -> None:
        if not self.writes or not text:
            return
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def truncate_log(log: Path, step: int) -> None:
    """Remove what was logged after a checkpoint, and a half-written last line."""
    kept = []
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line + "\n")
            except (ValueError, RecursionError, KeyError, TypeError):
                break
    write_text(log, "".join(kept))
