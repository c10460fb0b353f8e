"""Telling from a model's files how it represents a text."""

from __future__ import annotations

from typing import Any, Literal

from irdistill.models import read_model_json

RetrieverType = Literal["dense", "sparse", "late-interaction"]

_SPARSE = {"SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"}
_LATE = {"MultiVectorMask"}


def retriever_type(model: str, revision: str | None = None) -> RetrieverType:
    """How a retriever represents a text: by one dense vector, one sparse vector, or a vector a token."""
    library, modules = saved_as(model, revision), module_types(model, revision)
    if library in ("MultiVectorEncoder", "ColBERT") or modules & _LATE or "HF_ColBERT" in architectures(model, revision):
        return "late-interaction"
    return "sparse" if library == "SparseEncoder" or modules & _SPARSE else "dense"


def reads_pairs(model: str, revision: str | None = None) -> bool:
    """Whether it is a cross-encoder, which has no vectors to search with."""
    if saved_as(model, revision) == "CrossEncoder":
        return True
    return not module_types(model, revision) and any(
        name.endswith("ForSequenceClassification") for name in architectures(model, revision))


def saved_as(model: str, revision: str | None = None) -> str:
    """The class of sentence-transformers that saved it; empty where it does not say."""
    saved: dict[str, Any] = read_model_json(model, "config_sentence_transformers.json", revision) or {}
    return str(saved.get("model_type", ""))


def default_prompt(model: str, revision: str | None = None) -> str:
    """The prompt that a model of sentence-transformers puts before every text, or every pair; empty where it has none."""
    if read_model_json(model, "modules.json", revision) is None:
        return ""
    saved: dict[str, Any] = read_model_json(model, "config_sentence_transformers.json", revision) or {}
    return str((saved.get("prompts") or {}).get(saved.get("default_prompt_name")) or "")


def module_types(model: str, revision: str | None = None) -> set[str]:
    """The classes of its sentence-transformers modules, those inside a router among them."""
    listed = read_model_json(model, "modules.json", revision) or []
    names = {str(module["type"]) for module in listed}
    if any(name.endswith(".Router") for name in names):
        routes: dict[str, Any] = read_model_json(model, "router_config.json", revision) or {}
        names |= {str(name) for name in routes.get("types", {}).values()}
    return {name.rpartition(".")[2] for name in names}


def architectures(model: str, revision: str | None = None) -> list[str]:
    """The classes of transformers that its config.json names."""
    return list((read_model_json(model, "config.json", revision) or {}).get("architectures") or [])
