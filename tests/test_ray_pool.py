"""The worker pool, with a substitute for Ray that finishes the newest task first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from irdistill.distributed.ray_pool import ATTEMPTS, Task, Worker, WorkerPool
from irdistill.errors import IrdistillError


class Method:
    """A method of an actor; a call returns a reference, and ``get`` runs it."""

    def __init__(self, call: Any, tries: int = 1) -> None:
        self.call, self.tries = call, tries

    def options(self, retry_exceptions: bool) -> Method:
        return Method(self.call, ATTEMPTS if retry_exceptions else 1)

    def remote(self, *arguments: Any) -> Any:
        def run() -> Any:
            for number in range(self.tries):
                try:
                    return self.call(*arguments)
                except RuntimeError:
                    if number + 1 == self.tries:
                        raise
            raise AssertionError

        return run


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

    def has_next(self) -> bool:
        return bool(self.running)

    def submit(self, call: Any, value: Any) -> None:
        actor = self.idle.pop()
        self.running.append((call(actor, value), actor))

    def get_next(self, place: int = 0) -> Any:
        reference, actor = self.running.pop(place)
        self.idle.append(actor)
        return reference()

    def get_next_unordered(self) -> Any:
        return self.get_next(-1)


class FakeRay:
    exceptions = SimpleNamespace(RayError=RuntimeError)
    util = SimpleNamespace(ActorPool=FakeActorPool)

    def __init__(self) -> None:
        self.killed = 0

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

    def kill(self, actor: Actor) -> None:
        self.killed += 1


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
        if value < 0:
            raise IrdistillError("a negative number")
        return value**2


def start_pool(job: Squares, count: int = 3, **settings: Any) -> tuple[WorkerPool, FakeRay]:
    ray = FakeRay()
    return WorkerPool(ray, job, "the job", count, {"num_cpus": 1}, **settings), ray


def tasks(*numbers: int) -> list[Task]:
    return [Task(number, f"task {number}") for number in numbers]


def test_ordered_results_keep_few_in_memory() -> None:
    job = Squares({4: 2}, {})
    pool, ray = start_pool(job)
    read: list[int] = []

    def reading() -> Any:
        for task in tasks(*range(20)):
            read.append(task.value)
            yield task

    results = []
    for result in pool.run(reading(), ordered=True):
        assert len(read) <= len(results) + 2 + 3
        results.append(result)
    assert results == [number**2 for number in range(20)]
    assert job.begun.count(4) == 3 and len(job.begun) == 22
    pool.end()
    assert ray.killed == 3


def test_unordered_results_do_not_wait() -> None:
    pool, _ = start_pool(Squares({}, {}))
    results = list(pool.run(tasks(*range(6))))
    assert sorted(results) == [number**2 for number in range(6)]
    assert results[0] != 0 and results[-1] == 0
    assert list(pool.run([])) == [] and list(pool.run([], ordered=True)) == []


def test_a_task_that_fails_three_times_ends_the_job() -> None:
    pool, _ = start_pool(Squares({2: 3}, {}))
    with pytest.raises(
        IrdistillError,
        match=r"task 2 failed 3 times, last with ValueError: try 0\)\. Finished work is kept",
    ):
        list(pool.run(tasks(*range(4))))


def test_an_error_that_another_try_cannot_fix_ends_the_job() -> None:
    job = Squares({}, {})
    with pytest.raises(IrdistillError, match=r"^a negative number$"):
        list(start_pool(job)[0].run(tasks(-1)))
    assert job.begun == [-1]


def test_workers_must_have_the_expected_identity() -> None:
    with pytest.raises(
        IrdistillError, match=r'the job differs between workers.*weights: "a" there, "b" here'
    ):
        start_pool(Squares({}, {"weights": "b"}), identity={"weights": "a"})
    assert start_pool(Squares({}, {"weights": "b"}))[0].identity == {"weights": "b"}


def test_a_restarted_worker_must_have_the_same_identity() -> None:
    pool, _ = start_pool(Squares({}, {"weights": "a"}), 1)
    pool._pool.idle = [Actor(Worker(Squares({}, {"weights": "b"}), "."))]
    pool._starting = {}
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
