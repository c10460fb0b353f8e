"""Hosted embedding models as encoders: for retrieval, for `align`, and as teachers."""

from __future__ import annotations

import base64
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field

from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import ServerError
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.truncation import Truncation
from irdistill.students.tower_model import TextKind
from irdistill.teachers.hosted.embedding_shapes import SHAPES, Encoding
from irdistill.teachers.hosted.hosted_card import EMBEDDERS, HostedServerCard
from irdistill.teachers.hosted.hosted_model import HostedModel, HostedResults
from irdistill.teachers.hosted.hosted_requests import WRONG_DIMENSION, HostedRequest, TextRole
from irdistill.teachers.hosted.hosted_server import MAX_BYTES, EmbeddingServer
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.served_model import ServingOptions, access_of
from irdistill.teachers.protocol import NO_TOKENS, TeacherScores, TextPair

logger = logging.getLogger(__name__)
_PROBED = "dimension"


@dataclass(frozen=True)
class EncoderOptions:
    """How texts are encoded.

    Attributes:
        similarity: how vectors are compared.
        query_prompt: text before each query.
        document_prompt: text before each document.
        encoding: how vectors are sent: ``base64`` takes a third of the bytes of ``float``.
        dimension: requested length of the vectors; the model's if None.
        document_characters: texts with more characters are cut before they are sent.
    """

    similarity: Literal["cosine", "dot"] = "cosine"
    query_prompt: str = ""
    document_prompt: str = ""
    encoding: Encoding = "base64"
    dimension: Annotated[int | None, Field(ge=1)] = None
    document_characters: Annotated[int | None, Field(ge=1)] = None


class EmbeddingModel(HostedModel):
    """An embedding model behind a server."""

    def __init__(
        self,
        model: str,
        card: HostedServerCard,
        identity: Mapping[str, Any],
        options: ServingOptions,
        encoding: EncoderOptions,
    ) -> None:
        self._encoding = encoding
        super().__init__(model, card, identity, options)

    def _connect(self, url: str, key: str | None, options: ServingOptions) -> EmbeddingServer:
        access = access_of(url, key, options, MAX_BYTES)
        shape = SHAPES[self.card.shape]
        encoding, dimension = self._encoding.encoding, self._encoding.dimension
        return EmbeddingServer(self.model, self.card, access, shape, encoding, dimension)

    def _probe(self) -> HostedRequest:
        return HostedRequest((_PROBED,))

    def _item_values(self, answer: Answer, count: int) -> np.ndarray:
        content = json.loads(answer.text)
        packed = np.frombuffer(base64.b64decode(content["vectors"]), "<f4")
        return packed.reshape(count, content["dimension"])


class HostedEncoder:
    """An embedding model behind a server, where a dense model is expected.

    It encodes texts for `retrieve`, for `align` and for `EmbeddingTeacher`. It has no weights, so
    it cannot be trained, saved or taken as a backbone.

    Args:
        name: the card's name, for messages.
        model: name of the model on the server.
        server: the card's server, see `HostedServerCard`.
        serving: see `ServingOptions`.
        encoding: see `EncoderOptions`.
    """

    kind = "dense"
    device = torch.device("cpu")

    def __init__(
        self,
        name: str,
        model: str,
        server: Mapping[str, Any],
        serving: ServingOptions,
        encoding: EncoderOptions,
    ) -> None:
        card = HostedServerCard.of(server, EMBEDDERS)
        self.source, self.options = name, encoding
        self.truncation: dict[str, Truncation] = {}
        self._shared = {
            "backend": "server",
            "api": f"embeddings ({card.shape})",
            "model": model,
            "server": card.name or str(serving.url or card.url).rstrip("/"),
            "parameters": dict(card.parameters or {}),
            "encoding": encoding.encoding,
            "requested_dimension": encoding.dimension,
        }
        self._roles = {
            "query": dict(card.query_parameters or {}),
            "document": dict(card.document_parameters or {}),
        }
        identity = self._shared | {"roles": self._roles}
        self.model = EmbeddingModel(model, card, identity, serving, encoding)

    def __repr__(self) -> str:
        return f"HostedEncoder({self.source!r})"

    @property
    def similarity(self) -> str:
        """How vectors are compared: ``cosine`` or ``dot``."""
        return self.options.similarity

    @cached_property
    def dimension(self) -> int:
        """The length of the vectors; the first use may send a request of one word."""
        results = self.model.results([HostedRequest((_PROBED,))])
        vector = results.values[0]
        if vector is None:
            raise ServerError(
                f"the server {self.model.url} gave no vector for the word {_PROBED!r}"
                f" ({results.flags[0]}). Check the card's model and parameters."
            )
        requested = self.options.dimension
        if requested is not None and len(vector) != requested:
            raise ServerError(
                f"the server {self.model.url} gave a vector of {len(vector)} numbers, but the card"
                f" of {self.source!r} asks for {requested}. Remove dimension, or take a model with"
                " vectors of this length."
            )
        return len(vector)

    def max_length(self, kind: TextKind) -> int:
        """The tokens that the server reads of a text; 0 if the card does not say."""
        return self.model.limits.text_tokens or 0

    def longer_model(self, kind: TextKind) -> None:
        """None: vectors are not made of longer ones here."""

    def tower_identity(self, kind: TextKind) -> dict[str, Any]:
        """All that determines the vectors of the texts of a kind."""
        role = _role(kind)
        return self._shared | {
            "role_parameters": self._roles[role],
            "prompt": self._prompt(role),
            "document_characters": self.options.document_characters,
            "similarity": self.similarity,
            "dimension": self.dimension,
        }

    def document_identity(self) -> dict[str, Any]:
        """All that determines the vectors of documents."""
        return self.tower_identity("document")

    def identity(self) -> dict[str, Any]:
        """All that determines the vectors, for manifests."""
        return {
            "kind": "hosted-embedder",
            "type": "dense",
            **self._shared,
            "roles": self._roles,
            "prompts": {role: self._prompt(role) for role in ("query", "document")},
            "document_characters": self.options.document_characters,
            "similarity": self.similarity,
        }

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: TextKind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> np.ndarray:
        """(n, D) float32 vectors of texts, of length 1 for cosine; zeros for a text without one.

        Args:
            precision, budget: ignored; the server decides.
            done: called with the number of texts that were encoded.
        """
        vectors, flags, _ = self.encode(texts, _role(kind), done)
        lost = Counter(flag for flag in flags if flag not in (None, NO_TOKENS))
        if lost:
            logger.warning(
                "%d of %d texts have no vector from %s (%s)",
                lost.total(),
                len(texts),
                self.source,
                ", ".join(f"{count} {flag}" for flag, count in lost.items()),
            )
        return vectors

    def encode(
        self, texts: Sequence[str], role: TextRole, done: ProgressCallback | None = None
    ) -> tuple[np.ndarray, list[str | None], dict[str, float]]:
        """Vectors (n, D), why a text has none, and what that took."""
        requests, places = self._requests(texts, role)
        results = self.model.results(requests, done)
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        flags: list[str | None] = [None if place >= 0 else NO_TOKENS for place in places]
        _check_dimension(results, self.dimension, self.source)
        for row, place in enumerate(places):
            if place < 0:
                continue
            vector, flag = results.values[place], results.flags[place]
            if vector is not None and len(vector) == self.dimension:
                vectors[row] = vector
            else:
                flags[row] = flag or WRONG_DIMENSION
        if self.similarity == "cosine":
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors /= np.where(lengths > 0, lengths, 1)
        return vectors, flags, results.usage

    def close(self) -> None:
        """Close the response log, so that another process can use it."""
        self.model.close()

    def foresee(self, texts: Sequence[str], role: TextRole) -> dict[str, float]:
        """What encoding would take; nothing is sent."""
        return self.model.foresee(self._requests(texts, role)[0])

    def _prompt(self, role: TextRole) -> str:
        return self.options.query_prompt if role == "query" else self.options.document_prompt

    def _requests(
        self, texts: Sequence[str], role: TextRole
    ) -> tuple[list[HostedRequest], list[int]]:
        """A request for the distinct texts, and the place of each text in it; -1 if it is empty."""
        distinct: dict[str, int] = {}
        places = [
            distinct.setdefault(
                self._prompt(role) + text[: self.options.document_characters], len(distinct)
            )
            if text.strip()
            else -1
            for text in texts
        ]
        return ([HostedRequest(tuple(distinct), role=role)] if distinct else []), places


class EmbeddingTeacher:
    """Scores pairs by the similarity of hosted vectors.

    Only the queries and the candidates are encoded, not the whole corpus. Answers are kept in the
    cache folder, where `retrieve` and `align` find them: a text is paid for once.

    Args:
        encoder: encodes the texts.
    """

    def __init__(self, encoder: HostedEncoder) -> None:
        self.encoder = encoder
        self._foreseen: set[int] = set()

    @property
    def identity(self) -> dict[str, Any]:
        """The encoder's identity."""
        return self.encoder.identity()

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Cosine or inner product of each pair, summed in float32."""
        queries, query_rows = _distinct([pair.query.text for pair in pairs])
        documents, document_rows = _distinct([pair.text for pair in pairs])
        query_vectors, query_flags, usage = self.encoder.encode(queries, "query")
        vectors, document_flags, document_usage = self.encoder.encode(documents, "document")
        for name, amount in document_usage.items():
            usage[name] = usage.get(name, 0) + amount
        values = np.einsum(
            "nd,nd->n", query_vectors[query_rows], vectors[document_rows], dtype=np.float32
        )
        flags = [
            query_flags[query] or document_flags[document]
            for query, document in zip(query_rows, document_rows, strict=True)
        ]
        values[[flag is not None for flag in flags]] = np.nan
        return TeacherScores(values, flags if any(flags) else None, usage)

    def foresee(self, pairs: Sequence[TextPair]) -> dict[str, float]:
        """What scoring would take; nothing is sent. A text of an earlier call is not counted again,
        because it is paid for once.
        """
        figures: Counter[str] = Counter()
        roles: dict[TextRole, list[str]] = {
            "query": [pair.query.text for pair in pairs],
            "document": [pair.text for pair in pairs],
        }
        for role, texts in roles.items():
            new = [
                text for text in dict.fromkeys(texts) if hash((role, text)) not in self._foreseen
            ]
            self._foreseen.update(hash((role, text)) for text in new)
            figures.update(self.encoder.foresee(new, role))
        return dict(figures)


def _role(kind: TextKind) -> TextRole:
    return "query" if kind == "query" else "document"


def _distinct(texts: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct texts in the order of their first places, and the number of each text."""
    places: dict[str, int] = {}
    rows = [places.setdefault(text, len(places)) for text in texts]
    return list(places), rows


def _check_dimension(results: HostedResults, dimension: int, name: str) -> None:
    """Raise if all vectors have another length: the model behind the address has changed."""
    lengths = Counter(len(vector) for vector in results.values if vector is not None)
    if lengths and dimension not in lengths:
        raise ServerError(
            f"the vectors of {name!r} had {dimension} numbers, and now the server gives"
            f" {', '.join(map(str, lengths))}. Another model answers at this address: check the"
            " card's model and url, and set name in the card's server if the model has changed."
        )
