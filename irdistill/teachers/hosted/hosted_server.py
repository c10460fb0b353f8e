"""The client of hosted rerankers and embedders."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from irdistill.teachers.hosted.embedding_shapes import EmbeddingShape, Encoding
from irdistill.teachers.hosted.hosted_card import HostedServerCard
from irdistill.teachers.hosted.hosted_requests import HostedReply, HostedRequest
from irdistill.teachers.hosted.rerank_shapes import RerankShape
from irdistill.teachers.llm.model_server import ModelServer, ServerAccess
from irdistill.teachers.protocol import TOO_LONG

#: The largest response: 2,048 vectors of 4,096 numbers as text are larger, and so are no requests.
MAX_BYTES = 64 * 2**20
_TOO_LARGE = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,40}(length|context|size|tokens|documents|batch)"
    r"|too (long|large|many)|(must have|have) less than|exceed|larger than",
    re.I,
)
#: llama.cpp refuses long texts with status 500: "input (608 tokens) is too large to process".
_LASTING = re.compile(r"too large to process", re.I)


class HostedServer(ModelServer[HostedRequest, HostedReply]):
    """A server that scores or encodes texts.

    A request that the server refuses because of its size gets the error `TOO_LONG`.

    Args:
        model: name of the model on the server.
        card: parameters of requests.
        access: address, key and limits.
    """

    def __init__(self, model: str, card: HostedServerCard, access: ServerAccess) -> None:
        super().__init__(model, access, "a hosted reranker or embedding model")
        self._parameters = {
            "query": {**(card.parameters or {}), **(card.query_parameters or {})},
            "document": {**(card.parameters or {}), **(card.document_parameters or {})},
        }

    def max_tokens(self, request: HostedRequest) -> int:
        """No tokens are written."""
        return 0

    @property
    @abstractmethod
    def path(self) -> str:
        """What is added to the address."""

    @abstractmethod
    def _own_body(self, request: HostedRequest) -> dict[str, Any]:
        """The body of a request, without the card's parameters."""

    def request_body(self, request: HostedRequest) -> dict[str, Any]:
        """The body of a request."""
        body = self._own_body(request) | self._parameters[request.role]
        return {name: value for name, value in body.items() if value is not None}

    def _post(self, client: Any, request: HostedRequest) -> None:
        client.post(f"/{self.path}", cast_to=self._http.Response, body=self.request_body(request))

    def _refusal(
        self, request: HostedRequest, status: int, code: str, text: str
    ) -> HostedReply | None:
        if status == 413 or "context_length" in code or _TOO_LARGE.search(text):
            return HostedReply(error=TOO_LONG)
        return None

    def _lasting_error(self, request: HostedRequest, status: int, text: str) -> HostedReply | None:
        return HostedReply(error=TOO_LONG) if status >= 500 and _LASTING.search(text) else None


class RerankServer(HostedServer):
    """A server with a ``/rerank`` interface."""

    def __init__(
        self, model: str, card: HostedServerCard, access: ServerAccess, shape: RerankShape
    ) -> None:
        super().__init__(model, card, access)
        self._shape = shape

    @property
    def path(self) -> str:
        """What is added to the address."""
        return self._shape.path

    def _own_body(self, request: HostedRequest) -> dict[str, Any]:
        return self._shape.request_body(self.model, request)

    def _read(self, request: HostedRequest, body: str, headers: Mapping[str, str]) -> HostedReply:
        return self._shape.read(body, len(request.texts), headers)


class EmbeddingServer(HostedServer):
    """A server with an ``/embeddings`` interface.

    Args:
        encoding: how vectors are sent.
        dimension: requested length of the vectors; the model's if None.
    """

    def __init__(
        self,
        model: str,
        card: HostedServerCard,
        access: ServerAccess,
        shape: EmbeddingShape,
        encoding: Encoding,
        dimension: int | None,
    ) -> None:
        super().__init__(model, card, access)
        self._shape, self._encoding, self._dimension = shape, encoding, dimension

    @property
    def path(self) -> str:
        """What is added to the address."""
        return self._shape.path

    def _own_body(self, request: HostedRequest) -> dict[str, Any]:
        return self._shape.request_body(self.model, request, self._encoding, self._dimension)

    def _read(self, request: HostedRequest, body: str, headers: Mapping[str, str]) -> HostedReply:
        return self._shape.read(body, len(request.texts))
