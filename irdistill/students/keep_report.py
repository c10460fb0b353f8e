"""The report of the guard against forgetting: figures of merged models, and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.errors import NotFoundError
from irdistill.storage.files import read_json_object

FILE = "keep.json"
TRAINED, MERGED, REFUSED = "trained", "merged", "refused: the probe fell"
_ROUNDING = 1e-12


@dataclass(frozen=True)
class MergedFigures:
    """The figures of a model between the start and the end of a training.

    Attributes:
        weight: of the end; 0 is the start.
        held_out: the figure that chooses among the allowed weights.
        probes: figures by probe.
    """

    weight: float
    held_out: float
    probes: Mapping[str, float]


@dataclass(frozen=True)
class KeepReport:
    """The figures by weight, and which weight was chosen.

    Attributes:
        measure: of all figures.
        held_out: name of the queries that choose.
        tolerance: how far a probe may fall.
        rows: by weight, ascending.
        weight: the chosen weight of the end: 1 is the trained model, 0 the model at the start.
        verdict: ``trained`` (no probe fell), ``merged``, or ``refused: the probe fell``.

    Examples:
        >>> rows = (MergedFigures(0, 0.5, {"howto": 0.34}), MergedFigures(1, 0.6, {"howto": 0.30}))
        >>> decide("nDCG@10", "held out", 0.0, rows).verdict
        'refused: the probe fell'
    """

    measure: str
    held_out: str
    tolerance: float
    rows: tuple[MergedFigures, ...]
    weight: float
    verdict: str

    @property
    def refused(self) -> bool:
        """Whether the model is the one at the start."""
        return self.verdict == REFUSED

    @property
    def fallen(self) -> list[str]:
        """The probes that the trained model is worse on than the tolerance allows."""
        return _fallen(self.rows[-1], self.rows[0], self.tolerance)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        end = self.rows[-1].probes
        start, chosen = self.rows[0], self._row(self.weight)
        falls = ", ".join(
            f"{name} from {start.probes[name]:.4f} to {end[name]:.4f}" for name in self.fallen
        )
        gain = f"{self.measure} on {self.held_out} {start.held_out:.4f} → {chosen.held_out:.4f}"
        if self.verdict == TRAINED:
            return f"trained: no probe fell; {gain}."
        if self.verdict == MERGED:
            return (
                f"merged: training lowered {falls}; {self.weight:g} of the trained and"
                f" {1 - self.weight:g} of the model at the start lowers none; {gain}."
            )
        return (
            f"{REFUSED}: training lowered {falls}, and every merged model lowers a probe or gains"
            f" nothing on {self.held_out}. The saved model is the one at the start, unchanged."
        )

    def __str__(self) -> str:
        names = [f"{self.measure} on {name}" for name in (self.held_out, *self.rows[0].probes)]
        head = "| weight of the trained model | " + " | ".join(names) + " |"
        lines = [head, "| --- " * (1 + len(names)) + "|"]
        for row in self.rows:
            figures = [f"{value:.4f}" for value in (row.held_out, *row.probes.values())]
            mark = " (chosen)" if row.weight == self.weight else ""
            lines.append(f"| {row.weight:g}{mark} | " + " | ".join(figures) + " |")
        return "\n".join([*lines, "", self.sentence])

    def _row(self, weight: float) -> MergedFigures:
        return next(row for row in self.rows if row.weight == weight)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON values."""
        return {
            "measure": self.measure,
            "held_out": self.held_out,
            "tolerance": self.tolerance,
            "verdict": self.verdict,
            "weight": self.weight,
            "rows": [
                {"weight": row.weight, "held_out": row.held_out, "probes": dict(row.probes)}
                for row in self.rows
            ],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> KeepReport:
        """The report of `to_json`."""
        rows = tuple(
            MergedFigures(row["weight"], row["held_out"], row["probes"]) for row in values["rows"]
        )
        names = ("measure", "held_out", "tolerance", "weight", "verdict")
        return cls(rows=rows, **{name: values[name] for name in names})

    @classmethod
    def read(cls, folder: str | Path) -> KeepReport:
        """The report in the folder of a training.

        Raises:
            NotFoundError: the training had no probe, or has not finished.
        """
        path = Path(folder) / FILE
        if not path.is_file() or "verdict" not in (values := read_json_object(path)):
            raise NotFoundError(
                f"{folder} has no finished {FILE}; it is written by a training with --keep."
            )
        return cls.from_json(values)


def decide(
    measure: str, held_out: str, tolerance: float, rows: tuple[MergedFigures, ...]
) -> KeepReport:
    """Choose the weight with the best held-out figure among those that lower no probe.

    Of equal figures the smallest weight is chosen. The end itself is chosen if it lowers no probe.

    Args:
        rows: by weight, from 0 to 1.
    """
    start, end = rows[0], rows[-1]
    if not _fallen(end, start, tolerance):
        return KeepReport(measure, held_out, tolerance, rows, end.weight, TRAINED)
    allowed = [row for row in rows if not _fallen(row, start, tolerance)]
    best = max(allowed, key=lambda row: (row.held_out, -row.weight))
    verdict = MERGED if best.weight else REFUSED
    return KeepReport(measure, held_out, tolerance, rows, best.weight, verdict)


def _fallen(row: MergedFigures, start: MergedFigures, tolerance: float) -> list[str]:
    limit = tolerance + _ROUNDING
    return [name for name, value in row.probes.items() if value < start.probes[name] - limit]
