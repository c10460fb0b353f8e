"""Vector stores: resumed builds and identity. Indexes: exactness, recall, determinism."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.search.array_shards import write_arrays
from irdistill.search.vectors.brute_force import exact_search
from irdistill.search.vectors.faiss_index import FaissIndex
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors, has_corpus_vectors
from irdistill.students.dense_student import DenseStudent
from tests.students.tiny import WORDS, tiny_backbone


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> DenseStudent:
    return DenseStudent(str(tiny_backbone(tmp_path_factory.mktemp("bert"))), device="cpu")


@pytest.fixture(scope="module")
def collection() -> Collection:
    rng = np.random.default_rng(0)
    docs = {
        f"d{number}": " ".join(rng.choice(WORDS, size=int(rng.integers(1, 12))))
        for number in range(90)
    }
    return Collection.from_dicts("tiny", docs, {"q1": "cat dog", "q2": "heat wave"}, {})


def random_store(
    folder: Path, rows: int = 3000, dimension: int = 32, clusters: int = 40
) -> VectorStore:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(clusters, dimension))
    data = centres[rng.integers(0, clusters, rows)] + 0.3 * rng.normal(size=(rows, dimension))
    data = (data / np.linalg.norm(data, axis=1, keepdims=True)).astype(np.float32)
    write_arrays(
        folder,
        {"dimension": dimension, "rows": rows},
        VectorStore.layout(dimension, "float32"),
        rows,
        1000,
        lambda start, end: VectorStore.arrays(data[start:end]),
    )
    return VectorStore(folder)


def recall(index: FaissIndex, queries: np.ndarray, k: int = 10) -> float:
    true = exact_search(index.store.matrix, [queries], k)[0][1]
    nearest = index.search(queries, k)[1]
    return float(
        np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(true, nearest, strict=True)])
    )


def test_the_store_contains_the_vectors(
    student: DenseStudent, collection: Collection, tmp_path: Path
) -> None:
    store = VectorStore.build(
        collection.corpus, student, tmp_path, shard_rows=32, precision="float32"
    )
    expected = student.encode(
        collection.corpus.texts(range(90)), precision="float32", normalize=True
    )
    np.testing.assert_allclose(store.matrix, expected, atol=1e-5)
    half = VectorStore.build(
        collection.corpus, student, tmp_path / "half", precision="float32", storage="float16"
    )
    assert half.matrix.dtype == np.float16 and half.nbytes * 2 == store.nbytes
    np.testing.assert_allclose(half.matrix, expected, atol=1e-3)


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_killed_build_resumes_with_the_same_bytes(
    killed_at: int,
    student: DenseStudent,
    collection: Collection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = VectorStore.build(collection.corpus, student, tmp_path / "whole", shard_rows=32)
    encode, calls = DenseStudent.encode, []

    def killed(self: DenseStudent, *args: object, **settings: object) -> np.ndarray:
        calls.append(1)
        if len(calls) == killed_at + 1:
            raise KeyboardInterrupt
        return encode(self, *args, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(DenseStudent, "encode", killed)
    with pytest.raises(KeyboardInterrupt):
        VectorStore.build(collection.corpus, student, tmp_path / "cut", shard_rows=32)
    with pytest.raises(IrdistillError, match="no finished vectors"):
        VectorStore(tmp_path / "cut")
    calls.clear()
    calls.extend([1] * 10)
    resumed = VectorStore.build(collection.corpus, student, tmp_path / "cut", shard_rows=32)
    assert len(calls) - 10 == 3 - killed_at
    for name in ("vectors.bin", "manifest.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "cut" / name).read_bytes()
    assert resumed.fingerprint == whole.fingerprint


def test_another_identity_is_refused(
    student: DenseStudent, collection: Collection, tmp_path: Path
) -> None:
    VectorStore.build(collection.corpus, student, tmp_path, shard_rows=32)
    with pytest.raises(IrdistillError, match="shard_rows: 32 there, 64 here"):
        VectorStore.build(collection.corpus, student, tmp_path, shard_rows=64)
    (tmp_path / "vectors.bin").write_bytes(b"short")
    with pytest.raises(IrdistillError, match="is damaged: it has 5 bytes"):
        VectorStore(tmp_path)


def test_exact_search_equals_brute_force_for_every_chunk_size() -> None:
    rng = np.random.default_rng(3)
    matrix, queries = (rng.normal(size=(n, 16)).astype(np.float32) for n in (500, 7))
    truth = np.argsort(-(queries @ matrix.T), axis=1, kind="stable")[:, :20]
    for memory in (1, 10_000, 1 << 28):
        scores, rows = exact_search(matrix, [queries, queries[:2]], 20, memory=memory)[0]
        np.testing.assert_array_equal(rows, truth)
        np.testing.assert_allclose(
            scores, np.take_along_axis(queries @ matrix.T, truth, axis=1), atol=1e-5
        )
    assert exact_search(matrix, [queries], 9999)[0][1].shape == (7, 500)


def test_flat_and_approximate_indexes(tmp_path: Path) -> None:
    store = random_store(tmp_path / "store")
    queries = np.asarray(store.matrix[::60]) + 0.02
    flat = FaissIndex.build(store)
    truth = np.argsort(-(queries @ np.asarray(store.matrix).T), axis=1)[:, :10]
    np.testing.assert_array_equal(flat.search(queries, 10)[1], truth)
    assert flat.nbytes == store.nbytes and recall(flat, queries) == 1.0
    for kind, least, most_bytes in (
        ("hnsw", 0.99, 3.5),
        ("ivfflat", 0.9, 1.3),
        ("sq8", 0.95, 0.3),
        ("ivfpq", 0.4, 0.5),
    ):
        index = FaissIndex.build(store, kind, tmp_path / kind)  # type: ignore[arg-type]
        assert recall(index, queries) >= least, kind
        assert index.nbytes < most_bytes * store.nbytes, kind


@pytest.mark.parametrize("kind", ["hnsw", "ivfflat", "ivfpq", "sq8"])
def test_index_is_deterministic_and_reloads(kind: str, tmp_path: Path) -> None:
    store = random_store(tmp_path / "store", rows=800)
    one = FaissIndex.build(store, kind, tmp_path / "one")  # type: ignore[arg-type]
    FaissIndex.build(store, kind, tmp_path / "two")  # type: ignore[arg-type]
    assert (tmp_path / "one/index.faiss").read_bytes() == (
        tmp_path / "two/index.faiss"
    ).read_bytes()
    queries = np.asarray(store.matrix[:5])
    loaded = FaissIndex.load(store, tmp_path / "one")
    for a, b in zip(one.search(queries, 5), loaded.search(queries, 5), strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(IrdistillError, match="another index"):
        (
            FaissIndex.build(store, kind, tmp_path / "one", seed=1)
            if kind != "hnsw"
            else FaissIndex.build(
                random_store(tmp_path / "other", rows=100), kind, tmp_path / "one"
            )
        )
    with pytest.raises(IrdistillError, match="of the vectors"):
        FaissIndex.load(random_store(tmp_path / "third", rows=70), tmp_path / "one")


@pytest.mark.slow
def test_faiss_before_torch_works(tmp_path: Path) -> None:
    random_store(tmp_path / "store", rows=200)
    code = (
        "import sys, faiss\nfrom irdistill.search.vectors.faiss_index import FaissIndex\n"
        "from irdistill.search.vectors.vector_store import VectorStore\nstore = VectorStore(sys.argv[1])\n"
        "index = FaissIndex.build(store, 'hnsw', sys.argv[2])\n"
        "print(index.search(store.matrix[:3], 1)[1].ravel().tolist())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "store"), str(tmp_path / "hnsw")],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout.strip() == "[0, 1, 2]"


def test_unknown_kind_and_wrong_shape(tmp_path: Path) -> None:
    store = random_store(tmp_path, rows=100)
    with pytest.raises(IrdistillError, match="unknown"):
        FaissIndex.build(store, "annoy")  # type: ignore[arg-type]
    with pytest.raises(IrdistillError, match=r"\(Q, 32\)"):
        FaissIndex.build(store).search(np.zeros((2, 5), np.float32), 3)


def test_damaged_vectors_in_the_cache_are_not_finished(
    collection: Collection,
    student: DenseStudent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path))
    assert not has_corpus_vectors(collection.corpus, student)
    store = corpus_vectors(collection.corpus, student)
    assert has_corpus_vectors(collection.corpus, student)
    expected = np.array(store.matrix[:])
    (file,) = store.folder.glob("*ectors.bin")
    file.write_bytes(file.read_bytes()[:-4])
    assert not has_corpus_vectors(collection.corpus, student)
    repaired = corpus_vectors(collection.corpus, student)
    assert has_corpus_vectors(collection.corpus, student)
    assert np.array_equal(repaired.matrix[:], expected)


def test_shorter_vectors_are_computed_from_the_stored_ones(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = str(tiny_backbone(tmp_path / "bert"))
    whole = DenseStudent(backbone, device="cpu")
    whole.save(tmp_path / "model")
    cut = DenseStudent.load(tmp_path / "model", device="cpu", dimension=8)
    expected = cut.encode(collection.corpus.texts(range(90)), precision="float32", normalize=True)
    work = tmp_path / "work"
    corpus_vectors(collection.corpus, whole, work, "float32")

    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("the corpus is encoded twice")

    monkeypatch.setattr(DenseStudent, "encode", refuse)
    store = corpus_vectors(collection.corpus, cut, work, "float32")
    np.testing.assert_allclose(store.matrix, expected, atol=1e-5)
    assert store.truncation == corpus_vectors(collection.corpus, whole, work, "float32").truncation
