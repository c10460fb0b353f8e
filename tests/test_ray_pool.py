"""The pool of workers, over a stand-in for Ray that finishes what was begun last first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from irdistill.distributed.ray_pool import AHEAD, Task, Worker, WorkerPool
from irdistill.errors import IrdistillError


class Method:
    """A method of an actor; calling it gives a reference that is carried out by ``get``."""

    def __init__(self, call: Any) -> None:
        self.call = call

    def remote(self, *arguments: Any) -> Any:
        return lambda: self.call(*arguments)


class Actor:
    def __init__(self, worker: Worker) -> None:
        self.start, self.do = Method(worker.start), Method(worker.do)


class FakeActorPool:
    """Of the running tasks, the one that was submitted last finishes first."""

    def __init__(self, actors: list[Any]) -> None:
        self.idle, self.running = list(actors), list[Any]()

    def push(self, actor: Any) -> None:
        self.idle.append(actor)

    def has_free(self) -> bool:
        return bool(self.idle)

    def submit(self, call: Any, value: Any) -> None:
        actor = self.idle.pop()
        self.running.append((call(actor, value), actor))

    def get_next_unordered(self, timeout: float) -> Any:
        reference, actor = self.running.pop()
        self.idle.append(actor)
        return reference()


class FakeRay:
    exceptions = SimpleNamespace(RayError=RuntimeError)
    util = SimpleNamespace(ActorPool=FakeActorPool)

    def __init__(self) -> None:
        self.killed, self.restarted = 0, 0

    def remote(self, **settings: float) -> Any:
        return lambda kind: SimpleNamespace(remote=lambda *arguments: Actor(kind(*arguments)))

    def put(self, value: Any) -> Any:
        return value

    def wait(
        self, references: list[Any], num_returns: int, timeout: float
    ) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: Any) -> Any:
        return reference()

    def kill(self, actor: Actor, no_restart: bool = True) -> None:
        self.killed += no_restart
        self.restarted += not no_restart


class Squares:
    """Records its tasks; fails at some numbers, as often as ``failures`` says."""

    def __init__(self, failures: Mapping[int, int], identity: Mapping[str, Any]) -> None:
        self.begun: list[int] = []
        self.failures, self.identity = dict(failures), identity

    def load(self) -> Mapping[str, Any]:
        return self.identity

    def do(self, value: int) -> int:
        self.begun.append(value)
        if self.failures.get(value, 0):
            self.failures[value] -= 1
            raise ValueError(f"try {self.failures[value]}")
        return value**2


def start_pool(job: Squares, count: int = 3, **settings: Any) -> tuple[WorkerPool, FakeRay]:
    ray = FakeRay()
    return WorkerPool(ray, job, "the job", count, {"num_cpus": 1}, **settings), ray


def tasks(count: int) -> list[Task]:
    return [Task(number, number, f"task {number}") for number in range(count)]


def test_ordered_results_keep_few_in_memory() -> None:
    job = Squares({4: 2}, {})
    pool, ray = start_pool(job)
    results = []
    for result in pool.run_ordered(tasks(20)):
        # The oldest tasks are the slowest here, and no task further ahead of them is begun.
        assert max(job.begun) < len(results) + 1 + 3 * AHEAD
        results.append(result)
    assert results == [number**2 for number in range(20)]
    assert job.begun.count(4) == 3 and len(job.begun) == 22 and ray.restarted == 2
    pool.end()
    assert ray.killed == 3


def test_unordered_results_do_not_wait() -> None:
    pool, _ = start_pool(Squares({}, {}))
    numbers = [task.number for task, _ in pool.run(tasks(6))]
    assert sorted(numbers) == list(range(6)) and numbers[0] != 0 and numbers[-1] == 0
    assert list(pool.run([])) == [] and list(pool.run_ordered([])) == []


def test_a_task_that_fails_three_times_ends_the_job() -> None:
    pool, _ = start_pool(Squares({2: 3}, {}))
    with pytest.raises(
        IrdistillError,
        match="task 2 failed 3 times, last with: ValueError: try 0 Finished work is kept",
    ):
        list(pool.run(tasks(4)))


def test_workers_must_have_the_expected_identity() -> None:
    with pytest.raises(
        IrdistillError, match=r'the job differs between workers.*weights: "a" there, "b" here'
    ):
        start_pool(Squares({}, {"weights": "b"}), identity={"weights": "a"})
    assert start_pool(Squares({}, {"weights": "b"}))[0].identity == {"weights": "b"}


def test_a_restarted_worker_must_have_the_same_identity() -> None:
    job = Squares({}, {"weights": "a"})
    pool, _ = start_pool(job, 1)
    worker = Worker(Squares({}, {"weights": "b"}), ".")
    pool._pool.idle = [Actor(worker)]
    with pytest.raises(IrdistillError, match="differs between workers"):
        list(pool.run(tasks(1)))


HANDLERS = """
import faulthandler, signal
from irdistill.distributed.ray_cluster import _fault_handler, keep_fault_handlers
faulthandler.enable()
before = _fault_handler(signal.SIGSEGV).raw[:8]
with keep_fault_handlers():
    faulthandler.disable()
    assert _fault_handler(signal.SIGSEGV) is None
assert _fault_handler(signal.SIGSEGV).raw[:8] == before
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="reads the handlers from the C library of Linux"
)
def test_fault_handlers_are_restored() -> None:
    process = subprocess.run([sys.executable, "-c", HANDLERS], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
