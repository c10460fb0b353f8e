"""Shaping a model before training: query towers, pooling, and the lengths of texts."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Router, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from irdistill.errors import OptionError
from irdistill.students.fingerprints import modules_digest, tokenizer_digest
from irdistill.students.inputs import position_limit
from irdistill.students.layers import keep_layers
from irdistill.students.student_loading import same_new_weights
from irdistill.students.student_options import Layers
from irdistill.students.tower_model import TextKind


def two_towers(model: Any, queries: Sequence[nn.Module], query_prompt: str | None = None) -> Any:
    """A model with a Router: the document modules of the given model, and others for queries.

    The document route comes first, because sentence-transformers asks the first route for the
    tokenizer.

    Args:
        query_prompt: replaces the model's query prompt.
    """
    documents = tower_modules(model, "document")
    router = Router({"document": documents, "query": list(queries)}, default_route="document")
    return with_modules(model, [router], query_prompt)


def with_modules(model: Any, modules: Sequence[nn.Module], query_prompt: str | None = None) -> Any:
    """A model of other modules with the prompts and the similarity of a model.

    Args:
        query_prompt: replaces the model's query prompt.
    """
    prompts = dict(model.prompts) | ({} if query_prompt is None else {"query": query_prompt})
    cut = {"truncate_dim": model.truncate_dim} if isinstance(model, SentenceTransformer) else {}
    changed = type(model)(
        modules=list(modules),
        device=str(model.device),
        prompts=prompts,
        default_prompt_name=model.default_prompt_name,
        similarity_fn_name=model.similarity_fn_name,
        **cut,
    )
    return changed.float().eval()


def with_route(model: Any, kind: str, modules: Sequence[nn.Module]) -> Any:
    """A model whose queries or documents go through other modules.

    Args:
        kind: ``query`` or ``document``; ignored if the model has one tower.
    """
    if not isinstance(model[0], Router):
        return with_modules(model, modules)
    routes: dict[str, list[nn.Module]] = {
        name: list(inner) for name, inner in model[0].sub_modules.items()
    }
    name = model[0]._resolve_route(task=kind, modality="text")
    router = Router(routes | {name: list(modules)}, default_route=model[0].default_route)
    return with_modules(model, [router, *list(model)[1:]])


def tower_modules(model: Any, kind: TextKind) -> list[nn.Module]:
    """The modules for one kind of text, of a model with one tower or two.

    Modules behind the Router, which both towers end with, are included.
    """
    first, *ending = model
    if not isinstance(first, Router):
        return [first, *ending]
    return [*first.sub_modules[first._resolve_route(task=kind, modality="text")], *ending]


def shared_modules(model: Any) -> set[int]:
    """The ids of the modules with weights that both routes of a model contain."""
    if not isinstance(model[0], Router):
        return set()
    seen: set[int] = set()
    shared: set[int] = set()
    for modules in model[0].sub_modules.values():
        ids = {id(module) for module in modules if any(True for _ in module.parameters())}
        shared |= ids & seen
        seen |= ids
    return shared


def separate_towers(model: Any) -> Any:
    """A model whose queries have their own copy of each module with weights that towers share.

    The copies can be trained, whether or not the documents' modules are frozen.
    """
    shared = shared_modules(model)
    if not shared:
        return model
    queries: list[nn.Module] = []
    for module in model[0].sub_modules[model[0]._resolve_route(task="query", modality="text")]:
        is_shared = id(module) in shared
        queries.append(copy.deepcopy(module).requires_grad_(True) if is_shared else module)
    return with_route(model, "query", queries)


def share_equal_modules(model: Any) -> Any:
    """A model in which modules of the query tower that equal those of documents are the same.

    Sentence-transformers saves and loads a module that two routes share once.
    """
    if not isinstance(model[0], Router) or "query" not in model[0].sub_modules:
        return model
    documents = tower_modules(model, "document")
    queries = [
        next((module for module in documents if _equal(query, module)), query)
        for query in model[0].sub_modules["query"]
    ]
    if all(one is two for one, two in zip(queries, model[0].sub_modules["query"], strict=True)):
        return model
    return with_route(model, "query", queries)


def _equal(query: nn.Module, document: nn.Module) -> bool:
    """Whether two modules have weights, and the same weights, settings and tokenizer."""
    if query is document or type(query) is not type(document):
        return False
    one, two = query.state_dict(), document.state_dict()
    if not one or one.keys() != two.keys():
        return False
    if modules_digest([query]) != modules_digest([document]):
        return False
    tokenizers = [getattr(module, "tokenizer", None) for module in (query, document)]
    limits = [getattr(module, "max_seq_length", None) for module in (query, document)]
    if limits[0] != limits[1] or (tokenizers[0] is None) != (tokenizers[1] is None):
        return False
    if tokenizers[0] is not None and tokenizer_digest(tokenizers[0]) != tokenizer_digest(
        tokenizers[1]
    ):
        return False
    return all(
        value.dtype == two[name].dtype and torch.equal(value, two[name])
        for name, value in one.items()
    )


def one_tower(model: Any, what: str) -> list[nn.Module]:
    """The modules of a model that queries and documents share.

    Raises:
        OptionError: the model has two towers.
    """
    if isinstance(model[0], Router):
        raise OptionError(f"{what} has a query tower already; give a model with one tower.")
    return list(model)


def copy_tower(model: Any, layers: Layers | None) -> list[nn.Module]:
    """A copy of a model's modules for queries with some of its encoder layers, or all if None.

    Raises:
        OptionError: there are no such layers.
    """
    copies = [copy.deepcopy(module) for module in tower_modules(model, "query")]
    if layers is None:
        return copies
    transformers = [module for module in copies if isinstance(module, Transformer)]
    if not transformers:
        raise OptionError(
            f"query_layers={layers} was given, but the query tower of the backbone has no"
            " transformer; leave it out, or start from a model with one."
        )
    for module in transformers:
        keep_layers(module.model, layers)
    return copies


def projection(before: int, after: int, feature: str, seed: int) -> Dense:
    """A new linear layer without bias, whose weights depend on the seed alone.

    Args:
        feature: what it projects: ``sentence_embedding`` or ``token_embeddings``.
    """
    with same_new_weights(seed):
        return Dense(
            before, after, bias=False, activation_function=nn.Identity(), module_input_name=feature
        )


def set_pooling(model: SentenceTransformer, pooling: str) -> None:
    """Set how token vectors become one vector, in all towers.

    Raises:
        OptionError: the model does no pooling.
    """
    modules = [module for module in model.modules() if isinstance(module, Pooling)]
    if not modules:
        raise OptionError(
            f"pooling={pooling!r} was given, but the backbone makes its vectors without pooling;"
            " leave it out."
        )
    for module in modules:
        module.pooling_mode, module.pooling_output_dimension = pooling, module.embedding_dimension


def set_lengths(
    queries: Sequence[Transformer],
    documents: Sequence[Transformer],
    max_length: int | None,
    max_query_length: int | None = None,
) -> None:
    """Set the token limits of texts, and of queries in particular.

    Raises:
        OptionError: a limit exceeds the positions of the backbone.
    """
    everything = (*queries, *documents)
    limits = (
        ("max_length", max_length, everything),
        ("max_query_length", max_query_length, queries),
    )
    for name, length, modules in limits:
        for module in modules if length is not None else ():
            limit = position_limit(module.model)
            if length is not None and (length < 3 or (limit and length > limit)):
                raise OptionError(
                    f"{name}={length} was given; this backbone takes 3 to {limit} tokens."
                )
    if max_length is not None:
        for module in everything:
            module.max_seq_length = max_length
    if max_query_length is not None:
        for module in queries:
            module.query_length = max_query_length
