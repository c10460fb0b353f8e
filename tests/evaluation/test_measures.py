"""Figures against pytrec_eval to 1e-12, against values worked out by hand, and against a published
run.
"""

from __future__ import annotations

import math
import random
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from irdistill import IrdistillError, load_collection
from irdistill.evaluation import measures as measures_module
from irdistill.evaluation import parse_measures, per_query

NAMES = {
    "nDCG@10": "ndcg_cut_10",
    "nDCG": "ndcg",
    "R@100": "recall_100",
    "AP": "map",
    "AP@20": "map_cut_20",
    "RR": "recip_rank",
    "P@5": "P_5",
    "Rprec": "Rprec",
    "Success@5": "success_5",
    "Bpref": "bpref",
}
AT_LEVEL_2 = {
    "P(rel=2)@5": "P_5",
    "R(rel=2)@20": "recall_20",
    "AP(rel=2)": "map",
    "RR(rel=2)": "recip_rank",
    "Rprec(rel=2)": "Rprec",
}


def random_case(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Graded qrels, negative ones too, scores with many ties and negative numbers, missing queries,
    unjudged documents.
    """
    draw = random.Random(seed)
    docs = [f"d{number}" for number in range(draw.randint(1, 150))]
    queries = [f"q{number}" for number in range(draw.randint(1, 6))]
    most = min(30, len(docs))
    qrels = {
        q: {d: draw.choice([-1, 0, 0, 1, 2, 3]) for d in draw.sample(docs, draw.randint(1, most))}
        for q in queries
    }
    levels = [draw.uniform(-5, 5) for _ in range(draw.choice([1, 3, 1000]))]
    run = {
        q: {d: draw.choice(levels) for d in draw.sample(docs, draw.randint(1, len(docs)))}
        for q in queries
        if draw.random() < 0.8
    }
    return qrels, run


@pytest.mark.parametrize("seed", range(500))
def test_equal_to_trec_eval(seed: int) -> None:
    qrels, run = random_case(seed)
    # trec_eval holds scores in float32, so that is what it is given here
    given = {
        q: {d: float(np.float32(s)) for d, s in documents.items()} for q, documents in run.items()
    }
    found = per_query(qrels, run, [*NAMES, *AT_LEVEL_2])
    assert found.query_ids == list(qrels)
    assert found.missing == len(qrels) - len(run)
    for level, names in ((1, NAMES), (2, AT_LEVEL_2)):
        # pytrec_eval never comes back from a query that has negative grades only
        fit = {
            query: documents for query, documents in qrels.items() if max(documents.values()) >= 0
        }
        expected = pytrec_eval.RelevanceEvaluator(
            fit, set(names.values()), relevance_level=level
        ).evaluate(given)
        for place, query in enumerate(found.query_ids):
            for ours, theirs in names.items():
                value = expected.get(query, {}).get(theirs, 0.0)
                assert found.values[ours][place] == pytest.approx(value, abs=1e-12), (query, ours)


def orders(scores: dict[str, float]) -> list[list[str]]:
    """All rankings that the scores allow."""
    groups = [
        [doc for doc in scores if scores[doc] == level]
        for level in sorted(set(scores.values()), reverse=True)
    ]
    return [
        [doc for group in chosen for doc in group]
        for chosen in product(*(permutations(group) for group in groups))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_tie_bounds_are_those_of_all_orders(seed: int) -> None:
    draw = random.Random(seed)
    docs = [f"d{number}" for number in range(6)]
    qrels = {"q": {doc: draw.choice([-1, 0, 1, 2]) for doc in draw.sample([*docs, "not found"], 5)}}
    scores = {doc: float(draw.choice([1, 2, 3])) for doc in docs}
    names = [
        "nDCG@3",
        "RR@3",
        "R@3",
        "P@2",
        "AP",
        "AP@3",
        "Rprec",
        "Success@1",
        "R(rel=2)@2",
        "Judged@3",
    ]
    rankings = {
        str(number): {doc: 6.0 - rank for rank, doc in enumerate(order)}
        for number, order in enumerate(orders(scores))
    }
    every = per_query(dict.fromkeys(rankings, qrels["q"]), rankings, names)
    found = per_query(qrels, {"q": scores}, names)
    for name in names:
        values = every.values[name]
        assert (found.low[name][0], found.high[name][0]) == pytest.approx(
            (min(values), max(values)), abs=1e-12
        ), name
        assert found.low[name][0] <= found.values[name][0] <= found.high[name][0]


def test_judged_and_holes_by_hand() -> None:
    """Of a, x, b, y the first and third are judged."""
    run = {"q": {"a": 4.0, "x": 3.0, "b": 2.0, "y": 1.0}}
    found = per_query({"q": {"a": 0, "b": 1, "c": 1}, "absent": {"a": 1}}, run, "nDCG@10 RR@1 R@3")
    assert found.judged.tolist() == [0.5, 0.0]
    assert found.holes["nDCG@10"].tolist() == [0.5, 0.0] and found.holes["RR@1"].tolist() == [
        0.0,
        0.0,
    ]
    assert found.holes["R@3"] == pytest.approx([1 / 3, 0.0])


def test_queries_without_a_relevant_document_and_runs_without_a_judged_one() -> None:
    found = per_query(
        {"none": {"a": 0}, "empty": {}},
        {"none": {"a": 1.0}, "empty": {"b": 1.0}},
        "nDCG@10 AP R@10 RR Rprec",
    )
    assert all(values.tolist() == [0.0, 0.0] for values in found.values.values())
    assert found.missing == 0 and found.judged.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("seed", range(50))
def test_reciprocal_rank_with_a_cut_off(seed: int) -> None:
    qrels, run = random_case(seed)
    found = per_query(qrels, run, ["RR@10"])
    for place, query in enumerate(found.query_ids):
        order = sorted(
            run.get(query, {}).items(),
            key=lambda item: (np.float32(item[1]), item[0]),
            reverse=True,
        )[:10]
        ranks = [rank for rank, (doc, _) in enumerate(order, 1) if qrels[query].get(doc, 0) > 0]
        assert found.values["RR@10"][place] == pytest.approx(
            1 / ranks[0] if ranks else 0.0, abs=1e-12
        )


def test_by_hand() -> None:
    """Ties go to the greater id: c (grade 0), then b (1), then a (2)."""
    found = per_query(
        {"q": {"a": 2, "b": 1, "c": 0}, "absent": {"a": 1}},
        {"q": {"a": 1.0, "b": 1.0, "c": 1.0}},
        "nDCG@10 RR@10",
    )
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert found.values["nDCG@10"] == pytest.approx(
        [(1 / math.log2(3) + 2 / math.log2(4)) / ideal, 0.0], abs=1e-12
    )
    assert found.values["RR@10"].tolist() == [0.5, 0.0]
    assert found.missing == 1


def test_scores_that_differ_beyond_float32_are_ties() -> None:
    found = per_query({"q": {"a": 1}}, {"q": {"a": 1.0 + 1e-12, "b": 1.0}}, "RR@10")
    assert found.values["RR@10"].tolist() == [0.5]


def test_documents_without_a_score_are_left_out_and_counted() -> None:
    found = per_query({"q": {"a": 1, "b": 1}}, {"q": {"a": 0.5, "b": float("nan")}}, "R@100")
    assert found.values["R@100"].tolist() == [0.5]
    assert found.unscored == 1


@pytest.mark.parametrize("measures", ["nDGC@10", "", "AP AP"])
def test_bad_measures_stop(measures: str) -> None:
    with pytest.raises(IrdistillError):
        parse_measures(measures)


def test_a_run_of_other_queries_stops() -> None:
    with pytest.raises(IrdistillError, match="different collections"):
        per_query({"q": {"a": 1}}, {"x": {"a": 1.0}}, "AP")


def test_the_supplied_trec_deep_learning_run(shared_data: Path) -> None:
    folder = shared_data / "trec-dl19-top100"
    run = next((path for path in sorted(folder.glob("*")) if "run" in path.name), None)
    if run is None:
        pytest.skip(f"needs the TREC DL 2019 run in {folder}")
    from irdistill.evaluation import evaluate

    found = evaluate(load_collection(str(folder)), {"bm25": run}, "nDCG@10")
    assert round(found.rows[0].value, 4) == 0.5058


def test_libraries_are_handed_some_lists_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    qrels = {
        f"q{query}": {f"d{doc}": int(draw.integers(0, 3)) for doc in range(10)}
        for query in range(30)
    }
    run = {
        f"q{query}": {f"d{doc}": float(draw.normal()) for doc in range(20)} for query in range(28)
    }
    together = per_query(qrels, run, "infAP Bpref IPrec@0.1")
    monkeypatch.setattr(measures_module, "_BATCH", 50)
    apart = per_query(qrels, run, "infAP Bpref IPrec@0.1")
    for name, values in together.values.items():
        assert values[:28].any()
        np.testing.assert_array_equal(values, apart.values[name])
