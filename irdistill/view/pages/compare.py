"""The page that compares runs of one collection, query by query."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from threading import Lock
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.errors import InputError, IrdistillError, NotFoundError, OptionError
from irdistill.evaluation.evaluator import DEFAULT_MEASURES, evaluate_values
from irdistill.evaluation.figures import Evaluation
from irdistill.evaluation.measure_names import parse_measures
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.query_comparison import Pair, QueryComparison
from irdistill.evaluation.ranking_policies import measured_run
from irdistill.evaluation.reporting.report_page import page_findings, report_title
from irdistill.evaluation.unseen_collections import trained_on
from irdistill.evaluation.verdicts import verdict_sentences
from irdistill.runs.store import StoredRun
from irdistill.verbs.opening_inputs import short_names
from irdistill.view.application import send_json, show_page, state_of
from irdistill.view.request_values import whole_number
from irdistill.view.run_summaries import RunSummary, run_version
from irdistill.view.workspace import RUN

_PATIENCE = 0.3
"""Seconds that a page waits for figures before it says that they are computed."""
_ROWS = 200
_EVALUATING = Lock()
"""One evaluation at a time: each uses all cores, and the memory of its runs."""


@dataclass(frozen=True)
class ChosenRuns:
    """What is compared.

    Attributes:
        keys: the runs, the baseline first if there is one.
    """

    keys: tuple[str, ...]
    has_baseline: bool
    measures: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        """The names of the runs on the page: the last parts of their keys."""
        return short_names(list(self.keys))


def compare_page(request: Request) -> Response:
    """The figures of the chosen runs, or the list of runs to choose from."""
    chosen = _chosen(request)
    groups = _groups(state_of(request).summaries.of(state_of(request).workspace.artifacts(RUN)))
    values = _form(request, chosen, groups)
    if chosen is None:
        return show_page(request, "compare.html.j2", state="choose", **values)
    comparison, figures = _comparison(request, chosen)
    with suppress(Exception):
        figures.result(_PATIENCE)
    try:
        compared = comparison.result() if comparison.done() else None
        evaluation = figures.result() if figures.done() else None
    except IrdistillError as error:
        values |= {"state": "failed", "message": str(error), "keys": chosen.keys}
        return show_page(request, "compare.html.j2", 400, **values)
    values["state"] = "computing" if evaluation is None else "done"
    values["names"] = chosen.names
    if evaluation is not None:
        shown = evaluation.with_short_names()
        values["title"], values["verdicts"] = report_title(shown), verdict_sentences(shown)
        values["findings"] = page_findings(evaluation)
    if compared is not None:
        values["compared"] = compared
        values["orders"], values["keys"] = compared.orders, chosen.keys
        values["data"] = {
            "systems": compared.systems,
            "measures": compared.measures,
            "keys": chosen.keys,
        }
    return show_page(request, "compare.html.j2", **values)


def comparison_state(request: Request) -> Response:
    """Whether the values of the queries, and the figures, are ready."""
    comparison, figures = _comparison(request, _required(request))
    return send_json({"queries": comparison.done(), "done": figures.done()})


def scatter(request: Request) -> Response:
    """The points of the plot of two systems."""
    compared = _ready(request)
    return send_json(compared.scatter(_pair(request, compared)))


def query_rows(request: Request) -> Response:
    """Some rows of the list of queries."""
    compared, parameters = _ready(request), request.query_params
    page = compared.page(
        _pair(request, compared),
        parameters.get("order", "difference"),
        whole_number(request, "cell") if "cell" in parameters else None,
        parameters.get("text", ""),
        whole_number(request, "start", 0),
        min(_ROWS, whole_number(request, "count", 100)),
    )
    return send_json(page._asdict())


def query_lists(request: Request) -> Response:
    """The rankings of all systems for one query, with its values."""
    compared = _ready(request)
    query_id = request.query_params.get("query_id", "")
    if query_id not in compared:
        raise NotFoundError(f"the query {query_id!r} is not among the judged queries.")
    values = {name: compared.shown_values(query_id, name) for name in compared.measures}
    return send_json(compared.rankings(query_id)._asdict() | {"values": values})


def _chosen(request: Request) -> ChosenRuns | None:
    """The runs and measures of the address; None if no run to compare is chosen."""
    parameters = request.query_params
    baseline = parameters.get("baseline", "")
    others = [key for key in dict.fromkeys(parameters.getlist("at")) if key and key != baseline]
    if not others:
        return None
    measures = parameters.get("measures", "").strip()
    names = tuple(str(measure) for measure in parse_measures(measures or DEFAULT_MEASURES))
    return ChosenRuns((*([baseline] if baseline else []), *others), bool(baseline), names)


def _required(request: Request) -> ChosenRuns:
    chosen = _chosen(request)
    if chosen is None:
        raise OptionError("no run is chosen.")
    return chosen


def _comparison(
    request: Request, chosen: ChosenRuns
) -> tuple[Future[QueryComparison], Future[Evaluation]]:
    """The values of single queries, and the figures with their tests, which take longer."""
    workspace, collections = state_of(request).workspace, state_of(request).collections
    artifacts = [workspace.artifact(key, RUN) for key in chosen.keys]

    def compute_values() -> QueryComparison:
        runs = [StoredRun.open(artifact.path) for artifact in artifacts]
        collection = collections.collection_of(runs[0])
        if not len(collection.qrels):
            raise InputError(
                f"the collection {collection.id!r} has no judgments, so there are no figures. Read"
                " the rankings side by side, or write judgments on the page Judge."
            )
        measured = {
            name: measured_run(run, collection)
            for name, run in zip(chosen.names, runs, strict=True)
        }
        with _EVALUATING:
            values = {
                name: per_query(collection.qrels, run, chosen.measures)
                for name, run in measured.items()
            }
        return QueryComparison(values, collection, measured)

    key = (chosen, *map(run_version, artifacts))
    comparison = state_of(request).results.get(("values", *key), compute_values)

    def compute_figures() -> Evaluation:
        compared = comparison.result()
        baseline = chosen.names[0] if chosen.has_baseline else None
        runs = {name: run.fingerprint for name, run in compared.runs.items()}
        corpus = compared.collection.corpus.fingerprint
        trained = {name: trained_on(run, corpus) for name, run in compared.runs.items()}
        with _EVALUATING:
            return evaluate_values(
                compared.per_query,
                compared.collection.id,
                baseline,
                fingerprints=runs,
                trained=trained,
            )

    return comparison, state_of(request).results.get(("figures", *key), compute_figures)


def _ready(request: Request) -> QueryComparison:
    return _comparison(request, _required(request))[0].result()


def _pair(request: Request, compared: QueryComparison) -> Pair:
    parameters, systems = request.query_params, compared.systems
    sides = [whole_number(request, side) for side in ("left", "right")]
    if max(sides) >= len(systems):
        raise OptionError(f"the systems {sides} are not among the {len(systems)} compared ones.")
    return Pair(systems[sides[0]], systems[sides[1]], parameters.get("measure", ""))


def _groups(runs: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Runs by collection; the largest group first. Runs of one group can be compared."""
    groups: dict[tuple[str, tuple[str, str]], list[RunSummary]] = {}
    for run in runs:
        groups.setdefault((run.collection, run.corpus_and_queries), []).append(run)
    ordered = sorted(groups.items(), key=lambda entry: (-len(entry[1]), -entry[1][0].queries))
    names: dict[str, list[RunSummary]] = {}
    for (collection, fingerprints), members in ordered:
        name = collection or "no collection"
        names[name if name not in names else f"{name} ({fingerprints[1]})"] = members
    return names


def _form(
    request: Request, chosen: ChosenRuns | None, groups: dict[str, list[RunSummary]]
) -> dict[str, Any]:
    """What the form for choosing runs shows."""
    key = chosen.keys[0] if chosen else request.query_params.get("with")
    group = request.query_params.get("collection")
    if group not in groups:
        group = next(
            (name for name, runs in groups.items() if any(run.key == key for run in runs)),
            next(iter(groups), None),
        )
    runs = groups.get(group or "", [])
    baseline, systems = _first_choice(runs)
    if chosen is not None:
        baseline = chosen.keys[0] if chosen.has_baseline else ""
        systems = list(chosen.keys[chosen.has_baseline :])
    elif key is not None and any(run.key == key for run in runs):
        systems = [key]
        baseline = baseline if baseline != key else ""
    measures = " ".join(chosen.measures if chosen else DEFAULT_MEASURES)
    return {
        "groups": {name: len(members) for name, members in groups.items()},
        "group": group,
        "runs": runs,
        "chosen_baseline": baseline,
        "chosen_systems": systems,
        "chosen_measures": measures,
    }


def _first_choice(runs: Sequence[RunSummary]) -> tuple[str, list[str]]:
    """A baseline and a system that make sense to begin with: a first stage and a student."""
    order = {"first-stage": 0, "imported": 1, "teacher": 2, "fused": 3, "student": 4}
    ranked = sorted(runs, key=lambda run: order.get(run.kind, 1))
    if len(ranked) < 2:
        return "", [run.key for run in ranked]
    return ranked[0].key, [ranked[-1].key]


ROUTES = [
    Route("/compare", compare_page),
    Route("/api/compare/state", comparison_state),
    Route("/api/compare/scatter", scatter),
    Route("/api/compare/rows", query_rows),
    Route("/api/compare/query", query_lists),
]
