"""Workers of a Ray cluster that carry out the tasks of one job."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from irdistill.errors import IrdistillError, ModelError, one_line
from irdistill.storage.files import differences

logger = logging.getLogger(__name__)

#: The most times that a task is tried.
ATTEMPTS = 3
#: Seconds after which the log says that no worker has started.
PATIENCE = 60.0


class Task(NamedTuple):
    """A task: the argument of the job, and a name for errors, such as ``part 9``."""

    value: Any
    name: str


class WorkerJob(Protocol):
    """What workers do; it is pickled and sent to each of them."""

    def load(self) -> Mapping[str, Any]:
        """Load what is needed, once; returns what determines the results."""
        ...

    def do(self, value: Any) -> Any:
        """Carry out a task."""
        ...


class Outcome(NamedTuple):
    """The result of a task, or the message of an error that another try cannot fix."""

    result: Any
    error: str | None
    identity: Mapping[str, Any]
    place: str


class Worker:
    """One process of the cluster. It loads a job when it is created, and again when Ray restarts
    it. Errors travel as texts, because exceptions of libraries cannot always be pickled.
    """

    def __init__(self, job: WorkerJob, folder: str) -> None:
        self.job, self.identity, self.error = job, dict[str, Any](), ""
        self.place = f"{socket.gethostname()}, process {os.getpid()}"
        try:
            if Path(folder).is_dir():
                os.chdir(folder)
            self.identity = dict(job.load())
        except Exception as error:
            self.error = _describe(error)

    def start(self) -> Outcome:
        """The identity of the loaded job."""
        return Outcome(None, self.error or None, self.identity, self.place)

    def do(self, task: Task) -> Outcome:
        """Carry out one task; Ray tries again after a `RuntimeError`."""
        if self.error:
            return self.start()
        try:
            return Outcome(self.job.do(task.value), None, self.identity, self.place)
        except IrdistillError as error:
            return Outcome(None, _describe(error), self.identity, self.place)
        except Exception as error:
            message = f"{task.name} failed {ATTEMPTS} times, last with {_describe(error)}"
        raise RuntimeError(message)


def _describe(error: Exception) -> str:
    if isinstance(error, IrdistillError):
        return str(error)
    return f"{type(error).__name__}: {one_line(error, 500)}"


class WorkerPool:
    """Workers of one job, over Ray's ``ActorPool``.

    Ray restarts a worker that dies (on another machine if necessary), and tries the tasks of a dead
    worker and tasks that raise again.

    Args:
        ray: the module.
        job: what the workers do.
        count: number of workers.
        resources: what each worker needs of the cluster.
        identity: identity that every worker must have; that of the first worker if None.
    """

    def __init__(
        self,
        ray: Any,
        job: WorkerJob,
        what: str,
        count: int,
        resources: Mapping[str, float],
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.ray, self.what, self.identity = ray, what, identity
        actor = ray.remote(max_restarts=-1, max_task_retries=ATTEMPTS - 1, **resources)(Worker)
        self._job = ray.put(job)  # a restarted worker needs it
        self._workers = [actor.remote(self._job, str(Path.cwd())) for _ in range(count)]
        self._starting = {worker.start.remote(): worker for worker in self._workers}
        self._pool = ray.util.ActorPool([])
        while not self._add_started(PATIENCE):
            logger.warning(
                "no worker has started yet; each needs %s of the cluster", dict(resources)
            )

    def _add_started(self, timeout: float) -> bool:
        """Add the workers that have started to the pool; returns whether there are any."""
        if not self._starting:
            return False
        started, _ = self.ray.wait(list(self._starting), num_returns=1, timeout=timeout)
        for reference in started:
            worker = self._starting.pop(reference)
            self._result(lambda reference=reference: self.ray.get(reference))
            self._pool.push(worker)
        return bool(started)

    def run(self, tasks: Iterable[Task], ordered: bool = False) -> Iterator[Any]:
        """Carry out tasks; yields their results as they finish, or in the order of the tasks.

        Tasks are read, and results kept, at most one per worker at a time.
        """

        def call(worker: Any, task: Task) -> Any:
            return worker.do.options(retry_exceptions=True).remote(task)

        following = self._pool.get_next if ordered else self._pool.get_next_unordered
        for task in tasks:
            while self._add_started(0):
                pass
            while not self._pool.has_free():
                yield self._result(following)
            self._pool.submit(call, task)
        while self._pool.has_next():
            yield self._result(following)

    def _result(self, get: Any) -> Any:
        """The result of an outcome, checked."""
        try:
            outcome: Outcome = get()
        except self.ray.exceptions.RayError as error:
            text = str(getattr(error, "cause", None) or error)
            raise IrdistillError(
                f"a worker failed ({' '.join(text.split())[:700]}). Finished work is kept; run the"
                " same command again to resume."
            ) from error
        if outcome.error is not None:
            raise IrdistillError(outcome.error)
        if self.identity is None:
            logger.info("a worker has started: %s", outcome.place)
            self.identity = outcome.identity
        if outcome.identity != self.identity:
            lines = differences(self.identity, outcome.identity)
            raise ModelError(
                f"{self.what} differs between workers: {'; '.join(lines)} ({outcome.place}). Use"
                " machines of one kind, or set what differs (--precision, --backend, --revision)."
            )
        return outcome.result

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self.ray.kill(worker)
