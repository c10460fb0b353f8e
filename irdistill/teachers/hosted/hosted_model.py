"""Models that answer requests about several texts: each text is sent once, and paid for once."""

from __future__ import annotations

import base64
import json
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from irdistill.teachers.hosted.hosted_card import HostedServerCard
from irdistill.teachers.hosted.hosted_requests import (
    LIKELY,
    HostedReply,
    HostedRequest,
    body_bytes,
    cut_into_requests,
    guess_tokens,
    request_tokens,
)
from irdistill.teachers.hosted.pacing import Pacer
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.chat_answers import Usage
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.reading import NO_ANSWER
from irdistill.teachers.llm.served_model import ServedModel, ServingOptions, content_digest
from irdistill.teachers.protocol import TOO_LONG

#: Cohere bills a query with up to 100 documents as a search unit; each 500 tokens of a document
#: (with the query) count as a document. https://cohere.com/pricing
_SEARCH_DOCUMENTS, _SEARCH_TOKENS = 100, 500
_BODY_OVERHEAD = 1024


class HostedResults(NamedTuple):
    """What a model answered about texts.

    Attributes:
        values: a float32 number or (D,) vector for each text, in their order; None without one.
        flags: why a text has no value.
        usage: what the answers took: of a request that answered n texts, 1/n for each text.
    """

    values: list[Any]
    flags: list[str | None]
    usage: dict[str, float]


class HostedModel(ServedModel[HostedRequest, HostedReply]):
    """A reranker or an embedder behind a server; see `ServedModel`.

    The response log knows which texts an answer is about. A text that is in the log is not sent
    again, whatever request it was in. A request that is too large for the server, or that it does
    not answer, is sent again as two halves, down to single texts.

    Args:
        model: name of the model on the server.
        card: the checked server of the card.
        identity: everything that determines the answers.
        options: see `ServingOptions`.
    """

    def __init__(
        self,
        model: str,
        card: HostedServerCard,
        identity: Mapping[str, Any],
        options: ServingOptions,
    ) -> None:
        self.card, self.limits = card, card.request_limits
        self._identity_digest = content_digest(dict(identity))
        self._pacer = Pacer(self.limits)
        server = {"url": card.url, "key": card.key, "prices": card.prices}
        super().__init__(model, server, identity, options)

    @abstractmethod
    def _item_values(self, answer: Answer, count: int) -> Any:
        """The values of the ``count`` texts of a request: (count,) or (count, D)."""

    def results(
        self, requests: Sequence[HostedRequest], done: Callable[[int], Any] | None = None
    ) -> HostedResults:
        """The results of the texts of several requests, in their order.

        Args:
            requests: of any size; each is cut into requests within the server's limits.
            done: called with the number of texts that have a result, or finally have none.
        """
        parts = [part for request in requests for part in self.parts(request)]
        count = sum(len(part.texts) for part in parts)

        def report(request: HostedRequest, answer: Answer) -> None:
            nonlocal count
            if done is not None and answer.error is None:
                count -= len(request.texts)
                done(len(request.texts))

        errors: dict[str, str] = {}
        waiting = [part for part in parts if not self._is_too_large(part, errors)]
        while waiting:
            unsent = [node for part in waiting for node in self._unsent(part, errors)]
            answers = self.answer(unsent, report)
            waiting = []
            for request, answer in zip(unsent, answers, strict=True):
                if answer.error is not None:
                    waiting += self._halves(request, answer.error, errors)
        if done is not None and count > 0:
            done(count)
        keys = [key for part in parts for key in self.item_keys(part)]
        return self._collect(keys, errors)

    def parts(self, request: HostedRequest) -> list[HostedRequest]:
        """A request as requests within the server's limits."""
        return list(cut_into_requests(request, self.limits, _BODY_OVERHEAD))

    def item_keys(self, request: HostedRequest) -> list[str]:
        """The key of each text of a request in the log."""
        shared = [self._identity_digest, request.role, request.query]
        if not self.card.independent:
            shared.append(content_digest(list(request.texts)))
        return [content_digest([*shared, text]) for text in request.texts]

    def foresee(self, requests: Sequence[HostedRequest]) -> dict[str, float]:
        """What requests would take, without sending any: at four bytes per token."""
        parts = [part for request in requests for part in self.parts(request)]
        tokens = int(sum(map(request_tokens, parts)) * LIKELY)
        prices, searches = self._prices, sum(search_units(part, LIKELY) for part in parts)
        cost = 0.0 if prices is None else prices.cost(tokens, 0, searches=searches)
        return {"requests": len(parts), "tokens": tokens} | ({"cost": cost} if cost else {})

    def _is_too_large(self, request: HostedRequest, errors: dict[str, str]) -> bool:
        """Whether a single text exceeds the size of a body; then it gets a flag and is not sent."""
        limit = self.limits.bytes
        size = _BODY_OVERHEAD + body_bytes(request.query) + sum(map(body_bytes, request.texts))
        if limit is None or size <= limit or len(request.texts) > 1:
            return False
        errors[self.item_keys(request)[0]] = TOO_LONG
        return True

    def _unsent(self, request: HostedRequest, errors: dict[str, str]) -> list[HostedRequest]:
        """What of a request is still to be sent.

        It is the same for a job that was stopped: a request that was refused before is halved as it
        was then.
        """
        logged = self.log.get(self.request_digest(request))
        if logged is not None and logged.error is not None:
            halves = self._halves(request, logged.error, errors)
            return [node for half in halves for node in self._unsent(half, errors)]
        keys = self.item_keys(request)
        unknown = set(self.log.unanswered(keys))
        if not unknown:
            return []
        if len(unknown) == len(set(keys)):
            return [request]
        pairs = zip(request.texts, keys, strict=True)
        return self._unsent(
            request.with_texts([text for text, key in pairs if key in unknown]), errors
        )

    def _halves(
        self, request: HostedRequest, error: str, errors: dict[str, str]
    ) -> list[HostedRequest]:
        """The halves of a request without an answer; a single text gets the error."""
        count = len(request.texts)
        if count == 1 or not self.card.independent:
            errors.update(dict.fromkeys(self.item_keys(request), error))
            return []
        return [
            request.with_texts(request.texts[: count // 2]),
            request.with_texts(request.texts[count // 2 :]),
        ]

    def _collect(self, keys: Sequence[str], errors: Mapping[str, str]) -> HostedResults:
        """The logged results of texts."""
        values: dict[str, Any] = {}
        flags: dict[str, str] = dict(errors)
        usage: dict[str, float] = {}
        needed = set(keys)
        for answer, items in self.log.batches(key for key in keys if key not in errors):
            reasons = self._reasons(answer)
            item_values = self._item_values(answer, len(items))
            used = 0
            for place, item in enumerate(items):
                if item not in needed or item in values:
                    continue
                used += 1
                values[item] = None if place in reasons else item_values[place]
                if place in reasons:
                    flags[item] = reasons[place]
            for name, amount in answer.usage.items():
                share = amount if used == len(items) else amount * used / len(items)
                usage[name] = usage.get(name, 0) + share
        return HostedResults(
            [values.get(key) for key in keys],
            [flags.get(key, None if key in values else NO_ANSWER) for key in keys],
            usage,
        )

    def _reasons(self, answer: Answer) -> dict[int, str]:
        """The flags of an answer by the place of the text."""
        content = json.loads(answer.text) if answer.text else {}
        return {int(place): flag for place, flag in content.get("flags", {}).items()}

    # -- as `ServedModel` needs it

    def _content(self, request: HostedRequest) -> list[Any]:
        return [request.role, request.query, list(request.texts)]

    def _guess_tokens(self, request: HostedRequest) -> int:
        return request_tokens(request)

    def _worst(self, request: HostedRequest) -> Spent:
        tokens = ceil(self._guess_tokens(request) * self._tokens_per_guess)
        return self._budget.worst(tokens, 0, search_units(request))

    def _wait(self, request: HostedRequest) -> None:
        self._pacer.wait(self._guess_tokens(request))

    def _to_answer(
        self, request: HostedRequest, reply: HostedReply | None, usage: Usage | None, cost: float
    ) -> Answer:
        reply = reply or HostedReply(error=NO_ANSWER)
        counted = (usage or (0, 0, 0))[:3]
        if reply.error is not None or reply.values is None:
            return Answer("", None, reply.error, *counted, cost)
        content: dict[str, Any] = {}
        if reply.flags:
            content["flags"] = {str(place): flag for place, flag in reply.flags.items()}
        labels: np.ndarray | None = reply.values
        if reply.values.ndim == 2:
            labels = None
            content["dimension"] = reply.values.shape[1]
            packed = np.nan_to_num(reply.values, nan=0.0).astype("<f4").tobytes()
            content["vectors"] = base64.b64encode(packed).decode()
        return Answer(json.dumps(content) if content else "", labels, None, *counted, cost)

    def _notes(self, request: HostedRequest, reply: HostedReply) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        items = {"items": self.item_keys(request)} if reply.error is None else {}
        return {"model": reply.model, "time": now} | items


def search_units(request: HostedRequest, share: float = 1.0) -> int:
    """The most search units that a rerank request is billed as.

    Args:
        share: of the tokens of `guess_tokens`, for an estimate that is not the worst case.

    Examples:
        >>> search_units(HostedRequest(("short",) * 101, "query"))
        2
    """
    query = guess_tokens(request.query)
    documents = sum(
        max(1, ceil((guess_tokens(text) + query) * share / _SEARCH_TOKENS))
        for text in request.texts
    )
    return ceil(documents / _SEARCH_DOCUMENTS)
