"""Documents ranked by their passages equal a computation by hand, for every kind of model."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.errors import OptionError
from irdistill.runs import Run, verify
from irdistill.search import RetrieveOptions, open_searcher, recall, retrieve
from irdistill.search.passage_ranking import (
    Aggregation,
    PassageScores,
    deepen,
    rank_documents,
)
from irdistill.search.ranking import SearchHits, best_rows
from irdistill.students import load_student
from tests.search.lucene_support import needs_lucene
from tests.search.passage_collection import passage_collection
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_colbert, tiny_splade

KINDS = ("bm25", "dense", "sparse", "late-interaction")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("passages")


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return passage_collection(folder)


@pytest.fixture(scope="module")
def models(folder: Path) -> dict[str, Any]:
    return {
        "bm25": "bm25",
        "dense": load_student(tiny_backbone(folder / "dense", layers=1)),
        "sparse": load_student(tiny_splade(folder / "sparse")),
        "late-interaction": load_student(tiny_colbert(folder / "late")),
    }


def search(
    collection: Collection, model: Any, folder: Path, out: str, k: int, **options: Any
) -> Run:
    options = {"precision": "float32"} | options
    return retrieve(
        collection, model, folder / out, k, RetrieveOptions(**options), work=folder / "work",
        overwrite=True,
    )  # fmt: skip


def by_hand(
    collection: Collection, run: Run, method: str, tau: float
) -> dict[str, dict[str, tuple[float, int]]]:
    """Query -> document -> score and best passage, from a run of all passages."""
    answer: dict[str, dict[str, tuple[float, int]]] = {}
    for ranked in run:
        scores: dict[str, dict[int, float]] = {}
        for passage, score in zip(ranked.doc_ids, ranked.scores.tolist(), strict=True):
            doc, _, number = passage.rpartition("#")
            scores.setdefault(doc, {})[int(number)] = score
        line = {}
        for doc, values in scores.items():
            best = min(values, key=lambda number: (-values[number], number))
            if method == "maxp":
                line[doc] = values[best], best
            elif method == "firstp" and 0 in values:
                line[doc] = values[0], 0
            elif method == "logsumexp":
                total = sum(np.exp(value / tau) for value in values.values())
                line[doc] = tau * float(np.log(total)), best
        answer[ranked.query_id] = line
    return answer


@pytest.mark.parametrize("method", ["maxp", "firstp", "logsumexp"])
@pytest.mark.parametrize("kind", KINDS)
def test_ranked_documents_equal_brute_force(
    kind: str, method: str, collection: Collection, models: dict[str, Any], folder: Path
) -> None:
    passages = collection.corpus.passages
    assert passages is not None
    flat = replace(collection, corpus=passages.corpus)
    every = search(flat, models[kind], folder, f"{kind}-passages", len(passages))
    tau = {"dense": 0.05}.get(kind, 1.0)
    expected = by_hand(collection, every, method, tau)
    for k in (1, 5, 1000):
        run = search(collection, models[kind], folder, "documents", k, aggregate=method)
        assert run.path is not None and verify(run.path) == []
        for ranked in run:
            line = expected[ranked.query_id]
            order = sorted(line, key=lambda doc: (round(line[doc][0], 5), doc), reverse=True)[:k]
            assert ranked.doc_ids == order
            assert ranked.scores.tolist() == pytest.approx(
                [line[doc][0] for doc in order], abs=2e-5
            )
            assert ranked.passages is not None
            assert ranked.passages.tolist() == [line[doc][1] for doc in order]


def test_settings_decide_the_identity(
    collection: Collection, models: dict[str, Any], folder: Path
) -> None:
    run = search(collection, models["dense"], folder, "id", 3, aggregate="logsumexp")
    assert run.identity.settings["index"]["aggregate"] == {"method": "logsumexp", "tau": 0.05}
    run = search(collection, "bm25", folder, "id", 3, aggregate="logsumexp", aggregate_tau=2.0)
    assert run.identity.settings == {"k": 3, "aggregate": {"method": "logsumexp", "tau": 2.0}}
    run = search(collection, "bm25", folder, "id", 3)
    assert run.identity.settings["aggregate"] == {"method": "maxp"}
    assert run.identity.collection["passages"] == collection.describe()["passages"]


def test_whole_documents_are_searched_on_request(
    collection: Collection, models: dict[str, Any], folder: Path
) -> None:
    whole = replace(collection, corpus=collection.corpus.with_passages(None))
    for kind in ("bm25", "dense"):
        expected = search(whole, models[kind], folder, "whole", 5)
        run = search(collection, models[kind], folder, "asked", 5, aggregate="whole")
        assert run.to_dict() == expected.to_dict()
        assert run.identity == expected.identity and run["q0"].passages is None


@pytest.mark.parametrize(
    ("kind", "index"), [("dense", "hnsw"), ("dense", "ivfflat"), ("late-interaction", "plaid")]
)
def test_approximate_indexes_find_documents(
    kind: str, index: str, collection: Collection, models: dict[str, Any], folder: Path
) -> None:
    exact = search(collection, models[kind], folder, "exact", 4)
    run = search(collection, models[kind], folder, "approximate", 4, index=index)
    assert (recall(run) or 0) > 0.9
    for ranked in run:
        truth = dict(
            zip(exact[ranked.query_id].doc_ids, exact[ranked.query_id].scores, strict=True)
        )
        assert len(set(ranked.doc_ids)) == 4 and ranked.passages is not None
        for doc, score in zip(ranked.doc_ids, ranked.scores, strict=True):
            assert doc not in truth or score == pytest.approx(truth[doc], abs=1e-5)


@pytest.mark.slow
@needs_lucene
def test_lucene_ranks_by_its_best_passages(collection: Collection, folder: Path) -> None:
    passages = collection.corpus.passages
    assert passages is not None
    flat = replace(collection, corpus=passages.corpus)
    expected = by_hand(
        collection, search(flat, "lucene", folder, "lucene-flat", len(passages)), "maxp", 1.0
    )
    run = search(collection, "lucene", folder, "lucene", 5)
    for ranked in run:
        line = expected[ranked.query_id]
        assert ranked.doc_ids == sorted(line, key=lambda d: (line[d][0], d), reverse=True)[:5]
    with pytest.raises(OptionError, match="needs the scores of all passages"):
        search(collection, "lucene", folder, "no", 5, aggregate="firstp")


@pytest.mark.parametrize("seed", range(20))
def test_blocks_and_depth_do_not_matter(seed: int, collection: Collection) -> None:
    """Any cut of the passages into blocks, and any ties, give the exact top k."""
    random = np.random.default_rng(seed)
    corpus, passages = collection.corpus, collection.corpus.passages
    assert passages is not None
    scores = random.integers(0, 6, (3, len(passages))).astype(np.float32)
    scores[random.random(scores.shape) < 0.2] = -np.inf
    k = int(random.integers(1, 12))
    highest = np.maximum.reduceat(scores, passages.starts[:-1], axis=1)
    edges = np.unique(random.integers(0, len(passages), 6))
    edges = np.unique(np.concatenate([[0], edges, [len(passages)]])).tolist()
    blocks = [
        PassageScores(a, [scores[:1, a:b], scores[1:, a:b]]) for a, b in itertools.pairwise(edges)
    ]
    [[first], rest] = rank_documents(blocks, corpus, Aggregation(), k)

    def top_passages(depth: int) -> list[SearchHits]:
        return [best_rows(passages.corpus, line, depth, above=-np.inf) for line in scores]

    for hits in ([first, *rest], deepen(top_passages, corpus, k)):
        for line, top, values in zip(highest, hits, scores, strict=True):
            expected = best_rows(corpus, line, k, above=-np.inf)
            assert top.rows.tolist() == expected.rows.tolist()
            assert top.scores.tolist() == expected.scores.tolist()
            assert top.passages is not None
            for row, number in zip(top.rows.tolist(), top.passages.tolist(), strict=True):
                of_document = values[passages.starts[row] : passages.starts[row + 1]]
                assert number == int(np.argmax(of_document))


def test_refusals_come_before_the_corpus_is_encoded(
    collection: Collection, models: dict[str, Any], folder: Path
) -> None:
    with pytest.raises(OptionError, match="needs the scores of all passages"):
        search(collection, models["dense"], folder, "no", 3, index="hnsw", aggregate="logsumexp")
    with pytest.raises(OptionError, match="temperature of logsumexp"):
        search(collection, "bm25", folder, "no", 3, aggregate_tau=1.0)
    whole = replace(collection, corpus=collection.corpus.with_passages(None))
    with pytest.raises(OptionError, match="are not split into passages"):
        search(whole, "bm25", folder, "no", 3, aggregate="firstp")


def test_a_searcher_of_a_split_corpus_ranks_documents(
    collection: Collection, models: dict[str, Any], folder: Path
) -> None:
    student = models["dense"]
    searcher = open_searcher(collection.corpus, student, work=folder / "work", precision="float32")
    [[top]] = searcher.search([searcher.encode(["cat dog"])], 3)
    assert len(top.rows) == 3 and top.passages is not None
    [(first, [scores])] = searcher.score_blocks([searcher.encode(["cat dog"])])
    assert first == 0 and scores.shape == (1, len(collection.corpus))
    assert scores[0, top.rows].tolist() == top.scores.tolist()
