"""The page of a single run: its facts, its queries, and their rankings."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.collections import Collection
from irdistill.collections.collection import collection_mismatch
from irdistill.errors import IrdistillError, NotFoundError, OptionError, WrongCollectionError
from irdistill.evaluation.reporting.query_rankings import QueryRankings
from irdistill.runs.store import StoredRun
from irdistill.verbs.opening_inputs import short_names
from irdistill.view.application import send_json, show_page, state_of
from irdistill.view.request_values import whole_number
from irdistill.view.run_summaries import run_version
from irdistill.view.workspace import RUN, Artifact

_PATIENCE = 0.2
"""Seconds that rows wait for the collection; without it they have no texts."""
_ROWS = 200
_DOCUMENTS = 100


class OpenedRuns:
    """A run, or two of one collection, which is opened in the background.

    Attributes:
        runs: by the names that they have on the page.
        problem: why the collection cannot be opened; empty if it can, or is not open yet.
    """

    def __init__(self, runs: Mapping[str, StoredRun], collection: Future[Collection]) -> None:
        self.runs, self._collection = runs, collection
        self._rankings: QueryRankings | None = None
        self.problem = ""

    @property
    def first(self) -> StoredRun:
        """The run whose queries are listed."""
        return next(iter(self.runs.values()))

    @property
    def waiting(self) -> bool:
        """Whether the collection is still being opened."""
        return not self._collection.done()

    def rankings(self) -> QueryRankings:
        """The rankings, with texts if the collection is open."""
        if self._rankings is None:
            with suppress(Exception):
                self._collection.result(_PATIENCE)
            if self.waiting:
                return self._without_texts()
            try:
                collection = self._collection.result()
            except (IrdistillError, OSError) as error:
                self.problem = str(error)
                self._rankings = self._without_texts()
            else:
                self._rankings = QueryRankings(collection, self.runs, _DOCUMENTS)
        return self._rankings

    def _without_texts(self) -> QueryRankings:
        empty = Collection.from_dicts(str(self.first.path), {}, {})
        return QueryRankings(empty, self.runs, _DOCUMENTS)


def show_run(request: Request) -> Response:
    """The facts of a run, and the list of its queries."""
    artifact, *others = _artifacts(request)
    opened = _opened(request)
    run, identity = opened.first, opened.first.identity
    [summary] = state_of(request).summaries.of([artifact])
    facts = {
        "producer": identity.producer,
        "settings": identity.settings,
        "collection": identity.collection,
        "candidates": identity.candidates,
        "usage": dict(run.manifest.usage),
        "software": dict(run.manifest.software),
        "fingerprint": run.fingerprint,
    }
    rows = [(name, text) for key, value in facts.items() for name, text in _flat(key, value)]
    return show_page(
        request,
        "run.html.j2",
        summary=summary,
        facts=rows,
        parts=len(run.manifest.parts),
        other=others[0].key if others else "",
        data={"keys": [artifact.key, *(one.key for one in others)], "names": list(opened.runs)},
    )


def run_rows(request: Request) -> Response:
    """Some rows of the list of queries."""
    opened = _opened(request)
    rankings, run = opened.rankings(), opened.first
    queries, text = rankings.collection.queries, request.query_params.get("text", "").strip()
    ids = run.query_ids
    if text:
        words = text.lower()
        ids = [
            query_id
            for query_id in ids
            if words in query_id.lower()
            or (query_id in queries and words in queries[query_id].text.lower())
        ]
    start, count = whole_number(request, "start", 0), whole_number(request, "count", 100)
    rows = [
        [query_id, queries[query_id].text if query_id in queries else ""]
        for query_id in ids[start:][: min(_ROWS, count)]
    ]
    return send_json(
        {"total": len(ids), "rows": rows, "waiting": opened.waiting, "problem": opened.problem}
    )


def run_query(request: Request) -> Response:
    """The ranking of one query."""
    opened = _opened(request)
    query_id = request.query_params.get("query_id", "")
    if query_id not in opened.first:
        raise NotFoundError(f"the run has no query {query_id!r}.")
    return send_json(opened.rankings().query(query_id)._asdict())


def _artifacts(request: Request) -> list[Artifact]:
    """The run of the page, and the one beside it if the address names one."""
    keys = [request.query_params.get("at", ""), request.query_params.get("beside", "")]
    return [state_of(request).workspace.artifact(key, RUN) for key in dict.fromkeys(keys) if key]


def _opened(request: Request) -> OpenedRuns:
    results, collections = state_of(request).results, state_of(request).collections
    artifacts = _artifacts(request)
    if not artifacts:
        raise OptionError("no run is chosen.")
    versions = tuple(map(run_version, artifacts))

    def open_runs() -> OpenedRuns:
        names = short_names([artifact.key for artifact in artifacts])
        runs = [StoredRun.open(artifact.path) for artifact in artifacts]
        if collection_mismatch(runs[0].identity.collection, runs[-1].identity.collection):
            raise WrongCollectionError(
                f"{names[0]} and {names[-1]} are runs of different collections; choose two of one."
            )
        collection = results.get(
            ("collection of a run", versions[0]), lambda: collections.collection_of(runs[0])
        )
        return OpenedRuns(dict(zip(names, runs, strict=True)), collection)

    return results.get(("runs", versions), open_runs).result()


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    """The entries of nested mappings, each with its whole name."""
    if isinstance(value, dict):
        return [pair for key, inner in value.items() for pair in _flat(f"{name} {key}", inner)]
    return [] if value is None or value == "" else [(name, str(value))]


ROUTES = [
    Route("/run", show_run),
    Route("/api/run/rows", run_rows),
    Route("/api/run/query", run_query),
]
