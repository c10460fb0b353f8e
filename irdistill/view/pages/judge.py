"""The page on which people judge pairs of a query and a document, and what judges agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, cast, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from irdistill.collections import Collection
from irdistill.collections.judging import read_judges
from irdistill.collections.judging.judge_log import ENDING, JudgmentLog
from irdistill.errors import InputError, NotFoundError, OptionError
from irdistill.evaluation.judging import QueuedPair, QueueOptions, compare_judges
from irdistill.evaluation.judging.judging_queue import (
    SOURCE_DESCRIPTIONS,
    SOURCES,
    PairSource,
    reason_of,
)
from irdistill.search.lexical.matched_words import matched_spans
from irdistill.verbs.opening_inputs import short_names
from irdistill.view.application import send_json, show_page, state_of
from irdistill.view.judging_desk import PATIENCE, OpenQueue, QueueChoice
from irdistill.view.linked_addresses import why_address
from irdistill.view.workspace import RUN

_LONGEST = 20_000
"""Characters of a document that are shown."""
_SENT = 4
"""Pairs in an answer: one to show, and others so that the next is there at once."""
_LARGEST_BODY = 1 << 16
HIGHEST = 3
"""The highest grade on the page."""


def judge_page(request: Request) -> Response:
    """The form, and the first pair if a run is chosen; the script asks for the pairs."""
    desk = state_of(request).judging
    runs = [artifact.key for artifact in state_of(request).workspace.artifacts(RUN)]
    chosen = _chosen(request.query_params)
    return show_page(
        request,
        "judge.html.j2",
        runs=runs,
        sources=SOURCES,
        descriptions=SOURCE_DESCRIPTIONS,
        chosen=chosen,
        graded=request.query_params.get("scale") == "graded",
        grades=range(HIGHEST + 1),
        judge=desk.judge,
        file=str(desk.folder / f"{desk.judge}{ENDING}"),
        data={"choice": _as_values(chosen), "started": bool(chosen.at)},
    )


def next_pairs(request: Request) -> Response:
    """The first pairs that this judge has not judged."""
    desk = state_of(request).judging
    queue = desk.queue(_chosen(request.query_params), PATIENCE)
    if queue is None:
        return send_json({"opening": True})
    return send_json(_answer(queue, desk.log(queue.collection), request.query_params))


async def add_judgment(request: Request) -> Response:
    """Write a judgment, and answer with the pairs after it."""
    return await run_in_threadpool(_add, request, await _body(request))


async def undo_judgment(request: Request) -> Response:
    """Withdraw the last judgment of the queue, and answer with its pair."""
    return await run_in_threadpool(_undo, request, await _body(request))


def agreement_page(request: Request) -> Response:
    """The agreement of the judges, as the command prints it."""
    folder = state_of(request).options.judgments
    try:
        comparison = compare_judges(read_judges(folder))
    except (InputError, NotFoundError) as error:
        return show_page(request, "judge_agreement.html.j2", headline=str(error), findings=())
    first, *rest = comparison.findings()
    return show_page(
        request,
        "judge_agreement.html.j2",
        headline=comparison.headline,
        findings=[replace(first, text=()), *rest],
        folder=folder,
        several=len(comparison.judges) > 1,
        collection=comparison.collection,
    )


def _chosen(values: Mapping[str, Any]) -> QueueChoice:
    """The queue that an address or a body names."""
    source = values.get("source") or "suspects"
    if source not in get_args(PairSource):
        raise OptionError(f"there are no pairs {source!r:.40}; {', '.join(SOURCES)} are.")
    try:
        k, each = (int(values.get(name) or usual) for name, usual in (("k", 10), ("each", 1)))
    except ValueError as error:
        raise OptionError("the depth and the pairs per query must be whole numbers.") from error
    other = str(values.get("other") or "") if source == "disagreements" else ""
    options = QueueOptions(
        cast(PairSource, source), k=k if source == "unjudged" else 10, per_query=each
    )
    return QueueChoice(str(values.get("at") or ""), other, options)


def _as_values(choice: QueueChoice) -> dict[str, Any]:
    options = choice.options
    return {
        "at": choice.at,
        "other": choice.other,
        "source": options.source,
        "k": options.k,
        "each": options.per_query,
    }


def _open(request: Request, values: Mapping[str, Any]) -> tuple[OpenQueue, JudgmentLog]:
    desk = state_of(request).judging
    queue = desk.queue(_chosen(values))
    assert queue is not None
    return queue, desk.log(queue.collection)


async def _body(request: Request) -> dict[str, Any]:
    if int(request.headers.get("content-length") or 0) > _LARGEST_BODY:
        raise InputError("the request is too long.")
    try:
        body = await request.json()
    except ValueError as error:
        raise InputError("the request is not JSON.") from error
    if not isinstance(body, dict):
        raise InputError("the request is not a JSON object.")
    return body


def _add(request: Request, body: Mapping[str, Any]) -> Response:
    queue, log = _open(request, body)
    grade = body.get("grade")
    if grade is not None and not (type(grade) is int and 0 <= grade <= HIGHEST):
        raise InputError(f"the grade {grade!r:.20} is not known; 0 to {HIGHEST} or null is.")
    pair = queue.find((str(body.get("query_id")), str(body.get("doc_id"))))
    if pair is None:
        raise NotFoundError("this pair is not in the queue; load the page again.")
    log.add(pair.query_id, pair.doc_id, grade, queue.fingerprint, pair.passage)
    return send_json(_answer(queue, log, body))


def _undo(request: Request, body: Mapping[str, Any]) -> Response:
    queue, log = _open(request, body)
    withdrawn = log.undo(among=queue.queue.places)
    if withdrawn is None:
        return send_json(_answer(queue, log, body))
    first = queue.queue.pairs[queue.queue.places[withdrawn.pair]]
    return send_json(_answer(queue, log, body, first))


def _answer(
    queue: OpenQueue,
    log: JudgmentLog,
    values: Mapping[str, Any],
    first: QueuedPair | None = None,
) -> dict[str, Any]:
    """The next pairs, and how far the judge is."""
    pairs = queue.pending(log.newest, _SENT)
    if first is not None:
        pairs = [first, *(pair for pair in pairs if pair != first)]
    read = queue.queue
    return {
        "undone": first is not None,
        "pairs": [_shown(pair, queue, values) for pair in pairs],
        "done": sum(pair in log.newest for pair in list(read.places)),
        "total": len(read.pairs),
        "complete": read.complete,
        "queries_read": read.queries_read,
        "queries": read.queries,
    }


def _shown(pair: QueuedPair, queue: OpenQueue, values: Mapping[str, Any]) -> dict[str, Any]:
    """A pair as the script shows it."""
    collection, options = queue.collection, queue.queue.options
    query = collection.queries[pair.query_id]
    known = None
    if pair.positive is not None:
        known = {
            "doc_id": pair.positive,
            "facts": [
                ["rank", f"{pair.positive_rank} of {pair.of}"],
                ["score", f"{pair.positive_score:.4f}"],
            ],
            **_document(collection, query.text, pair.positive),
        }
    facts = [["rank", f"{pair.rank} of {pair.of}"], ["score", f"{pair.score:.4f}"]]
    if pair.other_score is not None:
        first, second = short_names([str(values["at"]), str(values["other"])])
        facts = [
            [f"rank in {first}", f"{pair.rank} of {pair.of}"],
            [f"score in {first}", f"{pair.score:.4f}"],
            [f"rank in {second}", f"{pair.other_rank} of {pair.of}"],
            [f"score in {second}", f"{pair.other_score:.4f}"],
        ]
    if pair.grade is not None:
        facts.append(["judged in the collection", str(pair.grade)])
    return {
        "query_id": pair.query_id,
        "query": query.text,
        "history": [asdict(turn) for turn in query.history],
        "doc_id": pair.doc_id,
        "reason": reason_of(pair, options.source),
        "facts": facts,
        "known": known,
        "why": why_address(pair.doc_id, at=str(values["at"]), query_id=pair.query_id),
        **_document(collection, query.text, pair.doc_id, pair.passage),
    }


def _document(
    collection: Collection, query: str, doc_id: str, passage: int | None = None
) -> dict[str, Any]:
    """Title and text of a document, or of one of its passages, with the words of the query."""
    corpus = collection.corpus
    row = corpus.row(doc_id)
    document = corpus.document(row)
    title, text = document.title, document.text
    if passage is not None and corpus.passages is not None:
        [place] = corpus.passages.rows([row], [passage]).tolist()
        text = corpus.passages.corpus.document(place).text.removeprefix(title).lstrip()
    cut = text[:_LONGEST]
    return {
        "title": title,
        "title_spans": matched_spans(query, title),
        "text": cut,
        "spans": matched_spans(query, cut),
        "more": len(text) - len(cut),
        "passage": passage,
    }


ROUTES: Sequence[Route] = [
    Route("/judge", judge_page),
    Route("/judge/agreement", agreement_page),
    Route("/api/judge/pairs", next_pairs),
    Route("/api/judge/judgment", add_judgment, methods=["POST"]),
    Route("/api/judge/undo", undo_judgment, methods=["POST"]),
]
