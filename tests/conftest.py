"""Fixtures that all tests may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.browser import browser, open_address

__all__ = ["browser", "open_address"]

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real collections, one subfolder each.

    It is ``$IRDISTILL_TEST_DATA``, or ``shared/data`` beside the repository. A clone does not have
    it, and the tests that use it are skipped.
    """
    configured = os.environ.get("IRDISTILL_TEST_DATA")
    folder = Path(configured) if configured else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"needs real collections, and {folder} does not exist; set IRDISTILL_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def adi_folder(shared_data: Path) -> Path:
    """The collection ADI (82 documents, 35 queries) in BEIR layout."""
    folder = shared_data / "adi"
    if not folder.is_dir():
        pytest.skip(f"needs the collection {folder}")
    return folder
