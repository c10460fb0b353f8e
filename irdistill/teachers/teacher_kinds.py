"""Detecting the kind of a teacher from a model's files."""

from __future__ import annotations

from pathlib import Path

from irdistill.errors import ModelError, one_line
from irdistill.modeling.model_files import STUDENT_FILE, read_model_json, resolve_model
from irdistill.students.model_kinds import describe_model

_ENDINGS = {
    "ForSequenceClassification": "cross-encoder",
    "ForConditionalGeneration": "seq2seq",
    "T5WithLMHeadModel": "seq2seq",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
}


def kind_of(model: str, revision: str | None = None) -> str:
    """``cross-encoder``, ``seq2seq``, ``causal``, ``retriever`` or ``interaction``.

    A model saved by sentence-transformers states what it is in its files, so an embedding model on
    a causal backbone is a retriever. For other models the architecture decides; a plain encoder is
    a retriever. Files are read and no code is run, also for models with code of their own.
    """
    from irdistill.teachers.lightning_ir import is_lightning_ir  # which imports torch

    resolved = resolve_model(model, revision)
    if Path(resolved).is_dir() and "kind" in (read_model_json(model, STUDENT_FILE, revision) or {}):
        return "interaction"
    try:
        description = describe_model(model, revision)
    except (OSError, ValueError) as error:
        raise _unknown(model, f"{type(error).__name__}: {one_line(error, 200)}") from error
    if not description.config and not description.modules:
        raise _unknown(model, "it has no config.json")
    if "LogitScore" in description.modules:
        return "causal"
    if description.saved_as == "CrossEncoder":
        return "cross-encoder"
    if description.modules:
        return "retriever"
    if is_lightning_ir(model, revision):
        return "cross-encoder"
    names = description.architectures
    return next(
        (kind for ending, kind in _ENDINGS.items() if any(name.endswith(ending) for name in names)),
        "retriever",
    )


def _unknown(model: str, reason: str) -> ModelError:
    return ModelError(
        f"there is no teacher {model!r}: no card of that name (cards are the YAML files in"
        f" teachers/), and no model that can be loaded ({reason}). Check the spelling, or give the"
        " folder of the model."
    )
