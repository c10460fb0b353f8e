"""Telling from a model's files how it represents a text."""

from __future__ import annotations

import logging
from typing import Any, Literal

from irdistill.errors import IrdistillError
from irdistill.modeling.model_files import read_model_json

logger = logging.getLogger(__name__)

RetrieverType = Literal["dense", "sparse", "late-interaction"]
ModelKind = Literal["dense", "sparse", "late-interaction", "cross-encoder"]

RETRIEVER_TYPES = ("dense", "sparse", "late-interaction")
MODEL_KINDS = (*RETRIEVER_TYPES, "cross-encoder")
"""How a model can be read, as ``--kind`` and ``kind=`` name it."""

_SPARSE = {"SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"}
_LATE = {"MultiVectorMask"}
_MASKED = "ForMaskedLM"


def model_kind(model: str, kind: str | None = None, revision: str | None = None) -> ModelKind:
    """How a trained model is to be read: as ``kind`` says, else as its files say.

    A masked language model without modules of sentence-transformers may be SPLADE or an encoder
    whose token vectors are averaged, which its files do not say: it is read as dense, with a
    warning.

    Raises:
        IrdistillError: the kind is unknown, the model was saved as one of another kind, or it lacks
            what the kind needs.
    """
    if kind is None:
        if reads_pairs(model, revision):
            return "cross-encoder"
        detected = retriever_type(model, revision)
        if detected == "dense":
            warn_of_masked_model(model, revision)
        return detected
    if kind not in MODEL_KINDS:
        raise IrdistillError(
            f"the kind {kind!r} of the model {model!r} is unknown; give one of"
            f" {', '.join(MODEL_KINDS)}."
        )
    saved = _saved_kind(model, revision)
    if saved is not None and saved != kind:
        raise IrdistillError(
            f"the model {model!r} was saved as a {saved} model, and kind {kind!r} was given; leave"
            f" out the kind, or give {saved}."
        )
    names = architectures(model, revision)
    if saved is None and kind == "sparse" and not any(name.endswith(_MASKED) for name in names):
        raise IrdistillError(
            f"kind 'sparse' was given, and the model {model!r} has no masked-language-model head"
            f" (its architecture is {', '.join(names) or 'not stated'}), so its term weights would"
            " be random. Give a SPLADE model."
        )
    if (
        saved is None
        and kind == "late-interaction"
        and not any(name.endswith("ForRetrieval") for name in names)
    ):
        raise IrdistillError(
            f"kind 'late-interaction' was given, and the model {model!r} has no trained projection"
            " of its token vectors, which would be random. Give a model that was saved by"
            " sentence-transformers, PyLate or ColBERT."
        )
    return kind  # type: ignore[return-value]


def retriever_type(model: str, revision: str | None = None) -> RetrieverType:
    """How a retriever represents a text: by one dense vector, one sparse vector, or a vector a
    token.
    """
    library, modules = saved_as(model, revision), module_types(model, revision)
    if (
        library in ("MultiVectorEncoder", "ColBERT")
        or modules & _LATE
        or "HF_ColBERT" in architectures(model, revision)
    ):
        return "late-interaction"
    return "sparse" if library == "SparseEncoder" or modules & _SPARSE else "dense"


def warn_of_masked_model(model: str, revision: str | None = None) -> None:
    """Say that a masked language model without modules of sentence-transformers is read as a dense
    model.
    """
    names = architectures(model, revision)
    if not module_types(model, revision) and any(name.endswith(_MASKED) for name in names):
        logger.warning(
            "the model %s is a %s without modules.json: its token vectors are averaged, as of a"
            " dense model. If it is a SPLADE model, give --kind sparse (kind='sparse' in Python and"
            " in recipes); --kind dense silences this warning.",
            model,
            names[0],
        )


def reads_pairs(model: str, revision: str | None = None) -> bool:
    """Whether it is a cross-encoder, which has no vectors to search with."""
    if saved_as(model, revision) == "CrossEncoder":
        return True
    return not module_types(model, revision) and any(
        name.endswith("ForSequenceClassification") for name in architectures(model, revision)
    )


def saved_as(model: str, revision: str | None = None) -> str:
    """The class of sentence-transformers that saved it; empty where it does not say."""
    saved: dict[str, Any] = (
        read_model_json(model, "config_sentence_transformers.json", revision) or {}
    )
    return str(saved.get("model_type", ""))


def default_prompt(model: str, revision: str | None = None) -> str:
    """The prompt that a model of sentence-transformers puts before every text, or every pair; empty
    where it has none.
    """
    if read_model_json(model, "modules.json", revision) is None:
        return ""
    saved: dict[str, Any] = (
        read_model_json(model, "config_sentence_transformers.json", revision) or {}
    )
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


def _saved_kind(model: str, revision: str | None) -> ModelKind | None:
    """The kind that the model's own files state beyond doubt; None for a backbone, which may be
    read in several ways.
    """
    if reads_pairs(model, revision):
        return "cross-encoder"
    kind = retriever_type(model, revision)
    return kind if kind != "dense" or module_types(model, revision) else None
