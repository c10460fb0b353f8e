"""The pairs to judge: which, in which order, and how they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from irdistill.collections import Collection, Query
from irdistill.errors import OptionError
from irdistill.evaluation.auditing.query_sample import scored
from irdistill.evaluation.auditing.suspects import find_suspects
from irdistill.evaluation.judging import JudgingQueue, QueueOptions, judging_queue
from irdistill.evaluation.judging.judging_queue import reason_of
from irdistill.runs import RankedList, Run, RunIdentity, as_run, write_run

DOCS = {f"d{n}": f"text {n}" for n in range(10)}
QRELS = {"a": {"d3": 1, "d0": 0}, "b": {"d9": 2}, "c": {}}
QUERIES = {
    "a": Query("a", "first"),
    "b": Query("b", "second", excluded=("d1",)),
    "c": Query("c", "third"),
}
SCORES = {
    "a": {f"d{n}": 10.0 - n for n in range(10)},
    "b": {f"d{n}": 10.0 - 2 * n for n in range(10)},
    "c": {f"d{n}": 10.0 - n for n in range(10)},
}


@pytest.fixture
def collection() -> Collection:
    return Collection.from_dicts("tiny", DOCS, QUERIES, QRELS)


def pairs(queue: JudgingQueue) -> list[tuple[str, str]]:
    return [pair.pair for pair in queue]


def test_suspects_are_above_the_best_relevant_document(collection: Collection) -> None:
    queue = JudgingQueue(collection, as_run(SCORES), QueueOptions("suspects", per_query=3))
    assert pairs(queue) == [("b", "d0"), ("b", "d2"), ("b", "d3"), ("a", "d1"), ("a", "d2")]
    first, last = queue.pairs[0], queue.pairs[-1]
    assert (first.strength, first.positive, first.positive_rank) == (18.0, "d9", 10)
    assert (last.rank, last.of, last.score, last.positive_score) == (3, 10, 8.0, 7.0)
    assert reason_of(last, "suspects") == (
        "Not judged, and 1 above the best document that is judged relevant (rank 4)."
    )
    assert (queue.complete, queue.queries, queue.queries_read) == (True, 3, 3)


def test_the_first_suspects_are_the_examples_of_the_audit() -> None:
    random = np.random.default_rng(0)
    docs = {f"d{n}": f"text {n}" for n in range(30)}
    queries = {f"q{n}": f"question {n}" for n in range(40)}
    qrels = {query: {f"d{random.integers(30)}": 1} for query in queries}
    run = as_run(
        {q: dict(zip(docs, random.normal(size=30).tolist(), strict=True)) for q in queries}
    )
    collection = Collection.from_dicts("random", docs, queries, qrels)
    suspects = find_suspects(collection, {row.query_id: scored(row) for row in run}, 10)
    queue = list(JudgingQueue(collection, run))
    assert len(queue) == suspects.queries_above
    assert [(it.query_id, it.doc_id, it.margin, it.positive) for it in suspects.missed] == [
        (it.query_id, it.doc_id, it.strength, it.positive) for it in queue[:10]
    ]
    bottom = list(JudgingQueue(collection, run, QueueOptions("bottom")))
    shares = [(example.rank - 1) / example.of for example in suspects.doubtful]
    assert shares == [pair.strength for pair in bottom[: len(shares)]]


def test_relevant_documents_at_the_bottom(collection: Collection) -> None:
    queue = JudgingQueue(collection, as_run(SCORES), QueueOptions("bottom"))
    [pair] = queue
    assert (pair.pair, pair.grade, pair.rank) == (("b", "d9"), 2, 10)
    assert pair.positive is None  # it is the only relevant one itself


def test_unjudged_documents_at_the_top(collection: Collection) -> None:
    queue = JudgingQueue(collection, as_run(SCORES), QueueOptions("unjudged", k=3, per_query=9))
    assert pairs(queue) == [
        *(("b", "d0"), ("c", "d0"), ("a", "d1"), ("c", "d1")),
        *(("a", "d2"), ("b", "d2"), ("c", "d2")),
    ]
    assert [pair.positive for pair in queue.pairs[:3]] == ["d9", None, "d3"]


def test_disagreements_of_two_runs(collection: Collection) -> None:
    """In the second run d1 is last and the others move up; d0 is judged, and d9 was not scored."""
    order = ["d0", "d2", "d3", "d4", "d5", "d6", "d7", "d8", "d1"]
    other = as_run({"a": {doc: -float(n) for n, doc in enumerate(order)} | {"d9": None}})
    queue = JudgingQueue(collection, as_run(SCORES), QueueOptions("disagreements"), other)
    [pair] = queue
    assert (pair.pair, pair.rank, pair.other_rank, pair.of) == (("a", "d1"), 2, 9, 9)
    assert pair.strength == abs(1 / 2 - 1 / 9)
    assert (pair.positive, pair.positive_rank) == ("d3", 4)
    with pytest.raises(OptionError, match="need a second run"):
        JudgingQueue(collection, as_run(SCORES), QueueOptions("disagreements"))
    with pytest.raises(OptionError, match="source='other'"):
        QueueOptions("other")  # type: ignore[arg-type]


def test_blocks_are_read_as_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judging_queue, "BLOCK", 10)
    queries = {f"q{n:03}": f"question {n}" for n in range(95)}
    collection = Collection.from_dicts("many", DOCS, queries, {q: {"d9": 1} for q in queries})
    lists = [
        RankedList(query, list(DOCS), np.arange(10, 0, -1, dtype=np.float32) * (number + 1))
        for number, query in enumerate(queries)
    ]
    identity = RunIdentity("teacher", {}, collection.describe())
    run = write_run(tmp_path / "run", identity, lists, part_queries=10)
    queue = JudgingQueue(collection, run)
    next(iter(queue))
    assert queue.queries_read in (9, 10) and not queue.complete
    assert len(queue.pairs) == queue.queries_read
    strengths = [pair.strength for pair in queue.pairs]
    assert strengths == sorted(strengths, reverse=True)
    again = JudgingQueue(collection, run)
    assert len(pairs(again)) == 95 and again.pairs[:9] == queue.pairs[:9]
    assert again.places[again.pairs[94].pair] == 94


def test_a_run_of_more_queries_than_the_collection(collection: Collection) -> None:
    more: Run = as_run(SCORES | {"z": {"d0": 1.0}})
    assert len(JudgingQueue(collection, more, QueueOptions("unjudged")).pairs) == 0
    assert JudgingQueue(collection, more).queries == 3
