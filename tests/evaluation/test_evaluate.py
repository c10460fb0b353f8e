"""Tables and audits on a small collection, with figures worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Collection, Query
from irdistill.evaluation import AuditOptions, Entry, audit, combine, compare_losses, evaluate
from irdistill.evaluation.ranking_policies import PolicyRun
from irdistill.evaluation.weighting import labelled_weights
from irdistill.runs import MemoryRun, RankedList, RunIdentity

DOCS = {f"d{number}": f"text number {number}" for number in range(6)}


def collection(name: str = "small") -> Collection:
    queries = {f"q{number}": f"question {number}" for number in range(4)}
    return Collection.from_dicts(name, DOCS, queries, {q: {"d0": 1} for q in queries})


def run(held: Collection, rank_of_d0: list[int | None]) -> MemoryRun:
    """Each query's list has d0 at the given rank of three, or no documents at all."""
    lists = []
    for query, rank in zip(held.queries, rank_of_d0, strict=True):
        docs = ["d1", "d2"]
        if rank is None:
            docs = []
        else:
            docs.insert(rank - 1, "d0")
        lists.append(RankedList(query, docs, np.arange(len(docs), 0, -1, dtype=np.float32)))
    return MemoryRun(RunIdentity("imported", {}, held.describe()), lists)


def test_rows() -> None:
    held = collection()
    found = evaluate(
        held,
        {"good": run(held, [1, 1, 2, 1]), "poor": run(held, [2, 3, 2, None])},
        "RR@10 nDCG@10",
        "poor",
    )
    good = found.row("good", "small", "RR@10")
    assert good.value == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert found.row("poor", "small", "RR@10").value == pytest.approx((0.5 + 1 / 3 + 0.5) / 4)
    assert found.row("poor", "small", "nDCG@10").value == pytest.approx(
        (2 / math.log2(3) + 0.5) / 4
    )
    assert (good.n, good.against, good.wins, good.ties, good.losses) == (4, "poor", 3, 1, 0)
    assert good.difference == pytest.approx((0.5 + 2 / 3 + 0 + 1) / 4)
    assert found.row("poor", "small", "RR@10").missing == 1
    assert found.row("poor", "small", "RR@10").p is None
    assert good.p is not None and good.p_holm == pytest.approx(
        min(1.0, 2 * min(row.p for row in found.rows if row.p)), abs=1
    )
    assert len(good.run) == 16


def test_ties_holes_and_power_are_told() -> None:
    """q0 has d0 and an unjudged document of the same score at the top; d0 comes second, as its id
    is the smaller one.
    """
    held = collection()
    lists = [
        RankedList("q0", ["d0", "d1"], np.array([1, 1], np.float32)),
        RankedList("q1", ["d0"], np.array([1], np.float32)),
        RankedList("q2", ["d1", "d0"], np.array([2, 1], np.float32)),
    ]
    runs = {
        "tied": MemoryRun(RunIdentity("imported", {}, held.describe()), lists),
        "other": run(held, [1, 2, 1, 1]),
    }
    row = evaluate(held, runs, "RR@10", "other").row("tied", "small", "RR@10")
    assert (row.value, row.tie_low, row.tie_high, row.tied, row.missing) == (
        (0.5 + 1 + 0.5) / 4,
        0.5,
        (1 + 1 + 0.5) / 4,
        1,
        1,
    )
    assert row.judged == pytest.approx((0.5 + 1 + 0.5 + 0) / 4) and row.holes == pytest.approx(
        (0.5 + 0 + 0.5 + 0) / 4
    )
    difference = np.array([-0.5, 0.5, -0.5, -1])
    assert row.detectable == pytest.approx(
        (3.18245 + 0.97847) * difference.std(ddof=1) / 2, rel=1e-4
    )


def test_a_constant_difference_of_two_queries_gives_no_contradiction() -> None:
    """All columns of the row say the same: nothing can be concluded."""
    held = Collection.from_dicts(
        "two", DOCS, {"a": "one", "b": "two"}, {"a": {"d0": 1}, "b": {"d0": 1}}
    )
    found = evaluate(held, {"good": run(held, [1, 1]), "poor": run(held, [2, 2])}, "RR@10", "poor")
    row = found.row("good", "two", "RR@10")
    assert (row.p, row.p_random, row.p_holm, row.effect, row.detectable, row.difference) == (
        0.5,
        0.5,
        0.5,
        None,
        None,
        0.5,
    )
    text = found.to_markdown()
    assert (
        "+0.5000 [+0.5000, +0.5000] | 0.5000 |     0.5000 |   0.5000 |   - |          - |       "
        " 2/0/0 |" in text
    )


def argument_collection(numbers: bool = False, same: bool = True) -> Collection:
    """Queries that are documents, as in ArguAna: each run finds the query itself first, then the
    answer.
    """
    names = [str(number) if numbers else f"argument-{number}" for number in range(4)]
    docs = {name: f"a claim about matter {name}" for name in names} | {"answer": "the reply"}
    queries = {name: docs[name] if same else f"something about {name}" for name in names}
    return Collection.from_dicts(
        "arguments", docs, queries, {name: {"answer": 1} for name in names}
    )


def self_finding(held: Collection) -> MemoryRun:
    scores = np.array([2, 1], np.float32)
    return MemoryRun(
        RunIdentity("imported", {}, held.describe()),
        [RankedList(q, [q, "answer"], scores) for q in held.queries],
    )


@pytest.mark.parametrize("numbers", [False, True])
def test_a_document_with_the_querys_own_id(numbers: bool, caplog: pytest.LogCaptureFixture) -> None:
    held = argument_collection(numbers)
    kept = evaluate(held, {"s": self_finding(held)}, "RR@10").rows[0]
    assert (kept.value, kept.self_matches) == (0.5, 4)
    assert (
        "for 4 of 4 queries the run has the document with the query's own id" in caplog.text
        and "drop" in caplog.text
    )
    caplog.clear()
    dropped = evaluate(held, {"s": self_finding(held)}, "RR@10", self_match="drop").rows[0]
    assert (dropped.value, dropped.self_matches) == (1.0, 0) and "the run has" not in caplog.text
    alone = evaluate(held.qrels, {"s": self_finding(held)}, "RR@10", self_match="drop").rows[0]
    assert alone.value == 1.0
    caplog.clear()
    assert evaluate(held.qrels, {"s": self_finding(held)}, "RR@10").rows[0].value == 0.5
    assert "for 4 of 4 queries" in caplog.text


def test_numbers_that_are_the_same_by_chance_give_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Query 2 and document 2 have nothing in common in Cranfield."""
    held = argument_collection(numbers=True, same=False)
    evaluate(held, {"s": self_finding(held)}, "RR@10")
    assert "own id" not in caplog.text


def test_comparisons_and_audits_have_the_same_policy(caplog: pytest.LogCaptureFixture) -> None:
    held = argument_collection()
    entries = [Entry(loss, "dense", "arguments", "1", self_finding(held)) for loss in ("a", "b")]
    assert compare_losses(entries, {"arguments": held}, "RR@10").figures[0].mean == 0.5
    assert caplog.text.count("own id") == 2
    assert (
        compare_losses(entries, {"arguments": held}, "RR@10", self_match="drop").figures[0].mean
        == 1.0
    )
    caplog.clear()
    kept = audit(held, {"t": self_finding(held)}).teachers[0].quality
    dropped = (
        audit(held, {"t": self_finding(held)}, options=AuditOptions(self_match="drop"))
        .teachers[0]
        .quality
    )
    assert (
        kept is not None
        and dropped is not None
        and (kept.values["RR@10"], dropped.values["RR@10"]) == (0.5, 1.0)
    )
    assert caplog.text.count("own id") == 1
    for wrong in (
        lambda: evaluate(held, {"s": self_finding(held)}, self_match="maybe"),  # type: ignore[arg-type]
        lambda: AuditOptions(self_match="maybe"),
    ):  # type: ignore[arg-type]
        with pytest.raises(IrdistillError, match="self_match is 'maybe'; one of keep, drop"):
            wrong()


def test_losses_are_not_compared_by_a_count() -> None:
    held = argument_collection()
    entries = [Entry(loss, "dense", "arguments", "1", self_finding(held)) for loss in ("a", "b")]
    with pytest.raises(IrdistillError, match="NumRet is a count"):
        compare_losses(entries, {"arguments": held}, "NumRet")


def test_judgments_alone_are_enough() -> None:
    held = collection()
    found = evaluate(held.qrels, {"a": run(held, [1, 2, 1, 1])}, "RR@10", name="qrels.txt")
    assert found.row("a", "qrels.txt", "RR@10").value == pytest.approx(3.5 / 4)


def test_the_correction_covers_all_datasets() -> None:
    one, two = collection("one"), collection("two")
    tables = [
        evaluate(held, {"a": run(held, [1, 1, 1, 2]), "b": run(held, [2, 2, 3, 3])}, "RR@10", "b")
        for held in (one, two)
    ]
    both = combine(*tables)
    assert tables[0].rows[0].p_holm == tables[0].rows[0].p
    assert both.rows[0].p_holm == pytest.approx(min(1.0, 2 * both.rows[0].p))
    with pytest.raises(IrdistillError, match="duplicate dataset"):
        combine(tables[0], tables[0])


def test_a_run_of_another_collection_stops() -> None:
    held = collection()
    other = Collection.from_dicts("other", DOCS, {"q0": "something else"}, {"q0": {"d0": 1}})
    with pytest.raises(IrdistillError, match="collection"):
        evaluate(held, {"a": run(other, [1])}, "AP")


def test_a_baseline_that_is_not_there_stops() -> None:
    held = collection()
    with pytest.raises(IrdistillError, match="cannot be compared"):
        evaluate(held, {"a": run(held, [1, 1, 1, 1])}, "AP", {"a": "b"})


def test_audit() -> None:
    held = collection()
    seen = audit(
        held,
        {"good": run(held, [1, 1, 1, 1]), "poor": run(held, [3, 2, 1, None])},
        run(held, [3, 3, 3, 2]),
    )
    good, poor = seen.teachers
    figures, counts = good.summary(), poor.summary()
    assert figures["value"] == 1.0
    assert figures["first_stage"] == pytest.approx((3 * 0.5 + 1 / math.log2(3)) / 4)
    assert figures["gain"] == pytest.approx(1 - figures["first_stage"])
    assert good.ruling.decision == "learn"
    assert (counts["queries"], counts["rows"], counts["unscored"]) == (4, 9, 0)
    agreement = seen.agreements[0]
    # d0 d1 d2 against d1 d2 d0 (tau -1/3), d1 d0 d2 (1/3) and itself (1); the fourth list is empty
    assert agreement.tau == pytest.approx((-1 / 3 + 1 / 3 + 1) / 3)
    assert agreement.top == pytest.approx(1 / 3)
    assert agreement.queries == 3
    assert len(seen.lines) == 3


def test_an_audit_warns() -> None:
    held = collection()
    lists = [
        RankedList(q, ["d0", "d1", "d2"], np.array([1.0, 1.0, np.nan], np.float32))
        for q in held.queries
    ]
    flat = MemoryRun(RunIdentity("teacher", {}, held.describe()), lists)
    found = audit(held, {"flat": flat}).teachers[0]
    spread = found.distribution
    assert spread.unscored == 4 and spread.tied == 1.0 and spread.spread == 0.0
    assert (
        "4 of 12 documents have no score" in found.ruling.words
        and "all scores of a list are equal" in found.ruling.words
    )


def test_documents_that_a_query_excludes_count_for_nothing() -> None:
    docs = {f"d{i}": f"text {i}" for i in range(4)}
    qrels = {"q": {"d0": 1, "d2": 1}}
    plain = Collection.from_dicts("set", docs, {"q": "text"}, qrels)
    excluding = Collection.from_dicts(
        "set", docs, {"q": Query("q", "text", excluded=("d0", "d1"))}, qrels
    )

    def given(held: Collection) -> MemoryRun:
        found = RankedList("q", ["d0", "d1", "d3", "d2"], np.array([4, 3, 2, 1], np.float32))
        return MemoryRun(RunIdentity("imported", {}, held.describe()), [found])

    assert evaluate(plain, {"run": given(plain)}, "RR@10").rows[0].value == 1.0
    counted = PolicyRun(given(excluding), excluding)
    for run in (given(excluding), counted):
        assert evaluate(excluding, {"run": run}, "RR@10").rows[0].value == 0.5  # d3, then d2
    assert counted.excluded == 2
    # nor where a teacher is looked at, losses are compared, or weights are fitted
    value = 1 / math.log2(3)  # d3, then d2, of two relevant documents one is excluded
    best = 1 + 1 / math.log2(3)
    quality = audit(excluding, {"run": given(excluding)}).teachers[0].quality
    assert quality is not None and quality.values["nDCG@10"] == pytest.approx(value / best)
    entries = [Entry(loss, "student", "set", "1", given(excluding)) for loss in ("kl", "mse")]
    figures = compare_losses(entries, {"set": excluding}).figures
    assert [figure.mean for figure in figures] == [pytest.approx(value / best)] * 2
    weights = labelled_weights([], excluding, [given(excluding)])
    assert weights.origin["quality"] == [pytest.approx(value / best)]
