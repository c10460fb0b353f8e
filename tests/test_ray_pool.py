"""The pool of workers, over a stand-in for Ray that finishes what was begun last first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from irdistill.distributed.ray_pool import AHEAD, Pool, Task, Worker
from irdistill.errors import IrdistillError


class Ref:
    def __init__(self, call: Any, given: tuple[Any, ...]) -> None:
        self.call, self.given = call, given


class Method:
    def __init__(self, call: Any) -> None:
        self.call = call

    def remote(self, *given: Any) -> Any:
        return Ref(self.call, given)


class Actor:
    def __init__(self, kind: type[Worker]) -> None:
        worker = kind()
        self.start, self.do = Method(worker.start), Method(worker.do)


class LastFirst:
    """Of the tasks that workers hold, the one given out last is done first."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self) -> None:
        self.killed = 0

    def remote(self, **resources: float) -> Any:
        return lambda kind: SimpleNamespace(remote=lambda: Actor(kind))

    def put(self, value: Any) -> Any:
        return value

    def wait(
        self, held: list[Any], num_returns: int, timeout: float
    ) -> tuple[list[Any], list[Any]]:
        starting = [one for one in held if len(one.given) == 2]
        return [(starting or held)[-1]], []

    def get(self, ref: Any) -> Any:
        return ref.call(*ref.given)

    def kill(self, actor: Actor) -> None:
        self.killed += 1


class Squares:
    """Notes what it is given; fails at some numbers, so many times."""

    def __init__(self, failures: Mapping[int, int], identity: Mapping[str, Any]) -> None:
        self.begun: list[int] = []
        self.failures, self.identity = dict(failures), identity

    def load(self) -> Mapping[str, Any]:
        return self.identity

    def do(self, given: int) -> int:
        self.begun.append(given)
        if self.failures.get(given, 0):
            self.failures[given] -= 1
            raise ValueError(f"try {self.failures[given]}")
        return given**2


def pool(job: Squares, count: int = 3, **settings: Any) -> tuple[Pool, LastFirst]:
    ray = LastFirst()
    made = Pool(ray, job, "the job", count, {"num_cpus": 1}, **settings)
    made.wait_for_one()
    return made, ray


def tasks(count: int) -> list[Task]:
    return [Task(number, number, f"task {number}") for number in range(count)]


def test_results_wanted_in_order_come_so_and_few_wait() -> None:
    job = Squares({4: 2}, {})
    held, ray = pool(job)
    out = []
    for result in held.run_in_order(tasks(20)):
        # the first tasks given out are the slowest here, and no task so far ahead of them is begun
        assert max(job.begun) < len(out) + 1 + 3 * AHEAD
        out.append(result)
    assert out == [number**2 for number in range(20)]
    assert job.begun.count(4) == 3 and len(job.begun) == 22 and ray.killed == 2
    held.end()
    assert ray.killed == 5


def test_in_any_order_nothing_waits() -> None:
    held, _ = pool(Squares({}, {}))
    found = [task.number for task, _ in held.run(tasks(6))]
    assert sorted(found) == list(range(6)) and found[0] != 0 and found[-1] == 0
    assert list(held.run([])) == [] and list(held.run_in_order([])) == []


def test_a_task_that_fails_three_times_ends_the_job() -> None:
    held, _ = pool(Squares({2: 3}, {}))
    with pytest.raises(
        IrdistillError,
        match="task 2 failed 3 times, last with: ValueError: try 0 What was written so far stays",
    ):
        list(held.run(tasks(4)))


def test_workers_must_have_the_identity_that_is_expected() -> None:
    with pytest.raises(
        IrdistillError, match=r'the job differs between workers.*weights: "a" there, "b" here'
    ):
        pool(Squares({}, {"weights": "b"}), identity={"weights": "a"})
    assert pool(Squares({}, {"weights": "b"}))[0].identity == {"weights": "b"}


HANDLERS = """
import faulthandler, signal
from irdistill.distributed.ray_cluster import _fault_handler, fault_handlers_kept
faulthandler.enable()
before = _fault_handler(signal.SIGSEGV).raw[:8]
with fault_handlers_kept():
    faulthandler.disable()
    assert _fault_handler(signal.SIGSEGV) is None
assert _fault_handler(signal.SIGSEGV).raw[:8] == before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks the C library of Linux")
def test_handlers_of_faults_are_put_back() -> None:
    done = subprocess.run([sys.executable, "-c", HANDLERS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
