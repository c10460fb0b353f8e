"""The report as one HTML page: sortable tables, a plot of two systems, and rankings per query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.evaluation.costs import CostPoint, shown_points
from irdistill.evaluation.figures import Evaluation
from irdistill.evaluation.query_comparison import Pair, QueryComparison
from irdistill.evaluation.reporting.findings import Finding
from irdistill.evaluation.reporting.rendering import render_html
from irdistill.evaluation.verdicts import differences_in_words, verdict_sentences
from irdistill.runs import Run


def render_report(
    evaluation: Evaluation,
    collection: Collection | None = None,
    runs: Mapping[str, Run] | None = None,
    k: int = 10,
    queries: int = 300,
    points: Sequence[CostPoint] = (),
    more: Sequence[Finding] = (),
) -> str:
    """Render the page.

    Args:
        collection, runs: what was evaluated; without them the page has tables and no queries.
        k: documents shown per list.
        queries: number of queries shown with their lists: those on which the systems differ most
            by the first measure.
        points: quality and cost of the systems.
        more: sections after those of the evaluation.
    """
    shown = evaluation.with_short_names()
    data: dict[str, Any] = {"queries": None, "costs": shown_points(points)}
    if collection is not None and runs:
        compared = QueryComparison(shown.per_query[shown.datasets[0]], collection, runs, k)
        data["queries"] = _queries(compared, _first_pair(shown), queries)
    return render_html(
        report_title(shown),
        [*page_findings(evaluation), *more],
        data,
        verdict_sentences(shown) if shown.rows else (),
    )


def report_title(evaluation: Evaluation) -> str:
    """What a page of an evaluation is about.

    Examples:
        >>> from irdistill.evaluation import evaluate
        >>> runs = {name: {"q": {"d": 1.0}} for name in ("BM25", "student")}
        >>> report_title(evaluate({"q": {"d": 1}}, runs, "RR@10", "BM25"))
        'student against BM25'
    """
    baselines = list(dict.fromkeys(row.against for row in evaluation.rows if row.against))
    others = [system for system in evaluation.systems if system not in baselines]
    if len(baselines) == 1 and others:
        return f"{', '.join(others)} against {baselines[0]}"
    return f"Figures of {', '.join(evaluation.systems)}"


def page_findings(evaluation: Evaluation) -> list[Finding]:
    """The findings of an evaluation with the tests in words, as pages show them."""
    shown = evaluation.with_short_names()
    return [
        Finding(finding.name, finding.title, finding.text, [differences_in_words(shown.rows)])
        if finding.name == "differences"
        else finding
        for finding in evaluation.findings()
    ]


def _first_pair(evaluation: Evaluation) -> tuple[str, str]:
    """The baseline and the first system compared with it, or the first two systems."""
    for row in evaluation.rows:
        if row.against is not None:
            return row.against, row.system
    systems = evaluation.systems
    return systems[0], systems[min(1, len(systems) - 1)]


def _queries(compared: QueryComparison, first: tuple[str, str], queries: int) -> dict[str, Any]:
    """The data of the page's script: points of all queries, and lists and texts of some."""
    systems, measures = compared.systems, compared.measures
    values = [compared.values(system, measures[0]) for system in systems]
    chosen = np.sort(np.argsort(-np.ptp(values, axis=0), kind="stable")[:queries]).tolist()
    ids = [compared.query_ids[place] for place in chosen]
    pairs = {
        f"{systems.index(left)},{systems.index(right)},{measure}": _pair(
            compared, Pair(left, right, measure), chosen
        )
        for left, right in (combinations(systems, 2) if len(systems) > 1 else [systems * 2])
        for measure in measures
    }
    return {
        "systems": systems,
        "measures": measures,
        "orders": compared.orders,
        "first": [systems.index(name) for name in first],
        "total": len(compared.query_ids),
        "pairs": pairs,
        "entries": [
            compared.rankings(query_id)._asdict()
            | {"values": {name: compared.shown_values(query_id, name) for name in measures}}
            for query_id in ids
        ],
    }


def _pair(compared: QueryComparison, pair: Pair, places: Sequence[int]) -> dict[str, Any]:
    """The points of a pair of systems, and the cells and figures of the queries with lists."""
    rows = [compared.row(pair, place) for place in places]
    return compared.scatter(pair) | {
        "cellOf": compared.cells(pair).cell_of[list(places)].tolist(),
        "rows": [[row.left, row.right, row.difference] for row in rows],
    }
