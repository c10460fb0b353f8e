"""Workers of a Ray cluster: tasks go to them, a dead one's task goes to another, what they give
comes back here.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from irdistill.errors import IrdistillError
from irdistill.storage.files import differences

logger = logging.getLogger(__name__)

ATTEMPTS = 3
PATIENCE = 60.0
"""Seconds without news after which the log says what is waited for."""
AHEAD = 2
"""Of results wanted in order: so many tasks for each worker may lie between the slowest one and the
last one given out.
"""


class Task(NamedTuple):
    """What a worker is given at a time.

    Attributes:
        name: for errors, as ``part 9``.
    """

    number: int
    given: Any
    name: str


class Job(Protocol):
    """What a worker does; it is pickled and travels to each."""

    def load(self) -> Mapping[str, Any]:
        """Load what is needed, once; return what decides the results."""
        ...

    def do(self, given: Any) -> Any:
        """Carry out a task."""
        ...


class Fault(NamedTuple):
    """What went wrong in a worker; ``final`` where trying again is of no use."""

    text: str
    final: bool


class Ready(NamedTuple):
    """A worker has loaded what it needs."""

    identity: dict[str, Any]
    place: str


class Worker:
    """One process of the cluster: it loads a job once, then carries out tasks.

    Faults are returned and not raised: an exception of a library may be one that cannot be pickled.
    """

    job: Job

    def start(self, job: Job, folder: str) -> Ready | Fault:
        """Load everything; ``folder`` is where relative names are looked up, if this machine has
        it.
        """
        try:
            if Path(folder).is_dir():
                os.chdir(folder)
            self.job = job
            return Ready(dict(job.load()), f"{socket.gethostname()}, process {os.getpid()}")
        except Exception as error:
            return _fault(error)

    def do(self, given: Any) -> Any:
        """Carry out one task."""
        try:
            return self.job.do(given)
        except Exception as error:
            return _fault(error)


def _fault(error: Exception) -> Fault:
    if isinstance(error, IrdistillError):
        return Fault(str(error), True)
    return Fault(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", False)


class Pool:
    """Workers of one job. Each holds one task at a time; a task that was lost is given out
    again.
    """

    def __init__(
        self,
        ray: Any,
        job: Job,
        what: str,
        count: int,
        resources: Mapping[str, float],
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.ray, self.what, self.count, self.resources = ray, what, count, resources
        self.identity: dict[str, Any] | None = None if identity is None else dict(identity)
        self._kind = ray.remote(max_restarts=0, **resources)(Worker)
        self._job = ray.put(job)
        self._busy: dict[Any, tuple[Any, Task | None]] = {}
        self._idle: list[Any] = []
        self._false_starts = 0
        for _ in range(count):
            self._begin()

    def _begin(self) -> None:
        worker = self._kind.remote()
        self._busy[worker.start.remote(self._job, str(Path.cwd()))] = worker, None

    def wait_for_one(self) -> None:
        """Wait until a worker is ready; from then on ``identity`` is known."""
        while not self._idle:
            self._next()

    def run(self, tasks: Iterable[Task], ahead: int | None = None) -> Iterator[tuple[Task, Any]]:
        """Carry out tasks on whichever worker is free; they come back in any order.

        Args:
            tasks: with ascending numbers.
            ahead: give out no task whose number is so much above that of the first one still
                wanted.
        """
        waiting, again, wanted = iter(tasks), deque[Task](), set[int]()
        following = next(waiting, None)
        faults: dict[int, list[str]] = {}
        while True:
            while self._idle:
                if again:
                    task = again.popleft()
                elif following is None or (
                    ahead is not None and wanted and following.number - min(wanted) >= ahead
                ):
                    break
                else:
                    task, following = following, next(waiting, None)
                    wanted.add(task.number)
                worker = self._idle.pop()
                self._busy[worker.do.remote(task.given)] = worker, task
            if not wanted and following is None:
                return
            found = self._next()
            if found is None:
                continue
            task, result = found
            if isinstance(result, Fault):
                _note(task, result, faults.setdefault(task.number, []))
                logger.warning("%s is given to another worker: %s", task.name, result.text)
                again.append(task)
                self._begin()
                continue
            wanted.remove(task.number)
            yield task, result

    def run_in_order(self, tasks: Iterable[Task]) -> Iterator[Any]:
        """Carry out tasks numbered 0, 1, ...; what they give comes in that order, and only a few
        wait for their turn.
        """
        held: dict[int, Any] = {}
        turn = 0
        for task, result in self.run(tasks, AHEAD * self.count):
            held[task.number] = result
            while turn in held:
                yield held.pop(turn)
                turn += 1

    def _next(self) -> tuple[Task, Any] | None:
        """What comes back first: a task with its result or fault, or None where it was a worker
        that began.
        """
        ready, _ = self.ray.wait(list(self._busy), num_returns=1, timeout=PATIENCE)
        if not ready:
            if all(task is None for _, task in self._busy.values()):
                logger.warning(
                    "no worker is ready yet; each needs %s of the cluster", dict(self.resources)
                )
            return None
        worker, task = self._busy.pop(ready[0])
        try:
            result = self.ray.get(ready[0])
        except self.ray.exceptions.RayError as error:  # the process or its machine is gone
            result = Fault(f"its worker died ({' '.join(str(error).split())[:500]})", False)
        if not isinstance(result, Fault):
            if task is None:
                self._welcome(result)
            self._idle.append(worker)
            return None if task is None else (task, result)
        # After an error of a library, as one of CUDA, a process may be of no more use.
        self.ray.kill(worker)
        if task is not None:
            return task, result
        self._false_starts += 1
        if result.final or self._false_starts >= ATTEMPTS:
            raise IrdistillError(
                result.text
                if result.final
                else f"{ATTEMPTS} workers could not start, the last: {result.text}"
            )
        self._begin()
        return None

    def _welcome(self, ready: Ready) -> None:
        """Refuse a worker that would give other results than the first one."""
        logger.info("a worker is ready: %s", ready.place)
        if self.identity is not None and ready.identity != self.identity:
            lines = differences(self.identity, ready.identity)
            raise IrdistillError(
                f"{self.what} differs between workers, so their results would: {'; '.join(lines)}"
                f" ({ready.place}). Let all machines be of one kind, or say what differs"
                " (--precision, --backend, --revision)."
            )
        self.identity = ready.identity

    def end(self) -> None:
        """End all workers."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            self.ray.kill(worker)


def _note(task: Task, fault: Fault, before: list[str]) -> None:
    """Stop the job where a task fails again and again, or for a reason that another try does not
    mend.
    """
    if fault.final:
        raise IrdistillError(fault.text)
    if fault.text in before or len(before) + 1 >= ATTEMPTS:
        raise IrdistillError(
            f"{task.name} failed {len(before) + 1} times, last with: {fault.text} What was written"
            " so far stays; the same command goes on with this one."
        )
    before.append(fault.text)
