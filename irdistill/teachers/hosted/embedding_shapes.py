"""The ``/embeddings`` interface of OpenAI, which TEI, Ollama, vLLM, llama.cpp and Infinity share.

- OpenAI: https://platform.openai.com/docs/api-reference/embeddings
- Voyage: https://docs.voyageai.com/reference/embeddings-api (``input_type``)
- Jina: https://api.jina.ai/redoc (``task``, and ``embedding_type`` in place of ``encoding_format``)
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from irdistill.teachers.hosted.hosted_requests import (
    NOT_A_NUMBER,
    WRONG_DIMENSION,
    HostedReply,
    HostedRequest,
    by_index,
    parse_json,
    token_count,
)
from irdistill.teachers.llm.chat_answers import Usage

Encoding = Literal["float", "base64"]


@dataclass(frozen=True)
class EmbeddingShape:
    """The ``/embeddings`` interface of a provider.

    Attributes:
        encoding_name: name of the parameter for the encoding of vectors.
        dimension_name: name of the parameter for the length of vectors.
        names_float: whether lists of numbers are requested by name; otherwise they are the default.

    Examples:
        >>> shape = SHAPES["openai"]
        >>> shape.request_body("m", HostedRequest(("a",)), "float", 256)
        {'model': 'm', 'input': ['a'], 'encoding_format': 'float', 'dimensions': 256}
    """

    encoding_name: str = "encoding_format"
    dimension_name: str = "dimensions"
    names_float: bool = True

    path = "embeddings"

    def request_body(
        self, model: str, request: HostedRequest, encoding: Encoding, dimension: int | None
    ) -> dict[str, Any]:
        """The body of a request.

        Args:
            dimension: requested length of the vectors; the model's if None.
        """
        sized = {} if dimension is None else {self.dimension_name: dimension}
        encoded = {self.encoding_name: encoding} if self.names_float or encoding != "float" else {}
        return {"model": model, "input": list(request.texts)} | encoded | sized

    def read(self, body: str, count: int) -> HostedReply:
        """Read a response: vectors as lists of numbers, or as base64 of little-endian float32.

        Args:
            count: number of texts of the request.
        """
        data, fault = parse_json(body, "a list of vectors")
        if fault is not None:
            return HostedReply(fault=fault)
        counted = data.get("usage") if isinstance(data, dict) else None
        usage = _usage(counted if isinstance(counted, dict) else {})
        entries = data.get("data") if isinstance(data, dict) else None
        if not isinstance(entries, list):
            return HostedReply(usage=usage, fault="a response without a list of vectors")
        vectors, flags = by_index(entries, count, lambda entry: _vector(entry.get("embedding")))
        lengths = [len(vector) for vector in vectors if vector is not None]
        if not lengths:
            return HostedReply(usage=usage, fault="a response without a readable vector")
        size = max(set(lengths), key=lengths.count)
        values = np.full((count, size), np.nan, np.float32)
        for place, vector in enumerate(vectors):
            if vector is None:
                continue
            if len(vector) != size:
                flags[place] = WRONG_DIMENSION
            elif not np.isfinite(vector).all():
                flags[place] = NOT_A_NUMBER
            else:
                values[place] = vector
        model = data.get("model")
        return HostedReply(
            values, flags, usage=usage, model=model if isinstance(model, str) else ""
        )


SHAPES: Mapping[str, EmbeddingShape] = {
    "openai": EmbeddingShape(),
    "jina": EmbeddingShape(encoding_name="embedding_type"),
    "voyage": EmbeddingShape(dimension_name="output_dimension", names_float=False),
}


def _vector(value: Any) -> np.ndarray | None:
    """(D,) float32, possibly with NaN; None for what is no vector."""
    if isinstance(value, str):
        try:
            data = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            return None
        return np.frombuffer(data, "<f4") if data and len(data) % 4 == 0 else None
    if not isinstance(value, list) or not value:
        return None
    numbers = [np.nan if number is None else number for number in value]
    if not all(isinstance(number, int | float) for number in numbers):
        return None
    with np.errstate(over="ignore"):
        return np.array(numbers, np.float64).astype(np.float32)


def _usage(counted: Mapping[str, Any]) -> Usage | None:
    tokens = token_count(counted.get("prompt_tokens"))
    if tokens is None:
        tokens = token_count(counted.get("total_tokens"))
    return None if tokens is None else Usage(tokens, 0)
