"""Linear layers for short codes: components and rotations by hand, and models that search better."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from irdistill.errors import IrdistillError
from irdistill.students import DenseStudent
from irdistill.training import compressing as module
from irdistill.training.code_learning import StoredVectors
from irdistill.training.code_maps import CodeMaps, principal_components, sign_rotation
from irdistill.training.compress_options import CompressOptions
from irdistill.training.compressing import compress, fit_maps
from tests.training.tiny import make_backbone, make_collection

QUICK = CompressOptions(
    method="learned",
    steps=20,
    batch_size=8,
    nearest=4,
    random_documents=16,
    dimensions=(8, 4),
)


def unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / lengths).astype(np.float32)


def stored_vectors(documents: int = 400, dimension: int = 24) -> StoredVectors:
    """Documents that vary most in a few directions, around a common mean."""
    random = np.random.default_rng(0)
    scales = 0.85 ** np.arange(dimension)
    data = random.normal(size=(documents, dimension)) * scales + 0.5
    noise = 0.1 * random.normal(size=(60, dimension))
    return StoredVectors(unit(data), unit(data[:60] + noise))


def recall_of_signs(stored: StoredVectors, maps: CodeMaps, size: int, k: int = 10) -> float:
    """Share of the nearest documents by float scores among those by codes."""
    exact = np.argsort(-(stored.queries @ np.asarray(stored.documents).T), axis=1)[:, :k]
    signs = np.where(maps.documents(np.asarray(stored.documents))[:, :size] > 0, 1, -1)
    coded = np.argsort(-(maps.queries(stored.queries)[:, :size] @ signs.T), axis=1)[:, :k]
    return float(
        np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(exact, coded, strict=True)])
    )


def test_principal_components_keep_scores_and_come_first() -> None:
    stored = stored_vectors()
    documents = np.asarray(stored.documents)
    maps = principal_components(documents, 24)
    # all components: the scores differ by one number per query
    scores = maps.queries(stored.queries) @ maps.documents(documents).T
    shifted = stored.queries @ documents.T - scores
    np.testing.assert_allclose(shifted, np.tile(shifted[:, :1], (1, 400)), atol=1e-5)
    deviations = maps.documents(documents).std(axis=0)
    assert np.all(np.diff(deviations) <= 1e-6)
    _, singular, _ = np.linalg.svd(documents - documents.mean(axis=0))
    np.testing.assert_allclose(deviations, singular / np.sqrt(400), rtol=1e-3)
    with pytest.raises(IrdistillError, match="documents that differ; 3 were given"):
        principal_components(np.ones((3, 4), np.float32), 2)


def test_a_rotation_by_hand_moves_axes_to_diagonals() -> None:
    # four points on the axes lose least as signs after a turn by 45 degrees
    points = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    rotated = points @ sign_rotation(points, seed=0)
    np.testing.assert_allclose(np.abs(rotated), np.full((4, 2), np.sqrt(0.5)), atol=1e-6)


def test_rotations_keep_the_scores_of_every_cut_and_signs_lose_less() -> None:
    stored = stored_vectors()
    options = replace(QUICK, dimensions=(24, 8), method="pca")
    plain = fit_maps(stored, options)
    rotated = fit_maps(stored, replace(options, method="rotation"))
    for size in (8, 24):
        before, after = (
            maps.queries(stored.queries)[:, :size]
            @ maps.documents(np.asarray(stored.documents))[:, :size].T
            for maps in (plain, rotated)
        )
        np.testing.assert_allclose(before, after, atol=1e-5)
    # |v - sign(v)|^2 is least where the sum of |v| is largest
    errors = [
        np.square(vectors - np.where(vectors > 0, 1, -1)).sum()
        for vectors in (maps.documents(np.asarray(stored.documents)) for maps in (plain, rotated))
    ]
    assert errors[1] < errors[0]


def test_learned_signs_keep_more_than_rotated_ones() -> None:
    stored = stored_vectors()
    options = replace(QUICK, dimensions=(16, 8), steps=60, learning_rate=3e-3, batch_size=16)
    learned = fit_maps(stored, options)
    rotated = fit_maps(stored, replace(options, method="rotation"))
    for size in (16, 8):
        assert recall_of_signs(stored, learned, size) > recall_of_signs(stored, rotated, size)


def test_the_model_has_the_layers_and_loads_in_sentence_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    collection, backbone = make_collection(), str(make_backbone(tmp_path / "backbone"))
    small = compress(collection, backbone, tmp_path / "out", QUICK)
    assert small.dimension == 8 and small.similarity == "dot" and small.has_two_towers
    texts = collection.corpus.texts(range(5))
    base = DenseStudent.load(backbone, device="cpu")
    for kind in ("document", "query"):
        vectors = base.encode(texts, kind, precision="float32", normalize=True)  # type: ignore
        layer = small.tower(kind)[-1].linear  # type: ignore
        weight, bias = (t.detach().numpy() for t in (layer.weight, layer.bias))
        here = small.encode(texts, kind, precision="float32")  # type: ignore
        np.testing.assert_allclose(here, vectors @ weight.T + bias, atol=1e-5)
        plain = SentenceTransformer(str(tmp_path / "out" / "model"), device="cpu")
        there = plain.encode_document(texts) if kind == "document" else plain.encode_query(texts)
        np.testing.assert_allclose(there, here, atol=1e-5)
    # a finished model is opened, and another one is not overwritten
    assert compress(collection, backbone, tmp_path / "out", QUICK).weights_digest() == (
        small.weights_digest()
    )
    with pytest.raises(IrdistillError, match="has another model: settings"):
        compress(collection, backbone, tmp_path / "out", replace(QUICK, steps=3))


def test_a_killed_fit_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    collection, backbone = make_collection(), str(make_backbone(tmp_path / "backbone"))
    options = replace(QUICK, steps=5)
    compress(collection, backbone, tmp_path / "whole", options)
    learn = module.learn_maps

    def killed(*arguments: object) -> None:
        learn(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "learn_maps", killed)
    with pytest.raises(KeyboardInterrupt):
        compress(collection, backbone, tmp_path / "cut", options)
    monkeypatch.setattr(module, "learn_maps", learn)
    compress(collection, backbone, tmp_path / "cut", options)
    for path in sorted((tmp_path / "whole" / "model").rglob("*.safetensors")):
        other = tmp_path / "cut" / path.relative_to(tmp_path / "whole")
        assert path.read_bytes() == other.read_bytes()


def test_wrong_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))
    backbone = str(make_backbone(tmp_path / "backbone"))
    with pytest.raises(IrdistillError, match="the dimensions must differ"):
        CompressOptions(dimensions=(8, 8))
    with pytest.raises(IrdistillError, match="dimensions has 4000, and the vectors of"):
        compress(make_collection(), backbone, tmp_path / "a", replace(QUICK, dimensions=(4000,)))
    no_queries = make_collection(queries=0)
    with pytest.raises(IrdistillError, match="method=learned needs queries"):
        compress(no_queries, backbone, tmp_path / "b", replace(QUICK, document_queries=0))
