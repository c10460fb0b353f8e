"""Recipe files: settings, stages, loops and references, all checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from irdistill.card_files import find_card
from irdistill.errors import InputError, OptionError
from irdistill.storage.plain_data import check_values, parse_yaml, read_yaml

REFERENCE = re.compile(r"\$\{([^${}]+)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
RESERVED = ("stages", "journal.jsonl", "report.md", "results.json", "plan.json", "recipe.yaml")
"""Files of a recipe's folder that no stage may be named after."""

MOST_STAGES = 2_000
"""Stages of one recipe; the largest that irdistill carries has 187."""

MOST_FILLED = 200_000
"""Values that the references and loops of one stage may expand to."""

MOST_STEPS = 32
"""Rounds in which the references of one text are replaced, the innermost first."""

LONGEST_TEXT = 1 << 16
"""Characters of one text after its references are replaced."""


@dataclass(frozen=True)
class Stage:
    """One call of a verb.

    Attributes:
        arguments: with settings filled in; ``${stage}`` is the artifact of an earlier stage.
    """

    name: str
    verb: str
    arguments: dict[str, Any]

    def needs(self) -> list[str]:
        """The stages that it refers to."""
        names = (name for text in self.texts() for name in REFERENCE.findall(text))
        return list(dict.fromkeys(names))

    def texts(self) -> list[str]:
        """All texts in its arguments, at any depth."""
        return list(_texts(self.arguments))


@dataclass(frozen=True)
class Recipe:
    """A recipe: ``settings`` that a user may change, and ``stages`` in order.

    Attributes:
        imports: modules and Python files to import first, with own losses and teachers.
    """

    name: str
    description: str
    settings: dict[str, Any] = field(default_factory=dict)
    stages: tuple[Stage, ...] = ()
    imports: tuple[str, ...] = ()


@dataclass(frozen=True)
class _RecipeFile:
    """The keys of a recipe file."""

    stages: list[dict[str, Any]]
    name: str = ""
    description: str = ""
    settings: dict[str, Any] | None = None
    imports: list[str] = field(default_factory=list)


def read_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path.

    Args:
        changes: ``key=value`` for settings; values are YAML, so ``steps=50`` is a number.
    """
    path = find_card("recipes", str(name))
    data = read_yaml(path, "recipe")
    check_values(data, _RecipeFile, f"the recipe {path}")
    if "stages" not in data:
        raise InputError(f"the recipe {path} has no stages; add a list of stages.")
    file = _RecipeFile(**data)
    title = file.name if "name" in data else path.stem
    if title in ("", ".", "..") or Path(title).name != title or not title.isprintable():
        raise InputError(
            f"the name of the recipe {path} is {title!r}; expected a folder's name, such as"
            f" {path.stem!r}."
        )
    settings = _settings(path, dict(file.settings or {}), changes)
    stages = _stages(path, file.stages, settings)
    return Recipe(title, file.description.strip(), settings, stages, tuple(file.imports))


def _settings(path: Path, settings: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or key not in settings:
            raise OptionError(
                f"--set {change!r} changes no setting of {path.name}; write key=value with one of"
                f" {', '.join(settings)}."
            )
        settings[key] = parse_yaml(value, f"the value in --set {change!r}")
    return {name: _resolved(path, name, value, settings) for name, value in settings.items()}


def _stages(
    path: Path, entries: list[dict[str, Any]], settings: Mapping[str, Any]
) -> tuple[Stage, ...]:
    stages: dict[str, Stage] = {}
    for entry in entries:
        for stage in _expand(path, entry, settings):
            unknown = [need for need in stage.needs() if need not in stages]
            fault = (
                f"refers to {unknown[0]!r}, which is not a setting and not an earlier stage"
                if unknown
                else "has the name of a setting"
                if stage.name in settings
                else "is defined twice"
                if stage.name in stages
                else ""
            )
            if fault:
                raise InputError(f"the stage {stage.name!r} of {path.name} {fault}.")
            stages[stage.name] = stage
            if len(stages) > MOST_STAGES:
                raise InputError(
                    f"the recipe {path} has more than {MOST_STAGES} stages; split it into several"
                    " recipes."
                )
    return tuple(stages.values())


def _expand(path: Path, entry: dict[str, Any], settings: Mapping[str, Any]) -> Iterator[Stage]:
    """The stages of one entry: one, or one for each combination of the values of its ``for``."""
    if not {"name", "verb"} <= set(entry):
        raise InputError(f"a stage of {path.name} has no name or no verb: {str(entry)[:200]}.")
    template = dict(entry)
    loops = template.pop("for", {})
    filling = _Filling()
    try:
        expanded = [
            filling.fill(template, {**settings, **values})
            for values in filling.combinations(loops, settings)
        ]
    except InputError as error:
        raise InputError(
            f"in the stage {str(entry['name'])[:80]!r} of {path.name}, {error}"
        ) from error
    for arguments in expanded:
        name, verb = arguments.pop("name"), arguments.pop("verb")
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name in RESERVED:
            raise InputError(
                f"the stage name {name!r} of {path.name} cannot be a folder's; use a-z, 0-9, dots"
                " and dashes."
            )
        if not isinstance(verb, str):
            raise InputError(
                f"the verb of the stage {name!r} of {path.name} is {verb!r}; expected the name of a"
                " verb."
            )
        yield Stage(name, verb, arguments)


def fill(value: Any, known: Mapping[str, Any]) -> Any:
    """Replace ``${name}`` by the value of that name, the innermost first.

    A text that is one reference keeps the value's type. A mapping with only ``for`` and ``each``
    becomes the list of ``each`` for every combination of values.

    Examples:
        >>> fill({"steps": "${steps}", "name": "s-${steps}"}, {"steps": 5})
        {'steps': 5, 'name': 's-5'}
    """
    return _Filling().fill(value, known)


def _resolved(path: Path, name: str, value: Any, settings: Mapping[str, Any]) -> Any:
    """Fill in a setting that refers to other settings.

    References to loops and stages stay: a loop's ``teacher`` must not be replaced by a setting.
    """
    for _ in range(MOST_STEPS):
        if not isinstance(value, str):
            return value
        if not any(reference in settings for reference in REFERENCE.findall(value)):
            return value
        value = fill(value, settings)
    raise InputError(
        f"the references of the setting {name!r} of {path.name} have no end: it refers to itself,"
        " or to others that do. Give one of them a value."
    )


class _Filling:
    """Replaces the references of one stage and counts the values, since nested loops multiply."""

    def __init__(self) -> None:
        self._count = 0

    def fill(self, value: Any, known: Mapping[str, Any]) -> Any:
        """``value`` with its references replaced."""
        self._count += 1
        if self._count > MOST_FILLED:
            raise InputError(
                f"its loops and references expand to more than {MOST_FILLED} values; make the lists"
                " shorter."
            )
        if isinstance(value, dict) and set(value) == {"for", "each"}:
            return [
                self.fill(value["each"], {**known, **values})
                for values in self.combinations(value["for"], known)
            ]
        if isinstance(value, dict):
            filled = {}
            for key, inner in value.items():
                name = self.fill(key, known)
                if not isinstance(name, str):
                    raise InputError(f"the key {key!r} stands for {name!r}; expected a text.")
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
        raise InputError(
            f"the references in {template[:80]!r} have no end: the settings that they name refer to"
            " each other or to themselves. Give one of those settings a value."
        )

    def combinations(self, loops: Any, known: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Every combination of the values of a ``for``; its lists may be settings."""
        lists = self.fill(loops, known)
        if not isinstance(lists, dict) or not all(
            isinstance(values, list) for values in lists.values()
        ):
            raise InputError(
                "for: must be a mapping of names to lists, or to settings that are lists."
            )
        if prod(map(len, lists.values())) > MOST_FILLED:
            raise InputError(
                f"for: has more than {MOST_FILLED} combinations; make the lists shorter."
            )
        for values in product(*lists.values()):
            yield dict(zip(lists, values, strict=True))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in (*value, *value.values()):
            yield from _texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner)
