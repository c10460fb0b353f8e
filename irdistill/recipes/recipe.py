"""Reading a recipe: settings, stages, loops and references, all checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from irdistill.card_files import find_card
from irdistill.errors import IrdistillError
from irdistill.storage.plain_data import parse_yaml, read_yaml

REFERENCE = re.compile(r"\$\{([^${}]+)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
RESERVED = ("stages", "journal.jsonl", "report.md", "results.json", "plan.json", "recipe.yaml")
"""What a recipe's folder holds beside its stages."""
_KEYS = ("name", "description", "settings", "stages")

MOST_STAGES = 2_000
"""Stages of one recipe; the largest that irdistill carries has 187."""

MOST_FILLED = 200_000
"""Values that the references and loops of one stage may stand for."""

MOST_STEPS = 32
"""Rounds in which the references of one text are replaced; each round replaces the innermost ones.
"""

LONGEST_TEXT = 1 << 16
"""Characters of one text after its references are filled in."""


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
        return list(
            dict.fromkeys(name for text in self.texts() for name in REFERENCE.findall(text))
        )

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
        IrdistillError: there is no such recipe, it is not readable, a change names no setting, a
            stage refers to something that does not stand before it, or has a setting's name.
    """
    path = find_card("recipes", str(name))
    data = read_yaml(path, "recipe")
    if not isinstance(data.get("stages"), list) or set(data) - set(_KEYS):
        raise IrdistillError(
            f"the recipe {path} must be a mapping with the keys {', '.join(_KEYS)}, and stages a"
            " list."
        )
    for key in ("name", "description"):
        if not isinstance(data.get(key, ""), str):
            raise IrdistillError(
                f"the {key} of the recipe {path} is {data[key]!r}; a text was expected."
            )
    settings = data.get("settings") or {}
    if not isinstance(settings, dict):
        raise IrdistillError(
            f"the settings of the recipe {path} are {settings!r}; a mapping of names to values was"
            " expected."
        )
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or key not in settings:
            raise IrdistillError(
                f"--set {change!r} changes no setting of {path.name}; write key=value with one of"
                f" {', '.join(settings)}."
            )
        settings[key] = parse_yaml(value, f"the value in --set {change!r}")
    settings = {name: _resolved(path, name, value, settings) for name, value in settings.items()}
    stages: dict[str, Stage] = {}
    for entry in data["stages"]:
        for stage in _expand(path, entry, settings):
            unknown = [need for need in stage.needs() if need not in stages]
            if unknown or stage.name in stages or stage.name in settings:
                fault = (
                    f"refers to {unknown[0]!r}, which is no setting and no earlier stage"
                    if unknown
                    else (
                        "has the name of a setting"
                        if stage.name in settings
                        else "stands there twice"
                    )
                )
                raise IrdistillError(f"the stage {stage.name!r} of {path.name} {fault}.")
            stages[stage.name] = stage
            if len(stages) > MOST_STAGES:
                raise IrdistillError(
                    f"the recipe {path} has more than {MOST_STAGES} stages; split it into several"
                    " recipes."
                )
    name = data.get("name", path.stem)
    if (
        not isinstance(name, str)
        or name in ("", ".", "..")
        or Path(name).name != name
        or not name.isprintable()
    ):
        raise IrdistillError(
            f"the name {name!r} of the recipe {path} cannot be a folder's; give one word, such as"
            f" {path.stem!r}."
        )
    return Recipe(name, data.get("description", "").strip(), settings, tuple(stages.values()))


def _expand(path: Path, entry: Any, settings: Mapping[str, Any]) -> Iterator[Stage]:
    """One entry is one stage, or one for each combination of the values of its ``for``."""
    if not isinstance(entry, dict) or not {"name", "verb"} <= set(entry):
        raise IrdistillError(f"a stage of {path.name} has no name or no verb: {str(entry)[:200]}.")
    template = dict(entry)
    loops = template.pop("for", {})
    filling = _Filling()
    try:
        expanded = [
            filling.fill(template, {**settings, **chosen})
            for chosen in filling.combinations(loops, settings)
        ]
    except IrdistillError as error:
        raise IrdistillError(
            f"in the stage {str(entry['name'])[:80]!r} of {path.name}, {error}"
        ) from error
    for filled in expanded:
        name, verb = filled.pop("name"), filled.pop("verb")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
            raise IrdistillError(
                f"the stage name {name!r} of {path.name} cannot be a folder's; use a-z, 0-9, dots"
                " and dashes."
            )
        if not isinstance(verb, str):
            raise IrdistillError(
                f"the verb of the stage {name!r} of {path.name} is {verb!r}; the name of a verb was"
                " expected."
            )
        yield Stage(name, verb, filled)


def fill(value: Any, known: Mapping[str, Any]) -> Any:
    """Replace ``${name}`` by the value of that name, innermost first; a text that is one reference
    keeps the value's type.

    A mapping with ``for`` and ``each`` alone becomes the list of what ``each`` is for every
    combination of values.

    Raises:
        IrdistillError: settings refer to each other in a circle, or the result is larger than
            ``MOST_FILLED`` values.
    """
    return _Filling().fill(value, known)


def _resolved(path: Path, name: str, value: Any, settings: Mapping[str, Any]) -> Any:
    """A setting whose text may refer to other settings; what a loop or a stage will be stays as it
    is.

    Loops are not known here: a loop's ``teacher`` must not be taken for the stage ``teacher`` that
        a setting names.
    """
    for _ in range(MOST_STEPS):
        if not isinstance(value, str):
            return value
        if not any(reference in settings for reference in REFERENCE.findall(value)):
            return value
        value = fill(value, settings)
    raise IrdistillError(
        f"the references of the setting {name!r} of {path.name} have no end: it refers to itself,"
        " or to others that do. Give one of them a value."
    )


class _Filling:
    """The replacement of references in one stage; it counts the values that it makes, since loops
    in loops multiply.
    """

    def __init__(self) -> None:
        self._count = 0

    def fill(self, value: Any, known: Mapping[str, Any]) -> Any:
        """``value`` with its references replaced."""
        self._count += 1
        if self._count > MOST_FILLED:
            raise IrdistillError(
                f"its loops and references stand for more than {MOST_FILLED} values; make the lists"
                " shorter."
            )
        if isinstance(value, dict) and set(value) == {"for", "each"}:
            return [
                self.fill(value["each"], {**known, **chosen})
                for chosen in self.combinations(value["for"], known)
            ]
        if isinstance(value, dict):
            filled = {}
            for key, inner in value.items():
                name = self.fill(key, known)
                if not isinstance(name, str):
                    raise IrdistillError(
                        f"the key {key!r} stands for {name!r}; a text was expected."
                    )
                filled[name] = self.fill(inner, known)
            return filled
        if isinstance(value, list):
            return [self.fill(inner, known) for inner in value]
        return self._text(value, known) if isinstance(value, str) else value

    def _text(self, template: str, known: Mapping[str, Any]) -> Any:
        text = template
        for _ in range(MOST_STEPS):
            whole = REFERENCE.fullmatch(text)
            if whole and whole[1] in known:
                return known[whole[1]]
            replaced = REFERENCE.sub(
                lambda match: str(known[match[1]]) if match[1] in known else match[0], text
            )
            if replaced == text:
                return text
            text = replaced
            if len(text) > LONGEST_TEXT:
                break
        raise IrdistillError(
            f"the references in {template[:80]!r} have no end: the settings that they name refer to"
            " each other or to themselves. Give one of those settings a value."
        )

    def combinations(self, loops: Any, known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every combination of the values of a ``for``; its lists may be settings."""
        lists = self.fill(loops, known)
        if not isinstance(lists, dict) or not all(
            isinstance(values, list) for values in lists.values()
        ):
            raise IrdistillError(
                "for: must be a mapping of names to lists, or to settings that are lists."
            )
        if prod(map(len, lists.values())) > MOST_FILLED:
            raise IrdistillError(
                f"for: stands for more than {MOST_FILLED} combinations; make the lists shorter."
            )
        for values in product(*lists.values()):
            yield dict(zip(lists, values, strict=True))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in (
        [*value, *value.values()]
        if isinstance(value, dict)
        else value
        if isinstance(value, list)
        else []
    ):
        yield from _texts(inner)
