"""How far the scoring or the retrieval of a run is, from its manifest and its journal."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.errors import DamagedError
from irdistill.runs.manifest import JOURNAL, MANIFEST
from irdistill.storage.files import read_json_object
from irdistill.storage.json_lines import read_json_lines
from irdistill.storage.locking import is_locked
from irdistill.view.job_state import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    Job,
    JobDetails,
    flat_settings,
    format_number,
    format_rate,
    read_time,
    resumed_sentence,
)
from irdistill.view.workspace import Artifact

_VERBS = {
    "first-stage": "retrieve",
    "student": "retrieve",
    "teacher": "score",
    "fused": "fuse",
    "imported": "import",
}
_PARTS = 1_000
"""Points of the drawing of the rate."""


class RunJournal:
    """The parts of a run that are finished, and its starts.

    Attributes:
        parts: lines of parts, the last one of each number.
        starts: finished parts at each start.
        problem: the error that ended the last attempt, or an empty text.
        session: lines of the parts since the last start.
    """

    def __init__(self, folder: Path) -> None:
        self.starts: list[int] = []
        self.problem = ""
        self.began: float | None = None
        parts: dict[int, dict[str, Any]] = {}
        self.session: list[dict[str, Any]] = []
        for line in read_json_lines(folder / JOURNAL):
            if line.get("event") == "start":
                self.starts.append(int(line.get("parts") or 0))
                self.began, self.problem, self.session = read_time(line.get("time")), "", []
            elif line.get("event") == "stop":
                self.problem = str(line.get("error") or "")
            elif isinstance(line.get("part"), dict):
                parts[line["part"].get("number", -1)] = line
                self.session.append(line)
        self.parts = list(parts.values())

    def total(self, name: str, lines: Sequence[Mapping[str, Any]] | None = None) -> float:
        """The sum of a count over parts: of the part, of its usage, or its seconds."""
        return sum(_count(line, name) for line in (self.parts if lines is None else lines))


def _count(line: Mapping[str, Any], name: str) -> float:
    for place in (line["part"], line.get("usage") or {}, line):
        if isinstance(place, dict) and isinstance(place.get(name), int | float):
            return float(place[name])
    return 0.0


def run_job(artifact: Artifact) -> Job:
    """The state of a run."""
    manifest, journal = _read(artifact), RunJournal(artifact.path)
    complete = manifest.get("complete") is True
    queries, part_queries = int(manifest["queries"]), int(manifest["part_queries"])
    if shard := manifest.get("shard"):
        numbers = range(shard[0] - 1, -(-queries // part_queries), shard[1])
        queries = sum(min(part_queries, queries - part_queries * number) for number in numbers)
    locked = is_locked(artifact.path)
    state = RUNNING if locked else DONE if complete else FAILED if journal.problem else STOPPED
    done = queries if complete else journal.total("queries")
    seconds = journal.total("seconds")
    modified = artifact.modified
    return Job(
        artifact.key,
        artifact.kind,
        _VERBS.get(str(manifest.get("kind")), str(manifest.get("kind"))),
        state,
        done,
        queries,
        "queries",
        modified,
        seconds or None,
        _remaining(journal, queries - done, modified) if state == RUNNING else None,
        journal.total("cost") or None,
        _figures(journal, state),
        resumed_sentence(journal.starts, "part"),
        "" if complete else journal.problem,
    )


def _read(artifact: Artifact) -> dict[str, Any]:
    path = artifact.path / MANIFEST
    manifest = read_json_object(path)
    if not all(isinstance(manifest.get(name), int) for name in ("queries", "part_queries")):
        raise DamagedError(path, "has no number of queries", "Write the run again.")
    return manifest


def _remaining(journal: RunJournal, left: float, modified: float) -> float | None:
    """Seconds to the end at the rate since the last start, less those since the last part, but at
    most those of one part.
    """
    queries, seconds = (journal.total(name, journal.session) for name in ("queries", "seconds"))
    if not queries or not seconds:
        return None
    since = min(max(0.0, time.time() - modified), seconds / len(journal.session))
    return max(0.0, left * seconds / queries - since)


def _figures(journal: RunJournal, state: str) -> list[tuple[str, str]]:
    counted = "pairs" if journal.total("pairs") else "rows"
    figures = [("rows", format_number(journal.total("rows")))]
    if unscored := journal.total("nulls"):
        figures.append(("rows without a score", format_number(unscored)))
    if journal.total("pairs") not in (0, journal.total("rows")):
        figures.append(("pairs", format_number(journal.total("pairs"))))
    lines = journal.session if state == RUNNING else journal.parts
    amount, seconds = journal.total(counted, lines), journal.total("seconds", lines)
    if amount and seconds:
        figures.append((f"{counted}/s", format_rate(amount / seconds)))
    for name in ("tokens", "requests"):
        if journal.total(name):
            figures.append((name, format_number(journal.total(name))))
    return figures


def run_details(artifact: Artifact) -> JobDetails:
    """The identity of a run."""
    manifest = _read(artifact)
    names = ("kind", "collection", "candidates", "producer", "settings", "shard", "software")
    settings = flat_settings({name: manifest.get(name) for name in names})
    return JobDetails(settings, has_log=len(RunJournal(artifact.path).parts) > 1)


def run_curves(artifact: Artifact) -> tuple[int, list[dict[str, Any]]]:
    """The number of finished parts, and a chart of the pairs or rows per second over the work."""
    journal = RunJournal(artifact.path)
    counted = "pairs" if journal.total("pairs") else "rows"
    points, elapsed, amount, since = [], 0.0, 0.0, 0.0
    step = max(1, -(-len(journal.parts) // _PARTS))
    for number, line in enumerate(journal.parts, 1):
        elapsed += _count(line, "seconds")
        amount += _count(line, counted)
        if number % step == 0 and elapsed > since:
            points.append([elapsed, amount / (elapsed - since)])
            since, amount = elapsed, 0.0
    if not points:
        return len(journal.parts), []
    series = {
        "name": f"{counted}/s",
        "number": f"{counted}/s",
        "replace": True,
        "every": step,
        "points": points,
        "last": points[-1],
        "shown": f"{points[-1][1]:.6g}",
    }
    title = f"{counted.capitalize()} per second"
    return len(journal.parts), [{"title": title, "across": "seconds", "series": [series]}]
