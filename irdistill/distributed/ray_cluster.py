"""A Ray cluster: finding or starting one, and how many workers a job gets there."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from irdistill.distributed.ray_pool import Job, Pool
from irdistill.errors import IrdistillError, MissingExtraError

logger = logging.getLogger(__name__)

_FAULTS = [
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL")
    if hasattr(signal, name)
]
_SIGACTION = 256
"""Bytes that hold a ``struct sigaction`` on every system (152 with glibc); it begins with the
handler's address.
"""

STORE_BYTES = 256 * 2**20
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class RayCluster:
    """Where workers run, and how many.

    Attributes:
        workers: processes; where None one a GPU, or one a machine where the cluster has no GPU.
        address: of a running cluster, ``auto`` for the one that this machine belongs to. Where
            None, $RAY_ADDRESS, else a cluster of this machine alone is started and ended with the
            job. What is connected already is used as it is.
    """

    workers: int | None = None
    address: str | None = None

    @contextmanager
    def pool(
        self, job: Job, what: str, identity: Mapping[str, Any] | None = None
    ) -> Iterator[Pool]:
        """Start the workers, and wait until the first has loaded the job.

        Args:
            what: is compared between workers, as ``the teacher``; for errors.
            identity: what every worker's must be; the first one's where None.

        Raises:
            MissingExtraError: Ray is not installed.
            IrdistillError: there is no such cluster, or a worker cannot load the job.
        """
        if self.workers is not None and self.workers < 1:
            raise IrdistillError(f"{self.workers} workers were asked for; give at least 1.")
        ray = _import_ray()
        connected = ray.is_initialized()
        if not connected:
            _connect(ray, self.address, self.workers)
        try:
            count, resources = share(ray.nodes(), self.workers)
            pool = Pool(ray, job, what, count, resources, identity)
            try:
                pool.wait_for_one()
                yield pool
            finally:
                pool.end()
        finally:
            if not connected:
                with fault_handlers_kept():
                    ray.shutdown()


def _import_ray() -> Any:
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "the engine ray") from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own: dict[str, Any] = {}
    if address == "local":
        own = {
            "num_cpus": max(os.cpu_count() or 1, workers or 1),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    try:
        with fault_handlers_kept():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except Exception as error:
        raise IrdistillError(
            f"no Ray cluster answers at {address!r} ({' '.join(str(error).split())[:300]}). Start"
            " one with: ray start --head, or leave --ray-address out to use this machine alone."
        ) from error


@contextmanager
def fault_handlers_kept() -> Iterator[None]:
    """Put back the handlers of faults that this process had before.

    Ray replaces those of SIGSEGV, SIGBUS, SIGFPE and SIGILL by its own, which end the process, and
    takes the one of SIGSEGV away when it is shut down. A Java machine that runs in the process
    needs its own: it finds null pointers by them, and Lucene would crash some time later.
    """
    handlers = {
        number: handler for number in _FAULTS if (handler := _fault_handler(number)) is not None
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            ctypes.CDLL(None).sigaction(number, handler, None)


def _fault_handler(number: int) -> Any:
    """The C library's record of a signal's handler; None where there is none, or no such
    library.
    """
    try:
        record = ctypes.create_string_buffer(_SIGACTION)
        done = ctypes.CDLL(None).sigaction(number, None, record) == 0
    except (AttributeError, OSError, TypeError):
        return None
    return record if done and any(record.raw[: ctypes.sizeof(ctypes.c_void_p)]) else None


def share(nodes: Sequence[Mapping[str, Any]], workers: int | None) -> tuple[int, dict[str, float]]:
    """How many workers a cluster gets, and what each of them asks for.

    A GPU is given to one worker, or to several where more workers than GPUs are asked for. Without
    GPUs the processors of the machines are dealt out evenly, for a model computes on as many
    threads as its worker has processors.

    Args:
        nodes: as ``ray.nodes()`` gives them.
    """
    machines = [
        node["Resources"]
        for node in nodes
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    if not machines:
        raise IrdistillError(
            "the Ray cluster has no machine with a processor; start one with: ray start"
            " --address=HEAD:6379"
        )
    processors = sum(int(machine["CPU"]) for machine in machines)
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    count = workers or gpus or len(machines)
    if count > processors:
        logger.warning(
            "%d workers were asked for; the cluster has processors for %d", count, processors
        )
        count = processors
    if gpus:
        return count, {
            "num_cpus": 1,
            "num_gpus": 1 if count <= gpus else 1 / math.ceil(count / gpus),
        }
    least = min(int(machine["CPU"]) for machine in machines)
    return count, {"num_cpus": max(1, least // math.ceil(count / len(machines)))}
