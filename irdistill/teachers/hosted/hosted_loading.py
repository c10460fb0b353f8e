"""Creating hosted teachers and encoders from cards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from irdistill.errors import IrdistillError, OptionError
from irdistill.storage.plain_data import check_values
from irdistill.teachers.llm.served_model import ServingOptions
from irdistill.teachers.protocol import Teacher
from irdistill.teachers.teacher_card import HOSTED_KINDS, TeacherCard, read_card

if TYPE_CHECKING:
    from irdistill.teachers.hosted.hosted_encoder import HostedEncoder

_SERVING = tuple(entry.name for entry in fields(ServingOptions))


def load_hosted(card: TeacherCard, settings: Mapping[str, Any]) -> Teacher:
    """The teacher of a card.

    Args:
        settings: fields of `ServingOptions`, and those of the kind.
    """
    if card.kind == "hosted-embedder":
        from irdistill.teachers.hosted.hosted_encoder import EmbeddingTeacher

        return EmbeddingTeacher(load_hosted_encoder(card, settings))
    from irdistill.teachers.hosted.rerank_teacher import RerankTeacher

    serving, others = _split(card, settings, ("document_characters",))
    check_values(others, RerankTeacher, f"the settings of the teacher {card.name!r}")
    return RerankTeacher(card.model, card.server, serving, **others)


def load_hosted_encoder(card: TeacherCard, settings: Mapping[str, Any]) -> HostedEncoder:
    """The encoder of a card of the kind ``hosted-embedder``."""
    from irdistill.teachers.hosted.hosted_encoder import EncoderOptions, HostedEncoder

    known = tuple(entry.name for entry in fields(EncoderOptions))
    serving, others = _split(card, settings, known)
    check_values(others, EncoderOptions, f"the settings of the teacher {card.name!r}")
    return HostedEncoder(card.name, card.model, card.server, serving, EncoderOptions(**others))


def find_hosted_encoder(model: str) -> HostedEncoder | None:
    """The encoder of a card of the kind ``hosted-embedder``; None if a model's name is no such
    card.
    """
    try:
        card = read_card(model)
    except IrdistillError:
        if model.endswith((".yaml", ".yml")):
            raise
        return None
    return load_hosted_encoder(card, card.settings) if card.kind == "hosted-embedder" else None


def _split(
    card: TeacherCard, settings: Mapping[str, Any], known: tuple[str, ...]
) -> tuple[ServingOptions, dict[str, Any]]:
    """The options of requests, and the settings of the kind."""
    assert card.kind in HOSTED_KINDS
    unknown = sorted(settings.keys() - {*_SERVING, *known})
    if unknown:
        raise OptionError(
            f"the teacher {card.name!r} ({card.kind}) has no setting {', '.join(unknown)}. Its"
            f" settings are {', '.join(sorted({*_SERVING, *known}))}."
        )
    serving = {name: value for name, value in settings.items() if name in _SERVING}
    check_values(serving, ServingOptions, f"the settings of the teacher {card.name!r}")
    others = {name: value for name, value in settings.items() if name in known}
    return ServingOptions(**serving), others
