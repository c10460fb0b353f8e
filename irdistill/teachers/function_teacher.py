"""Plain functions as teachers."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from irdistill.errors import InputError, ModelError, NotFoundError, OptionError
from irdistill.storage.files import digest
from irdistill.teachers.protocol import (
    BatchTeacher,
    ListwiseTeacher,
    Teacher,
    TeacherScores,
    TextPair,
)
from irdistill.user_modules import FILE_MODULE, import_file

#: Scores lists of queries and documents of equal length; None and NaN mean "not scored".
TeacherFunction = Callable[[list[str], list[str]], Sequence[float | None] | np.ndarray]
LoadedTeacher = Teacher | BatchTeacher | ListwiseTeacher
_Function = TypeVar("_Function", bound=Callable[..., Any])

NOT_SCORED = "not scored"
BATCH_SIZE = 1024
_REFERENCE = re.compile(r"(?!package:)([\w.]+|.+\.py):([A-Za-z_][\w.]*)")
_SETTINGS = "_irdistill_teacher"


def teacher(
    *, name: str | None = None, version: str | None = None, batch_size: int = BATCH_SIZE
) -> Callable[[_Function], _Function]:
    """Set the identity of a function that is used as a teacher.

    Without this decorator, the identity is the function's module, its name and a hash of its
    source. A hash does not cover helper functions, global variables or a model that the function
    calls: give a version, and change it whenever the scores change.

    Args:
        name: replaces the module and the name of the function.
        version: replaces the hash of the source.
        batch_size: the most pairs that one call gets.

    Examples:
        >>> import irdistill as ird
        >>> @ird.teacher(name="overlap", version="1")
        ... def overlap(queries, documents):
        ...     return [len(set(q.split()) & set(d.split())) for q, d in zip(queries, documents)]
        >>> candidates = ird.retrieve("pydocs/test", "bm25")  # doctest: +SKIP
        >>> ird.score("pydocs/test", candidates, overlap, out="out/overlap")  # doctest: +SKIP
    """
    if batch_size < 1:
        raise OptionError(f"batch_size is {batch_size}; expected at least 1.")

    def decorate(function: _Function) -> _Function:
        setattr(function, _SETTINGS, {"name": name, "version": version, "batch_size": batch_size})
        return function

    return decorate


class FunctionTeacher:
    """A pointwise teacher that calls a function ``(queries, documents) -> scores``.

    Args:
        function: gets two lists of n strings and returns n numbers. None and NaN mean that a pair
            is not scored.
        settings: more keyword arguments of the function; part of the identity.

    Examples:
        >>> lengths = FunctionTeacher(teacher(name="lengths", version="1")(
        ...     lambda queries, documents: [len(document) for document in documents]))
        >>> lengths.identity["model"]
        'lengths'
    """

    def __init__(
        self, function: TeacherFunction, settings: Mapping[str, Any] | None = None
    ) -> None:
        _check_parameters(function, settings or {})
        declared: Mapping[str, Any] = getattr(function, _SETTINGS, {})
        self.function, self.settings = function, dict(settings or {})
        self.batch_size = int(declared.get("batch_size", BATCH_SIZE))
        self.identity: Mapping[str, Any] = {
            "kind": "function",
            **function_identity(function),
            "batch_size": self.batch_size,
            **({"settings": self.settings} if self.settings else {}),
        }

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        """Score pairs in batches of at most ``batch_size``.

        Raises:
            ModelError: the function did not return one number or None per pair.
        """
        values = np.empty(len(pairs), np.float32)
        for start in range(0, len(pairs), self.batch_size):
            batch = pairs[start : start + self.batch_size]
            values[start : start + len(batch)] = self._call(batch)
        missing = np.isnan(values)
        flags = [NOT_SCORED if empty else None for empty in missing.tolist()]
        return TeacherScores(values, flags if missing.any() else None)

    def _call(self, batch: Sequence[TextPair]) -> np.ndarray:
        returned = self.function(
            [pair.query.text for pair in batch], [pair.text for pair in batch], **self.settings
        )
        expected = f"expected {len(batch)} numbers (or None), one per pair of query and document."
        try:
            values = np.asarray(returned, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"the teacher function {self.identity['model']} returned"
                f" {type(returned).__name__} that is not a list of numbers ({error}); {expected}"
            ) from error
        if values.shape != (len(batch),):
            raise ModelError(
                f"the teacher function {self.identity['model']} returned scores of shape"
                f" {values.shape}; {expected}"
            )
        return values


def function_identity(function: Any) -> dict[str, str]:
    """The name of a function or class, and its declared version or a hash of its source.

    Raises:
        OptionError: it has no name or no source, and declares none.
    """
    declared: Mapping[str, Any] = getattr(function, _SETTINGS, {})
    version, name = declared.get("version"), declared.get("name") or _name(function)
    code = {"version": version} if version else {"source": _source_digest(function, name)}
    return {"model": name, **code}


def _check_parameters(function: TeacherFunction, settings: Mapping[str, Any]) -> None:
    """Check that a function can be called with queries, documents and the settings."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # a function in C may not tell
        return
    try:
        signature.bind([], [], **settings)
    except TypeError as error:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise OptionError(
            f"a teacher function takes (queries, documents) and its settings; {name} takes"
            f" {signature}: {error}."
        ) from error


def is_reference(name: str) -> bool:
    """Whether a name has the form ``module:function`` or ``path/to/file.py:function``.

    Examples:
        >>> [is_reference(name) for name in ("my.module:score", "b.py:score", "package:x/y")]
        [True, True, False]
    """
    return _REFERENCE.fullmatch(name) is not None


def as_teacher(
    source: TeacherFunction | LoadedTeacher | type, settings: Mapping[str, Any] | None = None
) -> LoadedTeacher:
    """Turn a function, a teacher or a class of teachers into a teacher.

    Args:
        source: a function ``(queries, documents) -> scores``, an object with ``identity`` and
            ``score`` (or another protocol of `irdistill.teachers.protocol`), or a class of such
            objects.
        settings: keyword arguments of the function or of the class.
    """
    settings = dict(settings or {})
    if isinstance(source, type):
        try:
            created: LoadedTeacher | TeacherFunction = source(**settings)
            return as_teacher(created)
        except TypeError as error:
            raise OptionError(
                f"the teacher class {source.__qualname__} cannot be created with the settings"
                f" {settings}: {error}."
            ) from error
    if isinstance(source, Teacher | BatchTeacher | ListwiseTeacher):
        if settings:
            raise OptionError(
                f"the teacher {type(source).__name__} is an object and takes no settings; got"
                f" {', '.join(settings)}. Set them when you create the object."
            )
        return source
    if not callable(source):
        raise InputError(
            f"{source!r} is not a teacher. Expected a function (queries, documents) -> scores, or"
            " an object with the attributes identity and score."
        )
    return FunctionTeacher(source, settings)


def load_reference(reference: str, settings: Mapping[str, Any] | None = None) -> LoadedTeacher:
    """Import ``module:function`` or ``path/to/file.py:function`` as a teacher.

    Modules are looked up in the working directory first. Importing runs the code of the module.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InputError(
            f"{reference!r} is not a reference; expected module:function or path/file.py:function."
        )
    place, name = match.groups()
    module: Any = None
    try:
        module = import_file(Path(place)) if place.endswith(".py") else _import_module(place)
        source = functools.reduce(getattr, name.split("."), module)
    except AttributeError as error:
        if module is None:
            raise ModelError(f"importing the teacher {reference!r} failed: {error}.") from error
        functions = [
            key
            for key, value in vars(module).items()
            if callable(value)
            and not key.startswith("_")
            and getattr(value, "__module__", None) == module.__name__
        ]
        raise NotFoundError(
            f"{place} has no function {name!r}; it has: {', '.join(functions) or 'none'}."
        ) from error
    except (ModuleNotFoundError, NotFoundError) as error:
        raise NotFoundError(
            f"the teacher {reference!r} cannot be imported: {error}. Check the spelling; modules"
            " are looked up in the working directory and in the installed packages."
        ) from error
    except Exception as error:
        raise ModelError(
            f"importing the teacher {reference!r} failed with {type(error).__name__}: {error}."
        ) from error
    return as_teacher(source, settings)


def _import_module(name: str) -> Any:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


def _name(function: Any) -> str:
    """``module:qualname``; the same for an imported module, a file and a script."""
    described = function if hasattr(function, "__qualname__") else type(function)
    if isinstance(function, functools.partial):
        raise OptionError(
            "a functools.partial has no name. Wrap it in a function, or give it one with"
            " irdistill.teachers.teacher(name=…, version=…)."
        )
    module = described.__module__.removeprefix(FILE_MODULE)
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if module == "__main__" and script:
        module = Path(script).stem
    return f"{module}:{described.__qualname__}"


def _source_digest(function: Any, name: str) -> str:
    """Hash of the function's source and of the plain values that it closes over.

    Those of an object with a method ``__call__`` are its attributes.
    """
    described = function if hasattr(function, "__qualname__") else type(function)
    try:
        source = inspect.getsource(described)
    except (OSError, TypeError) as error:
        raise OptionError(
            f"the source of the teacher function {name} is not available. Decorate it with"
            " @irdistill.teachers.teacher(version=…), and change the version whenever its scores"
            " change."
        ) from error
    cells = [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    values = [*cells, *(getattr(function, "__defaults__", None) or ())]
    if described is not function:
        values += [value for _, value in sorted(getattr(function, "__dict__", {}).items())]
    plain = [value for value in values if value is None or isinstance(value, str | int | float)]
    return digest([source, *map(repr, plain)])
