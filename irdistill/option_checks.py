"""Validation of option dataclasses: types and bounds come from the field annotations."""

from __future__ import annotations

from dataclasses import fields
from functools import cache
from typing import Any, get_type_hints

from irdistill.errors import OptionError


def check_fields(options: Any) -> None:
    """Check every field of a frozen dataclass against its annotation.

    A field is declared as ``Annotated[int, Field(ge=1, description="Lists per step.")]`` with
    pydantic's ``Field``. Types are strict: a number written as text is refused. Lists, as YAML
    gives them, become tuples.

    Raises:
        OptionError: a value has the wrong type or is out of bounds, or a number is not finite.
    """
    from pydantic import ValidationError

    declaration: Any = type(options)
    for field in fields(options):
        value = getattr(options, field.name)
        if isinstance(value, list):
            value = tuple(value)
        try:
            value = _adapter(declaration, field.name).validate_python(value, strict=True)
        except ValidationError as error:
            expected = " or ".join(
                dict.fromkeys(
                    detail["msg"].replace("Input should be ", "")
                    for detail in error.errors(include_url=False)
                )
            )
            raise OptionError(f"{field.name} is {value!r}; expected {expected}.") from error
        object.__setattr__(options, field.name, value)


@cache
def _adapter(declaration: Any, name: str) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    annotation = get_type_hints(declaration, include_extras=True)[name]
    config = ConfigDict(allow_inf_nan=False, arbitrary_types_allowed=True)
    return TypeAdapter(annotation, config=config)
