"""Shaping a model before training: a query tower of its own, and the lengths of texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from irdistill.errors import IrdistillError
from irdistill.students.inputs import position_limit
from irdistill.students.layers import keep_layers
from irdistill.students.student_loading import same_new_weights


def two_towers(model: Any, queries: Sequence[nn.Module], query_prompt: str | None = None) -> Any:
    """A model of the same class with a Router: documents go through the modules there are, queries
    through others.

    Documents come first in it, for what sentence-transformers asks of a model with two tokenizers,
    it asks of the first.

    Args:
        query_prompt: in place of the model's own.

    Raises:
        IrdistillError: the model has two towers already.
    """
    documents = one_tower(model, "the backbone")
    prompts = dict(model.prompts) | ({} if query_prompt is None else {"query": query_prompt})
    own = {"truncate_dim": model.truncate_dim} if isinstance(model, SentenceTransformer) else {}
    router = Router({"document": documents, "query": list(queries)}, default_route="document")
    return (
        type(model)(
            modules=[router],
            device=str(model.device),
            prompts=prompts,
            default_prompt_name=model.default_prompt_name,
            similarity_fn_name=model.similarity_fn_name,
            **own,
        )
        .float()
        .eval()
    )


def one_tower(model: Any, what: str) -> list[nn.Module]:
    """The modules of a model that queries and documents share.

    Raises:
        IrdistillError: it has two towers.
    """
    if isinstance(model[0], Router):
        raise IrdistillError(
            f"{what} has a query tower already; leave out query_layers, query_backbone and"
            " freeze_documents, or start from a model with one tower."
        )
    return list(model)


def copy_tower(model: Any, layers: int | Sequence[int] | None) -> list[nn.Module]:
    """A copy of a model's modules, with some of its encoder layers, or all where None."""
    copies = [copy.deepcopy(module) for module in one_tower(model, "the backbone")]
    for module in copies:
        if isinstance(module, Transformer) and layers is not None:
            keep_layers(module.model, layers)
    return copies


def projection(before: int, after: int, of: str, seed: int) -> Dense:
    """A new linear layer without bias; its weights depend on the seed alone.

    Args:
        of: what it projects: ``sentence_embedding`` or ``token_embeddings``.
    """
    with same_new_weights(seed):
        return Dense(
            before, after, bias=False, activation_function=nn.Identity(), module_input_name=of
        )


def set_pooling(model: SentenceTransformer, pooling: str) -> None:
    """Make one vector of a text's token vectors in this way, in all towers.

    Raises:
        IrdistillError: the way is unknown, or the model does no pooling.
    """
    if pooling not in Pooling.POOLING_MODES:
        raise IrdistillError(
            f"pooling={pooling!r} was given; one of {', '.join(Pooling.POOLING_MODES)} was"
            " expected."
        )
    found = [module for module in model.modules() if isinstance(module, Pooling)]
    if not found:
        raise IrdistillError(
            f"pooling={pooling!r} was given, and the backbone makes its vectors without pooling;"
            " leave it out."
        )
    for module in found:
        module.pooling_mode, module.pooling_output_dimension = pooling, module.embedding_dimension


def set_lengths(
    queries: Sequence[Transformer],
    documents: Sequence[Transformer],
    max_length: int | None,
    max_query_length: int | None,
) -> None:
    """Set to how many tokens texts, and queries in particular, are truncated.

    Raises:
        IrdistillError: a length that the backbone's position embeddings do not reach.
    """
    for name, value in (("max_length", max_length), ("max_query_length", max_query_length)):
        for module in (*queries, *documents) if value is not None else ():
            limit = position_limit(module.model)
            if value is not None and (value < 3 or (limit and value > limit)):
                raise IrdistillError(
                    f"{name}={value} was given; this backbone takes 3 to {limit} tokens."
                )
    if max_length is not None:
        for module in (*queries, *documents):
            module.max_seq_length = max_length
    if max_query_length is not None:
        for module in queries:
            module.query_length = max_query_length
