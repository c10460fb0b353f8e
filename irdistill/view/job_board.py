"""The jobs below the viewed folders, read again only where files changed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import Any

from irdistill.errors import IrdistillError, NotFoundError
from irdistill.storage.json_lines import JOURNAL
from irdistill.storage.locking import is_locked
from irdistill.training.log_rows import LOG
from irdistill.view.job_state import DONE, FAILED, RUNNING, STOPPED, Job, JobDetails
from irdistill.view.recipe_progress import JobOf, recipe_details, recipe_job
from irdistill.view.run_progress import run_curves, run_details, run_job
from irdistill.view.training_curves import CurveCache
from irdistill.view.training_progress import training_details, training_job
from irdistill.view.workspace import RECIPE, RUN, STAGES, STARTING, TRAINING, Artifact, Workspace

KINDS = (RUN, TRAINING, RECIPE, STARTING)
STATES = (RUNNING, DONE, STOPPED, FAILED)
_WATCHED = ("manifest.json", "training.json", "results.json", "plan.json", JOURNAL, LOG)


@dataclass(frozen=True)
class JobListing:
    """The jobs that match a filter.

    Attributes:
        verdict: counts of states in words, over all jobs.
        running: jobs that run, recipes first.
        others: all other jobs, those that changed last first, up to the limit.
        more: number of further jobs.
    """

    verdict: str
    running: Sequence[Job]
    others: Sequence[Job]
    more: int

    def to_json(self) -> dict[str, Any]:
        """What the script of the page shows."""
        return {
            "verdict": self.verdict,
            "running": [job.to_json() for job in self.running],
            "others": [job.to_json() for job in self.others],
            "more": self.more,
        }


class JobBoard:
    """Reads the states of jobs.

    Args:
        workspace: the viewed folders.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.curves = workspace, CurveCache()
        self._known: dict[Path, tuple[object, Job]] = {}
        self._lock = Lock()

    def listing(self, words: str = "", state: str = "", limit: int = 200) -> JobListing:
        """The jobs whose name, kind or verb has all words."""
        jobs = [self.job(entry) for entry in self.workspace.artifacts() if entry.kind in KINDS]
        counts = Counter(job.state for job in jobs)
        running = sorted(
            (job for job in jobs if job.state == RUNNING),
            key=lambda job: (job.kind != RECIPE, -job.modified),
        )
        needles = words.lower().split()
        others = [
            job
            for job in jobs
            if job.state != RUNNING
            and state in ("", job.state)
            and all(word in f"{job.key} {job.kind} {job.verb}".lower() for word in needles)
        ]
        others.sort(key=lambda job: -job.modified)
        return JobListing(_verdict(counts), running, others[:limit], max(0, len(others) - limit))

    def job(self, artifact: Artifact) -> Job:
        """The state of an artifact; one that cannot be read is a failed job with the reason."""
        signature = _signature(artifact)
        with self._lock:
            known = self._known.get(artifact.path)
        if known is not None and known[0] == signature and known[1].state in (DONE, STOPPED):
            return known[1]
        try:
            job = self._read(artifact)
        except (IrdistillError, OSError, ValueError, TypeError, KeyError, LookupError) as error:
            job = Job(artifact.key, artifact.kind, "", FAILED, problem=str(error))
            job = replace(job, modified=artifact.modified)
        with self._lock:
            self._known[artifact.path] = signature, job
        return job

    def _read(self, artifact: Artifact) -> Job:
        if artifact.kind == RUN:
            return run_job(artifact)
        if artifact.kind == TRAINING:
            return training_job(artifact)
        if artifact.kind == RECIPE:
            return recipe_job(artifact, self._job_in())
        return Job(artifact.key, STARTING, "", RUNNING, modified=artifact.modified)

    def _job_in(self) -> JobOf:
        """The job in a folder."""
        kinds = (RUN, TRAINING)
        known = {entry.path: entry for entry in self.workspace.artifacts() if entry.kind in kinds}
        return lambda folder: self.job(known[folder]) if folder in known else None

    def details(self, artifact: Artifact) -> JobDetails:
        """What the page of one job shows.

        Raises:
            NotFoundError: the artifact is not a job.
        """
        readers: dict[str, Callable[[], JobDetails]] = {
            RUN: lambda: run_details(artifact),
            TRAINING: lambda: training_details(artifact),
            RECIPE: lambda: recipe_details(artifact, self._job_in()),
            STARTING: JobDetails,
        }
        if artifact.kind not in readers:
            raise NotFoundError(f"{artifact.key} is a {artifact.kind}, which no job writes.")
        return readers[artifact.kind]()

    def charts(self, artifact: Artifact, since: int, generation: int) -> dict[str, Any]:
        """The curves of a training, or the rate of a run."""
        if artifact.kind == TRAINING:
            return self.curves.of(artifact.path).to_json(since, generation)
        rows, charts = run_curves(artifact) if artifact.kind == RUN else (0, [])
        changed = charts if rows != since else []
        return {"generation": 0, "rows": rows, "step": None, "best_step": None, "charts": changed}


def _signature(artifact: Artifact) -> object:
    """Changes when a file of the job is written, or when it is locked or released."""
    times = []
    for name in _WATCHED:
        try:
            status = os.stat(artifact.path / name)
            times.append((name, status.st_mtime_ns, status.st_size))
        except OSError:
            continue
    locked = is_locked(artifact.path), is_locked(artifact.path / STAGES)
    return artifact.key, artifact.kind, locked, tuple(times)


def _verdict(counts: Counter[str]) -> str:
    """Counts of states: ``2 running, 14 done, 1 stopped``."""
    parts = [f"{counts[state]:,} {state}" for state in STATES if counts[state]]
    return ", ".join(parts) or "Nothing has been run here yet"
