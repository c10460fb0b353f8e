"""One vector for each split document: the fit equals the normal equations, and search uses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.bundles.package_options import PackageOptions
from irdistill.bundles.packaging import package_model
from irdistill.collections import Collection, Corpus, Document
from irdistill.collections.passage_corpus import Passages
from irdistill.errors import OptionError
from irdistill.runs import Run
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.array_shards import write_arrays
from irdistill.search.vectors import document_vectors as module
from irdistill.search.vectors.document_vectors import (
    DocumentFit,
    VectorFitting,
    fit_document_vectors,
)
from irdistill.search.vectors.vector_store import VectorStore, corpus_vectors
from irdistill.students import DenseStudent, load_student
from tests.search.passage_collection import passage_collection, write_collection
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_splade


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return passage_collection(folder)


@pytest.fixture(scope="module")
def student(folder: Path) -> DenseStudent:
    loaded = load_student(tiny_backbone(folder / "dense", layers=1))
    assert isinstance(loaded, DenseStudent)
    return loaded


def search(collection: Collection, model: Any, folder: Path, out: str, **options: Any) -> Run:
    options = {"precision": "float32", "aggregate": "vector"} | options
    return retrieve(
        collection, model, folder / out, 5, RetrieveOptions(**options), work=folder / "work",
        overwrite=True,
    )  # fmt: skip


def unit(random: np.random.Generator, *shape: int) -> np.ndarray:
    values = random.normal(size=shape)
    return np.asarray(values / np.linalg.norm(values, axis=1, keepdims=True), np.float32)


def test_two_passages_by_hand() -> None:
    """With the queries (1, 0) and (0, 1), each number of the vector is one equation.

    t = ln(e^1 + e^0) = 1.31326 for both; the mean is (0.5, 0.5). Without ridge the vector is
    (t, t); with the ridge 0.5, which weighs as much as the query, it is halfway.
    """
    queries = np.eye(2, dtype=np.float32)
    passages = np.array([[1, 0], [0, 1]], np.float32)
    for ridge, expected in ((1e-9, 1.31326), (0.5, (1.31326 + 0.5) / 2)):
        fit = DocumentFit(tau=1.0, weight=0.0, ridge=ridge)
        vectors = VectorFitting(queries, fit).fit(passages, np.array([0]))
        assert vectors.tolist() == [pytest.approx([expected, expected], abs=1e-4)]


@pytest.mark.parametrize("nearest", [1, 7, 500])
@pytest.mark.parametrize("weight", [0.0, 0.3, 4.0])
def test_equals_the_weighted_normal_equations(nearest: int, weight: float) -> None:
    random = np.random.default_rng(nearest)
    queries, passages = unit(random, 60, 8), unit(random, 14, 8)
    starts = np.array([0, 3, 4, 9])
    fit = DocumentFit(tau=0.2, nearest=nearest, weight=weight, ridge=0.02)
    vectors = VectorFitting(queries, fit).fit(passages, starts)
    for place, (start, end) in enumerate(zip(starts, [3, 4, 9, 14], strict=True)):
        members, exact = passages[start:end].astype(np.float64), queries.astype(np.float64)
        if end - start == 1:
            assert vectors[place].tolist() == passages[start].tolist()
            continue
        targets = 0.2 * np.log(np.exp(exact @ members.T / 0.2).sum(axis=1))
        count = min(nearest, 60)
        weights = np.full(60, 1 / 60)
        weights[np.argsort(-targets)[:count]] += weight / count
        left = (exact.T * weights) @ exact + 0.02 * np.eye(8)
        right = (exact.T * weights) @ targets + 0.02 * members.mean(axis=0)
        np.testing.assert_allclose(vectors[place], np.linalg.solve(left, right), atol=2e-5)


def test_documents_are_ranked_by_their_vectors(
    collection: Collection, student: DenseStudent, folder: Path
) -> None:
    passages = collection.corpus.passages
    assert passages is not None
    store: VectorStore = corpus_vectors(passages.corpus, student, folder / "work", "float32")
    vectors = fit_document_vectors(collection.corpus, store, student, precision="float32")
    assert len(vectors) == len(collection.corpus) and vectors.folder.parent == store.folder
    for doc in ("d0", "d5", "d9"):
        row = collection.corpus.row(doc)
        if passages.counts([row]).tolist() == [1]:
            np.testing.assert_array_equal(
                vectors.matrix[row], store.matrix[int(passages.starts[row])]
            )
    run = search(collection, student, folder, "run")
    settings = run.identity.settings["index"]["aggregate"]
    assert settings["method"] == "vector" and settings["tau"] == 0.02
    assert run.identity.collection["passages"] == passages.fingerprint
    matrix = np.asarray(vectors.matrix[:])
    for ranked in run:
        text = collection.queries[ranked.query_id].text
        [query] = student.search_vectors([text], "query", "float32")
        scores = matrix @ query
        assert ranked.passages is None
        assert ranked.scores.tolist() == pytest.approx(np.sort(scores)[::-1][:5].tolist(), abs=1e-5)
        assert [scores[collection.corpus.row(doc)] for doc in ranked.doc_ids] == pytest.approx(
            ranked.scores.tolist(), abs=1e-5
        )
    other = search(collection, student, folder, "other", aggregate_tau=0.5)
    assert other.identity.settings["index"]["aggregate"]["tau"] == 0.5
    assert other["q0"].scores.tolist() != run["q0"].scores.tolist()


@pytest.mark.parametrize("options", [{"index": "hnsw"}, {"vectors": "int8", "rescore": 4}])
def test_other_indexes_read_the_same_vectors(
    options: dict[str, Any], collection: Collection, student: DenseStudent, folder: Path
) -> None:
    exact = search(collection, student, folder, "flat")
    run = search(collection, student, folder, "indexed", **options)
    for ranked in run:
        assert set(ranked.doc_ids[:1]) <= set(exact[ranked.query_id].doc_ids)
        assert ranked.scores[0] == pytest.approx(exact[ranked.query_id].scores[0], abs=0.02)


def test_a_killed_fit_resumes_with_the_same_bytes(
    collection: Collection,
    student: DenseStudent,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_SHARD_DOCUMENTS", 8)
    passages = collection.corpus.passages
    assert passages is not None
    results, original = [], module._fitted
    for name, dies in (("once", False), ("twice", True)):
        store: VectorStore = corpus_vectors(passages.corpus, student, tmp_path / name, "float32")
        calls = []

        def fitted(*arguments: Any, calls: list[int] = calls, dies: bool = dies) -> np.ndarray:
            calls.append(arguments[-2])
            if dies and len(calls) == 3:
                raise KeyboardInterrupt
            return original(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(module, "_fitted", fitted)
            if dies:
                with pytest.raises(KeyboardInterrupt):
                    fit_document_vectors(collection.corpus, store, student)
            results.append(fit_document_vectors(collection.corpus, store, student))
        assert calls == ([0, 8, 16, 16, 24] if dies else [0, 8, 16, 24])
        fit_document_vectors(collection.corpus, store, student)  # opens the finished ones
    once, twice = results
    assert once.fingerprint == twice.fingerprint
    assert (once.folder / "vectors.bin").read_bytes() == (twice.folder / "vectors.bin").read_bytes()


def test_passages_without_a_vector_do_not_count(student: DenseStudent, tmp_path: Path) -> None:
    """Document 1 has no vector; document 2 has that of its only passage with one."""
    texts = Corpus.in_memory(Document(f"p{row}", "", "cat") for row in range(5))
    passages = Passages(texts, np.array([0, 2, 3, 5]), {})
    corpus = Corpus.in_memory(Document(f"d{row}", "", "cat") for row in range(3))
    rows = np.array([[1, 0], [0, 1], [0, 0], [0.6, 0.8], [0, 0]], np.float32)
    identity = {"dimension": 2, "storage": "float32"}
    layout = VectorStore.layout(2, "float32")
    write_arrays(tmp_path, identity, layout, 5, 5, lambda *_: VectorStore.arrays(rows))
    store = VectorStore(tmp_path)
    vectors = fit_document_vectors(corpus.with_passages(passages), store, student)
    assert vectors.absent_rows.tolist() == [1]
    assert vectors.matrix[2].tolist() == rows[3].tolist()


class _TwoTowers:
    """A model whose queries have another tower, which swaps the halves of the vectors."""

    def __init__(self, student: DenseStudent) -> None:
        self.student, self.texts = student, 0

    def tower_identity(self, kind: str) -> dict[str, Any]:
        return {**self.student.tower_identity("document"), "prompt": kind}

    def search_vectors(self, texts: Any, kind: str, *others: Any) -> np.ndarray:
        assert kind == "query"
        self.texts += len(texts)
        return np.roll(self.student.search_vectors(texts, "document", *others), 4, axis=1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.student, name)


def test_queries_come_from_the_query_tower(
    collection: Collection, student: DenseStudent, folder: Path
) -> None:
    passages = collection.corpus.passages
    assert passages is not None
    store: VectorStore = corpus_vectors(passages.corpus, student, folder / "work", "float32")
    model: Any = _TwoTowers(student)
    fit = DocumentFit(queries=10)
    vectors = fit_document_vectors(collection.corpus, store, model, fit, "float32")
    rows = np.sort(
        np.random.default_rng(42).choice(
            np.setdiff1d(np.arange(len(store)), store.absent_rows), 10, replace=False
        )
    )
    assert model.texts == 10
    queries = np.roll(np.asarray(store.matrix[rows]), 4, axis=1)
    row = int(np.argmax(passages.counts(np.arange(len(collection.corpus)))))
    members = np.asarray(store.matrix[passages.all_of([row])])
    expected = VectorFitting(queries, fit).fit(members, np.array([0]))[0]
    np.testing.assert_allclose(vectors.matrix[row], expected, atol=1e-4)


def test_a_bundle_holds_one_vector_for_each_document(
    collection: Collection, student: DenseStudent, folder: Path
) -> None:
    options = PackageOptions(aggregate="vector", precision="float32", onnx=False)
    bundle = package_model(collection.corpus, student, folder / "bundle", options)
    assert bundle.contents["similarity"] == "dot" and not bundle.contents["passages"]
    run = search(collection, student, folder, "bundled")
    searcher = ird.Searcher(folder / "bundle")
    for ranked in run:
        hits = searcher.search(collection.queries[ranked.query_id].text, k=5)
        assert [hit.score for hit in hits] == pytest.approx(ranked.scores.tolist(), abs=1e-4)
    whole = collection.corpus.with_passages(None)
    with pytest.raises(OptionError, match="not split into passages"):
        package_model(whole, student, folder / "none", options)


def test_what_has_no_vectors_is_refused(collection: Collection, folder: Path) -> None:
    with pytest.raises(OptionError, match="bm25 has no vectors"):
        search(collection, "bm25", folder, "no")
    sparse = load_student(tiny_splade(folder / "sparse"))
    with pytest.raises(OptionError, match="a sparse model; choose --aggregate maxp"):
        search(collection, sparse, folder, "no")
    whole = ird.load_collection(write_collection(folder / "whole"))
    with pytest.raises(OptionError, match="not split into passages"):
        search(whole, "bm25", folder, "no")


def test_a_document_tower_learns_the_scores_of_passages(folder: Path) -> None:
    """The literal form: whole documents are trained on log-sum-exp scores of all passages."""
    split = passage_collection(folder)
    plain = ird.load_collection(write_collection(folder / "plain"))
    model = str(tiny_backbone(folder / "tower", layers=1))
    candidates = retrieve(split, "bm25", folder / "bm25", 10)
    scores = ird.score(
        split, candidates, model, out=folder / "lse", score_passages="all", aggregate="logsumexp"
    )
    trained = ird.train(
        plain, scores, backbone=model, loss="KL(tau=0.05)", out=folder / "trained", steps=2,
        batch_size=2, learning_rate=1e-3,
    )  # fmt: skip
    text = plain.corpus.text(plain.corpus.row("d1"))
    before = load_student(model).search_vectors([text], "document", "float32")
    after = trained.search_vectors([text], "document", "float32")
    assert np.abs(after - before).max() > 1e-4
