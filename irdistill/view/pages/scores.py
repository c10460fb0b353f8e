"""The page Score files: the scores of a run as losses would see them."""

from __future__ import annotations

import json
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotReadyError
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.errors import IrdistillError
from irdistill.evaluation.auditing.described_run import DescribedRun, describe_run
from irdistill.runs import StoredRun
from irdistill.view.application import send_json, show_page, state_of
from irdistill.view.run_collections import RunCollections
from irdistill.view.workspace import RUN

_PATIENCE = 0.3
"""Seconds that the page waits for the result."""


@dataclass
class ReadRun:
    """How far a run is read.

    Attributes:
        problem: why the judgments of its collection are not known; empty if they are.
    """

    queries: int
    read: int = 0
    problem: str = ""

    def advance(self, queries: int) -> None:
        """Count queries."""
        self.read += queries


def scores_page(request: Request) -> Response:
    """The description of a run; while it is read, how far that is."""
    runs = [artifact.key for artifact in state_of(request).workspace.artifacts(RUN)]
    at = request.query_params.get("at", "")
    if not at:
        return show_page(request, "scores.html.j2", runs=runs, at="", state=None, described=None)
    described, state = _described(request, at, _PATIENCE)
    findings = described.findings() if described else []
    return show_page(
        request,
        "scores.html.j2",
        runs=runs,
        at=at,
        state=state,
        described=described,
        plots=[plot for finding in findings for plot in finding.plots],
        findings=[replace(finding, plots=()) for finding in findings],
        statistics=_printed(described) if described else (),
    )


def scores_json(request: Request) -> Response:
    """The description as JSON at full precision; while the run is read, how far that is."""
    described, state = _described(request, request.query_params.get("at", ""), 0.0)
    if described is None:
        return send_json({"read": state.read, "queries": state.queries}, 202)
    return send_json(described)


def _described(request: Request, at: str, patience: float) -> tuple[DescribedRun | None, ReadRun]:
    artifact = state_of(request).workspace.artifact(at, RUN)
    run = StoredRun.open(artifact.path)
    key = ("scores", at, run.fingerprint)
    if not hasattr(request.app.state, "read_runs"):
        request.app.state.read_runs = {}
    state = request.app.state.read_runs.setdefault(key, ReadRun(len(run)))
    collections, name = state_of(request).collections, artifact.path.name
    future: Future[DescribedRun] = state_of(request).results.get(
        key, lambda: _describe(run, name, collections, state)
    )
    try:
        return future.result(patience), state
    except NotReadyError:
        return None, state


def _describe(
    run: StoredRun, name: str, collections: RunCollections, state: ReadRun
) -> DescribedRun:
    state.read, state.problem = 0, ""
    try:
        collection = collections.collection_of(run)
    except IrdistillError as error:
        state.problem = str(error)
        return describe_run(run, {}, name=name, advance=state.advance)
    return describe_run(run, collection.qrels, collection.queries, name=name, advance=state.advance)


def _printed(described: DescribedRun) -> list[tuple[str, str, str]]:
    """Name, text as `irdistill runs stats` prints it, and JSON of each statistic."""
    return [
        (
            name,
            f"{value:.6g}" if isinstance(value, float) else str(value),
            json.dumps(value, ensure_ascii=False),
        )
        for name, value in described.statistics.items()
    ]


ROUTES = [Route("/scores", scores_page), Route("/api/scores", scores_json)]
