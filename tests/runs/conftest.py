"""Fixtures of the tests of runs."""

from __future__ import annotations

import pytest

from irdistill.collections import Collection
from tests.runs.stored import DOCS, QUERIES


@pytest.fixture()
def collection() -> Collection:
    return Collection.from_dicts("tiny", DOCS, QUERIES, {"q0": {"d0": 1}})
