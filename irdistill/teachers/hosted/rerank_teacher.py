"""Hosted rerankers as teachers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irdistill.errors import OptionError
from irdistill.teachers.hosted.hosted_card import RERANKERS, HostedServerCard
from irdistill.teachers.hosted.hosted_model import HostedModel
from irdistill.teachers.hosted.hosted_requests import HostedRequest, guess_tokens
from irdistill.teachers.hosted.hosted_server import MAX_BYTES, RerankServer
from irdistill.teachers.hosted.rerank_shapes import SHAPES
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.served_model import ServingOptions, access_of
from irdistill.teachers.protocol import TeacherScores, TextPair

logger = logging.getLogger(__name__)


class RerankModel(HostedModel):
    """A reranker behind a server."""

    def _connect(self, url: str, key: str | None, options: ServingOptions) -> RerankServer:
        access = access_of(url, key, options, MAX_BYTES)
        return RerankServer(self.model, self.card, access, SHAPES[self.card.shape])

    def _probe(self) -> HostedRequest:
        return HostedRequest(("a",), "a")

    def _item_values(self, answer: Answer, count: int) -> list[float]:
        labels = answer.labels
        return [] if labels is None else labels.tolist()


class RerankTeacher:
    """Scores the candidates of a query by a server's ``/rerank``.

    Scores are stored as the server returns them: logits or probabilities, as the card says. A
    document is null with a flag if the server returned no score, several scores or no number for
    it, or cannot read it; nothing is guessed.

    Args:
        model: name of the model on the server.
        server: the card's server, see `HostedServerCard`.
        options: see `ServingOptions`.
        document_characters: documents with more characters are cut before they are sent.
    """

    def __init__(
        self,
        model: str,
        server: Mapping[str, Any],
        options: ServingOptions,
        document_characters: int | None = None,
    ) -> None:
        if document_characters is not None and document_characters < 1:
            raise OptionError(f"document_characters is {document_characters}; expected at least 1.")
        card = HostedServerCard.of(server, RERANKERS)
        identity = {
            "backend": "server",
            "api": f"rerank ({card.shape})",
            "model": model,
            "server": card.name or str(options.url or card.url).rstrip("/"),
            "parameters": dict(card.parameters or {}),
        }
        if not card.independent:
            identity["limits"] = {"texts": card.request_limits.texts}
        self.model = RerankModel(model, card, identity, options)
        self.document_characters = document_characters
        self._warned = False

    @property
    def identity(self) -> dict[str, Any]:
        """The model's identity, and what was sent of a document."""
        return {
            "kind": "hosted-reranker",
            **self.model.identity,
            "score": self.model.card.scores,
            "document_characters": self.document_characters,
        }

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Scores of pairs; each pair is sent once, whatever document it is of."""
        requests, places, cut = self._requests(pairs)
        results = self.model.results(requests)
        values = np.full(len(pairs), np.nan, np.float32)
        flags: list[str | None] = [None] * len(pairs)
        for place, value, flag in zip(places, results.values, results.flags, strict=True):
            values[place] = np.nan if value is None else value
            for row in place:
                flags[row] = flag
        usage = results.usage | ({"passages_cut": cut} if cut else {})
        usage |= self._long_documents(pairs)
        return TeacherScores(values, flags if any(flags) else None, usage)

    def foresee(self, pairs: Sequence[TextPair]) -> dict[str, float]:
        """What scoring would take; nothing is sent."""
        return self.model.foresee(self._requests(pairs)[0])

    def _requests(
        self, pairs: Sequence[TextPair]
    ) -> tuple[list[HostedRequest], list[list[int]], int]:
        """A request for each query, the pairs of each of their texts, and how many were cut."""
        by_query: dict[str, dict[str, list[int]]] = {}
        cut = 0
        for place, pair in enumerate(pairs):
            text = pair.text[: self.document_characters]
            cut += len(text) < len(pair.text)
            by_query.setdefault(pair.query.text, {}).setdefault(text, []).append(place)
        requests = [HostedRequest(tuple(texts), query) for query, texts in by_query.items()]
        return requests, [rows for texts in by_query.values() for rows in texts.values()], cut

    def _long_documents(self, pairs: Sequence[TextPair]) -> dict[str, float]:
        """How many documents a server that cuts texts silently does not read as a whole."""
        limit = self.model.limits.text_tokens
        if limit is None or not self.model.card.truncates:
            return {}
        # four bytes per token, where `guess_tokens` has three: only texts that are surely longer
        long = sum(guess_tokens(pair.text) * 3 // 4 > limit for pair in pairs)
        if long and not self._warned:
            self._warned = True
            logger.warning(
                "%d of %d documents are longer than the %d tokens that %s reads; the server cuts"
                " them without an error",
                long,
                len(pairs),
                limit,
                self.model.model,
            )
        return {"documents_over_limit": long} if long else {}
