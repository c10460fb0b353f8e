"""The page that explains why a document is in a ranking."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.errors import InputError, IrdistillError, NotFoundError
from irdistill.evaluation.explaining import DocumentExplainer, Explanation
from irdistill.evaluation.explaining.explanation import MOST_PARTS, TokenMatch
from irdistill.runs import open_run
from irdistill.search.lexical.matched_words import matched_spans
from irdistill.view.application import send_json, show_page, state_of
from irdistill.view.opened_systems import OpenedSystems
from irdistill.view.pages.ask import systems_in
from irdistill.view.search_systems import BM25, System, find_system
from irdistill.view.workspace import RUN

_CELL, _LABEL, _TOP = 18, 110, 84
"""Pixels of the heat map: a cell, the names of query tokens, and those of document tokens."""
_MOST_TOKENS = 400
"""Document tokens that are drawn."""


class _Chosen(NamedTuple):
    """What explains a document, and the systems that could.

    Attributes:
        system: None for the collection of a run that no system searches.
        explain: takes a query and the id of a document; None while the system is being opened.
    """

    system: System | None
    explain: Callable[[str, str], Explanation] | None
    systems: list[System]


def why_page(request: Request) -> Response:
    """Everything that is known about a document for a query."""
    values, opened = request.query_params, state_of(request).systems
    query = values.get("query_id") or values.get("query", "")
    doc_id = values.get("doc", "")
    chosen = _choose(request, values, opened)
    shown: dict[str, Any] = {
        "query": query,
        "doc_id": doc_id,
        "at": values.get("at", ""),
        "collection": values.get("collection", ""),
        "system": chosen.system,
        "systems": chosen.systems,
        "loading": chosen.explain is None,
    }
    if chosen.explain is None or not query.strip() or not doc_id:
        return show_page(request, "why.html.j2", why=None, problem="", **shown)
    try:
        why = chosen.explain(query, doc_id)
    except IrdistillError as error:  # the form stays, to correct what was typed
        status = 404 if isinstance(error, NotFoundError) else 400
        return show_page(request, "why.html.j2", status, why=None, problem=str(error), **shown)
    return show_page(request, "why.html.j2", why=why, problem="", **shown, **_parts(why))


def why_state(request: Request) -> Response:
    """Whether a system is open, as JSON."""
    system = find_system(systems_in(request), request.query_params.get("at", ""))
    opened = state_of(request).systems
    ready = opened.get(system) is not None
    return send_json({"ready": ready, "seconds": f"{opened.seconds(system):.0f}"})


def _choose(request: Request, values: QueryParams, opened: OpenedSystems) -> _Chosen:
    """The system of an address, or BM25 over the collection of a run."""
    at, systems = values.get("at", ""), systems_in(request)
    name = values.get("collection", "")
    if at and at not in {system.key for system in systems}:
        run = open_run(state_of(request).workspace.artifact(at, RUN).path)
        name = str(run.identity.collection.get("id", ""))
        if f"{BM25} @ {name}" not in {system.key for system in systems}:
            located = state_of(request).collections.collection_of(run)
            explainer = DocumentExplainer(located, runs=opened.runs_of(located))
            return _Chosen(None, explainer.explain, [])
        at = ""
    if not at and not name:
        raise InputError("the address names no bundle, model, run or collection; follow a link.")
    system = find_system(systems, at or f"{BM25} @ {name}")
    same = [other for other in systems if other.group == system.group]
    system_open = opened.get(system)
    if system_open is None:
        return _Chosen(system, None, same)
    collection = system_open.collection
    runs = {} if collection is None else opened.runs_of(collection)
    return _Chosen(system, partial(system_open.explain, runs=runs), same)


def _parts(why: Explanation) -> dict[str, Any]:
    """What the template shows besides the findings."""
    findings = {finding.name: finding for finding in why.findings()}
    model, words = why.model, why.words
    return {
        "verdict": why.verdict(),
        "findings": findings,
        "word_bars": [] if words is None else _bars([word.score for word in words.words]),
        "part_bars": _bars([part.score for part in (model.parts if model else None) or ()]),
        "heat": None if model is None or model.tokens is None else heat_map(model.tokens),
        "text": _marked(why.query, why.text),
        "title": _marked(why.query, why.document_title),
    }


def _bars(scores: list[float]) -> list[tuple[float, bool]]:
    """Lengths from 0 to 100 in the order of the tables, and whether the score is negative."""
    ordered = sorted(scores, key=lambda score: -abs(score))[:MOST_PARTS]
    largest = max((abs(score) for score in ordered), default=0) or 1
    return [(round(100 * abs(score) / largest, 1), score < 0) for score in ordered]


def heat_map(tokens: TokenMatch) -> dict[str, Any]:
    """Places, names and shades of the cells of a drawing of token similarities."""
    count = min(len(tokens.document), _MOST_TOKENS)
    values = [value for row in tokens.similarities for value in row]
    low, high = min(values), max(values)
    cells = [
        {
            "x": _LABEL + column * _CELL,
            "y": _TOP + row * _CELL,
            "shade": round((value - low) / ((high - low) or 1), 2),
            "best": column == tokens.best[row],
            "value": f"{value:.4f}",
            "names": f"{tokens.query[row]} – {tokens.document[column]}",
        }
        for row, line in enumerate(tokens.similarities)
        for column, value in enumerate(line[:count])
    ]
    return {
        "cells": cells,
        "cell": _CELL,
        "width": _LABEL + count * _CELL + 40,
        "height": _TOP + len(tokens.query) * _CELL + 4,
        "rows": [(_LABEL - 6, _TOP + n * _CELL + 13, name) for n, name in enumerate(tokens.query)],
        "columns": [
            (_LABEL + n * _CELL + 13, _TOP - 6, name)
            for n, name in enumerate(tokens.document[:count])
        ],
        "low": f"{low:.4f}",
        "high": f"{high:.4f}",
        "left_out": len(tokens.document) - count,
    }


def _marked(query: str, text: str) -> list[tuple[str, bool]]:
    """A text in pieces: whether each is a word of the query."""
    pieces, end = [], 0
    for start, stop in matched_spans(query, text):
        pieces += [(text[end:start], False), (text[start:stop], True)]
        end = stop
    return [*pieces, (text[end:], False)]


ROUTES = [Route("/why", why_page), Route("/api/why", why_state)]
