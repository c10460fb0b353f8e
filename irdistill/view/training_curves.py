"""The curves of a training from its log, read while it grows and thinned out for drawing."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from irdistill.storage.json_lines import JsonLinesFollower
from irdistill.training.log_rows import LOG, row_numbers
from irdistill.training.validation_options import LOSS

POINTS = 1_000
"""Most points of a drawn curve, about."""

_SMOOTHING = 0.05
"""Weight of a step in the running mean of a loss."""

_VALIDATION, _TERMS, _SPARSITY = "validation/", "terms/", "sparsity/"


class Curve:
    """The values of one number of the log, by step.

    Args:
        smooth: keep the running mean of the values, too, with a weight of 0.05 for each step.

    Attributes:
        rows: the row of the log of each value.
        means: the running means.
    """

    def __init__(self, smooth: bool) -> None:
        self.smooth = smooth
        self.rows, self.steps = array("q"), array("q")
        self.values, self.means = array("d"), array("d")
        self._weight, self._mean = 0.0, 0.0

    def add(self, row: int, step: int, value: float) -> None:
        """Append a value."""
        self.rows.append(row)
        self.steps.append(step)
        self.values.append(value)
        if self.smooth:
            self._weight = (1 - _SMOOTHING) * self._weight + _SMOOTHING
            self._mean = (1 - _SMOOTHING) * self._mean + _SMOOTHING * value
            self.means.append(self._mean / self._weight)

    def points(self, since: int) -> dict[str, Any]:
        """The points to draw: every n-th one, with n so that there are about 1,000, and the last.

        Args:
            since: rows that the reader knows; its points stay valid unless ``replace`` is true.
        """
        count, known = len(self.rows), bisect_left(self.rows, since)
        stride = _stride(count)
        replace = known == 0 or _stride(known) != stride
        first = 0 if replace else -(-known // stride) * stride
        columns: list[array[Any]] = [
            self.steps,
            self.values,
            *([self.means] if self.smooth else []),
        ]
        points = [[column[place] for column in columns] for place in range(first, count, stride)]
        last = [column[-1] for column in columns]
        shown = f"{self.values[-1]:.6g}"
        return {
            "replace": replace,
            "every": stride,
            "points": points,
            "last": last,
            "shown": shown,
        }


def _stride(count: int) -> int:
    """A power of two, so that drawn points stay when the log grows."""
    return 1 << max(0, math.ceil(math.log2(max(1, count) / POINTS)))


class TrainingCurves:
    """The curves of the log of a training.

    Args:
        folder: of the training.
    """

    def __init__(self, folder: Path) -> None:
        self._follower = JsonLinesFollower(folder / LOG)
        self._lock = Lock()
        self._clear()

    def _clear(self) -> None:
        self.curves: dict[str, Curve] = {}
        self.rows = self.step = 0
        self.best_step: int | None = None

    def update(self) -> None:
        """Read what was written since the last call."""
        generation = self._follower.generation
        rows = self._follower.read()
        if self._follower.generation != generation:
            self._clear()
        for row in rows:
            self._add(row)

    def _add(self, row: Mapping[str, Any]) -> None:
        step = row.get("step")
        if not isinstance(step, int):
            return
        self.step = max(self.step, step)
        for name, value in row_numbers(row).items():
            if name == "best_step" and isinstance(value, int):
                self.best_step = value
            elif isinstance(value, int | float) and math.isfinite(value):
                if name not in self.curves:
                    self.curves[name] = Curve(chart_of(name)[0] == "Loss")
                self.curves[name].add(self.rows, step, float(value))
        self.rows += 1

    def to_json(self, since: int = 0, generation: int = -1) -> dict[str, Any]:
        """The charts and the table of the last values.

        Args:
            since: rows that the reader has drawn, from an earlier answer.
            generation: of that answer; with another one all points are sent.
        """
        with self._lock:
            self.update()
            current = self._follower.generation
            since = since if generation == current else 0
            charts: dict[str, list[dict[str, Any]]] = {}
            for name, curve in self.curves.items():
                title, label = chart_of(name)
                entry = {"name": label, "number": name} | curve.points(since)
                charts.setdefault(title, []).append(entry)
            for title, series in charts.items():
                if len(series) == 1:
                    series[0]["name"] = title.lower() if title[0] != "H" else title[9:]
            return {
                "generation": current,
                "rows": self.rows,
                "step": self.step,
                "best_step": self.best_step,
                "charts": [
                    {"title": title, "across": "step", "series": charts[title]}
                    for title in sorted(charts, key=_place)
                ],
            }


def _place(title: str) -> int:
    """Order of charts: losses, held-out measures, the learning rate, sparsity."""
    order = ("Loss", "Held-out loss", "Held-out ", "Learning rate", "")
    return next(number for number, start in enumerate(order) if title.startswith(start))


def chart_of(name: str) -> tuple[str, str]:
    """The chart of a number, and its label there.

    Examples:
        >>> chart_of("terms/KL(tau=0.05)"), chart_of("validation/pydocs/dev/nDCG@10")
        (('Loss', 'KL(tau=0.05)'), ('Held-out nDCG@10', 'pydocs/dev'))
    """
    if name == "loss":
        return "Loss", "loss"
    if name.startswith(_TERMS):
        return "Loss", name.removeprefix(_TERMS)
    if name.startswith(_VALIDATION):
        group, _, measure = name.removeprefix(_VALIDATION).rpartition("/")
        what = "loss" if measure == LOSS else measure
        return f"Held-out {what}", group or "mean"
    if name.startswith(_SPARSITY):
        kind, _, what = name.removeprefix(_SPARSITY).partition("/")
        titles = {"active": "Active terms", "all_zero": "Share of empty vectors"}
        return titles.get(what, "Penalty factor" if what == "factor" else what), kind
    return name.replace("_", " ").capitalize(), name.replace("_", " ")


class CurveCache:
    """The curves of the trainings that were looked at last."""

    def __init__(self, size: int = 16) -> None:
        self.size = size
        self._known: OrderedDict[Path, TrainingCurves] = OrderedDict()
        self._lock = Lock()

    def of(self, folder: Path) -> TrainingCurves:
        """The curves of a training."""
        with self._lock:
            curves = self._known.pop(folder, None) or TrainingCurves(folder)
            self._known[folder] = curves
            while len(self._known) > self.size:
                self._known.popitem(last=False)
            return curves
