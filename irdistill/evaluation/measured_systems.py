"""Figures and costs of systems, gathered from the results that recipes and verbs wrote."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.evaluation.costs import CostPoint, Efficiency, mark_best
from irdistill.evaluation.figures import Row

_DEPTH = 6
_FOLDERS = 20_000
"""Folders that are looked at, so that a viewed home folder ends."""
_GREATEST = 16 << 20
"""Bytes of a file of results."""
_STAGE_RESULT = "result.json"
"""What a stage of a recipe writes into its folder; its systems belong to the recipe's folder."""
_NOT_RESULTS = ("part-00000.parquet", "modules.json", "config.json", "bundle.json")
"""Files of runs, models and bundles: nothing below them is looked at."""


@dataclass(frozen=True)
class MeasuredSystems:
    """Systems whose results lie in one folder.

    Attributes:
        rows: what ``evaluate`` wrote.
        costs: what ``measure`` wrote.
    """

    folder: Path
    rows: tuple[Row, ...]
    costs: tuple[Efficiency, ...]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """The (dataset, measure) of which a system with costs has a figure."""
        systems = {cost.system for cost in self.costs}
        return list(
            dict.fromkeys((row.dataset, row.measure) for row in self.rows if row.system in systems)
        )


def measured_below(roots: Iterable[Path]) -> list[MeasuredSystems]:
    """The systems with figures and costs below some folders, by folder."""
    rows: dict[Path, dict[tuple[str, str, str], Row]] = {}
    costs: dict[Path, dict[str, Efficiency]] = {}
    for path in sorted(set(_result_files(roots))):
        content = _read(path)
        folder = path.parent.parent if path.name == _STAGE_RESULT else path.parent
        for row in _parsed(Row, content.get("rows")):
            rows.setdefault(folder, {}).setdefault((row.system, row.dataset, row.measure), row)
        for cost in _parsed(Efficiency, content.get("systems") or content.get("efficiency")):
            costs.setdefault(folder, {}).setdefault(cost.system, cost)
    return [
        MeasuredSystems(folder, tuple(rows[folder].values()), tuple(costs[folder].values()))
        for folder in sorted(rows.keys() & costs.keys())
        if {key[0] for key in rows[folder]} & costs[folder].keys()
    ]


def measured_points(
    groups: Mapping[str, MeasuredSystems], dataset: str, measure: str
) -> list[CostPoint]:
    """Quality and costs of all systems on one dataset by one measure.

    Args:
        groups: by the names that tell systems of the same name apart.
    """
    named = [
        (name, row, cost)
        for name, group in groups.items()
        for row in group.rows
        for cost in group.costs
        if (row.system, row.dataset, row.measure) == (cost.system, dataset, measure)
    ]
    names = [row.system for _, row, _ in named]
    return mark_best(
        [
            CostPoint(
                row.system if names.count(row.system) == 1 else f"{row.system} ({name})",
                cost.p50_ms,
                row.value,
                measure,
                index_bytes=cost.index_bytes,
            )
            for name, row, cost in named
        ]
    )


def frontier_sentence(points: Sequence[CostPoint]) -> str:
    """Which systems no other one beats.

    Examples:
        >>> fast, slow = CostPoint("fast", 1.0, 0.4, "AP"), CostPoint("slow", 9.0, 0.3, "AP")
        >>> frontier_sentence(mark_best([fast, slow]))
        'No system is both better and faster than fast. Better and faster than slow: fast.'
    """
    best = [point.system for point in sorted(points, key=lambda point: point.cost) if point.best]
    text = f"No system is both better and faster than {_joined(best, 'or')}."
    if len(best) == len(points):
        return text
    beaten = [point for point in points if not point.best]
    return " ".join(
        [
            text,
            *(
                f"Better and faster than {point.system}: {_joined(_above(point, points), 'and')}."
                for point in beaten[:3]
            ),
        ]
    )


def _above(point: CostPoint, points: Sequence[CostPoint]) -> list[str]:
    """The best points that are at least as good and as fast."""
    return [
        other.system
        for other in points
        if other.best and other.value >= point.value and other.cost <= point.cost
    ]


def _joined(names: Sequence[str], word: str) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _result_files(roots: Iterable[Path]) -> Iterator[Path]:
    """JSON files below the folders that may hold results."""
    waiting, looked = [(root, 0) for root in roots], 0
    while waiting and looked < _FOLDERS:
        folder, depth = waiting.pop()
        looked += 1
        try:
            entries = list(os.scandir(folder))
        except OSError:
            continue
        if any(entry.name in _NOT_RESULTS for entry in entries):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if depth < _DEPTH and not entry.name.startswith("."):
                    waiting.append((Path(entry.path), depth + 1))
            elif entry.name.endswith(".json") and entry.stat().st_size <= _GREATEST:
                yield Path(entry.path)


def _read(path: Path) -> dict[str, Any]:
    """The object in a file; empty if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _parsed(kind: Any, values: Any) -> list[Any]:
    """The objects of a list that have the fields of a class, with finite figures."""
    parsed = []
    for value in values if isinstance(values, list) else ():
        try:
            entry = kind(**value)
            numbers = (entry.value,) if kind is Row else (entry.p50_ms, entry.index_bytes)
            if all(float(number) == number for number in numbers) and isinstance(entry.system, str):
                parsed.append(entry)
        except (TypeError, ValueError):
            continue
    return parsed
