"""Figures against pytrec_eval to 1e-12, values by hand, and a published run."""

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
def test_equals_trec_eval(seed: int) -> None:
    qrels, run = random_case(seed)
    # trec_eval holds scores in float32, so that is what it is given here
    ranked = {
        q: {d: float(np.float32(s)) for d, s in documents.items()} for q, documents in run.items()
    }
    result = per_query(qrels, run, [*NAMES, *AT_LEVEL_2])
    assert result.query_ids == list(qrels)
    assert result.missing == len(qrels) - len(run)
    for level, names in ((1, NAMES), (2, AT_LEVEL_2)):
        # pytrec_eval never comes back from a query that has negative grades only
        fit = {
            query: documents for query, documents in qrels.items() if max(documents.values()) >= 0
        }
        expected = pytrec_eval.RelevanceEvaluator(
            fit, set(names.values()), relevance_level=level
        ).evaluate(ranked)
        for place, query in enumerate(result.query_ids):
            for ours, theirs in names.items():
                value = expected.get(query, {}).get(theirs, 0.0)
                assert result.values[ours][place] == pytest.approx(value, abs=1e-12), (query, ours)


def orders(scores: dict[str, float]) -> list[list[str]]:
    """Every ranking that agrees with the scores."""
    groups = [
        [doc for doc in scores if scores[doc] == level]
        for level in sorted(set(scores.values()), reverse=True)
    ]
    return [
        [doc for group in chosen for doc in group]
        for chosen in product(*(permutations(group) for group in groups))
    ]


@pytest.mark.parametrize("seed", range(40))
def test_tie_bounds_equal_all_orders(seed: int) -> None:
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
    result = per_query(qrels, {"q": scores}, names)
    for name in names:
        values = every.values[name]
        assert (result.low[name][0], result.high[name][0]) == pytest.approx(
            (min(values), max(values)), abs=1e-12
        ), name
        assert result.low[name][0] <= result.values[name][0] <= result.high[name][0]


def test_judged_and_holes() -> None:
    """Of a, x, b, y the first and third are judged."""
    run = {"q": {"a": 4.0, "x": 3.0, "b": 2.0, "y": 1.0}}
    result = per_query({"q": {"a": 0, "b": 1, "c": 1}, "absent": {"a": 1}}, run, "nDCG@10 RR@1 R@3")
    assert result.judged.tolist() == [0.5, 0.0]
    assert result.holes["nDCG@10"].tolist() == [0.5, 0.0] and result.holes["RR@1"].tolist() == [
        0.0,
        0.0,
    ]
    assert result.holes["R@3"] == pytest.approx([1 / 3, 0.0])


def test_no_relevant_or_no_judged_documents() -> None:
    result = per_query(
        {"none": {"a": 0}, "empty": {}},
        {"none": {"a": 1.0}, "empty": {"b": 1.0}},
        "nDCG@10 AP R@10 RR Rprec",
    )
    assert all(values.tolist() == [0.0, 0.0] for values in result.values.values())
    assert result.missing == 0 and result.judged.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("seed", range(50))
def test_reciprocal_rank_with_cutoff(seed: int) -> None:
    qrels, run = random_case(seed)
    result = per_query(qrels, run, ["RR@10"])
    for place, query in enumerate(result.query_ids):
        order = sorted(
            run.get(query, {}).items(),
            key=lambda item: (np.float32(item[1]), item[0]),
            reverse=True,
        )[:10]
        ranks = [rank for rank, (doc, _) in enumerate(order, 1) if qrels[query].get(doc, 0) > 0]
        assert result.values["RR@10"][place] == pytest.approx(
            1 / ranks[0] if ranks else 0.0, abs=1e-12
        )


def test_small_example() -> None:
    """Ties are in descending order of id: c (grade 0), b (1), a (2)."""
    result = per_query(
        {"q": {"a": 2, "b": 1, "c": 0}, "absent": {"a": 1}},
        {"q": {"a": 1.0, "b": 1.0, "c": 1.0}},
        "nDCG@10 RR@10",
    )
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert result.values["nDCG@10"] == pytest.approx(
        [(1 / math.log2(3) + 2 / math.log2(4)) / ideal, 0.0], abs=1e-12
    )
    assert result.values["RR@10"].tolist() == [0.5, 0.0]
    assert result.missing == 1


def test_scores_equal_in_float32_tie() -> None:
    result = per_query({"q": {"a": 1}}, {"q": {"a": 1.0 + 1e-12, "b": 1.0}}, "RR@10")
    assert result.values["RR@10"].tolist() == [0.5]


def test_unscored_documents_are_left_out() -> None:
    result = per_query({"q": {"a": 1, "b": 1}}, {"q": {"a": 0.5, "b": float("nan")}}, "R@100")
    assert result.values["R@100"].tolist() == [0.5]
    assert result.unscored == 1


@pytest.mark.parametrize("measures", ["nDGC@10", "", "AP AP"])
def test_bad_measures_are_errors(measures: str) -> None:
    with pytest.raises(IrdistillError):
        parse_measures(measures)


def test_run_of_other_queries_is_an_error() -> None:
    with pytest.raises(IrdistillError, match="different collections"):
        per_query({"q": {"a": 1}}, {"x": {"a": 1.0}}, "AP")


def test_trec_deep_learning_run(shared_data: Path) -> None:
    folder = shared_data / "trec-dl19-top100"
    run = next((path for path in sorted(folder.glob("*")) if "run" in path.name), None)
    if run is None:
        pytest.skip(f"needs the TREC DL 2019 run in {folder}")
    from irdistill.evaluation import evaluate

    result = evaluate(load_collection(str(folder)), {"bm25": run}, "nDCG@10")
    assert round(result.rows[0].value, 4) == 0.5058


def test_providers_get_lists_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
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
