"""Inverted lists on GPUs, with a stand-in for the GPU part of FAISS."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.search.vectors.faiss_index import FaissIndex, import_faiss
from tests.search.test_vectors import random_store


class OnGpus:
    """An index on a GPU: records each search, and returns the processor's results reordered."""

    def __init__(self, index: Any, options: Any) -> None:
        self.index, self.options = index, options
        self.requests: list[tuple[int, int]] = []

    def search(self, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.requests.append((len(vectors), k))
        scores, rows = self.index.search(vectors, k)
        return scores[:, ::-1].copy(), rows[:, ::-1].copy()


class Options:
    useFloat16 = False


@pytest.fixture()
def moved(monkeypatch: pytest.MonkeyPatch) -> list[OnGpus]:
    """FAISS with two GPUs."""
    faiss, moved = import_faiss(), []

    def to_all(index: Any, options: Any) -> OnGpus:
        moved.append(OnGpus(index, options))
        return moved[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "GpuMultipleClonerOptions", Options, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", to_all)
    return moved


@pytest.mark.parametrize("kind", ["ivfflat", "ivfpq"])
def test_inverted_lists_are_searched_on_the_gpus_with_the_same_contract(
    kind: Any, tmp_path: Path, moved: list[OnGpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = random_store(tmp_path / "store", rows=2600)
    queries = np.asarray(store.matrix[:7])
    on_gpus = FaissIndex.build(store, kind, tmp_path / kind)
    with monkeypatch.context() as alone:
        alone.setattr(import_faiss(), "get_num_gpus", lambda: 0)
        on_processor = FaissIndex.load(store, tmp_path / kind)
    (copy,) = moved
    assert not copy.options.useFloat16  # eight bytes a vector
    assert on_gpus.settings == on_processor.settings | {"on": "gpu"}
    copy.index.nprobe = 1  # few lists, so that some neighbors are missing
    on_processor._index.nprobe = 1
    for k in (10, 400):
        groups = [queries[:3], queries[3:]]
        for (scores, rows), (others, places) in zip(
            on_gpus.search_groups(groups, k), on_processor.search_groups(groups, k), strict=True
        ):
            np.testing.assert_array_equal(rows, places)
            np.testing.assert_array_equal(scores, others)
            assert ((rows < 0) == np.isneginf(scores)).all()
    assert (places < 0).any()
    assert copy.requests == [(3, 10), (4, 10), (3, 400), (4, 400)]
    on_gpus.search(queries, 2500)
    assert len(copy.requests) == 4, (
        "more neighbours than FAISS's kernels select are searched on the processor"
    )


@pytest.mark.parametrize("kind", ["flat", "hnsw", "sq8"])
def test_indexes_without_gpu_code_stay_on_the_processor(
    kind: Any, tmp_path: Path, moved: list[OnGpus]
) -> None:
    store = random_store(tmp_path / "store", rows=300)
    index = FaissIndex.build(store, kind, tmp_path / kind)
    assert index.search(np.asarray(store.matrix[:3]), 1)[1].ravel().tolist() == [0, 1, 2]
    assert moved == [] and "on" not in index.settings


def test_long_codes_use_half_precision_and_a_failed_copy_falls_back(
    tmp_path: Path,
    moved: list[OnGpus],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = random_store(tmp_path / "store", rows=300, dimension=224)
    FaissIndex.build(store, "ivfpq", tmp_path / "long")
    assert moved[0].options.useFloat16 is True  # 56 bytes a vector

    def refuse(index: Any, options: Any) -> OnGpus:
        raise RuntimeError(
            "Number of bytes per encoded vector / sub-quantizers (56)\nis not supported"
        )

    monkeypatch.setattr(import_faiss(), "index_cpu_to_all_gpus", refuse)
    with caplog.at_level(logging.WARNING):
        index = FaissIndex.load(store, tmp_path / "long")
    assert "is searched on the processor" in caplog.text and "(56) is not supported" in caplog.text
    assert "on" not in index.settings and index.search(np.asarray(store.matrix[:2]), 5)[
        1
    ].shape == (2, 5)
