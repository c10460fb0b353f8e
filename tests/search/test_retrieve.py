"""The verb retrieve: kinds of runs, and resumed searches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.search import BM25, RetrieveOptions, retrieve
from irdistill.students.dense_student import DenseStudent
from tests.students.tiny import WORDS, tiny_backbone


@pytest.fixture(scope="module")
def collection() -> Collection:
    rng = np.random.default_rng(0)
    docs = {
        f"d{number}": " ".join(rng.choice(WORDS, size=int(rng.integers(2, 12))))
        for number in range(90)
    }
    docs |= {"twin-a": docs["d0"], "twin-b": docs["d0"]}
    queries = {f"q{number}": " ".join(rng.choice(WORDS, size=3)) for number in range(10)}
    return Collection.from_dicts("tiny", docs, queries, {})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("bert")))


def parts(folder: Path) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name == "manifest.json" or path.suffix == ".parquet"
    }


def test_bm25_run(collection: Collection, tmp_path: Path) -> None:
    run = retrieve(collection, "bm25", tmp_path / "run", k=5, work=tmp_path / "work")
    assert run.identity.kind == "first-stage" and run.identity.producer["model"] == "bm25"
    expected = {
        ranked.query_id: ranked.doc_ids
        for ranked in BM25(collection.corpus, cache=tmp_path / "work").search(
            list(collection.queries.values()), 5
        )
    }
    assert {ranked.query_id: list(ranked.doc_ids) for ranked in run} == expected


@pytest.mark.parametrize("index", ["flat", "hnsw", "ivfpq"])
def test_dense_run(index: str, collection: Collection, model: str, tmp_path: Path) -> None:
    run = retrieve(
        collection,
        model,
        tmp_path / "run",
        options=RetrieveOptions(index=index, precision="float32"),
        k=7,
        work=tmp_path / "work",
    )
    assert run.identity.kind == "student" and run.identity.producer["model"] == model
    assert len(run.query_ids) == 10
    if index == "ivfpq":
        return
    student = DenseStudent.load(model)
    documents = student.encode(
        collection.corpus.texts(range(92)), precision="float32", normalize=True
    )
    queries = student.encode(
        [query.text for query in collection.queries.values()], "query", "float32", normalize=True
    )
    truth = -np.sort(-(queries @ documents.T), axis=1)[:, :7]
    for ranked, scores in zip(run, truth, strict=True):
        np.testing.assert_allclose(ranked.scores, scores, atol=1e-5)


def test_a_killed_search_resumes_with_the_same_bytes(
    collection: Collection, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import irdistill.search.retrieval  # noqa: F401
    from irdistill.runs import RunWriter

    settings = {"k": 5, "work": tmp_path / "work", "options": RetrieveOptions(part_queries=3)}
    retrieve(collection, model, tmp_path / "whole", **settings)  # type: ignore[arg-type]
    write = RunWriter.write_part
    calls: list[int] = []

    def killed(self: RunWriter, index: int, *args: object, **kwargs: object) -> None:
        calls.append(index)
        if len(calls) == 3:
            raise KeyboardInterrupt
        write(self, index, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(RunWriter, "write_part", killed)
    with pytest.raises(KeyboardInterrupt):
        retrieve(collection, model, tmp_path / "cut", **settings)  # type: ignore[arg-type]
    retrieve(collection, model, tmp_path / "cut", **settings)  # type: ignore[arg-type]
    assert calls == [0, 1, 2, 2, 3]
    assert parts(tmp_path / "cut") == parts(tmp_path / "whole")


def test_k_below_one_is_refused(collection: Collection, tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="k is 0"):
        retrieve(collection, "bm25", tmp_path, k=0)


@pytest.mark.parametrize("name", ["bm25", "model"])
def test_excluded_documents_are_not_retrieved(
    name: str, collection: Collection, model: str, tmp_path: Path
) -> None:
    from dataclasses import replace

    retriever = model if name == "model" else name
    run = retrieve(collection, retriever, tmp_path / "a", k=9, work=tmp_path / "work")
    before = {ranked.query_id: ranked.doc_ids for ranked in run}
    queries = {
        key: replace(query, excluded=(before[key][0], before[key][3], "no such document"))
        for key, query in collection.queries.items()
    }
    excluding = replace(collection, queries=queries)
    for ranked in retrieve(excluding, retriever, tmp_path / "b", k=5, work=tmp_path / "work"):
        ids = before[ranked.query_id]
        assert list(ranked.doc_ids) == [*ids[1:3], *ids[4:7]]
    assert excluding.queries_fingerprint != collection.queries_fingerprint
