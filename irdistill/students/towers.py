"""Shaping a model before training: a query tower of its own, and the lengths of texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from irdistill.errors import IrdistillError
from irdistill.students.layers import keep_layers


def add_query_tower(model: SentenceTransformer,
                    query_layers: int | Sequence[int] | None) -> SentenceTransformer:
    """A model with a Router: documents go through the given modules, queries through a copy of them.

    Args:
        query_layers: the encoder layers of the copy, all where None.

    Raises:
        IrdistillError: the model has two towers already, or not these layers.
    """
    if isinstance(model[0], Router):
        raise IrdistillError(
            "the backbone has a query tower already; leave out query_layers and freeze_documents, "
            "or start from a backbone with one tower."
        )
    documents = list(model)
    queries = [copy.deepcopy(module) for module in documents]
    if query_layers is not None:
        for module in queries:
            if isinstance(module, Transformer):
                keep_layers(module.model, query_layers)
    return SentenceTransformer(
        modules=[Router.for_query_document(query_modules=queries, document_modules=documents)],
        device=str(model.device), prompts=dict(model.prompts), default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name, truncate_dim=model.truncate_dim,
    ).eval()


def set_pooling(model: SentenceTransformer, pooling: str) -> None:
    """Make one vector of a text's token vectors in this way, in all towers.

    Raises:
        IrdistillError: the way is unknown, or the model does no pooling.
    """
    if pooling not in Pooling.POOLING_MODES:
        raise IrdistillError(f"pooling={pooling!r} was given; one of {', '.join(Pooling.POOLING_MODES)} was expected.")
    found = [module for module in model.modules() if isinstance(module, Pooling)]
    if not found:
        raise IrdistillError(f"pooling={pooling!r} was given, and the backbone makes its vectors without pooling; leave it out.")
    for module in found:
        module.pooling_mode, module.pooling_output_dimension = pooling, module.embedding_dimension


def set_lengths(queries: Sequence[Transformer], documents: Sequence[Transformer], max_length: int | None,
                max_query_length: int | None) -> None:
    """Set to how many tokens texts, and queries in particular, are truncated.

    Raises:
        IrdistillError: a length that the backbone's position embeddings do not reach.
    """
    for name, value in (("max_length", max_length), ("max_query_length", max_query_length)):
        for module in (*queries, *documents) if value is not None else ():
            positions = getattr(module.config, "max_position_embeddings", None)
            limit = positions - module._infer_flatten_position_offset() if positions else None
            if value is not None and (value < 3 or (limit and value > limit)):
                raise IrdistillError(f"{name}={value} was given; this backbone takes 3 to {limit} tokens.")
    if max_length is not None:
        for module in (*queries, *documents):
            module.max_seq_length = max_length
    if max_query_length is not None:
        for module in queries:
            module.query_length = max_query_length
