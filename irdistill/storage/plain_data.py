"""Read YAML and JSON that users wrote: plain values within limits, with one clear error.

PyYAML and ``json`` run no code, but they accept input that is small on disk and huge in memory:
aliases that multiply (a "billion laughs" file of 500 bytes stands for 10**9 values), brackets
nested 100,000 deep, and numbers with a million digits.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Mapping
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from irdistill.errors import InputError, IrdistillError, one_line

LARGEST_YAML = 1 << 20
"""Bytes of the largest recipe or card; the largest in irdistill has 12 KB."""

MOST_VALUES = 100_000
"""Values in one YAML file; an alias counts each time it is used."""

DEEPEST = 64
"""Levels of nesting in a YAML file."""

_EXPONENT = re.compile(r"[+-]?\d+[eE][+-]?\d{1,2}")
_MERGE = "tag:yaml.org,2002:merge"


def parse_json(text: str | bytes, place: str) -> Any:
    """Parse JSON.

    Args:
        text: the JSON text; bytes are read as UTF-8.
        place: what is parsed, for the message (``line 3 of x.jsonl``).

    Raises:
        InputError: the text is not JSON, is nested too deeply, or has a number that is too long.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{place} cannot be read: its brackets are nested too deeply.") from error
    except ValueError as error:
        shown = text[:80] if isinstance(text, str) else text[:80].decode("utf-8", "replace")
        raise InputError(f"{place} is not JSON ({error}): {shown.strip()!r}.") from error


def read_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        what: what the file is, for the message (``recipe``).

    Raises:
        InputError: the file is too large or not UTF-8, holds no mapping, or as in `parse_yaml`.
    """
    if path.stat().st_size > LARGEST_YAML:
        raise InputError(
            f"the {what} {path} has {path.stat().st_size} bytes; at most {LARGEST_YAML} were"
            " expected."
        )
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"the {what} {path} is not UTF-8 text ({error.reason}); convert the file."
        ) from error
    data = parse_yaml(text, f"the {what} {path}")
    if not isinstance(data, dict):
        raise InputError(
            f"the {what} {path} holds {_shown(data)}; a mapping of names to values was expected."
        )
    return data


def parse_yaml(text: str, place: str) -> Any:
    """Parse YAML to None, booleans, finite numbers, strings, lists, and mappings with string keys.

    Args:
        place: what is parsed, for the message.

    Raises:
        InputError: the text is not YAML, refers to itself, is nested deeper than ``DEEPEST``, has
            more than ``MOST_VALUES`` values, repeats a key, or holds another type (a date, bytes, a
            set, NaN).

    Examples:
        >>> parse_yaml("steps: 100\\nsources: [1, 2]", "the recipe")
        {'steps': 100, 'sources': [1, 2]}
    """
    import yaml

    if len(text) > LARGEST_YAML:
        raise InputError(
            f"{place} has {len(text)} characters; at most {LARGEST_YAML} were expected."
        )
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, place)
        value = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise InputError(
            f"{place} is not readable as YAML: {line}{error.problem or error.context}."
        ) from error
    except InputError:
        raise
    # Besides YAMLError: 2024-13-45 is a date (ValueError), !!bool x (KeyError), !!timestamp x
    # (AttributeError).
    except (
        yaml.YAMLError,
        ValueError,
        KeyError,
        AttributeError,
        TypeError,
        OverflowError,
    ) as error:
        raise InputError(f"{place} is not readable as YAML: {one_line(error)}.") from error
    except RecursionError as error:
        raise InputError(
            f"{place} is nested too deeply; at most {DEEPEST} levels were expected."
        ) from error
    _check_plain(value, place)
    return value


def _check_node(root: Any, place: str) -> None:
    """Refuse circles, deep nesting and too many values before any value is constructed."""
    import yaml

    sizes: dict[int, int] = {}
    above: set[int] = set()

    def size(node: Any, depth: int) -> int:
        if id(node) in above:
            raise InputError(
                f"{place} refers to itself (line {node.start_mark.line + 1}); remove that alias."
            )
        if depth > DEEPEST:
            raise InputError(
                f"{place} is nested too deeply (line {node.start_mark.line + 1}); at most {DEEPEST}"
                " levels were expected."
            )
        if id(node) in sizes:
            return sizes[id(node)]
        above.add(id(node))
        total = 1
        if isinstance(node, yaml.SequenceNode):
            total += sum(size(inner, depth + 1) for inner in node.value)
        elif isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    if key.value in names:
                        raise InputError(
                            f"{place} names {key.value!r} twice (line {key.start_mark.line + 1});"
                            " keep one."
                        )
                    names.add(key.value)
                total += size(key, depth + 1) + size(value, depth + 1)
        if total > MOST_VALUES:
            raise InputError(
                f"{place} has more than {MOST_VALUES} values, because its aliases multiply. Write"
                " the values out."
            )
        above.discard(id(node))
        sizes[id(node)] = total
        return total

    size(root, 0)


def _check_plain(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, str):
                raise InputError(
                    f"{place} has the key {key!r}, which YAML reads as {type(key).__name__}; put it"
                    " in quotes."
                )
            _check_plain(inner, place)
    elif isinstance(value, list):
        for inner in value:
            _check_plain(inner, place)
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{place} holds {value}; a finite number was expected.")
    elif not (value is None or isinstance(value, bool | int | float | str)):
        raise InputError(
            f"{place} holds {value!r}, which YAML reads as {type(value).__name__}; put it in"
            " quotes."
        )


def check_values(values: Mapping[str, Any], declared: Any, place: str, free: bool = False) -> None:
    """Compare the values of a mapping with the types that a function or class declares.

    Args:
        declared: a function, a dataclass, or another class (the types of its ``__init__``).
        place: what is checked, for the message.
        free: ignore names that ``declared`` does not annotate, instead of refusing them.

    Raises:
        InputError: a name is not annotated, or a value has another type; the message names it.
    """
    from pydantic import ValidationError

    hints = _hints(declared)
    for name, value in values.items():
        if name not in hints:
            if free:
                continue
            raise InputError(f"{place} has no setting {name!r}; known are {', '.join(hints)}.")
        try:
            _adapter(declared, name).validate_python(value, strict=True)
        except ValidationError as error:
            raise InputError(f"{place}: {validation_problem(name, value, error)}") from error


_UNKNOWN_KEYS = ("extra_forbidden", "unexpected_keyword_argument")


def validation_problem(name: str, value: Any, error: Any) -> str:
    """A sentence for a pydantic ``ValidationError``: what the value is, and what was expected.

    Args:
        name: what the value is called.
    """
    keys = _keys(value)

    def steps(detail: Any) -> list[Any]:
        return [step for step in detail["loc"] if isinstance(step, int) or step in keys]

    details = error.errors(include_url=False)
    first = max(
        details,
        key=lambda detail: (len(steps(detail)), detail["type"] in ("missing", *_UNKNOWN_KEYS)),
    )
    reason = (first.get("ctx") or {}).get("error")
    if isinstance(reason, IrdistillError):
        return str(reason)
    # A word of the command line shows which one it is; it has no number there.
    start = 1 if name.startswith("--") and isinstance(next(iter(steps(first)), ""), int) else 0
    inside = "".join(f"[{step!r}]" for step in steps(first)[start:])
    if first["type"] == "missing":
        return (
            f"{name}{inside} is {_shown(first['input'])}; the key {first['loc'][-1]!r} is missing."
        )
    if first["type"] in _UNKNOWN_KEYS:
        place = f"{name}{inside.rpartition('[')[0]}"
        return f"{place} has a key {first['loc'][-1]!r}, which is not known; leave it out."
    expected = " or ".join(
        dict.fromkeys(
            _expected(detail["msg"])
            for detail in details
            if detail["input"] is first["input"] or detail["input"] == first["input"]
        )
    )
    return (
        f"{name}{inside} is {_shown(first['input'])}; expected {expected}{_hint(first['input'])}."
    )


def _hint(value: Any) -> str:
    """Advice for 1e-5, which YAML 1.1 reads as text because it has no decimal point."""
    if not isinstance(value, str) or not _EXPONENT.fullmatch(value):
        return ""
    return f" (YAML reads {value} as text: write {float(value):.1e})"


def _keys(value: Any) -> set[Any]:
    """All keys anywhere in a value. (Pydantic's locations also name branches of unions.)"""
    if isinstance(value, dict):
        return set(value).union(*map(_keys, value.values()))
    return set().union(*map(_keys, value)) if isinstance(value, list) else set()


def _expected(message: str) -> str:
    """Pydantic's ``Input should be a valid string`` in our words."""
    message = message.removeprefix("Input should be ").removeprefix("Value error, expected ")
    message = re.sub(r"Input is not a valid path.*", "a path", message)
    message = re.sub(r"(a valid \w+), unable to parse string as an? \w+", r"\1", message)
    message = message.replace("greater than or equal to", "at least")
    message = message.replace("less than or equal to", "at most")
    message = re.sub(r"^greater than", "more than", message)
    message = re.sub(r"^\w+ should have (at \w+ \d+ items?) after.*", r"\1", message)
    message = message.replace("String should match pattern", "text that matches")
    return re.sub(r"a valid (?=[aio])", "an ", message).replace("a valid ", "a ")


@cache
def _hints(declared: Any) -> dict[str, Any]:
    source = (
        declared.__init__ if inspect.isclass(declared) and not is_dataclass(declared) else declared
    )
    hints = get_type_hints(source, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return"}


@cache
def _adapter(declared: Any, name: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    hint = _hints(declared)[name]
    return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
