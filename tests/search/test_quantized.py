"""Short codes: bits, bytes and ranges by hand, rescoring against brute force, and their bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers.util.quantization import quantize_embeddings, semantic_search_faiss

from irdistill.errors import IrdistillError
from irdistill.search import RetrieveOptions, open_searcher, recall, retrieve
from irdistill.search.array_shards import write_arrays
from irdistill.search.retrieve_options import CodeOptions
from irdistill.search.vectors.quantized_index import QuantizedIndex, pack_signs, unpack_signs
from irdistill.search.vectors.vector_store import VectorStore
from irdistill.students import DenseStudent
from tests.search.tiny_collection import make_collection
from tests.students.tiny import tiny_backbone

BINARY, BYTES = CodeOptions(vectors="binary"), CodeOptions(vectors="int8")


def store_of(folder: Path, vectors: list[list[float]] | np.ndarray) -> VectorStore:
    matrix = np.asarray(vectors, dtype=np.float32)
    write_arrays(
        folder,
        {"dimension": matrix.shape[1], "rows": len(matrix)},
        VectorStore.layout(matrix.shape[1], "float32"),
        len(matrix),
        1000,
        lambda start, end: VectorStore.arrays(matrix[start:end]),
    )
    return VectorStore(folder)


def random_vectors(count: int, dimension: int, seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_hamming_distances_by_hand(tmp_path: Path) -> None:
    store = store_of(
        tmp_path / "store",
        [[1, 1, 1, 1], [1, 1, 1, -1], [-1, -1, 1, 1], [0, 0, 0, 0], [-1, -1, -1, -1]],
    )
    index = QuantizedIndex.build(store, CodeOptions(vectors="binary", rescore=0), tmp_path / "i")
    # signs 1110 of the query: 1, 0, 3 and 3 of 4 bits differ; the zero vector is no document
    [(scores, rows)] = index.search_groups([np.array([[0.9, 0.2, 0.1, -0.4]])], 5)
    assert rows.tolist() == [[1, 0, 2, 4, -1]]
    assert scores.tolist() == [[1.0, 0.5, -0.5, -0.5, -np.inf]]
    assert index.codes.tolist() == [[240], [224], [48], [0], [0]]


def test_rescoring_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", [[3, 1, 1, 1], [1, 2, 2, -1], [-1, -1, 1, 1]])
    query = np.array([[0.9, 0.2, 0.1, -0.4]], dtype=np.float32)
    by_codes = QuantizedIndex.build(store, BINARY, tmp_path / "i")
    # (0.9 + 0.2 + 0.1 -+ 0.4) / 2 and (-0.9 - 0.2 + 0.1 - 0.4) / 2
    [(scores, rows)] = by_codes.search_groups([query], 1)
    assert rows.tolist() == [[1, 0, 2]]
    np.testing.assert_allclose(scores, [[0.8, 0.4, -0.7]], atol=1e-6)
    by_float = CodeOptions(vectors="binary", rescore=2, rescore_by="float")
    [(scores, rows)] = QuantizedIndex.build(store, by_float, tmp_path / "i").search_groups(
        [query], 1
    )
    assert rows.tolist() == [[0, 1]]  # two candidates, now in the order of the float vectors
    np.testing.assert_allclose(scores, [[2.6, 1.9]], atol=1e-6)


def test_int8_codes_by_hand(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", [[0.0, -1.0], [0.51, 1.0], [2.55, 0.0]])
    index = QuantizedIndex.build(store, BYTES, tmp_path / "i")
    np.testing.assert_allclose(index.ranges, [[0, -1], [2.55, 1]])
    # 255 steps from the least to the largest number, and the middle of a step as its value
    assert index.codes.tolist() == [[0, 0], [51, 255], [255, 127]]
    steps = np.array([2.55, 2.0]) / 255
    decoded = (index.codes + 0.5) * steps + [0, -1]
    [(scores, rows)] = index.search_groups([np.array([[1.0, 2.0]])], 3)
    assert rows.tolist() == [[2, 1, 0]]
    np.testing.assert_allclose(scores[0], decoded[::-1] @ [1, 2], atol=1e-5)


@pytest.mark.parametrize("dimension", [24, 29])
def test_rescoring_of_all_documents_is_brute_force(tmp_path: Path, dimension: int) -> None:
    vectors, queries = random_vectors(300, dimension), random_vectors(7, dimension, seed=1)
    store = store_of(tmp_path / "store", vectors)
    all_codes = CodeOptions(vectors="binary", rescore=30)
    [(scores, rows)] = QuantizedIndex.build(store, all_codes, tmp_path / "i").search_groups(
        [queries], 10
    )
    signs = np.where(vectors > 0, 1, -1) / np.sqrt(dimension)
    np.testing.assert_allclose(unpack_signs(pack_signs(vectors), dimension), signs, rtol=1e-6)
    expected = np.argsort(-(queries @ signs.T), axis=1)
    assert rows.shape == (7, 300)
    np.testing.assert_allclose(
        scores, np.take_along_axis(queries @ signs.T, expected, axis=1), atol=1e-5
    )
    exact = np.sort(-(queries @ vectors.T), axis=1)
    for codes in ("binary", "int8"):
        by_float = CodeOptions(vectors=codes, rescore=30, rescore_by="float")
        [(scores, _)] = QuantizedIndex.build(store, by_float, tmp_path / codes).search_groups(
            [queries], 10
        )
        np.testing.assert_allclose(scores, -exact, atol=1e-6)


def test_candidates_are_those_of_least_distance_and_lowest_row(tmp_path: Path) -> None:
    vectors, queries = random_vectors(400, 16), random_vectors(5, 16, seed=1)
    index = QuantizedIndex.build(store_of(tmp_path / "s", vectors), BINARY, tmp_path / "i")
    [(_, rows)] = index.search_groups([queries], 10)
    distances = ((queries > 0)[:, None] != (vectors > 0)[None]).sum(axis=2)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :40]
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.sort(nearest, axis=1))


def test_binary_search_equals_sentence_transformers(tmp_path: Path) -> None:
    vectors, queries = random_vectors(500, 64), random_vectors(6, 64, seed=1)
    index = QuantizedIndex.build(store_of(tmp_path / "s", vectors), BINARY, tmp_path / "i")
    packed = quantize_embeddings(vectors, "ubinary")
    np.testing.assert_array_equal(index.codes, packed)
    results, _ = semantic_search_faiss(
        queries,
        corpus_embeddings=packed,
        corpus_precision="ubinary",
        top_k=10,
        rescore=True,
        rescore_multiplier=4,
        exact=True,
    )
    [(scores, _)] = index.search_groups([queries], 10)
    # their rescoring multiplies with 0 and 1 instead of signs, or with signs, unscaled
    theirs = [[vectors[hit["corpus_id"]] for hit in hits] for hits in results]
    for query, hits, line in zip(queries, theirs, scores, strict=True):
        signs = np.where(np.array(hits) > 0, 1, -1) / 8
        np.testing.assert_allclose(np.sort(signs @ query)[::-1], line[:10], atol=1e-6)


def test_bytes_are_counted_by_part(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", random_vectors(100, 20))
    sizes = QuantizedIndex.build(store, BINARY, tmp_path / "bits").sizes
    assert sizes == {"codes": 300, "scales": 0, "rescoring": 0}
    index = QuantizedIndex.build(store, BYTES, tmp_path / "bytes")
    assert index.sizes == {"codes": 2000, "scales": 160, "rescoring": 0} and index.nbytes == 2160
    by_float = CodeOptions(vectors="binary", rescore_by="float")
    index = QuantizedIndex.build(store, by_float, tmp_path / "bits")
    assert index.sizes["rescoring"] == 100 * 20 * 4 and index.nbytes == 8300
    # the file has the codes and a header
    assert 300 < (tmp_path / "bits" / "codes.faiss").stat().st_size < 400


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("model"), layers=2))


def test_a_run_records_codes_rescoring_and_recall(model: str, tmp_path: Path) -> None:
    collection = make_collection()
    options = RetrieveOptions(vectors="binary", dimension=16, precision="float32")
    run = retrieve(collection, model, tmp_path / "run", 5, options, work=tmp_path / "work")
    settings = run.manifest.identity.settings
    assert settings["index"] == {"kind": "binary", "rescore": 4, "rescore_by": "codes"}
    student = DenseStudent.load(model, dimension=16, device="cpu")
    vectors = {
        kind: student.encode(texts, kind, precision="float32", normalize=True)  # type: ignore
        for kind, texts in (
            ("document", collection.corpus.texts(range(len(collection.corpus)))),
            ("query", [query.text for query in collection.queries.values()]),
        )
    }
    signs = np.where(vectors["document"] > 0, 1, -1) / 4
    rows = collection.corpus.find(run["q0"].doc_ids)
    np.testing.assert_allclose(run["q0"].scores, signs[rows] @ vectors["query"][0], atol=1e-5)
    measured = recall(run)
    assert measured is not None and 0 < measured <= 1
    float_run = retrieve(collection, model, tmp_path / "float", 5, work=tmp_path / "work")
    assert float_run.manifest.identity.settings["index"] == {"kind": "flat"}


def test_wrong_uses_are_refused(model: str, tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="given with vectors=float"):
        RetrieveOptions(rescore=2)
    with pytest.raises(IrdistillError, match="rescore=0 was given with rescore_by=float"):
        RetrieveOptions(vectors="int8", rescore=0, rescore_by="float")
    with pytest.raises(IrdistillError, match="vectors=int8 was given with index=hnsw"):
        RetrieveOptions(vectors="int8", index="hnsw")
    with pytest.raises(IrdistillError, match="given for bm25, which has no vectors"):
        retrieve(make_collection(), "bm25", tmp_path / "run", 5, RetrieveOptions(vectors="int8"))
    student = DenseStudent.load(model, device="cpu")
    student.__class__ = type("Late", (DenseStudent,), {"kind": "late-interaction"})
    with pytest.raises(IrdistillError, match="short codes are for dense models"):
        open_searcher(make_collection().corpus, student, BINARY, tmp_path / "work")
