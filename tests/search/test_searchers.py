"""Search with every kind of model equals sentence-transformers, for every block size."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.util.similarity import maxsim

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.search import RetrieveOptions, open_searcher, recall, retrieve
from irdistill.search.array_shards import write_arrays
from irdistill.search.multi_vector import maxsim as multi_vector
from irdistill.search.multi_vector.maxsim import maxsim_search
from irdistill.search.retrieve_options import INDEXES
from irdistill.search.sparse.sparse_index import SparseIndex
from irdistill.search.vectors.vector_store import STORES, SparseStore, TokenStore, corpus_vectors
from irdistill.students import build_student, load_student
from tests.search.tiny_collection import make_collection
from tests.students.tiny import tiny_backbone
from tests.teachers.families import tiny_classifier
from tests.teachers.tiny import tiny_colbert, tiny_splade

LIBRARY = {
    "dense": SentenceTransformer,
    "sparse": SparseEncoder,
    "late-interaction": MultiVectorEncoder,
}
CPU: Any = {"precision": "float32"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "dense": str(tiny_backbone(folder / "dense", layers=2)),
        "sparse": str(tiny_splade(folder / "sparse")),
        "late-interaction": str(tiny_colbert(folder / "late")),
    }


def plain_scores(kind: str, model: str, collection: Collection) -> np.ndarray:
    """Scores (Q, N) computed with sentence-transformers."""
    plain = LIBRARY[kind](model, device="cpu")
    queries = plain.encode_query([query.text for query in collection.queries.values()])
    documents = plain.encode_document(collection.corpus.texts(range(len(collection.corpus))))
    scores: np.ndarray = plain.similarity(queries, documents).to_dense().float().numpy()
    return scores


@pytest.mark.parametrize("kind", LIBRARY)
def test_search_equals_sentence_transformers(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    collection = make_collection()
    corpus = collection.corpus
    run = retrieve(
        collection,
        models[kind],
        tmp_path / "run",
        options=RetrieveOptions(**CPU),
        k=9,
        work=tmp_path / "work",
    )
    every = retrieve(
        collection,
        models[kind],
        tmp_path / "all",
        options=RetrieveOptions(**CPU),
        k=1000,
        work=tmp_path / "work",
    )
    assert run.identity.producer["model"] == models[kind] and run.identity.settings["index"] == {
        "kind": "flat"
    }
    assert recall(run) is None
    for expected, best, whole in zip(
        plain_scores(kind, models[kind], collection), run, every, strict=True
    ):
        for results in (best, whole):
            rows = [corpus.row(doc_id) for doc_id in results.doc_ids]
            np.testing.assert_allclose(results.scores, expected[rows], rtol=1e-5, atol=1e-5)
        assert len(whole.doc_ids) == (len(corpus) if kind != "sparse" else (expected > 0).sum())
        np.testing.assert_allclose(best.scores, -np.sort(-expected)[:9], rtol=1e-5, atol=1e-5)
        assert list(best.doc_ids) == list(whole.doc_ids[:9])
        order = list(whole.doc_ids)
        ties = [name for name in order if name in ("d0", "twin-a", "twin-b")]
        assert ties == ["twin-b", "twin-a", "d0"], "equal scores go by id, the last first"


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("late-interaction", {"dimension": 8, "expand_queries": 12}),
        ("late-interaction", {"dimension": 8, "token_pooling": 2.0}),
        ("late-interaction", {"query_layers": 1, "expand_queries": 9, "max_query_length": 12}),
        ("dense", {"query_layers": 1}),
        ("sparse", {"inference_free": True}),
        ("sparse", {"query_layers": [1], "max_length": 6}),
    ],
)
def test_late_interaction_variants_equal_sentence_transformers(
    kind: str, settings: dict[str, Any], models: dict[str, str], tmp_path: Path
) -> None:
    """Expanded queries, unscored punctuation, pooled tokens, two towers, inference-free queries."""
    folder = tmp_path / "backbone"
    copytree(models["dense"], folder)
    (folder / "tokenizer.json").write_text(
        (folder / "tokenizer.json").read_text().replace('"cat"', '"."')
    )
    (folder / "vocab.txt").unlink(missing_ok=True)
    student = build_student(kind, str(folder), device="cpu", **settings)
    if kind == "late-interaction":
        assert student.identity()["skiplist"] == ["."]
    student.save(tmp_path / "model")
    docs = {
        f"d{place}": text
        for place, text in enumerate(["the dog .", ". . .", "a big dog and . a bird", "dog . " * 9])
    }
    collection = Collection.from_dicts("marks", docs, {"q": "dog . bird", "r": "."}, {})
    run = retrieve(
        collection,
        tmp_path / "model",
        tmp_path / "run",
        options=RetrieveOptions(**CPU),
        work=tmp_path / "work",
    )
    for results, scores in zip(
        run, plain_scores(kind, str(tmp_path / "model"), collection), strict=True
    ):
        rows = [collection.corpus.row(doc_id) for doc_id in results.doc_ids]
        assert len(rows) == (4 if kind != "sparse" else (scores > 0).sum())
        np.testing.assert_allclose(results.scores, scores[rows], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", LIBRARY)
def test_one_document_and_an_empty_result(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    collection = make_collection(1)
    run = retrieve(
        collection,
        models[kind],
        tmp_path / "run",
        options=RetrieveOptions(**CPU),
        k=5,
        work=tmp_path,
    )
    expected = plain_scores(kind, models[kind], collection)
    assert [list(results.doc_ids) for results in run] == [
        ["d0"] if kind != "sparse" or score > 0 else [] for (score,) in expected
    ]
    if kind == "sparse":  # a query without a common term
        engine = open_searcher(
            collection.corpus, load_student(models[kind], device="cpu"), "flat", tmp_path, **CPU
        )
        nothing = engine.encode(["cat"])
        nothing.data[:] = 0
        nothing.eliminate_zeros()
        (hits,) = next(iter(engine.search([nothing], 5)))
        assert len(hits.rows) == len(hits.scores) == 0


@pytest.mark.parametrize("kind", LIBRARY)
@pytest.mark.parametrize("killed_at", [0, 2])
def test_a_killed_store_resumes_with_the_same_bytes(
    kind: str,
    killed_at: int,
    models: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = make_collection().corpus
    student = load_student(models[kind], device="cpu")
    build: Any = STORES[kind].build
    settings: Any = {"shard_rows": 20, **CPU}
    whole = build(corpus, student, tmp_path / "whole", **settings)
    encode, calls = type(student).search_vectors, []

    def killed(self: Any, texts: Any, *args: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == killed_at + 1:
            raise KeyboardInterrupt
        return encode(self, texts, *args)

    monkeypatch.setattr(type(student), "search_vectors", killed)
    with pytest.raises(KeyboardInterrupt):
        build(corpus, student, tmp_path / "cut", **settings)
    for path in (tmp_path / "cut").glob(
        "*.bin"
    ):  # the shard in progress when the process was killed
        path.write_bytes(path.read_bytes() + b"half a shard")
    resumed = build(corpus, student, tmp_path / "cut", **settings)
    assert sum(calls[killed_at + 1 :]) == 63 - 20 * killed_at, "whole shards are not encoded again"
    for path in sorted((tmp_path / "whole").iterdir()):
        if path.name != ".lock":
            assert path.read_bytes() == (tmp_path / "cut" / path.name).read_bytes(), path.name
    assert resumed.fingerprint == whole.fingerprint
    with pytest.raises(IrdistillError, match="shard_rows: 20 there, 30 here"):
        build(corpus, student, tmp_path / "whole", **settings | {"shard_rows": 30})


@pytest.mark.parametrize("kind", LIBRARY)
def test_the_store_returns_the_vectors_of_chosen_documents(
    kind: str, models: dict[str, str], tmp_path: Path
) -> None:
    corpus = make_collection().corpus
    student = load_student(models[kind], device="cpu")
    rows = np.array([62, 3, 3, 0, 17])
    for storage, close in (("float32", 1e-6), ("float16", 2e-2)):
        store = corpus_vectors(corpus, student, tmp_path, storage=storage, **CPU)
        taken = store.take(rows).on(torch.device("cpu"))
        expected: Any = student.search_vectors(corpus.texts(rows), "document", "float32")
        if kind == "sparse":
            expected = expected.toarray()
        for one, other in zip(taken, expected, strict=True):
            assert one.dtype == torch.float32
            np.testing.assert_allclose(one.numpy(), other, atol=close)
    assert store.nbytes < corpus_vectors(corpus, student, tmp_path, **CPU).nbytes


def random_sparse(
    folder: Path, rows: int, words: int, seed: int = 0
) -> tuple[SparseStore, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = np.where(
        rng.random((rows, words)) < 0.2, rng.gamma(1.0, size=(rows, words)), 0
    ).astype(np.float32)
    write_arrays(
        folder,
        {"kind": "sparse", "dimension": words},
        SparseStore.layout(words, "float32"),
        rows,
        7,
        lambda start, end: SparseStore.arrays(csr_matrix(matrix[start:end])),
    )
    return SparseStore(folder), matrix


@pytest.mark.parametrize("block_rows", [1, 7, 16, 1000])
def test_an_inverted_index_is_exact_for_every_block_size(block_rows: int, tmp_path: Path) -> None:
    store, matrix = random_sparse(tmp_path / "store", 53, 31)
    corpus = Collection.from_dicts("c", {f"d{row}": "x" for row in range(53)}, {}, {}).corpus
    queries = np.where(np.random.default_rng(1).random((6, 31)) < 0.3, 1.5, 0).astype(np.float32)
    queries[2] = 0
    queries[3] *= -1  # all products are negative
    index = SparseIndex.build(store, tmp_path / "index", block_rows=block_rows)
    true = queries.astype(np.float64) @ matrix.T
    for hits, scores in zip(index.search(csr_matrix(queries), corpus, 10), true, strict=True):
        np.testing.assert_allclose(hits.scores, -np.sort(-scores[scores > 0])[:10], rtol=1e-5)
        np.testing.assert_allclose(hits.scores, scores[hits.rows], rtol=1e-5)
    with pytest.raises(IrdistillError, match=r"\(Q, 31\)"):
        index.search(csr_matrix((1, 30)), corpus, 3)
    other, _ = random_sparse(tmp_path / "other", 53, 31, seed=5)
    with pytest.raises(IrdistillError, match="vectors:"):
        SparseIndex.build(other, tmp_path / "index", block_rows=block_rows)


def random_tokens(
    folder: Path, lengths: list[int], dimension: int = 8
) -> tuple[TokenStore, list[np.ndarray]]:
    rng = np.random.default_rng(0)
    vectors = [rng.normal(size=(length, dimension)).astype(np.float32) for length in lengths]
    write_arrays(
        folder,
        {"kind": "late-interaction", "dimension": dimension},
        TokenStore.layout(dimension, "float32"),
        len(lengths),
        3,
        lambda start, end: TokenStore.arrays(vectors[start:end]),
    )
    return TokenStore(folder), vectors


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize(("memory", "query_tokens"), [(1, 1), (2000, 5), (256 << 20, 512)])
def test_maxsim_is_exact_for_every_memory_limit(
    mean: bool, memory: int, query_tokens: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multi_vector, "_QUERY_TOKENS", query_tokens)
    monkeypatch.setattr(
        multi_vector, "_document_tokens", lambda device, memory: max(1, memory // 100)
    )
    store, documents = random_tokens(tmp_path, [4, 0, 1, 9, 2, 0, 30, 5])
    corpus = Collection.from_dicts("c", {f"d{row}": "x" for row in range(8)}, {}, {}).corpus
    rng = np.random.default_rng(2)
    groups = [
        [rng.normal(size=(n, 8)).astype(np.float32) for n in sizes]
        for sizes in ([3, 1, 7], [], [2])
    ]
    results = maxsim_search(
        store, groups, corpus, 8, mean=mean, memory=memory, device=torch.device("cpu")
    )
    assert [len(group) for group in results] == [3, 0, 1]
    for group, hits in zip(groups, results, strict=True):
        for query, one in zip(group, hits, strict=True):
            true = maxsim(
                [torch.from_numpy(query)],
                [torch.from_numpy(tokens) for tokens in documents],
                length_normalize=mean,
            )[0].numpy()
            assert sorted(one.rows.tolist()) == [
                0,
                2,
                3,
                4,
                6,
                7,
            ]  # documents without tokens are not retrieved
            np.testing.assert_allclose(one.scores, true[one.rows], rtol=1e-5)
            by_hand = [
                sum(max(float(q @ d) for d in documents[row]) for q in query) for row in one.rows
            ]
            np.testing.assert_allclose(one.scores * (len(query) if mean else 1), by_hand, rtol=1e-4)
            assert (np.diff(one.scores) <= 0).all()


@pytest.mark.parametrize(
    ("kind", "index"),
    [
        (kind, index)
        for kind in ("dense", "late-interaction")
        for index in INDEXES[kind]
        if index != "lucene"
    ],
)
def test_approximate_runs_record_their_recall(
    kind: str, index: Any, models: dict[str, str], tmp_path: Path
) -> None:
    collection = make_collection(90)
    run = retrieve(
        collection,
        models[kind],
        tmp_path / "run",
        options=RetrieveOptions(index=index, part_queries=2, **CPU),
        k=6,
        work=tmp_path,
    )
    flat = retrieve(
        collection,
        models[kind],
        tmp_path / "flat",
        options=RetrieveOptions(**CPU),
        k=6,
        work=tmp_path,
    )
    if index == "flat":
        assert recall(run) is None
        return
    same = [len({*a.doc_ids} & {*b.doc_ids}) for a, b in zip(run, flat, strict=True)]
    assert recall(run) == sum(same[:4]) / 24, "of the first two parts"
    assert recall(run) >= (0.8 if index in ("hnsw", "sq8") or kind == "late-interaction" else 0.2)  # type: ignore[operator]
    if kind == "late-interaction":  # results have exact scores
        exact = {
            query.query_id: dict(zip(query.doc_ids, query.scores.tolist(), strict=True))
            for query in flat
        }
        for query in run:
            for doc_id, score in zip(query.doc_ids, query.scores.tolist(), strict=True):
                assert score == pytest.approx(exact[query.query_id].get(doc_id, score), rel=1e-5)


def test_seismic_finds_the_best_and_scores_them_exactly(
    models: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    collection = make_collection(90)
    if find_spec("seismic") is None:
        with pytest.raises(IrdistillError, match=r"pip install 'irdistill\[seismic\]'"):
            retrieve(
                collection,
                models["sparse"],
                tmp_path / "run",
                options=RetrieveOptions(index="seismic", **CPU),
                work=tmp_path / "work",
            )
        pytest.skip("pyseismic-lsr is not installed")
    run = retrieve(
        collection,
        models["sparse"],
        tmp_path / "run",
        options=RetrieveOptions(index="seismic", **CPU),
        k=6,
        work=tmp_path / "work",
    )
    expected = plain_scores("sparse", models["sparse"], collection)
    for results, scores in zip(run, expected, strict=True):
        rows = [collection.corpus.row(doc_id) for doc_id in results.doc_ids]
        np.testing.assert_allclose(results.scores, scores[rows], rtol=1e-5)
    share = recall(run)
    assert share is not None and share >= 0.6
    assert capfd.readouterr().out == "", "it says nothing of its own"
    again = open_searcher(
        collection.corpus,
        load_student(models["sparse"], device="cpu"),
        "seismic",
        tmp_path / "work",
        **CPU,
    )
    (hits,) = again.search([again.encode([query.text for query in collection.queries.values()])], 6)
    assert [[collection.corpus.id(int(row)) for row in one.rows] for one in hits] == [
        list(results.doc_ids) for results in run
    ]


def test_many_ties_at_the_cut_off_are_ordered_by_id(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers of the vectors are multiples of a quarter, so all products are exact."""
    collection = Collection.from_dicts(
        "same", {f"d{number:03}": "the cat" for number in range(150)}, {"q": "cat"}, {}
    )
    for kind, model in models.items():
        student = load_student(model, device="cpu")
        one = np.full((1, student.dimension), 0.25, dtype=np.float32)
        forms: dict[str, Any] = {
            "dense": lambda n, one=one: np.repeat(one, n, axis=0),
            "sparse": lambda n, one=one: csr_matrix(np.repeat(one, n, axis=0)),
            "late-interaction": lambda n, one=one: [one] * n,
        }
        monkeypatch.setattr(
            type(student),
            "search_vectors",
            lambda self, texts, *_, make=forms[kind], **__: make(len(texts)),
        )
        (results,) = retrieve(
            collection,
            student,
            tmp_path / kind,
            options=RetrieveOptions(**CPU),
            k=3,
            work=tmp_path / "work",
        )
        assert list(results.doc_ids) == ["d149", "d148", "d147"], kind


def test_models_and_indexes_that_cannot_search_are_refused(
    models: dict[str, str], tmp_path: Path
) -> None:
    collection = make_collection(3)
    with pytest.raises(
        IrdistillError, match="is a cross-encoder, which reads query and document together"
    ):
        retrieve(collection, str(tiny_classifier(tmp_path / "ce", "bert")), tmp_path / "run")
    with pytest.raises(
        IrdistillError, match="a sparse model has no index 'hnsw'; choose one of flat, seismic"
    ):
        retrieve(
            collection,
            models["sparse"],
            tmp_path / "run",
            options=RetrieveOptions(index="hnsw"),
            work=tmp_path,
        )
    with pytest.raises(IrdistillError, match="a dense model has no index 'seismic'"):
        retrieve(
            collection,
            models["dense"],
            tmp_path / "run",
            options=RetrieveOptions(index="seismic"),
            work=tmp_path,
        )
    with pytest.raises(
        IrdistillError, match="a dense model has no index 'plaid'; choose one of flat, hnsw"
    ):
        retrieve(
            collection,
            models["dense"],
            tmp_path / "run",
            options=RetrieveOptions(index="plaid"),
            work=tmp_path,
        )
    with pytest.raises(
        IrdistillError,
        match=r"a late-interaction model has no index 'lucene'; choose one of .*sq8, plaid",
    ):
        retrieve(
            collection,
            models["late-interaction"],
            tmp_path / "run",
            options=RetrieveOptions(index="lucene"),
            work=tmp_path,
        )
    assert not (tmp_path / "run").exists()
