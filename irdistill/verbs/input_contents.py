"""The contents of files, models, cards and code that the arguments of a verb name."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

if TYPE_CHECKING:
    from irdistill.verbs.declaration import Verb

_WITHOUT_EFFECT = ("out", "overwrite", "responses", "ray_address", "engine", "workers", "data")
"""Options that name no input. The answers in ``responses`` are those of the same requests."""


def named_contents(verb: Verb, values: Mapping[str, Any]) -> dict[str, Any]:
    """Fingerprints of what the texts in the arguments of a verb stand for, by text.

    A path or a name stays the same when the file behind it changes, so a result that is kept needs
    both. Collections and runs are left out: they have fingerprints. So are references to stages,
    and hub models, whose commit is part of the identity of what they make.

    Args:
        values: arguments by name; option dataclasses are read field by field.
    """
    contents: dict[str, Any] = {}
    for name, value in _by_option(verb, values):
        if name in _WITHOUT_EFFECT:
            continue
        source = verb.options[name].source if name in verb.options else ""
        for text in _texts(value):
            if "${" not in text and (content := _content(source, text)):
                contents[text] = content
    return contents


def _by_option(verb: Verb, values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name in verb.groups and dataclasses.is_dataclass(value):
            yield from (
                (field.name, getattr(value, field.name)) for field in dataclasses.fields(value)
            )
        else:
            yield name, value


def _texts(value: Any) -> Iterator[str]:
    """All texts and paths in a value, at any depth."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _content(source: str, text: str) -> Any:
    """A fingerprint of what a text stands for; None if it is a value, or has another fingerprint.

    Args:
        source: what the option names, see `Source`.
    """
    from irdistill.search.lexical.first_stages import is_lexical
    from irdistill.storage.files import file_sha256
    from irdistill.teachers.content_digests import teacher_content

    if source == "texts":
        return _texts_identity(text)
    if source == "loss":
        return _own_losses(text)
    if source in ("collection", "collections", "judgments", "measures", "files"):
        return None
    if is_lexical(text):
        segments = sorted(Path(text.partition(":")[2]).glob("segments_*"))
        return [[path.name, file_sha256(path)[:16]] for path in segments]
    content = teacher_content(text)
    if content is not None:
        return content
    path = Path(text).expanduser()
    return file_sha256(path)[:16] if text and os.path.isfile(path) else None


def _texts_identity(source: str) -> Any:
    from irdistill.queries.raw_texts import CollectionTexts, open_source

    return open_source(source, get_args(CollectionTexts), "text").identity


def _own_losses(loss: str) -> dict[str, str]:
    from irdistill.losses import parse_loss
    from irdistill.losses.loss_code import code_digests

    return code_digests(parse_loss(loss))
