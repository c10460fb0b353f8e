"""Reading a recipe: settings, stages, loops and references, all checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from irdistill.cards import find_card
from irdistill.errors import IrdistillError

REFERENCE = re.compile(r"\$\{([^${}]+)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
RESERVED = ("stages", "journal.jsonl", "report.md", "results.json", "plan.json", "recipe.yaml")
"""What a recipe's folder holds beside its stages."""
_KEYS = ("name", "description", "settings", "stages")


@dataclass(frozen=True)
class Stage:
    """One call of a verb.

    Attributes:
        arguments: with settings filled in; ``${stage}`` stands for what an earlier stage made.
    """

    name: str
    verb: str
    arguments: dict[str, Any]

    def needs(self) -> list[str]:
        """The stages it refers to."""
        return list(dict.fromkeys(name for text in self.texts() for name in REFERENCE.findall(text)))

    def texts(self) -> list[str]:
        """All texts among its arguments, however deep."""
        return list(_texts(self.arguments))


@dataclass(frozen=True)
class Recipe:
    """A YAML file: ``settings`` that a user may change, and ``stages`` in order."""

    name: str
    description: str
    settings: dict[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()


def read_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path.

    Args:
        changes: ``key=value`` for settings; values are YAML, so ``steps=50`` is a number.

    Raises:
        IrdistillError: there is no such recipe, it is not readable, a change names no setting, a stage refers to
            something that does not stand before it, or has a setting's name.
    """
    path = find_card("recipes", str(name))
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise IrdistillError(f"the recipe {path} is not readable as YAML: {error}") from error
    if not isinstance(data, dict) or not isinstance(data.get("stages"), list) or set(data) - set(_KEYS):
        raise IrdistillError(f"the recipe {path} must be a mapping with the keys {', '.join(_KEYS)}, and stages a list.")
    settings = dict(data.get("settings") or {})
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or key not in settings:
            raise IrdistillError(
                f"--set {change!r} changes no setting of {path.name}; write key=value with one of {', '.join(settings)}."
            )
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise IrdistillError(f"the value in --set {change!r} cannot be read: {error}") from error
    stages: dict[str, Stage] = {}
    for entry in data["stages"]:
        for stage in _expand(path, entry, settings):
            unknown = [need for need in stage.needs() if need not in stages]
            if unknown or stage.name in stages or stage.name in settings:
                fault = (f"refers to {unknown[0]!r}, which is no setting and no earlier stage" if unknown else
                         "has the name of a setting" if stage.name in settings else "stands there twice")
                raise IrdistillError(f"the stage {stage.name!r} of {path.name} {fault}.")
            stages[stage.name] = stage
    name = data.get("name", path.stem)
    if not isinstance(name, str) or name in ("", ".", "..") or Path(name).name != name or not name.isprintable():
        raise IrdistillError(f"the name {name!r} of the recipe {path} cannot be a folder's; give one word, such as {path.stem!r}.")
    return Recipe(name, str(data.get("description", "")).strip(), settings, tuple(stages.values()))


def _expand(path: Path, entry: Any, settings: Mapping[str, Any]) -> Iterator[Stage]:
    """One entry is one stage, or one for each combination of the values of its ``for``."""
    if not isinstance(entry, dict) or not {"name", "verb"} <= set(entry):
        raise IrdistillError(f"a stage of {path.name} has no name or no verb: {entry!r}.")
    given = dict(entry)
    loops = given.pop("for", {})
    try:
        expanded = [fill(given, {**settings, **chosen}) for chosen in _combinations(loops, settings)]
    except IrdistillError as error:
        raise IrdistillError(f"in the stage {entry['name']!r} of {path.name}, {error}") from error
    for filled in expanded:
        name, verb = str(filled.pop("name")), str(filled.pop("verb"))
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise IrdistillError(f"the stage name {name!r} of {path.name} cannot be a folder's; use a-z, 0-9, dots and dashes.")
        yield Stage(name, verb, filled)


def _combinations(loops: Any, known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every combination of the values of a ``for``; its lists may be settings."""
    loops = fill(loops, known)
    if not isinstance(loops, dict) or not all(isinstance(values, list) for values in loops.values()):
        raise IrdistillError("for: must be a mapping of names to lists, or to settings that are lists.")
    for values in product(*loops.values()):
        yield dict(zip(loops, values, strict=True))


def fill(value: Any, known: Mapping[str, Any]) -> Any:
    """Replace ``${name}`` by what is known of it, innermost first; a text that is one reference keeps the value's type.

    A mapping with ``for`` and ``each`` alone becomes the list of what ``each`` is for every combination of values.
    """
    if isinstance(value, dict) and set(value) == {"for", "each"}:
        return [fill(value["each"], {**known, **chosen}) for chosen in _combinations(value["for"], known)]
    if isinstance(value, dict):
        return {fill(key, known): fill(inner, known) for key, inner in value.items()}
    if isinstance(value, list):
        return [fill(inner, known) for inner in value]
    if not isinstance(value, str):
        return value
    while True:
        whole = REFERENCE.fullmatch(value)
        if whole and whole[1] in known:
            return known[whole[1]]
        replaced = REFERENCE.sub(lambda found: str(known[found[1]]) if found[1] in known else found[0], value)
        if replaced == value:
            return value
        value = replaced


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from _texts(inner)
