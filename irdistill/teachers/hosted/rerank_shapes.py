"""The ``/rerank`` interfaces: bodies of requests, and scores of responses.

All take a query and a list of documents and return an index and a score for each document, sorted.
They differ in names, in options, and in what they say about usage:

- Cohere v2: https://docs.cohere.com/reference/rerank (bills search units)
- Jina: https://api.jina.ai/redoc (``usage.total_tokens``)
- Voyage: https://docs.voyageai.com/reference/reranker-api (``data`` in place of ``results``)
- Text Embeddings Inference: https://huggingface.github.io/text-embeddings-inference (``texts``, a
  plain list, usage in headers)
- vLLM: https://docs.vllm.ai/en/latest/models/pooling_models/scoring (Jina's and Cohere's shape)
- Infinity: https://github.com/michaelfeil/infinity (Cohere's shape and ``raw_scores``)
- llama.cpp: https://github.com/ggml-org/llama.cpp/tree/master/tools/server (Jina's shape)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irdistill.teachers.hosted.hosted_requests import (
    HostedReply,
    HostedRequest,
    by_index,
    parse_json,
    token_count,
)
from irdistill.teachers.llm.chat_answers import Usage


@dataclass(frozen=True)
class RerankShape:
    """One ``/rerank`` interface.

    Attributes:
        documents: name of the documents in the body.
        results: name of the list of results in the response; empty if the response is the list.
        score: name of the score of a result.
        body: parameters that every request has.
        needs_model: whether the body names the model.

    Examples:
        >>> shape = SHAPES["voyage"]
        >>> reply = shape.read('{"data": [{"index": 1, "relevance_score": 0.5}]}', 2, {})
        >>> reply.values.tolist(), reply.flags
        ([nan, 0.5], {0: 'not returned'})
    """

    documents: str = "documents"
    results: str = "results"
    score: str = "relevance_score"
    body: Mapping[str, Any] = field(default_factory=dict)
    needs_model: bool = True

    path = "rerank"

    def request_body(self, model: str, request: HostedRequest) -> dict[str, Any]:
        """The body of a request."""
        named = {"model": model} if self.needs_model else {}
        texts = {"query": request.query, self.documents: list(request.texts)}
        return named | texts | dict(self.body)

    def read(self, body: str, count: int, headers: Mapping[str, str]) -> HostedReply:
        """Read a response.

        Args:
            count: number of documents of the request.
        """
        data, fault = parse_json(body, "a list of scores")
        if fault is not None:
            return HostedReply(fault=fault)
        usage = _usage(data, headers)
        entries = data.get(self.results) if isinstance(data, dict) and self.results else data
        if not isinstance(entries, list):
            return HostedReply(usage=usage, fault="a response without a list of scores")
        values, flags = by_index(entries, count, lambda entry: _number(entry.get(self.score)))
        scores = np.array([np.nan if value is None else value for value in values], np.float32)
        model = data.get("model") if isinstance(data, dict) else ""
        return HostedReply(
            scores, flags, usage=usage, model=model if isinstance(model, str) else ""
        )


_LARGEST = float(np.finfo(np.float32).max)
#: Cohere returns scores only, and sorts all documents if ``top_n`` is left out.
_PLAIN = {"return_documents": False}
SHAPES: Mapping[str, RerankShape] = {
    "cohere": RerankShape(),
    "jina": RerankShape(body=_PLAIN),
    "voyage": RerankShape(results="data", body=_PLAIN),
    "infinity": RerankShape(body=_PLAIN),
    "tei": RerankShape("texts", "", "score", {"return_text": False}, needs_model=False),
    "vllm": RerankShape(),
    "llama.cpp": RerankShape(),
}


def _number(value: Any) -> float | None:
    """A finite float32; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= _LARGEST else None


def _usage(data: Any, headers: Mapping[str, str]) -> Usage | None:
    """What the server counted: tokens, or Cohere's search units."""
    if isinstance(data, dict):
        usage, meta = data.get("usage"), data.get("meta")
        if isinstance(usage, dict):
            tokens = token_count(usage.get("total_tokens"))
            return None if tokens is None else Usage(tokens, 0)
        billed = meta.get("billed_units") if isinstance(meta, dict) else None
        units = _number(billed.get("search_units")) if isinstance(billed, dict) else None
        if units is not None and 0 <= units < 1e6:
            return Usage(0, 0, 0, units)
    counted = headers.get("x-compute-tokens", "")
    return Usage(int(counted), 0) if counted.isdecimal() and len(counted) < 12 else None
