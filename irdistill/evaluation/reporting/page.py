"""The report as one HTML page: tables that sort, a plot of two systems query by query, and both
rankings of a query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.evaluation.evaluator import Evaluation
from irdistill.evaluation.reporting.datasets import readable
from irdistill.evaluation.reporting.html import render, script_json
from irdistill.evaluation.reporting.pareto import frontier
from irdistill.evaluation.reporting.tables import (
    MARKS,
    TIES,
    differences_table,
    figures_table,
    notes,
    ties_table,
)
from irdistill.runs import Run

DOCUMENTS, QUERIES, WORDS = 10, 300, 400


def html_report(
    found: Evaluation,
    collection: Collection | None = None,
    runs: Mapping[str, Run] | None = None,
    documents: int = DOCUMENTS,
    queries: int = QUERIES,
    points: Sequence[Mapping[str, Any]] = (),
) -> str:
    """The page.

    Args:
        collection, runs: what was evaluated; without, the page has tables and no queries.
        documents: how many of each list are shown.
        queries: how many queries are shown with their lists: those on which the systems differ most
            by the first measure.
        points: what systems cost, see `irdistill.evaluation.reporting.pareto.points`.
    """
    found = readable(found)
    sections = []
    for dataset in found.datasets:
        own = [row for row in found.rows if row.dataset == dataset]
        sections.append(
            {
                "title": f"{dataset} ({own[0].n} queries)",
                "notes": notes(own),
                "table": figures_table(found, dataset),
            }
        )
    differences = differences_table(found.rows) if any(row.against for row in found.rows) else None
    ties = ties_table(found.rows) if any(row.tied for row in found.rows) else None
    data: dict[str, Any] = {"queries": {}}
    if collection is not None and runs:
        data["queries"] = _queries(found, collection, runs, documents, queries)
    data["costs"] = [
        {**point, "best": best} for point, best in zip(points, frontier(points), strict=True)
    ]
    return render(
        "report.html.j2",
        sections=sections,
        differences=differences,
        ties=ties,
        marks=MARKS,
        about_ties=TIES,
        title=f"Figures of {', '.join(found.systems)}",
        data=script_json(data),
        with_queries=bool(data["queries"]),
        with_costs=bool(points),
    )


def _queries(
    found: Evaluation, collection: Collection, runs: Mapping[str, Run], depth: int, shown: int
) -> dict[str, Any]:
    """What the page's script draws: values of all queries, and lists and texts of some."""
    dataset = found.datasets[0]
    per_query = found.per_query[dataset]
    systems, measures = list(runs), found.measures
    ids = per_query[systems[0]].query_ids
    values = {
        measure: np.array([per_query[system].values[measure] for system in systems])
        for measure in measures
    }
    spread = np.ptp(values[measures[0]], axis=0)
    chosen = np.sort(np.argsort(-spread, kind="stable")[:shown]).tolist()
    places: dict[str, int] = {}
    lists = {}
    for place in chosen:
        judged = collection.qrels[ids[place]]
        rankings = [_scored(runs[system], ids[place]) for system in systems]
        ranks = [{doc: rank for rank, doc in enumerate(ranking, 1)} for ranking in rankings]
        lists[place] = [
            [
                [
                    places.setdefault(doc, len(places)),
                    round(score, 5),
                    judged.get(doc),
                    [own.get(doc) for own in ranks],
                ]
                for doc, score in list(ranking.items())[:depth]
            ]
            for ranking in rankings
        ]
    return {
        "systems": systems,
        "measures": measures,
        "ids": ids,
        "texts": [
            collection.queries[query].text if query in collection.queries else "" for query in ids
        ],
        "values": {measure: np.round(found, 6).tolist() for measure, found in values.items()},
        "relevant": [sum(grade > 0 for grade in collection.qrels[query].values()) for query in ids],
        "lists": lists,
        "documents": [[doc, _start(collection, doc)] for doc in places],
    }


def _scored(run: Run, query_id: str) -> dict[str, float]:
    """The documents that have a score, best first."""
    ranking = run.get(query_id)
    return (
        {}
        if ranking is None
        else {
            doc: score
            for doc, score in zip(ranking.doc_ids, ranking.scores.tolist(), strict=True)
            if score == score
        }
    )


def _start(collection: Collection, doc_id: str) -> str:
    """The first words of a document."""
    row = collection.corpus.row(doc_id) if collection.corpus.has(doc_id) else None
    text = " ".join(collection.corpus.text(row).split()) if row is not None else ""
    return text if len(text) <= WORDS else text[: WORDS - 1] + "…"
