"""How far a training is, from its record, its journal and its log."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json_object
from irdistill.storage.json_lines import JOURNAL, last_json_line, read_json_lines
from irdistill.storage.locking import is_locked
from irdistill.students.keep_report import KeepReport
from irdistill.training.log_rows import LOG, row_numbers
from irdistill.view.job_state import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    Job,
    JobDetails,
    flat_settings,
    format_rate,
    read_time,
    resumed_sentence,
)
from irdistill.view.workspace import Artifact


@dataclass(frozen=True)
class LastValues:
    """The last values of a log.

    Attributes:
        best_step: the step with the best weights so far; None without a validation.
        values: by the names that experiment trackers get.
    """

    step: int
    best_step: int | None
    values: Mapping[str, float]


_RECORD = "training.json"
_LOGGED = 5.0
"""Most seconds between two writes of a log, unless a step takes longer."""


class TrainingJournal:
    """The starts of a training, and how they ended.

    Attributes:
        starts: steps done at each start.
        steps: that were planned; None if the journal does not say.
        began: time of the last start, in seconds since 1970.
        finish: the line of the end, if it is finished.
        seconds: time of the attempts before the last one that ended, and of the last one if it did.
        problem: the error that ended the last attempt, or an empty text.
    """

    def __init__(self, folder: Path) -> None:
        self.starts: list[int] = []
        self.steps: int | None = None
        self.began: float | None = None
        self.finish: Mapping[str, Any] | None = None
        self.seconds, self.problem = 0.0, ""
        self.warnings: list[str] = []
        for line in read_json_lines(folder / JOURNAL):
            event, when = line.get("event"), read_time(line.get("time"))
            if event == "start":
                self.starts.append(int(line.get("step") or 0))
                self.steps = line.get("steps", self.steps)
                self.began, self.finish, self.problem = when, None, ""
                self.warnings = list(map(str, line.get("warnings") or []))
            elif event == "stop":
                self.problem = str(line.get("error") or "")
                self.seconds += max(0.0, (when or 0.0) - (self.began or when or 0.0))
            elif event == "finish":
                self.finish = line
                self.seconds += float(line.get("seconds") or 0.0)


def training_job(artifact: Artifact) -> Job:
    """The state of a training, an alignment, a pretraining, or a model that is computed."""
    record = read_json_object(artifact.path / _RECORD)
    journal = TrainingJournal(artifact.path)
    identity = _mapping(record, "identity")
    options = _mapping(identity, "options")
    finished = record.get("finished") is True
    locked = is_locked(artifact.path)
    state = RUNNING if locked else DONE if finished else FAILED if journal.problem else STOPPED
    values = _last_values(artifact.path, "validation" in identity)
    steps = journal.steps or options.get("steps") or None
    done = values.step if values else 0
    if journal.finish is not None:
        done = int(journal.finish.get("step") or done)
    written = _modified(artifact.path / LOG)
    rate = _rate(journal, done, written)
    running = state == RUNNING and journal.finish is None
    ahead = (steps - done) / rate if running and steps and rate else None
    if ahead is not None:
        ahead = max(0.0, ahead - min(max(0.0, time.time() - written), _LOGGED))
    worked = journal.seconds
    if running and journal.began:
        worked += max(0.0, time.time() - journal.began)
    return Job(
        artifact.key,
        artifact.kind,
        training_verb(identity),
        state,
        done,
        steps,
        "steps",
        artifact.modified,
        worked or None,
        ahead,
        None,
        _figures(record, journal, values, rate, options),
        resumed_sentence(journal.starts, "step"),
        "" if finished else journal.problem,
    )


def training_verb(identity: Mapping[str, Any]) -> str:
    """The verb that trains, from the identity in its record."""
    return str(identity.get("verb") or ("pretrain" if "backbone" in identity else "train"))


def _mapping(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    inner = values.get(name)
    return inner if isinstance(inner, Mapping) else {}


def _modified(path: Path) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0


def _last_values(folder: Path, validated: bool) -> LastValues | None:
    """The last values of the log, read from its end: it may be long."""
    step = last_json_line(folder / LOG, '"loss"')
    validation = last_json_line(folder / LOG, '"validation"') if validated else None
    if step is None and validation is None:
        return None
    rows = [row for row in (step, validation) if row is not None]
    values = {name: value for row in rows for name, value in row_numbers(row).items()}
    best = values.pop("best_step", None)
    done = max(int(row.get("step") or 0) for row in rows)
    return LastValues(done, None if best is None else int(best), values)


def _rate(journal: TrainingJournal, done: int, written: float) -> float | None:
    """Steps per second since the last start."""
    if not journal.starts:
        return None
    steps = done - journal.starts[-1]
    if journal.finish is not None:
        seconds = float(journal.finish.get("seconds") or 0.0)
    else:
        seconds = written - (journal.began or written)
    return steps / seconds if steps > 0 and seconds > 0 else None


def _figures(
    record: Mapping[str, Any],
    journal: TrainingJournal,
    values: LastValues | None,
    rate: float | None,
    options: Mapping[str, Any],
) -> list[tuple[str, str]]:
    figures = []
    numbers = values.values if values else {}
    if "loss" in numbers:
        figures.append(("loss", f"{numbers['loss']:.4f}"))
    validation = _mapping(record, "validation")
    measures = {
        name.removeprefix("validation/"): value
        for name, value in numbers.items()
        if name.startswith("validation/") and "/" not in name.removeprefix("validation/")
    }
    if validation.get("best") is not None:
        measures[str(validation["measure"])] = validation["best"]
    figures += [(f"held-out {name}", f"{value:.4f}") for name, value in measures.items()]
    best = validation.get("best_step", values.best_step if values else None)
    if best is not None and measures:
        figures.append(("best step", f"{best:,}"))
    if "learning_rate" in numbers and journal.finish is None:
        figures.append(("learning rate", f"{numbers['learning_rate']:.3g}"))
    for side in ("query", "document"):
        if (active := numbers.get(f"sparsity/{side}/active")) is not None:
            figures.append((f"active {side} terms", f"{active:.1f}"))
    if rate:
        figures.append(("steps/s", format_rate(rate)))
    for name, label in (("lists_per_second", "lists/s"), ("texts_per_second", "texts/s")):
        if journal.finish is not None and name in journal.finish:
            figures.append((label, format_rate(journal.finish[name])))
    if rate and journal.finish is None and options.get("batch_size"):
        unit = "lists/s" if "list_size" in options else "texts/s"
        processes = _mapping(record, "identity").get("processes") or 1
        figures.append((unit, format_rate(rate * options["batch_size"] * processes)))
    return figures


def training_details(artifact: Artifact) -> JobDetails:
    """The settings of a training, its warnings and its verdicts."""
    record = read_json_object(artifact.path / _RECORD)
    notes = []
    validation = _mapping(record, "validation")
    if validation.get("best") is not None:
        before = validation.get("before")
        notes.append(
            f"The weights of step {validation['best_step']:,} are kept: {validation['measure']}"
            f" {validation['best']:.4f} on the validation queries"
            + ("." if before is None else f", {before:.4f} before training.")
        )
    with suppress(IrdistillError, KeyError, TypeError, StopIteration):  # no probes, or not finished
        notes.append(KeepReport.read(artifact.path).sentence)
    counts = _mapping(record, "lists")
    settings = flat_settings(record.get("identity") or {})
    settings += [(f"lists.{name}", f"{value:,}") for name, value in counts.items()]
    return JobDetails(
        settings,
        warnings=TrainingJournal(artifact.path).warnings,
        notes=notes,
        has_log=(artifact.path / LOG).is_file(),
    )
