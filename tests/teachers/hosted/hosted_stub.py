"""A server on loopback with all interfaces of hosted rerankers and embedders, and scripted faults."""

from __future__ import annotations

import base64
import random
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.teachers.llm.chat_stub import ChatStub, Plan, Reply, always

DIMENSION = 8
SHAPES = ("cohere", "infinity", "jina", "llama.cpp", "tei", "vllm", "voyage")


def pair_score(query: str, text: str) -> float:
    """The score of a pair: a float32 between -5 and 5."""
    return float(np.float32(zlib.crc32(f"{query}|{text}".encode()) / 2**32 * 10 - 5))


def text_vector(text: str, dimension: int = DIMENSION) -> np.ndarray:
    """(D,) float32 numbers of a text."""
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    return rng.standard_normal(dimension).astype(np.float32)


class HostedStub(ChatStub):
    """The server. ``plan`` gets the query and the texts of a request, joined by ``|``.

    Attributes:
        text_counts: how often each pair or text was in a request.
        reports: whether usage is reported.
    """

    def __init__(self, shape: str = "jina", plan: Plan | None = None) -> None:
        self.shape, self.reports = shape, True
        self.text_counts: Counter[tuple[str, str]] = Counter()
        super().__init__(plan or always(Reply()))
        if shape == "tei":
            self.url = self.url.removesuffix("/v1")

    def prompt(self, body: dict[str, Any]) -> str:
        query, texts = str(body.get("query", "")), self.texts(body)
        with self.lock:
            self.text_counts.update((query, text) for text in texts)
        return "|".join([query, *texts])

    def texts(self, body: dict[str, Any]) -> list[str]:
        """The texts of a request."""
        name = "texts" if self.shape == "tei" else "documents"
        return list(body["input"] if "input" in body else body[name])

    def usual(self, path: str, body: dict[str, Any]) -> Any:
        if path.endswith("/embeddings"):
            return self._embeddings(body)
        assert path.endswith("/rerank")
        return self._scores(body["query"], self.texts(body))

    def _scores(self, query: str, texts: list[str]) -> Any:
        name = "score" if self.shape == "tei" else "relevance_score"
        results = [
            {"index": place, name: pair_score(query, text)} for place, text in enumerate(texts)
        ]
        results.sort(key=lambda result: -result[name])
        tokens = sum(len(query) + len(text) for text in texts)
        if self.shape == "tei":
            return results
        if self.shape == "cohere":
            billed = {"billed_units": {"search_units": -(-len(texts) // 100)}}
            return {"id": "1", "results": results, "meta": billed if self.reports else {}}
        listed = {"data" if self.shape == "voyage" else "results": results, "model": "stub-1"}
        return listed | ({"usage": {"total_tokens": tokens}} if self.reports else {})

    def _embeddings(self, body: dict[str, Any]) -> Any:
        texts = self.texts(body)
        dimension = body.get("dimensions") or body.get("output_dimension") or DIMENSION
        encoding = body.get("encoding_format") or body.get("embedding_type") or "float"
        data = []
        for place, text in enumerate(texts):
            vector = text_vector(text, dimension)
            packed = base64.b64encode(vector.astype("<f4").tobytes()).decode()
            data.append(
                {"index": place, "embedding": packed if encoding == "base64" else vector.tolist()}
            )
        random.Random(len(texts)).shuffle(data)
        tokens = sum(map(len, texts))
        return {
            "object": "list",
            "data": data,
            "model": "stub-1",
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


def write_card(
    stub: HostedStub, kind: str = "hosted-reranker", name: str = "stub", **more: Any
) -> Path:
    """A card of the stub; ``settings`` and fields of the server."""
    settings = {"max_retries": 2} | more.pop("settings", {})
    server = {"url": stub.url, "name": "stub", "key": "STUB_KEY", "shape": stub.shape} | more
    card = {"name": name, "kind": kind, "model": "m", "settings": settings, "server": server}
    path = Path(f"{name}.yaml")
    path.write_text(yaml.safe_dump(card))
    return path
