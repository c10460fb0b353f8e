"""Making a language-model teacher from a card: the model behind its back end, and the way of asking
it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.storage.plain_data import check_values
from irdistill.teachers.llm.language_model import LanguageModel
from irdistill.teachers.protocol import ListwiseTeacher, Teacher
from irdistill.teachers.teacher_card import TeacherCard

#: Back ends and kinds: the module of this package, and the class in it. A class takes settings as
#: keyword-only arguments.
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

    Raises:
        IrdistillError: the model cannot be loaded, or a setting is unknown.
    """
    kind = _find(_MODELS[card.backend])
    _check(card, kind, settings)
    check_values(settings, kind, f"the settings of the model of {card.name!r}", free=True)
    if card.backend == "openai":
        return kind(card.model, card.server, **settings)
    return kind(card.model, revision=card.revision, **settings)


def load_llm_teacher(card: TeacherCard, settings: Mapping[str, Any]) -> Teacher | ListwiseTeacher:
    """The teacher of a card; settings go to the back end's class or to the kind's, whichever takes
    them.

    Raises:
        IrdistillError: the model cannot be loaded, a setting is unknown, or the card's prompt does
            not fit the kind.
    """
    kind, backend = _find(_TEACHERS[card.kind]), _find(_MODELS[card.backend])
    own = {key: value for key, value in settings.items() if key in _options(kind)}
    rest = {key: value for key, value in settings.items() if key not in own}
    unknown = sorted(rest.keys() - _options(backend))
    if unknown:
        known = sorted(_options(kind) | _options(backend))
        raise IrdistillError(
            f"the teacher {card.name!r} ({card.kind} on {card.backend}) takes {', '.join(known)},"
            f" and was given {', '.join(unknown)}."
        )
    check_values(own, kind, f"the settings of the teacher {card.name!r}", free=True)
    return kind(load_language_model(card, rest), card.prompt, **own)


def _find(place: tuple[str, str]) -> Callable[..., Any]:
    module, name = place
    return getattr(import_module(f"irdistill.teachers.llm.{module}"), name)


def _options(kind: Callable[..., Any]) -> set[str]:
    parameters = inspect.signature(kind).parameters.values()
    return {
        one.name
        for one in parameters
        if one.kind is inspect.Parameter.KEYWORD_ONLY and one.name != "revision"
    }


def _check(card: TeacherCard, kind: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    unknown = sorted(settings.keys() - _options(kind))
    if unknown:
        raise IrdistillError(
            f"the model of {card.name!r} on {card.backend} takes"
            f" {', '.join(sorted(_options(kind)))}, and was given {', '.join(unknown)}."
        )
