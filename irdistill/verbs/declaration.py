"""The declaration of a verb: one typed function, from which all surfaces are derived.

`verb` reads a function's signature. Its parameters, and the fields of its option dataclasses, are
the options of the verb. The command line, the schema of recipes, the checks before a verb runs and
the option tables in the documentation are made from them.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, wraps
from pathlib import Path
from types import SimpleNamespace, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from irdistill.errors import OptionError
from irdistill.storage.plain_data import validation_problem
from irdistill.verbs.argument_types import Source

REQUIRED = inspect.Parameter.empty

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a verb.

    Attributes:
        annotation: its type, with pydantic's metadata.
        default: its default, or ``REQUIRED``.
        group: the parameter whose dataclass has this field; empty for a parameter.
    """

    name: str
    annotation: Any
    default: Any = REQUIRED
    group: str = ""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is REQUIRED

    @property
    def description(self) -> str:
        """The help text."""
        texts = (getattr(entry, "description", None) for entry in _metadata(self.annotation))
        return next((text for text in texts if text), "")

    @property
    def source(self) -> str:
        """What the option names: ``collection``, ``run``, ``model`` and so on; empty for values."""
        marks = (entry for entry in _metadata(self.annotation) if isinstance(entry, Source))
        return next((mark.kind for mark in marks), "")

    @property
    def types(self) -> tuple[Any, ...]:
        """The alternatives of its type, without metadata and None."""
        return tuple(_alternatives(self.annotation))

    @cached_property
    def adapter(self) -> Any:
        """The pydantic validator."""
        from pydantic import ConfigDict, TypeAdapter

        return TypeAdapter(self.annotation, config=ConfigDict(arbitrary_types_allowed=True))

    def check(self, value: Any, label: str, strict: bool = False) -> Any:
        """Convert and check a value.

        Args:
            strict: the value comes from YAML or JSON; text is no number.
        """
        from pydantic import ValidationError

        try:
            if strict:
                return self.adapter.validate_json(json.dumps(value), strict=True)
            return self.adapter.validate_python(value)
        except ValidationError as error:
            raise OptionError(validation_problem(label, value, error)) from error


@dataclasses.dataclass(frozen=True)
class Verb:
    """A verb: its function, and what the surfaces need to know beside the signature.

    Attributes:
        positional: options that are arguments of the command, not flags.
        examples: command lines for the end of the help text; a line with # is a comment.
        check_together: refuses options that contradict each other, before anything runs.
        reopen: opens the result in a folder. Such a verb called with ``out=None`` keeps its result
            in the cache, and a second call opens it.
        alternatives: options of which a caller gives one. A recipe may give all, as its variables
            have defaults.
    """

    name: str
    function: Callable[..., Any]
    positional: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    check_together: Callable[[Mapping[str, Any]], None] | None = None
    reopen: Callable[[Path], Any] | None = None
    alternatives: tuple[str, ...] = ()

    @cached_property
    def groups(self) -> dict[str, type]:
        """Parameters that are option dataclasses."""
        return {
            name: hint
            for name, hint in self._hints.items()
            if isinstance(hint, type) and dataclasses.is_dataclass(hint)
        }

    @cached_property
    def options(self) -> dict[str, Option]:
        """All options by name, in the order of the signature."""
        listed: list[Option] = []
        for name, parameter in inspect.signature(self.function).parameters.items():
            if name in self.groups:
                listed += _fields(name, self.groups[name])
            elif parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                listed.append(Option(name, self._hints[name], parameter.default))
        return {option.name: option for option in listed}

    @property
    def documentation(self) -> str:
        """The docstring of the function."""
        return inspect.getdoc(self.function) or ""

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a Python call by name."""
        names = list(inspect.signature(self.function).parameters)
        if len(args) > len(names):
            raise TypeError(f"{self.name} takes at most {len(names)} positional arguments.")
        named = dict(zip(names, args, strict=False))
        twice = named.keys() & kwargs.keys()
        if twice:
            raise TypeError(f"{self.name} got several values for {sorted(twice)[0]!r}.")
        return named | dict(kwargs)

    def refuse_alternatives(
        self, arguments: Mapping[str, Any], label: Callable[[str], str] = str
    ) -> None:
        """Refuse several of the options that are alternatives."""
        chosen = [name for name in self.alternatives if arguments.get(name)]
        if len(chosen) > 1:
            raise OptionError(f"{' and '.join(map(label, chosen))} were given; give one of them.")

    def check(
        self,
        arguments: Mapping[str, Any],
        strict: bool = False,
        label: Callable[[str], str] = str,
    ) -> dict[str, Any]:
        """The arguments of the function, converted and checked; None stands for the default.

        Args:
            strict: the values come from YAML or JSON.
        """
        unknown = [name for name in arguments if name not in {*self.options, *self.groups}]
        if unknown:
            raise OptionError(f"{self.name} has no option {unknown[0]!r}{self._hint(unknown[0])}")
        values = {
            name: option.check(arguments[name], label(name), strict)
            for name, option in self.options.items()
            if arguments.get(name) is not None
        }
        for name, option in self.options.items():
            if option.required and name not in values:
                text = option.description or "it has no default."
                shown = label(name) if label(name) != name else f"a {name}"
                raise OptionError(
                    f"{self.name} needs {shown}, {text[0].lower()}{text[1:]}"
                    if text.startswith("Such as ")
                    else f"{self.name} needs {label(name)}: {text}"
                )
        for group, kind in self.groups.items():
            fields = {
                name: values.pop(name)
                for name, option in self.options.items()
                if option.group == group and name in values
            }
            base = arguments.get(group)
            values[group] = dataclasses.replace(base, **fields) if base else kind(**fields)
        if self.check_together is not None:
            self.check_together(values)
        return values

    def call(self, values: Mapping[str, Any]) -> Any:
        """Run the function with arguments that `check` returned."""
        if self.reopen is not None and values.get("out") is None:
            from irdistill.verbs.result_cache import cached_result

            return cached_result(self, values)
        return self.function(**values)

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.options, 3)
        return (
            f"; did you mean {', '.join(close)}?"
            if close
            else f"; its options are {', '.join(self.options)}."
        )

    @cached_property
    def _hints(self) -> dict[str, Any]:
        annotations = {
            name: hint for name, hint in self.function.__annotations__.items() if name != "return"
        }
        return get_type_hints(
            SimpleNamespace(__annotations__=annotations),
            self.function.__globals__,
            include_extras=True,
        )


def verb(
    name: str,
    *,
    positional: Iterable[str] = (),
    examples: Iterable[str] = (),
    check: Callable[[Mapping[str, Any]], None] | None = None,
    reopen: Callable[[Path], Any] | None = None,
    alternatives: Iterable[str] = (),
) -> Callable[[_Function], _Function]:
    """Declare the decorated function as a verb; see `Verb`.

    The function is called with checked arguments. The fields of its option dataclasses may be given
    as keywords: ``train(..., steps=100)``.
    """

    def decorate(function: _Function) -> _Function:
        declared = Verb(
            name,
            function,
            tuple(positional),
            tuple(examples),
            check,
            reopen,
            tuple(alternatives),
        )

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            arguments = declared.bind(args, kwargs)
            declared.refuse_alternatives(arguments)
            return declared.call(declared.check(arguments))

        call.__dict__["verb"] = declared
        return cast(_Function, call)

    return decorate


def declared_verb(function: Callable[..., Any]) -> Verb:
    """The declaration of a function that `verb` decorated."""
    return cast(Verb, function.__dict__["verb"])


def _metadata(annotation: Any) -> Iterator[Any]:
    """The metadata of a type and of its parts, the outermost first."""
    yield from getattr(annotation, "__metadata__", ())
    for part in get_args(annotation)[: 1 if get_origin(annotation) is Annotated else None]:
        yield from _metadata(part)


def _alternatives(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part)
    elif annotation is not type(None):
        yield annotation


def _fields(group: str, kind: type) -> list[Option]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        Option(
            field.name,
            hints[field.name],
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory(),
            group,
        )
        for field in dataclasses.fields(kind)
    ]
