"""A guard against forgetting: general probes are measured before and after a training.

If a probe fell, models between the start and the end are measured (LM-Cocktail, Xiao et al. 2023,
arXiv:2311.13534), and the one that is best on held-out queries without lowering a probe is kept.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from irdistill.console.progress_bars import progress
from irdistill.storage.files import read_json, write_json
from irdistill.storage.ownership import is_manifest
from irdistill.students.keep_report import FILE, KeepReport, MergedFigures, decide
from irdistill.students.weight_averaging import (
    average_tensors,
    distinct_tensors,
    without_adapters,
)

if TYPE_CHECKING:
    from irdistill.students.student_base import Student
    from irdistill.training.validation_sets import ValidationSet

logger = logging.getLogger(__name__)

GRID = tuple(step / 10 for step in range(11))
"""Weights of the trained model. Neighbors differ by about 0.01 nDCG@10 on pydocs."""


class WeightChoice:
    """Measures models between a start and an end, and chooses one.

    The figures are kept in ``keep.json`` as they are measured, so that a killed choice continues
    with the next weight.

    Args:
        held_out: queries that choose; the figure of several sets is the mean.
        probes: queries on which the model may not become worse.
        measure: of all figures.
        tolerance: how far a probe may fall.
        folder: of ``keep.json``.
        identity: what decides the figures at the start, as JSON values.
    """

    def __init__(
        self,
        held_out: Sequence[ValidationSet],
        probes: Sequence[ValidationSet],
        measure: str,
        tolerance: float,
        folder: Path,
        identity: Mapping[str, Any],
    ) -> None:
        self.held_out, self.probes = held_out, probes
        self.measure, self.tolerance, self.path = measure, tolerance, folder / FILE
        self.record: dict[str, Any] = {"identity": dict(identity), "end": None, "rows": []}
        if is_manifest(self.path, ("rows", "end"), identity=self.record["identity"]):
            stored = read_json(self.path)
            self.record |= {"end": stored["end"], "rows": stored["rows"]}

    def measure_start(self) -> None:
        """Measure the model as it is: the start."""
        self._figures(0.0, lambda weight: None)

    def choose(self, end: str, blend: Callable[[float], None]) -> KeepReport:
        """Measure the end, and models between it and the start if a probe fell.

        Args:
            end: fingerprint of the end.
            blend: gives the model a weighted average of end and start, by the weight of the end.
        """
        if self.record["end"] not in (None, end):  # a repeated training may differ on a GPU
            self.record["rows"] = [row for row in self.record["rows"] if not row["weight"]]
        self.record["end"] = end
        rows = [self._figures(weight, blend) for weight in (0.0, 1.0)]
        report = self._decide(rows)
        if report.fallen:
            with progress(len(GRID), "models", "choose the weight", initial=2) as bar:
                for weight in GRID[1:-1]:
                    rows.append(self._figures(weight, blend))
                    bar.update(1)
            report = self._decide(rows)
        blend(report.weight)
        write_json(self.path, self.record | report.to_json())
        (logger.warning if report.refused else logger.info)("%s", report.sentence)
        return report

    def _decide(self, rows: Sequence[MergedFigures]) -> KeepReport:
        ordered = tuple(sorted(rows, key=lambda row: row.weight))
        name = " and ".join(entry.name for entry in self.held_out)
        return decide(self.measure, name, self.tolerance, ordered)

    def _figures(self, weight: float, blend: Callable[[float], None]) -> MergedFigures:
        """The figures at a weight, measured if they are not known."""
        known = {row["weight"]: row for row in self.record["rows"]}
        if weight not in known:
            blend(weight)
            known[weight] = {
                "weight": weight,
                "held_out": float(np.mean([self._measure(entry) for entry in self.held_out])),
                "probes": {entry.name: self._measure(entry) for entry in self.probes},
            }
            self.record["rows"] = [known[key] for key in sorted(known)]
            write_json(self.path, self.record)
        row = known[weight]
        return MergedFigures(row["weight"], row["held_out"], row["probes"])

    def _measure(self, queries: ValidationSet) -> float:
        return queries.measure()[self.measure]


class Guard:
    """Keeps a student that is trained from forgetting.

    Args:
        student: that will be trained, with its weights at the start, which are copied.
    """

    def __init__(self, student: Student, choice: WeightChoice) -> None:
        self.student, self.choice = student, choice
        self.learning = [kind for kind in student.sides if student.learns(kind)]
        self.start = self._copies(without_adapters(student))

    def finish(self) -> KeepReport:
        """Give the trained student the chosen weights; adapters are added to its weights first."""
        student = self.student
        student.__dict__.update(without_adapters(student).__dict__)
        student.model.eval()
        end = self._copies(student)

        @torch.no_grad()
        def blend(weight: float) -> None:
            for name, value in distinct_tensors(student, self.learning).items():
                parts = [self.start[name], end[name]]
                value.copy_(average_tensors(parts, [1 - weight, weight], name))

        return self.choice.choose(student.weights_digest(), blend)

    def _copies(self, student: Student) -> dict[str, Tensor]:
        """The tensors of the towers that learn; adapters may learn where weights are frozen."""
        return {
            name: value.detach().cpu().clone()
            for name, value in distinct_tensors(student, self.learning).items()
        }
