"""A fixture: a Ray cluster of this machine with two processors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from irdistill.distributed.ray_cluster import keep_fault_handlers


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray = pytest.importorskip("ray", reason="the extra ray is not installed")
    with keep_fault_handlers():
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            object_store_memory=80 * 2**20,
        )
    yield
    with keep_fault_handlers():
        ray.shutdown()
