"""Creating a language-model teacher from a card: the model of its back end, and the teacher of its
kind.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from irdistill.errors import OptionError
from irdistill.storage.plain_data import check_values
from irdistill.teachers.llm.language_model import LanguageModel
from irdistill.teachers.protocol import ListwiseTeacher, Teacher
from irdistill.teachers.teacher_card import TeacherCard

#: Module and class of each back end and kind; a class takes settings as keyword-only arguments.
_MODELS = {
    "transformers": ("local", "TransformersModel"),
    "vllm": ("vllm", "VllmModel"),
    "openai": ("remote", "ServerModel"),
}
_TEACHERS = {
    "llm-pointwise": ("pointwise_teacher", "PointwiseTeacher"),
    "llm-pairwise": ("pairwise_teacher", "PairwiseTeacher"),
    "llm-listwise": ("listwise_teacher", "ListwiseLLMTeacher"),
}


def load_language_model(card: TeacherCard, settings: Mapping[str, Any]) -> LanguageModel:
    """The model of a card.

    Args:
        settings: keyword arguments of the back end's class.
    """
    kind = _find(_MODELS[card.backend])
    _check(card, kind, settings)
    check_values(settings, kind, f"the settings of the model of {card.name!r}", free=True)
    if card.backend == "openai":
        return kind(card.model, card.server, **settings)
    return kind(card.model, revision=card.revision, **settings)


def load_llm_teacher(card: TeacherCard, settings: Mapping[str, Any]) -> Teacher | ListwiseTeacher:
    """The teacher of a card; each setting goes to the class of the kind or of the back end,
    whichever takes it.
    """
    kind, backend = _find(_TEACHERS[card.kind]), _find(_MODELS[card.backend])
    teacher_settings = {key: value for key, value in settings.items() if key in _options(kind)}
    model_settings = {key: value for key, value in settings.items() if key not in teacher_settings}
    unknown = sorted(model_settings.keys() - _options(backend))
    if unknown:
        known = sorted(_options(kind) | _options(backend))
        raise OptionError(
            f"the teacher {card.name!r} ({card.kind} on {card.backend}) has no setting"
            f" {', '.join(unknown)}. Its settings are {', '.join(known)}."
        )
    check_values(teacher_settings, kind, f"the settings of the teacher {card.name!r}", free=True)
    return kind(load_language_model(card, model_settings), card.prompt, **teacher_settings)


def _find(place: tuple[str, str]) -> Callable[..., Any]:
    module, name = place
    return getattr(import_module(f"irdistill.teachers.llm.{module}"), name)


def _options(kind: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    return {
        parameter.name
        for parameter in parameters
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and parameter.name != "revision"
    }


def _check(card: TeacherCard, kind: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    unknown = sorted(settings.keys() - _options(kind))
    if unknown:
        raise OptionError(
            f"the model of {card.name!r} on {card.backend} has no setting {', '.join(unknown)}. Its"
            f" settings are {', '.join(sorted(_options(kind)))}."
        )
