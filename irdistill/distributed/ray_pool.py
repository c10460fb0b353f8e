"""Workers of a Ray cluster that carry out the tasks of one job."""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from irdistill.errors import IrdistillError, ModelError
from irdistill.storage.files import differences

logger = logging.getLogger(__name__)

#: The most times that a task is tried.
ATTEMPTS = 3
#: Seconds without a result after which the log says what the job waits for.
PATIENCE = 60.0
#: With ordered results, the number of tasks per worker that may be begun ahead of the oldest one.
AHEAD = 2


class Task(NamedTuple):
    """A task of a worker.

    Attributes:
        number: position among the tasks, ascending.
        value: argument of the job.
        name: name for errors, such as ``part 9``.
    """

    number: int
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


class Fault(NamedTuple):
    """An error in a worker; ``final`` if another try cannot help.

    Errors are returned instead of raised, because exceptions of libraries cannot always be pickled.
    """

    text: str
    final: bool

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """The fault of an exception."""
        if isinstance(error, IrdistillError):
            return cls(str(error), True)
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", False)


class Outcome(NamedTuple):
    """The result of a task, or a fault, with the identity and the place of the worker."""

    number: int
    result: Any
    identity: Mapping[str, Any]
    place: str


class Worker:
    """One process of the cluster. It loads a job when it is created (and restarted)."""

    def __init__(self, job: WorkerJob, folder: str) -> None:
        self.job, self.identity = job, dict[str, Any]()
        self.place = f"{socket.gethostname()}, process {os.getpid()}"
        self.fault: Fault | None = None
        try:
            if Path(folder).is_dir():
                os.chdir(folder)
            self.identity = dict(job.load())
        except Exception as error:
            self.fault = Fault.of(error)

    def start(self) -> Outcome:
        """The identity of the loaded job."""
        return Outcome(-1, self.fault, self.identity, self.place)

    def do(self, number: int, value: Any) -> Outcome:
        """Carry out one task."""
        if self.fault is not None:
            return Outcome(number, self.fault, self.identity, self.place)
        try:
            return Outcome(number, self.job.do(value), self.identity, self.place)
        except Exception as error:
            return Outcome(number, Fault.of(error), self.identity, self.place)


class WorkerPool:
    """Workers of one job, over Ray's ``ActorPool``.

    Ray restarts a worker that dies, on another machine if necessary, and carries out its task
    again. A task that raises is tried again too, on a restarted worker: after an error of a library
    such as CUDA, a process may be unusable.

    Args:
        ray: the module.
        job: what the workers do.
        what: what the identity describes, such as ``the teacher``; for errors.
        count: number of workers.
        resources: what each worker needs of the cluster.
        identity: identity that every worker must have; that of the first worker if None.

    Raises:
        IrdistillError: a worker cannot load the job.
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
        self.ray, self.what, self.count, self.resources = ray, what, count, resources
        self.identity = None if identity is None else dict(identity)
        actor = ray.remote(max_restarts=-1, max_task_retries=ATTEMPTS - 1, **resources)(Worker)
        reference, folder = ray.put(job), str(Path.cwd())
        self._workers = [actor.remote(reference, folder) for _ in range(count)]
        self._starting = {worker.start.remote(): worker for worker in self._workers}
        self._pool = ray.util.ActorPool([])
        self._running: dict[int, tuple[Task, Any]] = {}
        while not self._pool.has_free():
            if not self._add_started(PATIENCE):
                logger.warning(
                    "no worker has started yet; each needs %s of the cluster", dict(resources)
                )

    def _add_started(self, timeout: float) -> bool:
        """Add workers that have started to the pool; whether there was one."""
        if not self._starting:
            return False
        started, _ = self.ray.wait(list(self._starting), num_returns=1, timeout=timeout)
        for reference in started:
            worker = self._starting.pop(reference)
            try:
                outcome = self.ray.get(reference)
            except self.ray.exceptions.RayError as error:
                raise IrdistillError(
                    f"{ATTEMPTS} workers could not start, the last: {' '.join(str(error).split())}"
                ) from error
            if isinstance(outcome.result, Fault):
                raise IrdistillError(outcome.result.text)
            logger.info("a worker has started: %s", outcome.place)
            self._check_identity(outcome)
            self._pool.push(worker)
        return bool(started)

    def run(self, tasks: Iterable[Task], window: int | None = None) -> Iterator[tuple[Task, Any]]:
        """Carry out tasks; yields each with its result, in the order in which they finish.

        Args:
            tasks: tasks with ascending numbers; read only as fast as they are carried out.
            window: begin no task whose number exceeds that of the oldest running one by this much.
        """
        remaining, retries = iter(tasks), deque[Task]()
        upcoming = next(remaining, None)
        faults: dict[int, list[str]] = {}
        while True:
            while self._add_started(0):
                pass
            while self._pool.has_free():
                if retries:
                    self._submit(retries.popleft())
                elif upcoming is None or not self._is_in_window(upcoming, retries, window):
                    break
                else:
                    self._submit(upcoming)
                    upcoming = next(remaining, None)
            if not self._running:
                return
            outcome = self._next_outcome()
            if outcome is None:
                continue
            task, worker = self._running.pop(outcome.number)
            if isinstance(outcome.result, Fault):
                _check_fault(task, outcome.result, faults.setdefault(task.number, []))
                logger.warning("%s is tried again: %s", task.name, outcome.result.text)
                self.ray.kill(worker, no_restart=False)
                retries.append(task)
                continue
            self._check_identity(outcome)
            yield task, outcome.result

    def run_ordered(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Carry out tasks numbered 0, 1, ...; yields their results in this order, and keeps at most
        ``AHEAD`` results per worker in memory.
        """
        finished: dict[int, Any] = {}
        number = 0
        for task, result in self.run(tasks, AHEAD * self.count):
            finished[task.number] = result
            while number in finished:
                yield finished.pop(number)
                number += 1

    def _is_in_window(self, task: Task, retries: Iterable[Task], window: int | None) -> bool:
        numbers = [*self._running, *(retry.number for retry in retries)]
        return window is None or not numbers or task.number - min(numbers) < window

    def _submit(self, task: Task) -> None:
        def call(worker: Any, task: Task) -> Any:
            self._running[task.number] = task, worker
            return worker.do.remote(task.number, task.value)

        self._pool.submit(call, task)

    def _next_outcome(self) -> Outcome | None:
        """The next outcome; None if there was none for ``PATIENCE`` seconds."""
        names = ", ".join(task.name for task, _ in self._running.values())
        try:
            outcome: Outcome = self._pool.get_next_unordered(timeout=PATIENCE)
        except TimeoutError:
            logger.info("no result for %g seconds; running: %s", PATIENCE, names)
            return None
        except self.ray.exceptions.RayError as error:
            raise IrdistillError(
                f"a worker died {ATTEMPTS} times ({' '.join(str(error).split())[:500]}) during one"
                f" of these tasks: {names}. Finished work is kept; run the same command again to"
                " resume."
            ) from error
        return outcome

    def _check_identity(self, outcome: Outcome) -> None:
        """Refuse a worker whose results would differ from those of the others."""
        if self.identity is None:
            self.identity = dict(outcome.identity)
        elif outcome.identity != self.identity:
            lines = differences(self.identity, outcome.identity)
            raise ModelError(
                f"{self.what} differs between workers: {'; '.join(lines)} ({outcome.place}). Use"
                " machines of one kind, or set what differs (--precision, --backend, --revision)."
            )

    def end(self) -> None:
        """End all workers."""
        for worker in self._workers:
            self.ray.kill(worker)


def _check_fault(task: Task, fault: Fault, earlier: list[str]) -> None:
    """Raise if a task failed with a final fault, twice with the same one, or too often."""
    if fault.final:
        raise IrdistillError(fault.text)
    if fault.text in earlier or len(earlier) + 1 >= ATTEMPTS:
        raise IrdistillError(
            f"{task.name} failed {len(earlier) + 1} times, last with: {fault.text} Finished work is"
            " kept; run the same command again to resume."
        )
    earlier.append(fault.text)
