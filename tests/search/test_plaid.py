"""PLAID: the residual codec, each stage against a plain computation, and recall."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers.util.similarity import maxsim

from irdistill.collections import Collection, Corpus
from irdistill.errors import IrdistillError
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search import array_shards as shards
from irdistill.search.array_shards import write_arrays
from irdistill.search.multi_vector import plaid_index
from irdistill.search.multi_vector.maxsim import maxsim_search
from irdistill.search.multi_vector.plaid_index import PlaidIndex, Stages, stages_for
from irdistill.search.multi_vector.residual_codec import ResidualCodec, nearest, train_codec
from irdistill.search.searchers import MultiVectorSearcher
from irdistill.search.vectors.vector_store import TokenStore
from irdistill.students import load_student
from tests.teachers.tiny import tiny_colbert

CPU = torch.device("cpu")
WORDS, TOPICS, DIMENSION = 120, 20, 16


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def passages(count: int, seed: int = 0) -> list[np.ndarray]:
    """Token vectors near those of words, with words by topic; some passages are empty."""
    words = unit(np.random.default_rng(99).normal(size=(WORDS, DIMENSION)))
    rng = np.random.default_rng(seed)
    results = []
    for _ in range(count):
        topic, length = int(rng.integers(TOPICS)), int(rng.integers(0, 13))
        chosen = np.where(
            rng.random(length) < 0.7,
            topic * WORDS // TOPICS + rng.integers(0, WORDS // TOPICS, length),
            rng.integers(0, WORDS, length),
        )
        results.append(
            unit(words[chosen] + 0.1 * rng.normal(size=(length, DIMENSION))).reshape(
                length, DIMENSION
            )
        )
    return results


def token_store(folder: Path, vectors: list[np.ndarray]) -> TokenStore:
    dimension = vectors[0].shape[1]
    write_arrays(
        folder,
        {"kind": "late-interaction", "dimension": dimension},
        TokenStore.layout(dimension, "float32"),
        len(vectors),
        100,
        lambda start, end: TokenStore.arrays(vectors[start:end]),
    )
    return TokenStore(folder)


def corpus_of(count: int) -> Corpus:
    return Collection.from_dicts("c", {f"d{row:04}": "x" for row in range(count)}, {}, {}).corpus


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TokenStore:
    return token_store(tmp_path_factory.mktemp("store"), passages(700))


@pytest.fixture(scope="module")
def index(store: TokenStore, tmp_path_factory: pytest.TempPathFactory) -> PlaidIndex:
    return PlaidIndex.build(store, tmp_path_factory.mktemp("plaid"), centroids=128, device=CPU)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("dimension", [5, 16])
def test_residuals_equal_to_bucket_weights_are_decoded_exactly(bits: int, dimension: int) -> None:
    rng = np.random.default_rng(0)
    weights = (np.arange(1 << bits) - (1 << bits) / 2 + 0.5) / 64
    arrays = {
        "centroids": rng.integers(-9, 9, (7, dimension)) * 8,
        "cutoffs": (weights[1:] + weights[:-1]) / 2,
        "weights": weights,
    }
    codec = ResidualCodec(arrays, CPU)
    owners = rng.integers(0, 7, 50)
    vectors = (arrays["centroids"][owners] + rng.choice(weights, (50, dimension))).astype(
        np.float32
    )
    codes, residuals = codec.encode(vectors)
    assert codes.tolist() == owners.tolist()
    assert residuals.dtype == np.uint8 and residuals.shape == (50, -(-dimension * bits // 8)) == (
        50,
        codec.width,
    )
    np.testing.assert_array_equal(arrays["centroids"][codes] + codec.decode(residuals), vectors)


def test_a_trained_codec_loses_little_and_less_with_more_bits() -> None:
    vectors = np.concatenate(passages(300))
    errors = []
    for bits in (1, 2, 4):
        arrays = train_codec(vectors, vectors, 64, bits, np.random.default_rng(1), CPU)
        codec = ResidualCodec(arrays, CPU)
        codes, packed = codec.encode(vectors)
        centroids, cutoffs, weights = (arrays[name] for name in ("centroids", "cutoffs", "weights"))
        distances = np.linalg.norm(vectors[:, None] - centroids, axis=2)
        np.testing.assert_allclose(
            distances[np.arange(len(vectors)), codes], distances.min(axis=1), rtol=1e-4
        )
        residuals = vectors - centroids[codes]
        buckets = np.searchsorted(cutoffs, residuals, side="right")
        decoded = centroids[codes] + codec.decode(packed)
        np.testing.assert_allclose(decoded, centroids[codes] + weights[buckets], atol=1e-6)
        counts = np.bincount(buckets.ravel(), minlength=1 << bits)
        assert len(counts) == 1 << bits and counts.min() > 0.9 * counts.max(), (
            "buckets are equally full"
        )
        inner = (buckets > 0) & (buckets < len(weights) - 1)  # the outer buckets are unbounded
        assert (
            np.abs(decoded - vectors)[inner] <= np.diff(cutoffs)[(buckets - 1)[inner]] + 1e-6
        ).all()
        errors.append(float(np.square(decoded - vectors).sum() / np.square(residuals).sum()))
    assert errors[0] < 0.5 and errors[1] < 0.2 and errors[2] < 0.04


@pytest.mark.parametrize("lengths", [(1, 1), (0.5, 3)])
def test_a_centroid_has_the_mean_length_of_its_vectors(lengths: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    vectors = np.concatenate(passages(300))
    vectors *= rng.uniform(*lengths, (len(vectors), 1)).astype(np.float32)
    centroids = train_codec(vectors, vectors, 16, 2, rng, CPU)["centroids"]
    codes = nearest(torch.from_numpy(vectors), torch.from_numpy(centroids)).numpy()
    norms = np.linalg.norm(vectors, axis=1)
    for cell, centroid in enumerate(centroids):
        assert np.linalg.norm(centroid) == pytest.approx(
            norms[codes == cell].mean(), rel=1e-5 if lengths == (1, 1) else 0.1
        )


def test_k_means_keeps_an_empty_centroid() -> None:
    vectors = np.tile(
        unit(np.arange(1.0, 4.0)), (6, 1)
    )  # equal vectors: one of the three centroids gets them all
    arrays = train_codec(vectors, vectors, 3, 2, np.random.default_rng(0), CPU)
    np.testing.assert_allclose(arrays["centroids"], vectors[:3], rtol=1e-6)
    assert set(nearest(torch.from_numpy(vectors), torch.eye(3)).tolist()) == {2}


def plain_stages(index: PlaidIndex, query: np.ndarray, stages: Stages) -> set[int]:
    """Candidates computed with loops over documents, from decoded vectors."""
    starts, centroids = index.starts, index.codec.centroids.numpy()
    whole = np.asarray(index.store.matrix)
    codes, residuals = index.codec.encode(whole)
    assert codes.tolist() == [
        int(np.square(centroids - vector).sum(axis=1).argmin()) for vector in whole
    ]
    decoded = centroids[codes] + index.codec.decode(residuals)
    tokens, codes = (
        [values[first:last] for first, last in pairwise(starts)] for values in (decoded, codes)
    )
    near, probes = query @ centroids.T, stages.probes

    def probed() -> set[int]:
        cells = {cell for line in near for cell in np.argsort(-line)[:probes].tolist()}
        return {row for row, documents in enumerate(codes) if cells & set(documents.tolist())}

    def best(scores: dict[int, float], count: int) -> set[int]:
        least = sorted(scores.values(), reverse=True)[min(count, len(scores)) - 1]
        return {row for row, score in scores.items() if score >= least - 1e-6}

    def interaction(row: int, threshold: float) -> float:
        documents = [cell for cell in codes[row] if near[:, cell].max() >= threshold]
        return float(near[:, documents].max(axis=1).sum()) if documents else -np.inf

    while len(rows := probed()) < stages.documents and probes < len(centroids):
        probes *= 2
    rows = best({row: interaction(row, stages.threshold) for row in rows}, stages.documents)
    rows = best({row: interaction(row, -np.inf) for row in rows}, stages.documents // 4)
    return best(
        {row: float((query @ tokens[row].T).max(axis=1).sum()) for row in rows}, stages.rescored
    )


@pytest.mark.parametrize("size", [1, 3, 9])
@pytest.mark.parametrize("chunk", [40, 4096])
def test_each_stage_equals_a_plain_computation(
    size: int, chunk: int, index: PlaidIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plaid_index, "_CHUNK", chunk)
    rng = np.random.default_rng(size)
    for stages in (Stages(1, 0.5, 24, 4), Stages(3, 0.3, 60, 9), Stages(128, 0.6, 100, 25)):
        query = unit(rng.normal(size=(size, DIMENSION)))
        results = index.candidates(query, 1, stages)
        assert results.tolist() == sorted(plain_stages(index, query, stages)), stages


def test_probes_are_doubled_until_there_are_enough_candidates(index: PlaidIndex) -> None:
    query = unit(np.ones((1, DIMENSION)))
    full = np.flatnonzero(np.diff(index.starts))
    few = index.candidates(query, 1, Stages(1, -9.0, 4, 4000))
    assert index.candidates(query, 1, Stages(1, -9.0, 400, 40)).size == 40
    assert index.candidates(query, 1, Stages(1, -9.0, 9999, 5000)).tolist() == full.tolist()
    assert 1 <= len(few) < 40
    assert len(index.candidates(np.empty((0, DIMENSION), np.float32), 5)) == 0
    with pytest.raises(IrdistillError, match=r"shape \(1, 15\); expected \(tokens, 16\)"):
        index.candidates(query[:, 1:], 3)


def test_a_threshold_above_all_centroids_drops_nothing(index: PlaidIndex) -> None:
    query = unit(np.random.default_rng(5).normal(size=(4, DIMENSION)))
    high, low = (
        index.candidates(query, 1, Stages(2, threshold, 40, 10)) for threshold in (9.0, -9.0)
    )
    assert high.tolist() == low.tolist()


def test_settings_depend_on_k() -> None:
    assert stages_for(10)[:3] == (1, 0.5, 1024)
    assert stages_for(100)[:3] == (2, 0.45, 4096)
    assert stages_for(101)[:3] == (4, 0.4, 16_384)
    for k in (1, 10, 11, 100, 1000, 100_000):
        stages = stages_for(k)
        assert stages.documents // 4 >= stages.rescored > k


def engine(index: PlaidIndex, similarity: str) -> MultiVectorSearcher:
    student: Any = SimpleNamespace(similarity=similarity, device=CPU)
    return MultiVectorSearcher(corpus_of(len(index.store)), student, "float32", index.store, index)


@pytest.mark.parametrize("similarity", ["maxsim", "meanmaxsim"])
def test_without_pruning_the_results_are_exact(
    similarity: str, index: PlaidIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plaid_index, "stages_for", lambda k: Stages(10_000, 0.0, 10_000, 10_000))
    searched = engine(index, similarity)
    queries = [
        unit(np.random.default_rng(seed).normal(size=(size, DIMENSION)))
        for seed, size in enumerate((1, 5, 32))
    ]
    ((*results,),), (true,) = searched.search([queries], 50), searched.search_exact([queries], 50)
    for query, one, other in zip(queries, results, true, strict=True):
        assert one.rows.tolist() == other.rows.tolist()
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-6)
        tokens = torch.from_numpy(index.store.take(one.rows[:1]).values.numpy())
        by_library = maxsim(
            [torch.from_numpy(query)], [tokens], length_normalize=similarity == "meanmaxsim"
        )
        assert one.scores[0] == pytest.approx(float(by_library), rel=1e-5)
    (every,) = next(iter(searched.search([queries[:1]], 10_000)))
    assert len(every.rows) == (np.diff(index.starts) > 0).sum(), (
        "a document without tokens is not found"
    )


@pytest.mark.parametrize(("bits", "k", "least"), [(4, 5, 0.9), (1, 5, 0.8), (4, 20, 0.9)])
def test_recall(
    bits: int,
    k: int,
    least: float,
    store: TokenStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        plaid_index, "stages_for", lambda k: Stages(2, 0.4, 16 * k, 2 * k)
    )  # of 650 passages with tokens
    searched = engine(PlaidIndex.build(store, tmp_path, bits=bits, device=CPU), "maxsim")
    queries = [tokens for tokens in passages(60, seed=3) if len(tokens) > 5]
    (results,), (true,) = searched.search([queries], k), searched.search_exact([queries], k)
    shares = [
        len(np.intersect1d(one.rows, other.rows)) / k
        for one, other in zip(results, true, strict=True)
    ]
    assert np.mean(shares) >= least
    for one, other in zip(results, true, strict=True):  # scores are exact for every number of bits
        exact = dict(zip(other.rows.tolist(), other.scores.tolist(), strict=True))
        for row, score in zip(one.rows.tolist(), one.scores.tolist(), strict=True):
            assert score == pytest.approx(exact.get(row, score), rel=1e-5)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture()
def small_shards(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(plaid_index, "_SHARD_ROWS", 250)
    monkeypatch.setattr(plaid_index, "_BLOCK_ROWS", 400)
    yield


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_build_ends_with_the_same_bytes(
    store: TokenStore, index: PlaidIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = PlaidIndex.build(store, tmp_path / "whole", centroids=128, device=CPU)
    whole = files(tmp_path / "whole")
    append, calls = shards._ShardWriter._append, []

    def killed(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == killed_at:
            args[1][next(iter(args[1]))].write(b"half a shard")
            raise KeyboardInterrupt
        return append(*args)

    monkeypatch.setattr(shards._ShardWriter, "_append", killed)
    for killed_at in range(1, 7):  # one codec, three shards of codes, two blocks of lists
        calls.clear()
        folder = tmp_path / str(killed_at)
        with pytest.raises(KeyboardInterrupt):
            PlaidIndex.build(store, folder, centroids=128, device=CPU)
        PlaidIndex.build(store, folder, centroids=128, device=CPU)
        assert len(calls) == 7, "what was whole is not made again"
        assert files(folder) == whole
    query = unit(np.random.default_rng(8).normal(size=(4, DIMENSION)))
    assert blocks.candidates(query, 10).tolist() == index.candidates(query, 10).tolist(), (
        "whatever the blocks"
    )
    assert blocks.nbytes == sum(len(data) for name, data in whole.items() if name.endswith(".bin"))


def test_only_an_index_of_the_same_vectors_and_settings_is_opened(
    store: TokenStore, tmp_path: Path
) -> None:
    PlaidIndex.build(store, tmp_path / "plaid", device=CPU)
    with pytest.raises(IrdistillError, match="seed: 42 there, 43 here"):
        PlaidIndex.build(store, tmp_path / "plaid", seed=43, device=CPU)
    with pytest.raises(IrdistillError, match="bits: 4 there, 2 here"):
        PlaidIndex.build(store, tmp_path / "plaid", bits=2, device=CPU)
    other = token_store(tmp_path / "other", passages(700, seed=1))
    with pytest.raises(IrdistillError, match="vectors: other contents"):
        PlaidIndex.build(other, tmp_path / "plaid", device=CPU)


def test_invalid_settings_are_refused(store: TokenStore, tmp_path: Path) -> None:
    with pytest.raises(
        IrdistillError, match="bits per number of a residual is 3; expected one of 1, 2, 4, 8"
    ):
        PlaidIndex.build(store, tmp_path / "plaid", bits=3)
    tokens = len(store.matrix)
    for count in (0, tokens + 1):
        with pytest.raises(
            IrdistillError,
            match=f"centroids is {count}, and k-means sees {tokens} tokens",
        ):
            PlaidIndex.build(store, tmp_path / "plaid", centroids=count)
    empty = token_store(tmp_path / "empty", [np.empty((0, DIMENSION), np.float32)] * 3)
    with pytest.raises(
        IrdistillError,
        match="contains no token vectors, which a plaid index needs; use the flat index",
    ):
        PlaidIndex.build(empty, tmp_path / "plaid")
    assert not (tmp_path / "plaid").exists()


def test_one_token_is_enough(tmp_path: Path) -> None:
    single = token_store(
        tmp_path / "one", [np.empty((0, DIMENSION), np.float32), unit(np.ones((1, DIMENSION)))]
    )
    index = PlaidIndex.build(single, tmp_path / "plaid", device=CPU)
    assert index.settings["centroids"] == 1
    assert index.candidates(unit(np.ones((3, DIMENSION))), 10).tolist() == [1]


def test_retrieve_orders_ties_by_id_and_leaves_out_excluded_documents(
    tmp_path: Path,
) -> None:
    from dataclasses import replace

    model = str(tiny_colbert(tmp_path / "model"))
    collection = Collection.from_dicts(
        "same", {f"d{number:03}": "the cat" for number in range(400)}, {"q": "cat"}, {}
    )
    options = RetrieveOptions(index="plaid", precision="float32")
    settings: Any = {"k": 3, "work": tmp_path / "work", "options": options}
    (results,) = run = retrieve(collection, model, tmp_path / "run", **settings)
    assert list(results.doc_ids) == ["d399", "d398", "d397"]
    assert run.identity.settings["index"] == {
        "kind": "plaid",
        "bits": 4,
        "centroids": 200,
        "sampled": 1600,
        "rounds": 4,
        "seed": 42,
        "search": 1,
    }
    excluding = replace(
        collection, queries={"q": replace(collection.queries["q"], excluded=("d399", "d397"))}
    )
    (results,) = retrieve(excluding, model, tmp_path / "excluding", **settings)
    assert list(results.doc_ids) == ["d398", "d396", "d395"]
    assert load_student(model, device="cpu").kind == "late-interaction"
    with pytest.raises(IrdistillError, match="plaid"):
        retrieve(
            collection,
            model,
            tmp_path / "more",
            **settings | {"options": RetrieveOptions(index="seismic")},
        )


def test_maxsim_search_and_the_index_agree(index: PlaidIndex) -> None:
    queries = [tokens for tokens in passages(40, seed=7) if len(tokens) > 3]
    (true,) = maxsim_search(index.store, [queries], corpus_of(700), 1, device=CPU)
    hits = [
        hit.rows[0] in index.candidates(query, 1) for hit, query in zip(true, queries, strict=True)
    ]
    assert np.mean(hits) >= 0.95
