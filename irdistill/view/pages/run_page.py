"""The page of a single run: its facts, its queries, and their rankings."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.collections import Collection
from irdistill.errors import IrdistillError, NotFoundError
from irdistill.evaluation.reporting.query_rankings import QueryRankings
from irdistill.runs.store import StoredRun
from irdistill.view.application import (
    collections_of,
    results_of,
    send_json,
    show_page,
    summaries_of,
    workspace_of,
)
from irdistill.view.request_values import whole_number
from irdistill.view.run_summaries import run_version
from irdistill.view.workspace import RUN, Artifact

_PATIENCE = 0.2
"""Seconds that rows wait for the collection; without it they have no texts."""
_ROWS = 200
_DOCUMENTS = 100


class OpenedRun:
    """A run whose collection is opened in the background.

    Attributes:
        problem: why the collection cannot be opened; empty if it can, or is not open yet.
    """

    def __init__(self, run: StoredRun, collection: Future[Collection]) -> None:
        self.run, self._collection = run, collection
        self._rankings: QueryRankings | None = None
        self.problem = ""

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
                self._rankings = QueryRankings(collection, {"run": self.run}, _DOCUMENTS)
        return self._rankings

    def _without_texts(self) -> QueryRankings:
        empty = Collection.from_dicts(str(self.run.path), {}, {})
        return QueryRankings(empty, {"run": self.run}, _DOCUMENTS)


def show_run(request: Request) -> Response:
    """The facts of a run, and the list of its queries."""
    artifact = _artifact(request)
    run = _opened(request, artifact).run
    identity, [summary] = run.identity, summaries_of(request).of([artifact])
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
        data={"at": artifact.key},
    )


def run_rows(request: Request) -> Response:
    """Some rows of the list of queries."""
    opened = _opened(request, _artifact(request))
    rankings, run = opened.rankings(), opened.run
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
    opened = _opened(request, _artifact(request))
    query_id = request.query_params.get("query_id", "")
    if query_id not in opened.run:
        raise NotFoundError(f"the run has no query {query_id!r}.")
    return send_json(opened.rankings().query(query_id)._asdict())


def _artifact(request: Request) -> Artifact:
    return workspace_of(request).artifact(request.query_params.get("at", ""), RUN)


def _opened(request: Request, artifact: Artifact) -> OpenedRun:
    results, collections, version = (
        results_of(request),
        collections_of(request),
        run_version(artifact),
    )

    def open_run() -> OpenedRun:
        run = StoredRun.open(artifact.path)
        collection = results.get(
            ("collection of a run", version), lambda: collections.collection_of(run)
        )
        return OpenedRun(run, collection)

    return results.get(("run", version), open_run).result()


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
