"""The server of a hosted reranker's or embedder's card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import InputError
from irdistill.storage.plain_data import check_values

RERANKERS = ("cohere", "infinity", "jina", "llama.cpp", "tei", "vllm", "voyage")
EMBEDDERS = ("openai", "jina", "voyage")

Shape = Literal["cohere", "infinity", "jina", "llama.cpp", "openai", "tei", "vllm", "voyage"]
Positive = Annotated[int | None, Field(ge=1)]


@dataclass(frozen=True)
class RequestLimits:
    """The most that a server takes in one request and in one minute; None for no limit.

    Attributes:
        texts: documents of a rerank request, texts of an embedding request.
        tokens: tokens of a request, at one per three bytes of text.
        bytes: size of the body of a request.
        text_tokens: tokens that the model reads of a text; for messages.
        requests_per_minute: requests are spread evenly, so that the server need not refuse any.
        tokens_per_minute: likewise.

    Examples:
        >>> RequestLimits(texts=32).bytes is None
        True
    """

    texts: Positive = None
    tokens: Positive = None
    bytes: Positive = None
    text_tokens: Positive = None
    requests_per_minute: Positive = None
    tokens_per_minute: Positive = None


@dataclass(frozen=True)
class HostedServerCard:
    """Where a hosted model is, and how its interface looks.

    Attributes:
        shape: the interface: see `rerank_shapes` and `embedding_shapes`.
        url: address to which ``/rerank`` or ``/embeddings`` is added.
        name: replaces the url in the identity and in the log, if several servers, or one with a
            changing address, count as the same.
        key: name of the environment variable that holds the key.
        prices: see `irdistill.teachers.llm.budget.Prices`.
        parameters: added to the body of every request; None as a value removes a parameter.
        query_parameters: likewise, for the queries of an embedder.
        document_parameters: likewise, for the documents of an embedder.
        limits: fields of `RequestLimits`.
        scores: what the scores of a reranker are; they are stored as the server returns them.
            ``similarities`` are cosines.
        truncates: whether the server cuts texts that are too long without an error.
        independent: whether the score of a document does not depend on the other documents of the
            request.
    """

    shape: Shape
    url: str | None = None
    name: str | None = None
    key: str | None = None
    prices: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    query_parameters: dict[str, Any] | None = None
    document_parameters: dict[str, Any] | None = None
    limits: dict[str, Any] = field(default_factory=dict)
    scores: Literal["logits", "probabilities", "similarities"] = "probabilities"
    truncates: bool = False
    independent: bool = True

    @classmethod
    def of(cls, server: Mapping[str, Any], shapes: tuple[str, ...]) -> HostedServerCard:
        """The checked server of a card.

        Args:
            shapes: the shapes that its kind of teacher has.
        """
        if "shape" not in server:
            raise InputError(
                f"the card's server has no shape; expected one of {', '.join(shapes)}. Add a line"
                " `shape: …`."
            )
        check_values(server, cls, "the card's server")
        card = cls(**server)
        if card.shape not in shapes:
            raise InputError(
                f"the card's server has the shape {card.shape!r}, which this kind of teacher does"
                f" not have; expected one of {', '.join(shapes)}."
            )
        check_values(card.limits, RequestLimits, "the limits of the card's server")
        return card

    @property
    def request_limits(self) -> RequestLimits:
        """The limits."""
        return RequestLimits(**self.limits)
