"""Figures against pytrec_eval to 1e-12, against values worked out by hand, and against a published run."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import pytrec_eval

from irdistill import IrdistillError, load_collection
from irdistill.evaluation import parse_measures, per_query

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = {"nDCG@10": "ndcg_cut_10", "R@100": "recall_100", "AP": "map", "RR": "recip_rank", "P@5": "P_5",
         "Rprec": "Rprec"}


def random_case(seed: int) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Graded qrels, scores with many ties and negative numbers, missing queries, unjudged documents."""
    draw = random.Random(seed)
    docs = [f"d{number}" for number in range(draw.randint(1, 150))]
    queries = [f"q{number}" for number in range(draw.randint(1, 6))]
    most = min(30, len(docs))
    qrels = {q: {d: draw.choice([0, 0, 1, 2, 3]) for d in draw.sample(docs, draw.randint(1, most))} for q in queries}
    levels = [draw.uniform(-5, 5) for _ in range(draw.choice([1, 3, 1000]))]
    run = {q: {d: draw.choice(levels) for d in draw.sample(docs, draw.randint(1, len(docs)))}
           for q in queries if draw.random() < 0.8}
    return qrels, run


@pytest.mark.parametrize("seed", range(250))
def test_equal_to_trec_eval(seed: int) -> None:
    qrels, run = random_case(seed)
    # trec_eval holds scores in float32, so that is what it is given here
    given = {q: {d: float(np.float32(s)) for d, s in documents.items()} for q, documents in run.items()}
    expected = pytrec_eval.RelevanceEvaluator(qrels, set(NAMES.values())).evaluate(given)
    found = per_query(qrels, run, list(NAMES))
    assert found.query_ids == list(qrels)
    assert found.missing == len(qrels) - len(run)
    for place, query in enumerate(found.query_ids):
        for ours, theirs in NAMES.items():
            value = expected.get(query, {}).get(theirs, 0.0)
            assert found.values[ours][place] == pytest.approx(value, abs=1e-12), (query, ours)


@pytest.mark.parametrize("seed", range(50))
def test_reciprocal_rank_with_a_cut_off(seed: int) -> None:
    qrels, run = random_case(seed)
    found = per_query(qrels, run, ["RR@10"])
    for place, query in enumerate(found.query_ids):
        order = sorted(run.get(query, {}).items(), key=lambda item: (np.float32(item[1]), item[0]), reverse=True)[:10]
        ranks = [rank for rank, (doc, _) in enumerate(order, 1) if qrels[query].get(doc, 0) > 0]
        assert found.values["RR@10"][place] == pytest.approx(1 / ranks[0] if ranks else 0.0, abs=1e-12)


def test_by_hand() -> None:
    """Ties go to the greater id: c (grade 0), then b (1), then a (2)."""
    found = per_query({"q": {"a": 2, "b": 1, "c": 0}, "absent": {"a": 1}}, {"q": {"a": 1.0, "b": 1.0, "c": 1.0}}, "nDCG@10 RR@10")
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert found.values["nDCG@10"] == pytest.approx([(1 / math.log2(3) + 2 / math.log2(4)) / ideal, 0.0], abs=1e-12)
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


def test_the_supplied_trec_deep_learning_run() -> None:
    folder = next((path for path in SHARED.glob("*dl*19*") if path.is_dir()), None) if SHARED.is_dir() else None
    if folder is None:
        pytest.skip("the supplied TREC DL 2019 run is not here")
    run = next((path for path in sorted(folder.iterdir()) if "run" in path.name), None)
    if run is None:
        pytest.skip("the folder holds no run")
    from irdistill.evaluation import evaluate

    found = evaluate(load_collection(str(folder)), {"bm25": run}, "nDCG@10")
    assert round(found.rows[0].value, 4) == 0.5058
