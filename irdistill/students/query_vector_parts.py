"""The parts of a query's vector: what its tower gives, and what the vectors of its words add."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import (
    Pooling,
    StaticEmbedding,
    WordEmbeddings,
)
from torch import Tensor, nn

from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.padding import TOKENLESS
from irdistill.students.student_base import Student
from irdistill.students.word_vectors import WordVectors

TOWER = "tower"
"""Name of the part that the transformer gives."""
_ADDING = (WordVectors, WordEmbeddings, StaticEmbedding)
_WORD = re.compile(r"(?u)\b\w\w+\b")


class QueryParts(NamedTuple):
    """Vectors whose sum is the vector of a query.

    Attributes:
        names: the word or token of each part; ``TOWER`` for what a transformer gives.
        counts: how often it occurs in the query.
        vectors: (P, D) float32.
    """

    names: list[str]
    counts: list[int]
    vectors: np.ndarray


class _Words(NamedTuple):
    """Vectors (P, D) that add up to that of a query, their names, and how often each occurs."""

    names: list[str]
    counts: list[int]
    vectors: Tensor


@torch.inference_mode()
def query_parts(student: Student, query: str, precision: Precision = "auto") -> QueryParts | None:
    """The parts of the vector that a dense model has for a query, as `Student.search_vectors`.

    A model has parts if its query vector is a sum: of static token vectors, or of the vector of a
    transformer and those of words or tokens, followed by linear layers and normalization.

    Returns:
        None for another model, or for a query without tokens.
    """
    modules: list[Any] = student.tower("query")
    place = next((n for n, module in enumerate(modules) if isinstance(module, _ADDING)), None)
    if student.kind != "dense" or place is None:
        return None
    features: dict[str, Any] = student.pad(student.tokenize([query], "query"), "query")
    if TOKENLESS in features:
        return None
    features |= {"task": "query", "modality": "text"}
    device, dtype = student.device, choose_dtype(precision, student.device)
    training = student.model.training
    student.model.eval()
    try:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
            for module in modules[:place]:
                features = module(features)
    finally:
        student.model.train(training)
    parts = _sum_of_parts(modules[place:], features, query)
    if parts is None:
        return None
    vectors = parts.vectors[:, : student.model.truncate_dim]
    if student.similarity == "cosine":
        vectors = _scaled(vectors)
    return _merged(parts._replace(vectors=vectors.cpu()))


def _sum_of_parts(modules: Sequence[Any], features: Mapping[str, Any], query: str) -> _Words | None:
    """The parts behind the modules that add vectors; None if one of these is of another kind."""
    parts = _Words([], [], torch.empty(0))
    if not isinstance(modules[0], StaticEmbedding):
        parts = _Words([TOWER], [1], features["sentence_embedding"].float()[:1])
    place = 0
    while place < len(modules):
        module = modules[place]
        if isinstance(module, StaticEmbedding):
            ids = features["input_ids"].tolist()
            parts = _tokens(module.tokenizer.id_to_token, ids, module.embedding.weight, len(ids))
        elif isinstance(module, WordVectors):
            parts = _joined(parts, _added_words(module, features, query))
        elif isinstance(module, WordEmbeddings) and _is_summed(modules[place:]):
            copied, pooling = modules[place + 1 : place + 3]
            tokens = _added_tokens(module, pooling, features)
            first = _Words(parts.names, parts.counts, parts.vectors @ copied.linear.weight.T)
            parts = _joined(_beside(first, 0), _beside(tokens, 1))
            place += 2
        elif isinstance(module, Normalize):
            parts = parts._replace(vectors=_scaled(parts.vectors))
        elif _is_linear(module, "sentence_embedding"):
            parts = parts._replace(vectors=parts.vectors @ module.linear.weight.float().T)
            if module.linear.bias is not None:
                parts.vectors[0] += module.linear.bias.float()
        else:
            return None
        place += 1
    return parts


def _merged(parts: _Words) -> QueryParts:
    """The parts with those of the same name added up: a word may have a vector and be a token."""
    places = {name: place for place, name in enumerate(dict.fromkeys(parts.names))}
    vectors = np.zeros((len(places), parts.vectors.shape[1]), np.float32)
    np.add.at(vectors, [places[name] for name in parts.names], parts.vectors.numpy())
    counts = dict(zip(reversed(parts.names), reversed(parts.counts), strict=True))
    return QueryParts([*places], [counts[name] for name in places], vectors)


def _joined(parts: _Words, more: _Words) -> _Words:
    return _Words(
        parts.names + more.names,
        parts.counts + more.counts,
        torch.cat([parts.vectors, more.vectors]),
    )


def _beside(parts: _Words, half: int) -> _Words:
    """Vectors (P, 2D) with zeros in the other half."""
    halves = [torch.zeros_like(parts.vectors)] * 2
    halves[half] = parts.vectors
    return parts._replace(vectors=torch.cat(halves, dim=1))


def _added_words(module: Any, features: Mapping[str, Any], query: str) -> _Words:
    """The vectors of the words of a query, as `WordVectors` adds them."""
    places = module.places(dict(features))[0]
    names = {at: word for word in _WORD.findall(query.lower()) for at in module.text_places(word)}
    return _tokens(lambda at: names.get(at, "?"), places, module.weight, len(places) ** 0.5)


def _added_tokens(module: Any, pooling: Any, features: Mapping[str, Any]) -> _Words:
    """The vectors of the tokens of a query, as the pooling behind `WordEmbeddings` sums them."""
    mask = features["attention_mask"][0].bool()
    if not pooling.include_prompt:
        mask[: int(features.get("prompt_length") or 0)] = False
    ids = features["input_ids"][0][mask].tolist()
    name = module.tokenizer.tokenizer.convert_ids_to_tokens
    return _tokens(name, ids, module.emb_layer.weight, len(ids) ** 0.5)


def _tokens(
    name: Callable[[int], object], ids: Sequence[int], weight: Tensor, divisor: float
) -> _Words:
    """The vectors of distinct ids, times their counts, over a divisor; without zero vectors."""
    counts = {token: count for token, count in Counter(ids).items() if weight[token].any()}
    rows = torch.tensor(list(counts), dtype=torch.int64, device=weight.device)
    times = torch.tensor(list(counts.values()), dtype=torch.float32, device=weight.device)
    vectors = weight[rows].float() * (times / max(divisor, 1.0))[:, None]
    return _Words([str(name(token)) for token in counts], list(counts.values()), vectors)


def _scaled(vectors: Tensor) -> Tensor:
    """The parts over the length of their sum."""
    return vectors / vectors.sum(dim=0).norm().clamp_min(1e-12)


def _is_summed(modules: Sequence[Any]) -> bool:
    """Whether modules are those of `static_tower.summed_modules` from the token vectors on."""
    return (
        len(modules) > 3
        and _is_linear(modules[1], "cls_token_embeddings")
        and modules[1].linear.bias is None
        and isinstance(modules[2], Pooling)
        and tuple(modules[2].pooling_mode) == ("cls", "mean_sqrt_len_tokens")
    )


def _is_linear(module: nn.Module, output: str) -> bool:
    return (
        isinstance(module, Dense)
        and isinstance(module.activation_function, nn.Identity)
        and (module.module_input_name, module.module_output_name) == ("sentence_embedding", output)
        and not module.use_residual
    )
