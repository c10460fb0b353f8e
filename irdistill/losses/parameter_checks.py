"""Checks of the parameters of losses against their annotations."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from irdistill.errors import OptionError


@dataclass(frozen=True)
class Above:
    """Metadata of a number that must be greater than ``bound``."""

    bound: float

    def __str__(self) -> str:
        return f"above {self.bound:g}"

    def allows(self, value: float) -> bool:
        """Whether a number is in range."""
        return value > self.bound


@dataclass(frozen=True)
class AtLeast:
    """Metadata of a number that must not be smaller than ``bound``."""

    bound: float

    def __str__(self) -> str:
        return f"of at least {self.bound:g}"

    def allows(self, value: float) -> bool:
        """Whether a number is in range."""
        return value >= self.bound


Positive = Annotated[float, Above(0)]
NonNegative = Annotated[float, AtLeast(0)]


@cache
def parameter_types(kind: type) -> dict[str, Any]:
    """The annotations of the parameters of a loss, by name."""
    hints = get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in fields(kind)}


def check_value(owner: str, name: str, value: Any, hint: Any) -> Any:
    """The value, as a float if it was annotated as one.

    Raises:
        OptionError: the value does not fit the annotation.
    """
    options = get_args(hint) if type(None) in get_args(hint) else (hint,)
    if value is None and len(options) > 1:
        return None
    hint = options[0]
    bounds = hint.__metadata__ if get_origin(hint) is Annotated else ()
    base = get_args(hint)[0] if bounds else hint
    described = "".join(f" {bound}" for bound in bounds)
    fits: bool
    if get_origin(base) is Literal:
        fits = value in get_args(base)
        words = ", ".join(f'"{word}"' for word in get_args(base))
        expected = f"one of {words}"
    elif base is bool:
        fits, expected = isinstance(value, bool), "True or False"
    elif base is str:
        fits, expected = isinstance(value, str), 'a "word"'
    elif base is int or base is float:
        kinds = int if base is int else int | float
        fits = (
            isinstance(value, kinds)
            and not isinstance(value, bool)
            and math.isfinite(value)
            and all(bound.allows(value) for bound in bounds)
        )
        expected = f"a {'whole' if base is int else 'finite'} number{described}"
    else:
        return value
    if not fits:
        subject = f"{owner}({name}={value!r}): {name}" if owner else f"the {name} is {value!r}; it"
        raise OptionError(f"{subject} must be {expected}.")
    return float(value) if base is float else value
