"""Each check of an audit on lists small enough to compute by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from irdistill.collections import Collection
from irdistill.evaluation.auditing.agreement import compare_rankings
from irdistill.evaluation.auditing.bias import measure_bias, spearman
from irdistill.evaluation.auditing.distribution import describe_scores
from irdistill.evaluation.auditing.margins import measure_margins
from irdistill.evaluation.auditing.quality import measure_quality
from irdistill.evaluation.auditing.query_sample import ScoredList
from irdistill.evaluation.auditing.suspects import find_suspects, snippet
from irdistill.runs import RankedList
from irdistill.runs.ranked_lists import ranked
from tests.evaluation.audit.audit_data import listed


def best_first(query: str, scores: dict[str, float]) -> ScoredList:
    order = sorted(scores, key=lambda doc: -scores[doc])
    return ScoredList(query, order, np.array([scores[doc] for doc in order]))


def test_distribution() -> None:
    nan = float("nan")
    lists = [
        ranked(
            RankedList(
                "a", ["1", "2", "3", "4"], np.array([4, 4, 1, nan]), [None, None, "long", "garbled"]
            )
        ),
        ranked(RankedList("b", ["1", "2"], np.array([0.0, 0.0]))),
        RankedList("c", [], np.empty(0)),
    ]
    result = describe_scores(lists)
    assert (result.queries, result.rows, result.unscored) == (3, 6, 1)
    assert result.flags == {"long": 1, "garbled": 1}
    assert result.tied == pytest.approx(2 / 3)
    assert result.tied_rows == pytest.approx(4 / 5)
    assert result.tied_top == 1.0
    assert result.constant == 0.5
    assert result.quantiles is not None and result.quantiles[0] == 0 and result.quantiles[-1] == 4
    assert (result.low_end, result.high_end) == (2 / 5, 2 / 5)
    assert result.spread == pytest.approx(math.sqrt(2) / 2)
    assert result.reach == 1.5
    values = np.array([4, 4, 1, 0, 0])
    assert result.skew == pytest.approx((((values - 1.8) / values.std()) ** 3).mean())
    assert result.histogram is not None and sum(result.histogram.counts) == 5


def test_nothing_scored() -> None:
    result = describe_scores([RankedList("a", ["1"], np.array([np.nan], np.float32), ["garbled"])])
    assert (
        result.quantiles is None
        and result.histogram is None
        and result.skew is None
        and result.unscored == 1
    )


def test_margins() -> None:
    result = measure_margins([best_first("a", {"x": 5, "y": 3, "z": 0})], {"a": {"y": 1}}, 0)
    assert result.pairs == 2 and result.wrong == 0.5  # y - x = -2, y - z = 3
    assert result.labelled is not None and result.labelled[2] == 0.5
    assert result.top == pytest.approx(np.percentile([2, 5], (5, 25, 50, 75, 95)))
    assert result.any == pytest.approx(np.percentile([2, 5, 3], (5, 25, 50, 75, 95)))
    assert measure_margins([best_first("a", {"x": 5, "y": 3})], {}, 0).labelled is None


def test_agreement_on_common_documents() -> None:
    one = {
        "a": best_first("a", {"x": 3, "y": 2, "z": 1, "only": 9}),
        "b": best_first("b", {"x": 1, "y": 0}),
    }
    two = {"a": best_first("a", {"y": 3, "x": 2, "z": 1})}
    result = compare_rankings("one", "two", one, two)
    assert (result.queries, result.top, result.overlap) == (1, 0.0, 1.0)
    assert result.tau == pytest.approx(1 / 3)
    assert compare_rankings("one", "two", one, {}).tau is None
    docs = {f"d{place:02d}": float(place) for place in range(20)}
    turned = {doc: -score for doc, score in docs.items()}
    reverse = compare_rankings(
        "a", "b", {"a": best_first("a", docs)}, {"a": best_first("a", turned)}
    )
    assert (reverse.tau, reverse.overlap) == (-1.0, 0.0)


def test_quality_on_shared_documents() -> None:
    """Only the teacher has r, so r is left out; it ranks x (grade 1) before y, the first stage after."""
    teacher = {
        "a": best_first("a", {"r": 9, "x": 3, "y": 2}),
        "b": best_first("b", {"x": 2, "y": 1}),
    }
    first = {"a": best_first("a", {"y": 5, "x": 4, "q": 1}), "b": best_first("b", {"y": 2, "x": 1})}
    qrels = {"a": {"x": 1, "r": 1}, "b": {"x": 1, "y": 0}, "c": {"x": 1}}
    result = measure_quality(teacher, first, qrels, ["a", "b", "c"], 42)
    assert result is not None and (result.queries, result.answered) == (3, 2)
    assert result.values["RR@10"] == pytest.approx(2 / 3)
    against = result.against
    assert against is not None and against.queries == 2
    rr = against.measures[1]
    assert (rr.teacher, rr.first_stage, rr.difference.mean) == (1.0, 0.5, 0.5)
    ideal = 1 + 1 / math.log2(3)
    assert against.deciding.teacher == pytest.approx((1 / ideal + 1) / 2)
    assert against.deciding.first_stage == pytest.approx(
        (1 / math.log2(3) / ideal + 1 / math.log2(3)) / 2
    )
    assert against.shared == pytest.approx((2 / 4 + 1) / 2)
    assert (against.judged, against.same_order) == (pytest.approx((1 / 2 + 1) / 2), 0.0)
    assert against.judged_only is not None and against.judged_only.difference.ties == 0
    changes = np.array(against.changes)
    assert against.deciding.difference.detectable == pytest.approx(
        (t.ppf(0.975, 1) + t.ppf(0.8, 1)) * changes.std(ddof=1) / math.sqrt(2)
    )
    assert measure_quality(teacher, first, {}, ["a"], 42) is None


def test_suspects() -> None:
    texts = {f"d{place}": f"text {place}" for place in range(8)}
    collection = Collection.from_dicts(
        "s",
        texts,
        {"a": "first", "b": "second", "c": "third"},
        {"a": {"d2": 1, "d7": 2, "d3": 0}, "b": {"d0": 1}, "c": {"d0": 0}},
    )
    falling = {f"d{place}": 8.0 - place for place in range(8)}
    result = find_suspects(
        collection, {query: best_first(query, falling) for query in collection.queries}, 5
    )
    assert result.queries == 2  # nothing relevant is known for c
    assert (result.unjudged, result.above, result.queries_above) == (
        5 + 7,
        2,
        1,
    )  # d0 and d1 above d2
    assert (result.positives, result.bottom) == (
        3,
        1,
    )  # of d2, d7 and d0 only d7 is in the last quarter
    assert result.judged == pytest.approx(4 / 16)
    missed, doubtful = result.missed[0], result.doubtful[0]
    assert (missed.doc_id, missed.margin, missed.rank, missed.positive) == ("d0", 2.0, 1, "d2")
    assert (missed.text, missed.positive_text, missed.query) == ("text 0", "text 2", "first")
    assert (doubtful.doc_id, doubtful.rank, doubtful.of, doubtful.grade, doubtful.margin) == (
        "d7",
        8,
        8,
        2,
        7.0,
    )
    assert not result.fully_judged


def test_a_fully_judged_collection_has_no_missed_positives() -> None:
    collection = Collection.from_dicts(
        "s", {"x": "x", "y": "y"}, {"a": "q"}, {"a": {"x": 1, "y": 0}}
    )
    result = find_suspects(collection, {"a": best_first("a", {"y": 2, "x": 1})}, 5)
    assert result.fully_judged and result.above == 0 and result.missed == ()


def test_ties_with_the_best_positive_are_not_above() -> None:
    collection = Collection.from_dicts("s", {"x": "x", "y": "y"}, {"a": "q"}, {"a": {"x": 1}})
    assert (
        find_suspects(collection, {"a": ScoredList("a", ["y", "x"], np.array([1.0, 1.0]))}, 5).above
        == 0
    )


def test_snippets_are_cut_between_words() -> None:
    assert snippet("a  b\nc") == "a b c"
    assert snippet("alpha beta gamma", 11) == "alpha beta …"
    assert len(snippet("x" * 500, 100)) <= 102


def test_bias_by_length_and_position() -> None:
    texts = {f"d{place}": " ".join(["w"] * (place + 1)) for place in range(6)}
    qrels = {"a": {f"d{place}": int(place < 3) for place in range(6)}}
    collection = Collection.from_dicts("l", texts, {"a": "q"}, qrels)
    longer = {"a": best_first("a", {f"d{place}": float(place) for place in range(6)})}
    first = {"a": best_first("a", {f"d{place}": -float(place) for place in range(6)})}
    result = measure_bias(collection.corpus, longer, first, collection.qrels, 0)
    assert result.length.value == pytest.approx(1.0)
    labels = spearman(np.array([1, 1, 1, 0, 0, 0.0]), np.arange(6.0))
    assert labels is not None and labels == pytest.approx(-math.sqrt(27 / 35))
    assert result.length.labels == pytest.approx(labels)
    assert result.length.excess == pytest.approx(1 - labels) and result.length.notable
    assert result.position is not None and result.position.value == pytest.approx(-1.0)
    assert result.unchanged == 0.0
    same = measure_bias(collection.corpus, first, first, collection.qrels, 0)
    assert (
        same.unchanged == 1.0
        and same.position is not None
        and same.position.value == pytest.approx(1.0)
    )
    assert measure_bias(collection.corpus, longer, None, {}, 0).position is None


def test_spearman_needs_variety() -> None:
    assert spearman(np.ones(9), np.arange(9.0)) is None
    assert spearman(np.arange(4.0), np.arange(4.0)) is None


def test_only_keeps_the_order() -> None:
    result = listed(np.array([[1.0, 3.0, 2.0]]))[0]
    assert result.doc_ids == ["d001", "d002", "d000"]
    assert result.only(["d000", "d001"]).scores.tolist() == [3.0, 1.0]
