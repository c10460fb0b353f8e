"""Hosted rerankers as teachers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irdistill.errors import OptionError
from irdistill.teachers.hosted.hosted_card import RERANKERS, HostedServerCard
from irdistill.teachers.hosted.hosted_model import HostedModel
from irdistill.teachers.hosted.hosted_requests import LIKELY, HostedRequest, guess_tokens
from irdistill.teachers.hosted.hosted_server import MAX_BYTES, RerankServer
from irdistill.teachers.hosted.rerank_shapes import SHAPES
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.served_model import ServingOptions, access_of
from irdistill.teachers.protocol import TeacherScores, TextPair

logger = logging.getLogger(__name__)

#: If at least this many scores are all between 0 and 1, they are probably probabilities.
_ENOUGH_SCORES = 20


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
        self._warned: set[str] = set()

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
        notes = self._long_documents(pairs) | self._split_lists(requests)
        results = self.model.results(requests)
        values = np.full(len(pairs), np.nan, np.float32)
        flags: list[str | None] = [None] * len(pairs)
        for place, value, flag in zip(places, results.values, results.flags, strict=True):
            values[place] = np.nan if value is None else value
            for row in place:
                flags[row] = flag
        usage = results.usage | notes | ({"passages_cut": cut} if cut else {})
        self._check_logits(values[~np.isnan(values)])
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
        texts = (pair.text[: self.document_characters] for pair in pairs)
        long = sum(guess_tokens(text) * LIKELY > limit for text in texts)
        if long:
            self._warn(
                "documents_over_limit",
                f"{long} of {len(pairs)} documents are longer than the {limit} tokens that"
                f" {self.model.model} reads; the server cuts them without an error",
            )
        return {"documents_over_limit": long} if long else {}

    def _split_lists(self, requests: Sequence[HostedRequest]) -> dict[str, float]:
        """How many queries' documents a listwise reranker does not read together."""
        if self.model.card.independent:
            return {}
        split = sum(len(self.model.parts(request)) > 1 for request in requests)
        if split:
            self._warn(
                "lists_split",
                f"{self.model.model} compares the documents of a request, and {split} of"
                f" {len(requests)} queries have too many for one, so their scores are not"
                " comparable. Score fewer documents per query (--k).",
            )
        return {"lists_split": split} if split else {}

    def _check_logits(self, scores: np.ndarray) -> None:
        """Warn of scores that look like probabilities, if the card says that they are logits."""
        if self.model.card.scores != "logits" or len(scores) < _ENOUGH_SCORES:
            return
        if scores.min() >= 0 and scores.max() <= 1:
            self._warn(
                "logits",
                f"the card says that {self.model.model} returns logits, and all of {len(scores)}"
                " scores are between 0 and 1. The server may ignore a parameter of the card, such"
                " as raw_scores or use_activation: check it, or set scores: probabilities.",
            )

    def _warn(self, kind: str, message: str) -> None:
        """Warn, once of each kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning("%s", message)
