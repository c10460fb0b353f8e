"""Arrays that stay in their files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.runs.disk_array import DiskArray


def test_slices_are_those_of_the_array(tmp_path: Path) -> None:
    values = np.linspace(-3, 3, 1000).astype(np.float32)
    values[17] = np.nan
    np.save(tmp_path / "a.npy", values)
    array = DiskArray(tmp_path / "a.npy")
    again = pickle.loads(pickle.dumps(array))
    for part in (
        slice(0, 64),
        slice(10, 20),
        slice(990, 2000),
        slice(5, 5),
        slice(9, 3),
        slice(None),
        slice(-4, None),
        slice(np.int64(7), np.int64(9)),
    ):
        np.testing.assert_array_equal(array[part], values[part])
        np.testing.assert_array_equal(again[part], values[part])
    assert len(array) == 1000 and array[:3].dtype == np.float32
    with pytest.raises(IndexError, match="step of 2"):
        array[::2]


def test_a_file_of_another_length_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(10, dtype=np.int32))
    with open(tmp_path / "a.npy", "r+b") as stream:
        stream.truncate(150)
    with pytest.raises(IrdistillError, match=r"has 150 bytes and should have 168\. Delete"):
        DiskArray(tmp_path / "a.npy")


def test_nothing_in_it_is_no_fault(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.empty(0, np.int32))
    assert DiskArray(tmp_path / "a.npy")[0:5].tolist() == []
