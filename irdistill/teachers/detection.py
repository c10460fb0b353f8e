"""Telling from a model's files what kind of teacher it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from irdistill.errors import IrdistillError
from irdistill.models import STUDENT_FILE, read_model_json, resolve_model

RetrieverType = Literal["dense", "sparse", "late-interaction"]

_ENDINGS = {"ForSequenceClassification": "cross-encoder", "ForConditionalGeneration": "seq2seq", "T5WithLMHeadModel": "seq2seq",
            "ForCausalLM": "causal", "LMHeadModel": "causal"}
_SPARSE = {"SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"}
_LATE = {"MultiVectorMask"}


def kind_of(model: str, revision: str | None = None) -> str:
    """``cross-encoder``, ``seq2seq``, ``causal``, ``retriever`` or ``interaction``.

    A model saved by sentence-transformers says what it is in its own files, so an embedding model on a causal backbone is a
    retriever. Of others the architecture decides; a plain encoder is a retriever.

    Raises:
        IrdistillError: there is no such model.
    """
    from transformers import AutoConfig

    from irdistill.teachers.lightning_ir import is_lightning_ir

    resolved = resolve_model(model)
    if Path(resolved).is_dir() and "kind" in (read_model_json(model, STUDENT_FILE, revision) or {}):
        return "interaction"
    try:
        config = AutoConfig.from_pretrained(resolved, revision=revision, local_files_only=Path(resolved).is_dir())
    except Exception as error:
        if (Path(resolved) / "modules.json").is_file():
            return "retriever"
        if isinstance(error, ValueError) and is_lightning_ir(model, revision):  # there is a configuration, of an unknown type
            return "cross-encoder"
        raise IrdistillError(
            f"there is no teacher {model!r}: no card of that name (cards are the YAML files in teachers/), and no model that "
            f"can be loaded here ({type(error).__name__}: {' '.join(str(error).split())[:200]}). Check the spelling, or give "
            "a folder that holds the model."
        ) from error
    saved_as = _model_type(model, revision)
    modules = _modules(model, revision)
    if "LogitScore" in modules:
        return "causal"
    if modules and saved_as != "CrossEncoder":
        return "retriever"
    names = getattr(config, "architectures", None) or []
    return next((kind for ending, kind in _ENDINGS.items() if any(name.endswith(ending) for name in names)), "retriever")


def retriever_type(model: str, revision: str | None = None) -> RetrieverType:
    """How a retriever represents a text: by one dense vector, one sparse vector, or a vector a token."""
    saved_as, modules = _model_type(model, revision), _modules(model, revision)
    names = (read_model_json(model, "config.json", revision) or {}).get("architectures") or []
    if saved_as in ("MultiVectorEncoder", "ColBERT") or modules & _LATE or "HF_ColBERT" in names:
        return "late-interaction"
    return "sparse" if saved_as == "SparseEncoder" or modules & _SPARSE else "dense"


def _model_type(model: str, revision: str | None) -> str:
    saved: dict[str, Any] = read_model_json(model, "config_sentence_transformers.json", revision) or {}
    return str(saved.get("model_type", ""))


def _modules(model: str, revision: str | None) -> set[str]:
    return {str(module["type"]).rpartition(".")[2] for module in read_model_json(model, "modules.json", revision) or []}
