"""Requests to hosted models, and what was read from their responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from irdistill.teachers.hosted.hosted_card import RequestLimits
from irdistill.teachers.llm.chat_answers import Usage, too_deep

TextRole = Literal["query", "document"]

#: Flags of a text without a result.
NOT_RETURNED, DUPLICATE = "not returned", "duplicate index"
NOT_A_NUMBER, WRONG_DIMENSION = "not a number", "wrong dimension"

#: Bytes of a token, and tokens around a text, of a high estimate.
_TOKEN_BYTES, _AROUND = 3, 8
#: The likely tokens of an English text, at four bytes each, as a share of that estimate.
LIKELY = 0.75


class HostedRequest(NamedTuple):
    """Documents to score for a query, or texts to encode.

    Attributes:
        texts: documents or texts.
        query: the query of a rerank request; empty for an embedding request.
        role: what the texts are.
    """

    texts: tuple[str, ...]
    query: str = ""
    role: TextRole = "document"

    def with_texts(self, texts: Sequence[str]) -> HostedRequest:
        """The same request about other texts."""
        return self._replace(texts=tuple(texts))


class HostedReply(NamedTuple):
    """The content of a response.

    Attributes:
        values: (n,) float32 scores, or (n, D) vectors, in the order of the request; NaN for a text
            without a result.
        flags: why a text has no result, by its place.
        error: why the request has no answer.
        usage: None if the server did not report it.
        fault: why the response is unusable, so that another try is worth it.
        model: the model's name on the server.
    """

    values: np.ndarray | None = None
    flags: Mapping[int, str] = {}
    error: str | None = None
    usage: Usage | None = None
    fault: str | None = None
    model: str = ""


def guess_tokens(text: str) -> int:
    """More tokens than a text has in most languages: one per three bytes.

    Examples:
        >>> guess_tokens("a text of 24 characters.")
        8
    """
    return len(text.encode("utf-8", "surrogatepass")) // _TOKEN_BYTES


def request_tokens(request: HostedRequest) -> int:
    """A high estimate of what the model reads: the query with each document."""
    query = guess_tokens(request.query) + _AROUND
    return sum(guess_tokens(text) + query for text in request.texts)


def cut_into_requests(
    request: HostedRequest, limits: RequestLimits, overhead: int = 0
) -> Iterator[HostedRequest]:
    """A request as several, each within the limits; a text that is too large alone is alone.

    Args:
        overhead: bytes of the body apart from query and texts.

    Examples:
        >>> parts = cut_into_requests(HostedRequest(("a", "b", "c")), RequestLimits(texts=2))
        >>> [part.texts for part in parts]
        [('a', 'b'), ('c',)]
    """
    query_bytes, query_tokens = overhead + body_bytes(request.query), guess_tokens(request.query)
    most = (limits.texts, limits.tokens, limits.bytes)
    chosen: list[str] = []
    totals = [0, 0, query_bytes]
    for text in request.texts:
        sizes = (1, guess_tokens(text) + query_tokens + _AROUND, body_bytes(text) + 2)
        over = any(
            limit is not None and total + size > limit
            for limit, total, size in zip(most, totals, sizes, strict=True)
        )
        if over and chosen:
            yield request.with_texts(chosen)
            chosen, totals = [], [0, 0, query_bytes]
        chosen.append(text)
        totals = [total + size for total, size in zip(totals, sizes, strict=True)]
    if chosen:
        yield request.with_texts(chosen)


def body_bytes(text: str) -> int:
    """Bytes of a text in the body of a request."""
    return len(json.dumps(text, ensure_ascii=False).encode("utf-8", "surrogatepass"))


def parse_json(body: str, expected: str) -> tuple[Any, str | None]:
    """The JSON value of a response, or why it cannot be used."""
    if too_deep(body):
        return None, f"a response that is nested too deep to be {expected}"
    try:
        return json.loads(body), None
    except (ValueError, RecursionError):
        return None, f"a response that is not JSON ({len(body)} characters); expected {expected}"


def by_index(
    entries: Iterable[Any], count: int, parse: Callable[[Any], Any]
) -> tuple[list[Any], dict[int, str]]:
    """The results of a response in the order of the request.

    Servers sort their results. An entry whose index is not that of a text of the request is
    ignored, and a text with several entries, or with none, has no result: nothing is guessed.

    Args:
        entries: of the response; each has an ``index``.
        count: number of texts of the request.
        parse: the value of an entry; None if it is not usable.

    Returns:
        A value or None for each text, and a flag for each text without one.

    Examples:
        >>> entries = [{"index": 1, "score": 2.0}, {"index": 7, "score": 1.0}]
        >>> by_index(entries, 2, lambda entry: entry["score"])
        ([None, 2.0], {0: 'not returned'})
    """
    values: list[Any] = [None] * count
    flags = dict.fromkeys(range(count), NOT_RETURNED)
    claimed: set[int] = set()
    for entry in entries:
        place = entry.get("index") if isinstance(entry, dict) else None
        if not isinstance(place, int) or isinstance(place, bool) or not 0 <= place < count:
            continue
        if place in claimed:
            values[place], flags[place] = None, DUPLICATE
            continue
        claimed.add(place)
        values[place] = parse(entry)
        if values[place] is None:
            flags[place] = NOT_A_NUMBER
        else:
            del flags[place]
    return values, flags


def token_count(value: Any) -> int | None:
    """A plausible number of tokens; None for anything else."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and 0 <= value < 2**40 else None
