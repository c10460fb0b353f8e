"""The page with a search box: one or two systems, side by side."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.bundles.bundle_searcher import SearchHit
from irdistill.collections import Collection
from irdistill.errors import OptionError
from irdistill.search.lexical.matched_words import matched_excerpt, matched_spans
from irdistill.view.application import send_json, show_page, state_of
from irdistill.view.linked_addresses import why_address
from irdistill.view.search_systems import BM25, System, find_system, list_systems

_SUGGESTIONS = 12
"""Queries of a collection that the search box suggests."""
_DOCUMENTS = (5, 10, 20, 50, 100)
_DEFAULT = 10


def ask_page(request: Request) -> Response:
    """The search box; the page's script asks the systems."""
    systems, values = systems_in(request), request.query_params
    left = values.get("a") or next((it.key for it in systems if it.kind != BM25), "")
    left = left or (systems[0].key if systems else "")
    right = values.get("b", _other(systems, left))
    groups: dict[str, list[System]] = {}
    for system in systems:
        groups.setdefault(system.group, []).append(system)
    return show_page(
        request,
        "ask.html.j2",
        groups=groups,
        chosen={"a": left, "b": right},
        query=values.get("q", ""),
        k=_count(values.get("k", "")),
        counts=_DOCUMENTS,
    )


def ask_system(request: Request) -> Response:
    """The documents of a query, as JSON; or that the system is being opened."""
    values = request.query_params
    system = find_system(systems_in(request), values.get("at", ""))
    opened = state_of(request).systems.get(system)
    if opened is None:
        return send_json({"state": "loading", "seconds": state_of(request).systems.seconds(system)})
    query, suggestions = values.get("q", ""), _suggestions(opened.collection)
    if not query.strip():
        return send_json({"state": "ready", "suggestions": suggestions})
    answer = opened.answer(query, _count(values.get("k", "")))
    query_id = opened.query_id(query)
    judged = _judgments(opened.collection, query_id)
    return send_json(
        {
            "state": "ready",
            "suggestions": suggestions,
            "milliseconds": f"{answer.milliseconds:.1f} ms",
            "query_id": query_id,
            "relevant": None if judged is None else sum(grade > 0 for grade in judged.values()),
            "hits": [_shown(system, query, hit, judged) for hit in answer.hits],
        }
    )


def systems_in(request: Request) -> list[System]:
    """What can be asked."""
    return list_systems(state_of(request).workspace, tuple(state_of(request).options.collection))


def _judgments(collection: Collection | None, query_id: str | None) -> Any:
    if collection is None or query_id is None:
        return None
    return collection.qrels.get(query_id)


def _shown(system: System, query: str, hit: SearchHit, judged: Any) -> dict[str, Any]:
    """A document as the script shows it; scores as the command line prints them."""
    title, text = hit.title, hit.text
    if title and text.startswith(title):  # passages begin with it
        text = text[len(title) :]
    title = " ".join(title.split())
    part = matched_excerpt(query, " ".join(text.split()))
    shown: dict[str, Any] = {
        "rank": hit.rank,
        "id": hit.doc_id,
        "title": title,
        "titleSpans": matched_spans(query, title),
        "passage": hit.passage,
        "score": f"{hit.score:.4f}",
        "text": part.text,
        "spans": part.spans,
        "before": part.start > 0,
        "after": part.end < len(" ".join(text.split())),
        "why": why_address(hit.doc_id, at=system.key, query=query),
    }
    return shown if judged is None else {**shown, "grade": judged.get(hit.doc_id)}


def _suggestions(collection: Collection | None) -> list[str]:
    queries = [] if collection is None else list(collection.queries.values())
    step = max(1, len(queries) // _SUGGESTIONS)
    return [query.text for query in queries[::step][:_SUGGESTIONS]]


def _other(systems: list[System], key: str) -> str:
    """BM25 over the same documents, or another system."""
    group = next((system.group for system in systems if system.key == key), None)
    others = [system for system in systems if system.group == group and system.key != key]
    return next((system.key for system in others if system.kind == BM25), "")


def _count(text: str) -> int:
    if not text:
        return _DEFAULT
    if not text.isdecimal() or not 1 <= int(text) <= _DOCUMENTS[-1]:
        raise OptionError(f"k is {text!r}; expected a number from 1 to {_DOCUMENTS[-1]}.")
    return int(text)


ROUTES = [Route("/ask", ask_page), Route("/api/ask", ask_system)]
