"""Measures of one run, query by query, with the figures of trec_eval.

The measures are those of ir-measures (MacAvaney et al. 2022, ECIR, "Streamlining Evaluation with ir-measures"). Its
providers break ties in different ways, so each is handed the same strict order: float32 score, then document id, both
descending, as trec_eval sorts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ir_measures
import numpy as np

from irdistill.errors import IrdistillError
from irdistill.runs import RankedList, Run
from irdistill.runs.lists import ranked

Scores = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class PerQuery:
    """Values of one run.

    Attributes:
        query_ids: the queries of the qrels, in their order.
        values: measure -> (Q,) float64.
        missing: queries of the qrels that the run lacks or gives no document; each counts as 0.
        unscored: documents left out because they have no score.
        strangers: queries of the run that the qrels lack; they do not count.
    """

    query_ids: list[str]
    values: dict[str, np.ndarray]
    missing: int
    unscored: int
    strangers: int


def parse_measures(measures: str | Sequence[str]) -> list[Any]:
    """Read measures such as ``"nDCG@10 RR@10 R(rel=2)@100"`` or a list of them.

    Raises:
        IrdistillError: one is unknown, none is given, or one comes twice.
    """
    names = measures.split() if isinstance(measures, str) else list(measures)
    parsed = []
    for name in names:
        try:
            parsed.append(ir_measures.parse_measure(str(name)))
        except (ValueError, NameError, SyntaxError, KeyError) as error:
            raise IrdistillError(
                f"the measure {name!r} is not one of ir-measures ({error}). Write it as nDCG@10, RR@10, R@100, AP, "
                "P(rel=2)@5."
            ) from error
    if not parsed or len(set(map(str, parsed))) != len(parsed):
        raise IrdistillError(f"the measures given are {list(map(str, names))}; at least one was expected, and each once.")
    return parsed


def strict_order(found: RankedList) -> dict[str, float]:
    """Document -> a number that falls by one from rank to rank; a document without a score is left out."""
    scored = [doc for doc, score in zip(found.doc_ids, found.scores.tolist(), strict=True) if score == score]
    return {doc: float(len(scored) - rank) for rank, doc in enumerate(scored)}


def per_query(qrels: Mapping[str, Mapping[str, int]], run: Run | Scores, measures: str | Sequence[str]) -> PerQuery:
    """Compute measures for every query of the qrels.

    Args:
        qrels: query -> document -> grade.
        run: a run, or query -> document -> score.

    Raises:
        IrdistillError: a measure is unknown or none of the libraries here computes it, the qrels are empty, or the
            run has none of their queries.
    """
    parsed = parse_measures(measures)
    judged = {query: dict(documents) for query, documents in qrels.items()}
    if not judged:
        raise IrdistillError("there are no relevance judgments to evaluate with; give a collection that has qrels.")
    lists = run if isinstance(run, Run) else (
        ranked(RankedList(query, list(scores), np.array(list(scores.values()), np.float32))) for query, scores in run.items()
    )
    order: dict[str, dict[str, float]] = {}
    unscored = strangers = 0
    for found in lists:
        if found.query_id not in judged:
            strangers += 1
            continue
        unscored += int(np.isnan(found.scores).sum())
        documents = strict_order(found)
        if documents:
            order[found.query_id] = documents
    if not order and strangers:
        raise IrdistillError(
            f"none of the {strangers} queries of the run is among the {len(judged)} judged ones; they belong to "
            "different collections."
        )
    places = {query: place for place, query in enumerate(judged)}
    values = {str(measure): np.zeros(len(places)) for measure in parsed}
    if order:
        try:
            for metric in ir_measures.iter_calc(parsed, judged, order):
                values[str(metric.measure)][places[metric.query_id]] = metric.value
        except (ValueError, RuntimeError) as error:
            raise IrdistillError(f"the measures {', '.join(values)} cannot be computed here: {error}") from error
    return PerQuery(list(places), values, len(judged) - len(order), unscored, strangers)
