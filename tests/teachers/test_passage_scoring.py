"""Teachers read passages, and score documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from irdistill.collections import Collection
from irdistill.collections.split_collections import passage_view
from irdistill.errors import OptionError, WrongCollectionError
from irdistill.runs import MemoryRun, RankedList, Run, RunIdentity
from irdistill.runs.stored_representations import Representations
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.lexical.bm25 import BM25
from irdistill.teachers import score, teacher
from irdistill.teachers.cost_estimate import EstimateOptions, estimate_cost
from irdistill.teachers.passage_reading import PassageReading
from irdistill.teachers.protocol import PartialOrder, TextPair
from irdistill.teachers.score_options import ScoreOptions
from tests.search.passage_collection import passage_collection
from tests.students.tiny import tiny_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("passages")


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return passage_collection(folder)


@pytest.fixture(scope="module")
def candidates(collection: Collection, folder: Path) -> Run:
    return retrieve(collection, "bm25", folder / "bm25", 8)


@teacher(name="letters", version="1")
def letters(queries: list[str], documents: list[str]) -> list[float | None]:
    """The share of the letter a; not scored if there are too few letters."""
    return [None if len(text) < 25 else 10 * text.count("a") / len(text) for text in documents]


def scored(collection: Collection, candidates: Run, folder: Path, by: Any, **options: Any) -> Run:
    return score(
        collection, candidates, by, folder / "scored", ScoreOptions(overwrite=True, **options)
    )


def values(collection: Collection, doc_id: str, numbers: Any = None) -> dict[int, float]:
    """Passage -> score by `letters`."""
    passages = collection.corpus.passages
    assert passages is not None
    rows = passages.all_of([collection.corpus.row(doc_id)])
    every = letters([], passages.corpus.texts(rows))
    chosen = range(len(rows)) if numbers is None else numbers
    return {number: value for number in chosen if (value := every[number]) is not None}


@pytest.mark.parametrize("method", ["maxp", "logsumexp", "firstp"])
def test_all_passages_are_aggregated(
    method: str, collection: Collection, candidates: Run, folder: Path
) -> None:
    run = scored(
        collection, candidates, folder, letters, score_passages="all", aggregate=method,
        **({"aggregate_tau": 0.5} if method == "logsumexp" else {}),
    )  # fmt: skip
    nulls = 0
    for ranked in run:
        assert sorted(ranked.doc_ids) == sorted(candidates[ranked.query_id].doc_ids)
        assert ranked.passages is not None
        for place, doc_id in enumerate(ranked.doc_ids):
            known = values(collection, doc_id, [0] if method == "firstp" else None)
            if not known:
                nulls += 1
                assert np.isnan(ranked.scores[place])
                assert ranked.flags is not None and ranked.flags[place] == "not scored"
                continue
            best = max(known, key=lambda number: (known[number], -number))
            expected = known[best]
            if method == "logsumexp":
                expected = 0.5 * np.log(sum(np.exp(np.array(list(known.values())) / 0.5)))
            assert ranked.scores[place] == pytest.approx(expected, abs=1e-5)
            assert ranked.passages[place] == best
    assert nulls == run.num_unscored
    read = "first" if method == "firstp" else "all"
    assert run.identity.settings["passages"]["read"] == read
    assert run.identity.collection == collection.describe()


def test_the_passage_of_the_candidates_is_read(
    collection: Collection, candidates: Run, folder: Path
) -> None:
    run = scored(collection, candidates, folder, letters)  # a function reads the best one
    assert run.identity.settings["passages"] == {"read": 1, "aggregate": {"method": "maxp"}}
    assert run.manifest.usage["pairs"] <= candidates.num_rows
    for ranked in candidates:
        named = dict(zip(ranked.doc_ids, ranked.passages.tolist(), strict=True))  # type: ignore[union-attr]
        teachers = run[ranked.query_id]
        assert teachers.passages is not None
        for place, doc_id in enumerate(teachers.doc_ids):
            assert teachers.passages[place] == named[doc_id]
            known = values(collection, doc_id, [named[doc_id]])
            if known:
                assert teachers.scores[place] == pytest.approx(known[named[doc_id]], abs=1e-5)


def test_where_none_is_named_bm25_chooses(collection: Collection, candidates: Run) -> None:
    passages = collection.corpus.passages
    assert passages is not None
    ranked = candidates["q0"]
    unnamed = MemoryRun(candidates.identity, [ranked._replace(passages=None)])
    reading = PassageReading.of(
        collection, unnamed, ScoreOptions(score_passages="2"), {"kind": "cross-encoder"}
    )
    bm25, query = BM25(passages.corpus), collection.queries["q0"]
    read = reading.expand(unnamed["q0"]).doc_ids
    expected = []
    for doc_id in ranked.doc_ids:
        rows = passages.all_of([collection.corpus.row(doc_id)])
        order = np.argsort(-bm25.score(query.text, rows), kind="stable")[:2]
        expected += [f"{doc_id}#{number}" for number in order.tolist()]
    assert read == expected
    first = reading.expand(ranked).doc_ids[::1][0]
    assert first == f"{ranked.doc_ids[0]}#{ranked.passages[0]}"  # type: ignore[index]
    # the best passage by BM25 is the one that MaxP names
    one = replace(reading, count=1).expand(unnamed["q0"]).doc_ids
    assert one == [f"{d}#{n}" for d, n in zip(ranked.doc_ids, ranked.passages, strict=True)]  # type: ignore[arg-type]


def test_retrievers_score_as_they_retrieve(collection: Collection, folder: Path) -> None:
    """All passages are read by default; the scores are those of MaxP."""
    model = str(tiny_backbone(folder / "dense", layers=1))
    for by, options in ((model, {"precision": "float32"}), ("bm25", {})):
        first = retrieve(
            collection,
            by,
            folder / "first",
            6,
            RetrieveOptions(**options),
            overwrite=True,  # type: ignore[arg-type]
        )
        run = scored(collection, first, folder, by, **options)
        for ranked in first:
            teachers = run[ranked.query_id]
            assert teachers.doc_ids == ranked.doc_ids
            assert teachers.scores.tolist() == pytest.approx(ranked.scores.tolist(), abs=1e-5)
            assert teachers.passages is not None and ranked.passages is not None
            assert teachers.passages.tolist() == ranked.passages.tolist()


class Longest:
    """A listwise teacher that orders texts by length and leaves out empty ones."""

    identity: ClassVar = {"kind": "listwise", "model": "longest"}

    def rank(self, lists: list[list[TextPair]]) -> list[PartialOrder]:
        return [
            PartialOrder(
                sorted(range(len(pairs)), key=lambda place: -len(pairs[place].text)),
                [None] * len(pairs),
            )
            for pairs in lists
        ]


def test_listwise_teachers_read_the_best_passage(
    collection: Collection, candidates: Run, folder: Path
) -> None:
    run = scored(collection, candidates, folder, Longest())
    passages = collection.corpus.passages
    assert passages is not None
    for ranked in run:
        rows = passages.rows(collection.corpus.rows(ranked.doc_ids), ranked.passages)
        lengths = [len(text) for text in passages.corpus.texts(rows)]
        assert lengths == sorted(lengths, reverse=True)
        assert ranked.scores.tolist() == list(range(len(lengths), 0, -1))
    with pytest.raises(OptionError, match="gives orders"):
        scored(collection, candidates, folder, Longest(), aggregate="logsumexp")


def test_nulls_of_some_passages_leave_a_flag(collection: Collection, candidates: Run) -> None:
    reading = PassageReading.of(collection, candidates, ScoreOptions(), {})
    docs = RankedList("q0", ["d1", "d2", "d3"], np.zeros(3, np.float32))
    passages = RankedList(
        "q0",
        ["d1#0", "d1#1", "d2#0", "d2#1", "d3#0", "d3#1"],
        np.array([1, np.nan, np.nan, 2, np.nan, np.nan], np.float32),
        [None, "refused", "empty text", None, "cut", "refused"],
    )
    result = reading.collapse(docs, passages)
    assert result.flags == ["passage refused", None, "cut"]
    assert result.scores[:2].tolist() == [1, 2] and np.isnan(result.scores[2])
    assert result.passages is not None and result.passages.tolist() == [0, 1, 0]


def test_a_scoring_job_resumes_with_the_same_bytes(
    collection: Collection, candidates: Run, folder: Path
) -> None:
    calls = 0

    def failing(queries: list[str], documents: list[str]) -> list[float | None]:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return letters(queries, documents)

    by = teacher(name="letters", version="1")(failing)
    options = ScoreOptions(part_queries=3, score_passages="2")
    with pytest.raises(KeyboardInterrupt):
        score(collection, candidates, by, folder / "resumed", options)
    resumed = score(collection, candidates, by, folder / "resumed", options)
    whole = score(collection, candidates, letters, folder / "whole", options)
    assert calls == 3 and resumed.fingerprint == whole.fingerprint


def test_costs_count_passages(collection: Collection, candidates: Run) -> None:
    every = estimate_cost(
        collection, candidates, letters, ScoreOptions(score_passages="all"), EstimateOptions(1.0)
    )
    best = estimate_cost(collection, candidates, letters, ScoreOptions(), EstimateOptions(1.0))
    passages = collection.corpus.passages
    assert passages is not None
    assert best.pairs == candidates.num_rows
    expected = sum(
        int(passages.counts(collection.corpus.rows(ranked.doc_ids)).sum()) for ranked in candidates
    )
    assert every.pairs == expected > best.pairs


def test_what_cannot_be_scored_is_refused(
    collection: Collection, candidates: Run, folder: Path
) -> None:
    with pytest.raises(OptionError, match="temperature of logsumexp"):
        scored(collection, candidates, folder, letters, aggregate_tau=1.0)
    whole = replace(collection, corpus=collection.corpus.with_passages(None))
    with pytest.raises(OptionError, match="are read whole"):
        scored(whole, candidates, folder, letters, score_passages="all")
    other = {**collection.describe(), "passages": "0" * 16}
    stale = MemoryRun(RunIdentity("first-stage", {}, other), list(candidates))
    with pytest.raises(WrongCollectionError, match="names passages"):
        scored(collection, stale, folder, letters)
    run = scored(collection, candidates, folder, letters, aggregate="whole")
    assert run["q0"].passages is None and "passages" not in run.identity.collection
    assert passage_view(collection).corpus.ids[0] == "d0#0"


def test_vectors_of_the_passages_that_are_read_are_stored(
    collection: Collection, candidates: Run, folder: Path
) -> None:
    model = str(tiny_backbone(folder / "dense", layers=1))
    run = scored(collection, candidates, folder, model, k=3, representations="float32")
    plain = score(collection, candidates, model, folder / "plain", ScoreOptions(k=3))
    assert run.to_dict() == plain.to_dict() and run.path is not None
    stored = Representations(run.path)
    stored.check_collection(passage_view(collection))
    with pytest.raises(WrongCollectionError):
        stored.check_collection(collection)
    passages = collection.corpus.passages
    assert passages is not None
    for ranked in run:
        rows = passages.rows(collection.corpus.rows(ranked.doc_ids), ranked.passages)
        vectors = np.concatenate(stored.documents(rows))
        scores = vectors @ stored.query(ranked.query_id)[0]
        assert scores.tolist() == pytest.approx(ranked.scores.tolist(), abs=1e-4)
        every = passages.all_of(collection.corpus.rows(ranked.doc_ids))
        assert all(len(vector) for vector in stored.documents(every))
