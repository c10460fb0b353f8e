"""Scoring on a Ray cluster: parts go to workers, a dead worker's part goes to another, this process writes the run."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from irdistill.collections import Collection, load_collection
from irdistill.errors import IrdistillError, MissingExtra
from irdistill.runs import RankedList
from irdistill.runs.manifest import differences
from irdistill.teachers.engine import AnyTeacher, Done, ScoredPart, score_part
from irdistill.teachers.loading import card_of
from irdistill.teachers.spec import TeacherSpec

logger = logging.getLogger(__name__)

ATTEMPTS = 3
PATIENCE = 60.0
STORE_BYTES = 256 * 2**20

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

Part = tuple[int, Sequence[RankedList]]


class Fault(NamedTuple):
    """What went wrong in a worker; ``final`` where trying again is of no use."""

    text: str
    final: bool


class Ready(NamedTuple):
    """A worker has its teacher."""

    identity: dict[str, Any]
    place: str


class Worker:
    """One process of the cluster: it loads collection and teacher once, then scores parts.

    Faults are returned and not raised: an exception of a library may be one that cannot be pickled.
    """

    collection: Collection
    teacher: AnyTeacher

    def start(self, collection: Collection | str, described: Mapping[str, Any], teacher: TeacherSpec,
              folder: str) -> Ready | Fault:
        """Load everything; ``folder`` is where relative names are looked up, if this machine has it."""
        try:
            if Path(folder).is_dir():
                os.chdir(folder)
            self.collection = load_collection(collection) if isinstance(collection, str) else collection
            other = differences(described, self.collection.describe())
            if other:
                raise IrdistillError(
                    f"the collection {described['id']!r} is another one on {socket.gethostname()}: {'; '.join(other)}. Give all "
                    "machines the same files."
                )
            self.teacher = teacher.build(self.collection.corpus)
            return Ready(dict(self.teacher.identity), f"{socket.gethostname()}, process {os.getpid()}")
        except Exception as error:
            return _fault(error)

    def score(self, lists: Sequence[RankedList]) -> tuple[list[RankedList], dict[str, float]] | Fault:
        """Score one part."""
        try:
            return score_part(self.collection, lists, self.teacher)
        except Exception as error:
            return _fault(error)


def _fault(error: Exception) -> Fault:
    if isinstance(error, IrdistillError):
        return Fault(str(error), True)
    return Fault(f"{type(error).__name__}: {' '.join(str(error).split())[:500]}", False)


@dataclass(frozen=True)
class RayEngine:
    """Run a job on Ray.

    Attributes:
        workers: processes that score; where None one a GPU, or one a machine where the cluster has no GPU.
        address: of a running cluster, ``auto`` for the one that this machine belongs to. Where None, $RAY_ADDRESS, else a
            cluster of this machine alone is started and ended with the job. What is connected already is used as it is.
    """

    workers: int | None = None
    address: str | None = None

    @contextmanager
    def start(self, collection: Collection, teacher: TeacherSpec) -> Iterator[RayScorer]:
        """Start the workers, and wait until the first has its teacher.

        Raises:
            MissingExtra: Ray is not installed.
            IrdistillError: there is no such cluster, or a worker cannot load collection or teacher.
        """
        if self.workers is not None and self.workers < 1:
            raise IrdistillError(f"{self.workers} workers were asked for; give at least 1.")
        if card_of(teacher.teacher, teacher.kind, teacher.settings.get("revision")).backend == "openai":
            raise IrdistillError(
                f"the teacher {teacher.teacher!r} is behind a server, whose answers and budget one process keeps. Leave --engine "
                "ray out and say --parallel for more requests at a time."
            )
        ray = _import_ray()
        connected = ray.is_initialized()
        if not connected:
            _connect(ray, self.address, self.workers)
        try:
            count, resources = share(ray.nodes(), self.workers)
            scorer = RayScorer(ray, collection, teacher, count, resources)
            try:
                scorer.wait_for_one()
                yield scorer
            finally:
                scorer.end()
        finally:
            if not connected:
                ray.shutdown()


def _import_ray() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtra("ray", "ray", "the engine ray") from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        own = {"num_cpus": max(os.cpu_count() or 1, workers or 1), "include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        raise IrdistillError(
            f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:300]}). Start one with: ray start --head, "
            "or leave --ray-address out to use this machine alone."
        ) from error


def share(nodes: Sequence[Mapping[str, Any]], workers: int | None) -> tuple[int, dict[str, float]]:
    """How many workers a cluster gets, and what each of them asks for.

    A GPU is given to one worker, or to several where more workers than GPUs are asked for. Without GPUs the processors of
    the machines are dealt out evenly, for a model computes on as many threads as its worker has processors.

    Args:
        nodes: as ``ray.nodes()`` gives them.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    if not machines:
        raise IrdistillError("the Ray cluster has no machine with a processor; start one with: ray start --address=HEAD:6379")
    processors = sum(int(machine["CPU"]) for machine in machines)
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    count = workers or gpus or len(machines)
    if count > processors:
        logger.warning("%d workers were asked for; the cluster has processors for %d", count, processors)
        count = processors
    if gpus:
        return count, {"num_cpus": 1, "num_gpus": 1 if count <= gpus else 1 / math.ceil(count / gpus)}
    least = min(int(machine["CPU"]) for machine in machines)
    return count, {"num_cpus": max(1, least // math.ceil(count / len(machines)))}


@dataclass
class RayScorer:
    """Workers of one job. Each holds one part at a time; a part that was lost is given out again."""

    ray: Any
    collection: Collection
    teacher: TeacherSpec
    count: int
    resources: Mapping[str, float]
    identity: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kind = self.ray.remote(max_restarts=0, **self.resources)(Worker)
        # A collection that lies in memory has to travel; any other is opened by its name on each machine.
        self._collection = self.ray.put(self.collection if self.collection.corpus.folder is None else self.collection.id)
        self._busy: dict[Any, tuple[Any, Part | None]] = {}
        self._idle: list[Any] = []
        self._false_starts = 0
        for _ in range(self.count):
            self._begin()

    def _begin(self) -> None:
        worker = self._kind.remote()
        ready = worker.start.remote(self._collection, self.collection.describe(), self.teacher, str(Path.cwd()))
        self._busy[ready] = worker, None

    def wait_for_one(self) -> None:
        """Wait until a worker is ready; from then on ``identity`` is the teacher's."""
        while not self.identity:
            self._next()

    def score(self, parts: Iterable[Part], done: Done) -> Iterator[ScoredPart]:
        """Score parts on whichever worker is free."""
        waiting, again = iter(parts), deque[Part]()
        faults: dict[int, list[str]] = {}
        while True:
            while self._idle:
                part = again.popleft() if again else next(waiting, None)
                if part is None:
                    break
                worker = self._idle.pop()
                self._busy[worker.score.remote(part[1])] = worker, part
            if not again and all(part is None for _, part in self._busy.values()) and self._idle:
                return
            found = self._next()
            if found is None:
                continue
            part, result = found
            if isinstance(result, Fault):
                _note(part, result, faults.setdefault(part[0], []))
                logger.warning("part %d is given to another worker: %s", part[0], result.text)
                again.append(part)
                self._begin()
                continue
            done(sum(len(own.doc_ids) for own in part[1]))
            yield ScoredPart(part[0], *result)

    def _next(self) -> tuple[Part, Any] | None:
        """What comes back first: a part with its result or fault, or None where it was a worker that began."""
        ready, _ = self.ray.wait(list(self._busy), num_returns=1, timeout=PATIENCE)
        if not ready:
            if not self.identity or all(part is None for _, part in self._busy.values()):
                logger.warning("no worker is ready yet; each needs %s of the cluster", dict(self.resources))
            return None
        worker, part = self._busy.pop(ready[0])
        try:
            result = self.ray.get(ready[0])
        except self.ray.exceptions.RayError as error:  # the process or its machine is gone
            result = Fault(f"its worker died ({' '.join(str(error).split())[:500]})", False)
        if not isinstance(result, Fault):
            if part is None:
                self._welcome(result)
            self._idle.append(worker)
            return None if part is None else (part, result)
        # After an error of a library, as one of CUDA, a process may be of no more use.
        self.ray.kill(worker)
        if part is not None:
            return part, result
        self._false_starts += 1
        if result.final or self._false_starts >= ATTEMPTS:
            raise IrdistillError(result.text if result.final else f"{ATTEMPTS} workers could not start, the last: {result.text}")
        self._begin()
        return None

    def _welcome(self, ready: Ready) -> None:
        """Refuse a worker whose teacher would give other scores than the first one's."""
        logger.info("a worker is ready: %s", ready.place)
        if self.identity and ready.identity != self.identity:
            lines = differences(self.identity, ready.identity)
            raise IrdistillError(
                f"the workers' teachers differ, so their scores would: {'; '.join(lines)} ({ready.place}). Let all machines "
                "be of one kind, or say what differs (--precision, --backend, --revision)."
            )
        self.identity = ready.identity

    def end(self) -> None:
        """End all workers."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy.values())]:
            self.ray.kill(worker)


def _note(part: Part, fault: Fault, before: list[str]) -> None:
    """Stop the job where a part fails again and again, or for a reason that another try does not mend."""
    if fault.final:
        raise IrdistillError(fault.text)
    if fault.text in before or len(before) + 1 >= ATTEMPTS:
        raise IrdistillError(
            f"part {part[0]} (queries {part[1][0].query_id!r} to {part[1][-1].query_id!r}) failed {len(before) + 1} times, last "
            f"with: {fault.text} The parts written so far stay; the same command goes on with this one."
        )
    before.append(fault.text)
