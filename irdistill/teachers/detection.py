"""Telling from a model's files what kind of teacher it is."""

from __future__ import annotations

from pathlib import Path

from irdistill.errors import IrdistillError
from irdistill.models import STUDENT_FILE, read_model_json, resolve_model
from irdistill.students.detection import module_types, saved_as

_ENDINGS = {"ForSequenceClassification": "cross-encoder", "ForConditionalGeneration": "seq2seq", "T5WithLMHeadModel": "seq2seq",
            "ForCausalLM": "causal", "LMHeadModel": "causal"}


def kind_of(model: str, revision: str | None = None) -> str:
    """``cross-encoder``, ``seq2seq``, ``causal``, ``retriever`` or ``interaction``.

    A model saved by sentence-transformers says what it is in its own files, so an embedding model on a causal backbone is a
    retriever. Of others the architecture decides; a plain encoder is a retriever.

    Raises:
        IrdistillError: there is no such model.
    """
    from transformers import AutoConfig

    from irdistill.teachers.lightning_ir import is_lightning_ir

    resolved = resolve_model(model, revision)
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
    modules = module_types(model, revision)
    if "LogitScore" in modules:
        return "causal"
    if modules and saved_as(model, revision) != "CrossEncoder":
        return "retriever"
    names = getattr(config, "architectures", None) or []
    return next((kind for ending, kind in _ENDINGS.items() if any(name.endswith(ending) for name in names)), "retriever")
