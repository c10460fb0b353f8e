"""The report as one HTML page: sortable tables, a plot of two systems, and rankings per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.evaluation.costs import CostPoint
from irdistill.evaluation.figures import Evaluation
from irdistill.evaluation.reporting.rendering import render_html
from irdistill.runs import RankedList, Run
from irdistill.runs.named_passages import list_texts

EXCERPT = 400
"""Characters of a document that the page shows."""


def render_report(
    evaluation: Evaluation,
    collection: Collection | None = None,
    runs: Mapping[str, Run] | None = None,
    k: int = 10,
    queries: int = 300,
    points: Sequence[CostPoint] = (),
) -> str:
    """Render the page.

    Args:
        collection, runs: what was evaluated; without them the page has tables and no queries.
        k: documents shown per list.
        queries: number of queries shown with their lists: those on which the systems differ most
            by the first measure.
        points: quality and cost of the systems.
    """
    shown = evaluation.with_short_names()
    data: dict[str, Any] = {"queries": {}, "costs": [asdict(point) for point in points]}
    if collection is not None and runs:
        data["queries"] = _queries(shown, collection, runs, k, queries)
    return render_html(f"Figures of {', '.join(shown.systems)}", evaluation.findings(), data)


def _queries(
    evaluation: Evaluation, collection: Collection, runs: Mapping[str, Run], k: int, queries: int
) -> dict[str, Any]:
    """The data of the page's script: values of all queries, and lists and texts of some."""
    per_query = evaluation.per_query[evaluation.datasets[0]]
    systems, measures = list(runs), evaluation.measures
    ids = per_query[systems[0]].query_ids
    values = {
        measure: np.array([per_query[system].values[measure] for system in systems])
        for measure in measures
    }
    spread = np.ptp(values[measures[0]], axis=0)
    numbers: dict[tuple[str, int | None], int] = {}
    lists = {}
    for place in np.sort(np.argsort(-spread, kind="stable")[:queries]).tolist():
        judged = collection.qrels[ids[place]]
        rankings = [_scored(runs[system], ids[place]) for system in systems]
        named = [_passages(runs[system], ids[place]) for system in systems]
        ranks = [{doc: rank for rank, doc in enumerate(ranking, 1)} for ranking in rankings]
        lists[place] = [
            [
                [
                    numbers.setdefault((doc, passages.get(doc)), len(numbers)),
                    round(score, 5),
                    judged.get(doc),
                    [system_ranks.get(doc) for system_ranks in ranks],
                ]
                for doc, score in list(ranking.items())[:k]
            ]
            for ranking, passages in zip(rankings, named, strict=True)
        ]
    texts = collection.queries
    return {
        "systems": systems,
        "measures": measures,
        "ids": ids,
        "texts": [texts[query].text if query in texts else "" for query in ids],
        "values": {measure: np.round(table, 6).tolist() for measure, table in values.items()},
        "relevant": [sum(grade > 0 for grade in collection.qrels[query].values()) for query in ids],
        "lists": lists,
        "documents": [
            [_label(doc, number), _excerpt(collection, doc, number)] for doc, number in numbers
        ],
    }


def _scored(run: Run, query_id: str) -> dict[str, float]:
    """The documents that have a score, best first."""
    ranking = run.get(query_id)
    if ranking is None:
        return {}
    pairs = zip(ranking.doc_ids, ranking.scores.tolist(), strict=True)
    return {doc: score for doc, score in pairs if score == score}


def _label(doc_id: str, passage: int | None) -> str:
    return doc_id if passage is None else f"{doc_id}, passage {passage}"


def _passages(run: Run, query_id: str) -> dict[str, int]:
    """The best passage of each document that has one."""
    ranking = run.get(query_id)
    if ranking is None or ranking.passages is None:
        return {}
    pairs = zip(ranking.doc_ids, ranking.passages.tolist(), strict=True)
    return {doc: number for doc, number in pairs if number >= 0}


def _excerpt(collection: Collection, doc_id: str, passage: int | None = None) -> str:
    """The beginning of a document, or of one of its passages."""
    if not collection.corpus.has(doc_id):
        return ""
    numbers = None if passage is None else np.array([passage], np.int32)
    ranked = RankedList("", [doc_id], np.zeros(1, np.float32), None, numbers)
    text = " ".join(list_texts(collection.corpus, ranked)[0].split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
