"""How far a recipe is: its stages and the states of their jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json_object
from irdistill.storage.json_lines import JOURNAL, read_json_lines
from irdistill.storage.locking import is_locked
from irdistill.view.job_state import (
    DONE,
    FAILED,
    RUNNING,
    STOPPED,
    WAITING,
    Job,
    JobDetails,
    format_duration,
    read_time,
    resumed_sentence,
)
from irdistill.view.workspace import STAGES, Artifact

JobOf = Callable[[Path], Job | None]
"""The job in a folder, if there is one."""


@dataclass
class StageProgress:
    """A stage of a recipe.

    Attributes:
        began: time of its last start, in seconds since 1970.
        seconds: time of its attempts that ended.
    """

    name: str
    verb: str = ""
    state: str = WAITING
    began: float | None = None
    seconds: float = 0.0
    problem: str = ""


class RecipeProgress:
    """The stages of a recipe, from its journal and the records of its stages.

    Attributes:
        starts: stages that were done at each start.
        stages: all of them; without the line of a start those that have a record.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.locked = is_locked(folder) or is_locked(folder / STAGES)
        self.starts: list[int] = []
        self.stages: dict[str, StageProgress] = {}
        self._current: str = ""
        self._process: object = None
        self._ended: set[str] = set()
        for line in read_json_lines(folder / JOURNAL):
            self._read(line)
        for path in sorted((folder / STAGES).glob("*.json")):
            if not self.starts or path.stem in self.stages:
                self._read_record(path)

    def _read(self, line: dict[str, Any]) -> None:
        name, event = str(line.get("stage", "")), line.get("event")
        if event == "start" and isinstance(line.get("stages"), list):
            known = self.stages
            self.stages = {}
            for entry in line["stages"]:
                title, verb = map(str, entry)
                self.stages[title] = known.get(title) or StageProgress(title)
                self.stages[title].verb = verb
            if line.get("process") != self._process:  # a specialisation runs its stages in turns
                self._process = line.get("process")
                self.starts.append(len(self._ended))
        elif event == "stage":
            self._current = name
            stage = self.stages.setdefault(name, StageProgress(name))
            stage.began, stage.problem = read_time(line.get("time")), ""
        elif name and isinstance(line.get("seconds"), int | float):
            stage = self.stages.setdefault(name, StageProgress(name))
            stage.seconds += line["seconds"]
            stage.problem = str(line.get("error") or "")
            if line.get("done", not stage.problem):
                self._ended.add(name)

    def _read_record(self, path: Path) -> None:
        try:
            record = read_json_object(path)
        except IrdistillError:
            return
        stage = self.stages.setdefault(path.stem, StageProgress(path.stem))
        inputs = record.get("inputs")
        if not stage.verb and isinstance(inputs, dict):
            stage.verb = str(inputs.get("verb", ""))
        if record.get("fingerprint") is not None:
            stage.state = DONE
        elif self.locked and path.stem == self._current:
            stage.state = RUNNING
        else:
            stage.state = FAILED if stage.problem else STOPPED

    @property
    def done(self) -> int:
        """Number of stages that are done."""
        return sum(stage.state == DONE for stage in self.stages.values())

    @property
    def current(self) -> StageProgress | None:
        """The stage that runs."""
        return next((stage for stage in self.stages.values() if stage.state == RUNNING), None)


def recipe_job(artifact: Artifact, job_of: JobOf) -> Job:
    """The state of a recipe or a specialisation."""
    progress = RecipeProgress(artifact.path)
    problem = next((stage.problem for stage in progress.stages.values() if stage.problem), "")
    complete = progress.done == len(progress.stages) and is_reported(artifact.path)
    if progress.locked:
        state = RUNNING
    else:
        state = DONE if complete else FAILED if problem else STOPPED
    figures, current = [], progress.current
    if current is not None:
        job = job_of(artifact.path / current.name)
        shown = job.progress if job is not None and job.progress else current.verb
        figures.append((f"stage {current.name}", shown))
    jobs = [job_of(artifact.path / name) for name in progress.stages]
    costs = [job.cost for job in jobs if job is not None and job.cost is not None]
    seconds = sum(stage.seconds for stage in progress.stages.values())
    if current is not None and current.began:
        seconds += max(0.0, time.time() - current.began)
    return Job(
        artifact.key,
        artifact.kind,
        "specialise" if (artifact.path / "plan.json").is_file() else "run",
        state,
        progress.done,
        len(progress.stages),
        "stages",
        artifact.modified,
        seconds or None,
        None,
        sum(costs) if costs else None,
        figures,
        resumed_sentence(progress.starts, "stage"),
        "" if state in (DONE, RUNNING) else problem,
    )


def is_reported(folder: Path) -> bool:
    """Whether a recipe wrote its results, and a specialisation also its choice."""
    if not (folder / "results.json").is_file():
        return False
    plan = folder / "plan.json"
    try:
        return not plan.is_file() or "choice" in read_json_object(plan)
    except IrdistillError:
        return False


def recipe_details(artifact: Artifact, job_of: JobOf) -> JobDetails:
    """The stages of a recipe."""
    rows = []
    for stage in RecipeProgress(artifact.path).stages.values():
        job = job_of(artifact.path / stage.name)
        seconds = stage.seconds
        if stage.state == RUNNING and stage.began:
            seconds += max(0.0, time.time() - stage.began)
        shown = job.to_json() if job is not None else {}
        rows.append(
            {
                "name": stage.name,
                "verb": stage.verb,
                "state": stage.state,
                "took": format_duration(seconds) if seconds else "",
                "key": job.key if job is not None else "",
                "progress": shown.get("progress", ""),
                "share": shown.get("share") if stage.state == RUNNING else None,
                "remaining": shown.get("remaining", "") if stage.state == RUNNING else "",
                "problem": stage.problem if stage.state == FAILED else "",
            }
        )
    return JobDetails(stages=rows)
