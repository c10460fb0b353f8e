"""A Ray cluster: joining or starting one, and the number of workers of a job."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from irdistill.distributed.ray_pool import WorkerJob, WorkerPool
from irdistill.errors import IrdistillError, MissingExtraError, OptionError, one_line

logger = logging.getLogger(__name__)

_FAULT_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL")
    if hasattr(signal, name)
]
#: Enough bytes for a ``struct sigaction`` of any system (152 with glibc); it begins with the
#: handler's address.
_SIGACTION_BYTES = 256

STORE_BYTES = 256 * 2**20
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class RayCluster:
    """Where workers run, and how many.

    Attributes:
        workers: number of processes (default: one per GPU, or one per machine without GPUs).
        address: address of a running cluster; ``auto`` for the cluster of this machine. If None,
            $RAY_ADDRESS is used, or a cluster of this machine alone is started for the job. A
            connection that exists is used as it is.
    """

    workers: int | None = None
    address: str | None = None

    @contextmanager
    def pool(
        self, job: WorkerJob, what: str, identity: Mapping[str, Any] | None = None
    ) -> Iterator[WorkerPool]:
        """Start workers; returns when the first has loaded the job.

        Args:
            job: what the workers do.
            identity: identity that every worker must have; that of the first worker if None.
        """
        if self.workers is not None and self.workers < 1:
            raise OptionError(f"workers is {self.workers}; expected at least 1.")
        ray = _import_ray()
        with ExitStack() as stack:
            if not ray.is_initialized():
                _connect(ray, self.address, self.workers)
                stack.callback(_shut_down, ray)
            count, resources = share_resources(ray.nodes(), self.workers)
            pool = WorkerPool(ray, job, what, count, resources, identity)
            stack.callback(pool.end)
            yield pool


def _import_ray() -> Any:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.util
    except ImportError as error:
        raise MissingExtraError("ray", "ray", "the engine ray") from error
    return ray


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    settings: dict[str, Any] = {}
    if address == "local":
        settings = {
            "num_cpus": max(os.cpu_count() or 1, workers or 1),
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
        }
    try:
        with keep_fault_handlers():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **settings)
    except Exception as error:
        raise IrdistillError(
            f"no Ray cluster answers at {address!r} ({one_line(error)}). Start"
            " one with `ray start --head`, or leave out --ray-address to use this machine alone."
        ) from error


def _shut_down(ray: Any) -> None:
    with keep_fault_handlers():
        ray.shutdown()


@contextmanager
def keep_fault_handlers() -> Iterator[None]:
    """Restore this process's handlers of fault signals on exit.

    Ray replaces the handlers of SIGSEGV, SIGBUS, SIGFPE and SIGILL by its own, which end the
    process, and removes that of SIGSEGV when it is shut down. A Java virtual machine in the process
    finds null pointers by its own handlers; Lucene would crash later without them.
    """
    handlers = {number: _fault_handler(number) for number in _FAULT_SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                ctypes.CDLL(None).sigaction(number, handler, None)


def _fault_handler(number: int) -> Any:
    """The C library's record of a signal's handler; None if there is no handler or library."""
    try:
        record = ctypes.create_string_buffer(_SIGACTION_BYTES)
        read = ctypes.CDLL(None).sigaction(number, None, record) == 0
    except (AttributeError, OSError, TypeError):
        return None
    return record if read and any(record.raw[: ctypes.sizeof(ctypes.c_void_p)]) else None


def share_resources(
    nodes: Sequence[Mapping[str, Any]], workers: int | None
) -> tuple[int, dict[str, float]]:
    """The number of workers that a cluster gets, and the resources of each.

    A GPU belongs to one worker, or to several if there are more workers than GPUs. Without GPUs,
    the processors of the machines are divided evenly, because a model computes on as many threads
    as its worker has processors.

    Args:
        nodes: as ``ray.nodes()`` returns them.
        workers: requested number of workers.

    Examples:
        >>> share_resources([{"Alive": True, "Resources": {"CPU": 8}}], 2)
        (2, {'num_cpus': 4})
    """
    machines = [
        node["Resources"]
        for node in nodes
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
    if not machines:
        raise IrdistillError(
            "the Ray cluster has no machine with a processor. Start one with `ray start"
            " --address=HEAD:6379`."
        )
    processors = sum(int(machine["CPU"]) for machine in machines)
    gpus = sum(int(machine.get("GPU", 0)) for machine in machines)
    count = workers or gpus or len(machines)
    if count > processors:
        logger.warning(
            "%d workers were requested; the cluster has processors for %d", count, processors
        )
        count = processors
    if gpus:
        return count, {
            "num_cpus": 1,
            "num_gpus": 1 if count <= gpus else 1 / math.ceil(count / gpus),
        }
    fewest = min(int(machine["CPU"]) for machine in machines)
    return count, {"num_cpus": max(1, fewest // math.ceil(count / len(machines)))}
