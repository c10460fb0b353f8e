"""A Ray cluster of this machine, with two processors, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from irdistill.distributed.ray_cluster import fault_handlers_kept


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    with fault_handlers_kept():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 * 2**20,
        )
    yield
    with fault_handlers_kept():
        ray.shutdown()
