"""Tables and audits of a small collection, with figures computed by hand."""

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


def make_collection(name: str = "small") -> Collection:
    queries = {f"q{number}": f"question {number}" for number in range(4)}
    return Collection.from_dicts(name, DOCS, queries, {q: {"d0": 1} for q in queries})


def run(collection: Collection, rank_of_d0: list[int | None]) -> MemoryRun:
    """Each query's list has d0 at the given rank of three, or no documents at all."""
    lists = []
    for query, rank in zip(collection.queries, rank_of_d0, strict=True):
        docs = ["d1", "d2"]
        if rank is None:
            docs = []
        else:
            docs.insert(rank - 1, "d0")
        lists.append(RankedList(query, docs, np.arange(len(docs), 0, -1, dtype=np.float32)))
    return MemoryRun(RunIdentity("imported", {}, collection.describe()), lists)


def test_rows() -> None:
    collection = make_collection()
    result = evaluate(
        collection,
        {"good": run(collection, [1, 1, 2, 1]), "poor": run(collection, [2, 3, 2, None])},
        "RR@10 nDCG@10",
        "poor",
    )
    good = result.row("good", "small", "RR@10")
    assert good.value == pytest.approx((1 + 1 + 0.5 + 1) / 4)
    assert result.row("poor", "small", "RR@10").value == pytest.approx((0.5 + 1 / 3 + 0.5) / 4)
    assert result.row("poor", "small", "nDCG@10").value == pytest.approx(
        (2 / math.log2(3) + 0.5) / 4
    )
    assert (good.n, good.against, good.wins, good.ties, good.losses) == (4, "poor", 3, 1, 0)
    assert good.difference == pytest.approx((0.5 + 2 / 3 + 0 + 1) / 4)
    assert result.row("poor", "small", "RR@10").missing == 1
    assert result.row("poor", "small", "RR@10").p is None
    assert good.p is not None and good.p_holm == pytest.approx(
        min(1.0, 2 * min(row.p for row in result.rows if row.p)), abs=1
    )
    assert len(good.run) == 16


def test_ties_holes_and_detectable_difference() -> None:
    """q0 has d0 and an unjudged document with the same top score; d0 is second by its id."""
    collection = make_collection()
    lists = [
        RankedList("q0", ["d0", "d1"], np.array([1, 1], np.float32)),
        RankedList("q1", ["d0"], np.array([1], np.float32)),
        RankedList("q2", ["d1", "d0"], np.array([2, 1], np.float32)),
    ]
    runs = {
        "tied": MemoryRun(RunIdentity("imported", {}, collection.describe()), lists),
        "other": run(collection, [1, 2, 1, 1]),
    }
    row = evaluate(collection, runs, "RR@10", "other").row("tied", "small", "RR@10")
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


def test_constant_difference_of_two_queries_is_consistent() -> None:
    """All columns of the row agree that there is no difference."""
    collection = Collection.from_dicts(
        "two", DOCS, {"a": "one", "b": "two"}, {"a": {"d0": 1}, "b": {"d0": 1}}
    )
    result = evaluate(
        collection,
        {"good": run(collection, [1, 1]), "poor": run(collection, [2, 2])},
        "RR@10",
        "poor",
    )
    row = result.row("good", "two", "RR@10")
    assert (row.p, row.p_random, row.p_holm, row.effect, row.detectable, row.difference) == (
        0.5,
        0.5,
        0.5,
        None,
        None,
        0.5,
    )
    text = result.to_markdown()
    assert (
        "+0.5000 [+0.5000, +0.5000] | 0.5000 |     0.5000 |   0.5000 |   - |          - |       "
        " 2/0/0 |" in text
    )


def argument_collection(numbers: bool = False, same: bool = True) -> Collection:
    """Queries that are documents, as in ArguAna; runs rank the query first, then the answer."""
    names = [str(number) if numbers else f"argument-{number}" for number in range(4)]
    docs = {name: f"a claim about matter {name}" for name in names} | {"answer": "the reply"}
    queries = {name: docs[name] if same else f"something about {name}" for name in names}
    return Collection.from_dicts(
        "arguments", docs, queries, {name: {"answer": 1} for name in names}
    )


def self_finding(collection: Collection) -> MemoryRun:
    scores = np.array([2, 1], np.float32)
    return MemoryRun(
        RunIdentity("imported", {}, collection.describe()),
        [RankedList(q, [q, "answer"], scores) for q in collection.queries],
    )


@pytest.mark.parametrize("numbers", [False, True])
def test_self_match(numbers: bool, caplog: pytest.LogCaptureFixture) -> None:
    collection = argument_collection(numbers)
    kept = evaluate(collection, {"s": self_finding(collection)}, "RR@10").rows[0]
    assert (kept.value, kept.self_matches) == (0.5, 4)
    assert (
        "for 4 of 4 queries the run has the document with the query's own id" in caplog.text
        and "drop" in caplog.text
    )
    caplog.clear()
    dropped = evaluate(
        collection, {"s": self_finding(collection)}, "RR@10", self_match="drop"
    ).rows[0]
    assert (dropped.value, dropped.self_matches) == (1.0, 0) and "the run has" not in caplog.text
    alone = evaluate(
        collection.qrels, {"s": self_finding(collection)}, "RR@10", self_match="drop"
    ).rows[0]
    assert alone.value == 1.0
    caplog.clear()
    assert evaluate(collection.qrels, {"s": self_finding(collection)}, "RR@10").rows[0].value == 0.5
    assert "for 4 of 4 queries" in caplog.text


def test_numeric_ids_equal_by_chance_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Query 2 and document 2 have nothing in common in Cranfield."""
    collection = argument_collection(numbers=True, same=False)
    evaluate(collection, {"s": self_finding(collection)}, "RR@10")
    assert "own id" not in caplog.text


def test_compare_and_audit_apply_self_match(caplog: pytest.LogCaptureFixture) -> None:
    collection = argument_collection()
    entries = [
        Entry(loss, "dense", "arguments", "1", self_finding(collection)) for loss in ("a", "b")
    ]
    assert compare_losses(entries, {"arguments": collection}, "RR@10").figures[0].mean == 0.5
    assert caplog.text.count("own id") == 2
    assert (
        compare_losses(entries, {"arguments": collection}, "RR@10", self_match="drop")
        .figures[0]
        .mean
        == 1.0
    )
    caplog.clear()
    kept = audit(collection, {"t": self_finding(collection)}).teachers[0].quality
    dropped = (
        audit(collection, {"t": self_finding(collection)}, options=AuditOptions(self_match="drop"))
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
        lambda: evaluate(collection, {"s": self_finding(collection)}, self_match="maybe"),  # type: ignore[arg-type]
        lambda: AuditOptions(self_match="maybe"),
    ):  # type: ignore[arg-type]
        with pytest.raises(IrdistillError, match="self_match is 'maybe'; one of keep, drop"):
            wrong()


def test_compare_rejects_counting_measures() -> None:
    collection = argument_collection()
    entries = [
        Entry(loss, "dense", "arguments", "1", self_finding(collection)) for loss in ("a", "b")
    ]
    with pytest.raises(IrdistillError, match="NumRet is a count"):
        compare_losses(entries, {"arguments": collection}, "NumRet")


def test_evaluate_with_judgments_only() -> None:
    collection = make_collection()
    result = evaluate(
        collection.qrels, {"a": run(collection, [1, 2, 1, 1])}, "RR@10", name="qrels.txt"
    )
    assert result.row("a", "qrels.txt", "RR@10").value == pytest.approx(3.5 / 4)


def test_holm_covers_all_datasets() -> None:
    one, two = make_collection("one"), make_collection("two")
    tables = [
        evaluate(
            collection,
            {"a": run(collection, [1, 1, 1, 2]), "b": run(collection, [2, 2, 3, 3])},
            "RR@10",
            "b",
        )
        for collection in (one, two)
    ]
    both = combine(*tables)
    assert tables[0].rows[0].p_holm == tables[0].rows[0].p
    assert both.rows[0].p_holm == pytest.approx(min(1.0, 2 * both.rows[0].p))
    with pytest.raises(IrdistillError, match="duplicate dataset"):
        combine(tables[0], tables[0])


def test_run_of_another_collection_is_an_error() -> None:
    collection = make_collection()
    other = Collection.from_dicts("other", DOCS, {"q0": "something else"}, {"q0": {"d0": 1}})
    with pytest.raises(IrdistillError, match="collection"):
        evaluate(collection, {"a": run(other, [1])}, "AP")


def test_a_system_beside_several_baselines() -> None:
    """Each baseline has rows of its own; all comparisons are one family of Holm's correction."""
    collection = make_collection()
    runs = {
        "good": run(collection, [1, 1, 2, 1]),
        "middle": run(collection, [1, 2, 2, 3]),
        "poor": run(collection, [2, 3, 2, None]),
    }
    baseline = {"good": ["poor", "middle"], "middle": "poor"}
    result = evaluate(collection, runs, "RR@10 NumRet", baseline)
    rows = [(row.system, row.against) for row in result.rows if row.measure == "RR@10"]
    assert rows == [("good", "poor"), ("good", "middle"), ("middle", "poor"), ("poor", None)]
    assert sum(row.measure == "NumRet" for row in result.rows) == 3, "counts are not compared"
    differences = {row.against: row.difference for row in result.rows if row.system == "good"}
    assert differences["middle"] == pytest.approx((0 + 0.5 + 0 + 2 / 3) / 4)
    tested = [row for row in result.rows if row.p is not None]
    assert len(tested) == 3
    least = min(tested, key=lambda row: row.p or 1)
    assert least.p is not None and least.p_holm == pytest.approx(min(1.0, 3 * least.p))
    assert result.row("good", "small", "RR@10").against == "poor"
    assert result.to_markdown().count("| good ") == 3, "one figure and two differences"
    for wrong, message in (
        ({"good": ["poor", "poor"]}, "expected different ones"),
        ({"good": ["good"]}, "cannot be compared"),
        ({"good": []}, "expected different ones"),
    ):
        with pytest.raises(IrdistillError, match=message):
            evaluate(collection, runs, "RR@10", wrong)


def test_unknown_baseline_is_an_error() -> None:
    collection = make_collection()
    with pytest.raises(IrdistillError, match="cannot be compared"):
        evaluate(collection, {"a": run(collection, [1, 1, 1, 1])}, "AP", {"a": "b"})


def test_audit() -> None:
    collection = make_collection()
    outcome = audit(
        collection,
        {"good": run(collection, [1, 1, 1, 1]), "poor": run(collection, [3, 2, 1, None])},
        run(collection, [3, 3, 3, 2]),
    )
    good, poor = outcome.teachers
    figures, counts = good.summary(), poor.summary()
    assert figures["value"] == 1.0
    assert figures["first_stage"] == pytest.approx((3 * 0.5 + 1 / math.log2(3)) / 4)
    assert figures["gain"] == pytest.approx(1 - figures["first_stage"])
    assert good.ruling.decision == "learn"
    assert (counts["queries"], counts["rows"], counts["unscored"]) == (4, 9, 0)
    agreement = outcome.agreements[0]
    # d0 d1 d2 against d1 d2 d0 (tau -1/3), d1 d0 d2 (1/3) and itself (1); the fourth list is empty
    assert agreement.tau == pytest.approx((-1 / 3 + 1 / 3 + 1) / 3)
    assert agreement.top == pytest.approx(1 / 3)
    assert agreement.queries == 3
    assert len(outcome.lines) == 3


def test_audit_cautions() -> None:
    collection = make_collection()
    lists = [
        RankedList(q, ["d0", "d1", "d2"], np.array([1.0, 1.0, np.nan], np.float32))
        for q in collection.queries
    ]
    flat = MemoryRun(RunIdentity("teacher", {}, collection.describe()), lists)
    result = audit(collection, {"flat": flat}).teachers[0]
    spread = result.distribution
    assert spread.unscored == 4 and spread.tied == 1.0 and spread.spread == 0.0
    assert (
        "4 of 12 documents have no score" in result.ruling.words
        and "all scores of a list are equal" in result.ruling.words
    )


def test_excluded_documents_are_left_out() -> None:
    docs = {f"d{i}": f"text {i}" for i in range(4)}
    qrels = {"q": {"d0": 1, "d2": 1}}
    plain = Collection.from_dicts("set", docs, {"q": "text"}, qrels)
    excluding = Collection.from_dicts(
        "set", docs, {"q": Query("q", "text", excluded=("d0", "d1"))}, qrels
    )

    def excluded_run(collection: Collection) -> MemoryRun:
        result = RankedList("q", ["d0", "d1", "d3", "d2"], np.array([4, 3, 2, 1], np.float32))
        return MemoryRun(RunIdentity("imported", {}, collection.describe()), [result])

    assert evaluate(plain, {"run": excluded_run(plain)}, "RR@10").rows[0].value == 1.0
    counted = PolicyRun(excluded_run(excluding), excluding)
    for run in (excluded_run(excluding), counted):
        assert evaluate(excluding, {"run": run}, "RR@10").rows[0].value == 0.5  # d3, then d2
    assert counted.left_out.excluded == 2
    # nor where a teacher is looked at, losses are compared, or weights are fitted
    value = 1 / math.log2(3)  # d3, then d2, of two relevant documents one is excluded
    best = 1 + 1 / math.log2(3)
    quality = audit(excluding, {"run": excluded_run(excluding)}).teachers[0].quality
    assert quality is not None and quality.values["nDCG@10"] == pytest.approx(value / best)
    entries = [
        Entry(loss, "student", "set", "1", excluded_run(excluding)) for loss in ("kl", "mse")
    ]
    figures = compare_losses(entries, {"set": excluding}).figures
    assert [figure.mean for figure in figures] == [pytest.approx(value / best)] * 2
    weights = labelled_weights([], excluding, [excluded_run(excluding)])
    assert weights.origin["quality"] == [pytest.approx(value / best)]


def test_runs_and_judgments_of_other_libraries() -> None:
    pandas = pytest.importorskip("pandas")
    judgments = pandas.DataFrame({"qid": ["1", "2"], "docno": ["a", "b"], "label": [1, 1]})
    frame = pandas.DataFrame(
        {"qid": ["1", "1", "2"], "docno": ["a", "b", "a"], "score": [2.0, 1.0, 1.0]}
    )
    tuples = [("1", "a", 2.0), ("1", "b", 1.0), ("2", "a", 1.0)]
    dicts = {"1": {"a": 2.0, "b": 1.0}, "2": {"a": 1.0}}
    result = evaluate(judgments, {"frame": frame, "tuples": tuples, "dicts": dicts}, "RR@10")
    assert [row.value for row in result.rows] == [0.5, 0.5, 0.5]


def test_an_evaluation_shows_itself() -> None:
    result = evaluate({"q": {"a": 1}}, {"<b>": {"q": {"a": 1.0}}}, "RR@10")
    assert repr(result).startswith("### qrels (1 query)") and "| <b>    |" in repr(result)
    html = result._repr_html_()
    assert "&lt;b&gt;" in html and html.count("<table") == 1 and "<script" not in html
    assert result.to_json() == {"rows": result.to_rows()}
    frame = pytest.importorskip("pandas") and result.to_pandas()
    assert frame.loc[0, "value"] == 1.0 and list(frame["system"]) == ["<b>"]
