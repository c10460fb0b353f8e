"""Collect the docstrings of the installed packages; ``pydocs.py`` runs this in a process.

``python -m irdistill.collections.pydocs_build FOLDER`` writes, in sorted order:
``entries.jsonl``: name, package and docstring of each documented object;
``inherited.jsonl``: other names of methods, with the ``text_key`` of their docstrings;
``skipped.json``: the modules that cannot be imported, and why;
``steps``: one byte for each finished step of `number_of_steps`, for a progress bar.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import inspect
import io
import json
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

_SKIPPED_MODULES = """
    antigravity crypt distutils ensurepip genericpath idlelib lib2to3 nt ntpath nturl2path
    opcode posix posixpath pydoc_data sre_compile sre_constants sre_parse test this tkinter
    turtle turtledemo venv
"""
SKIPPED_MODULES = set(_SKIPPED_MODULES.split())
"""Modules that open windows or browsers, are not for users, or exist under another name."""

_NAMESPACES = """
numpy:
    . linalg fft random ma char polynomial lib.stride_tricks testing
pandas:
    . api.types api.indexers tseries.offsets testing
torch:
    . nn nn.functional nn.init nn.utils optim optim.lr_scheduler utils.data linalg fft special
    distributions autograd sparse
sklearn:
    base calibration cluster compose covariance cross_decomposition datasets decomposition
    discriminant_analysis dummy ensemble feature_extraction feature_extraction.text
    feature_selection gaussian_process impute inspection isotonic kernel_approximation
    linear_model manifold metrics metrics.pairwise mixture model_selection multiclass
    multioutput naive_bayes neighbors neural_network pipeline preprocessing random_projection
    semi_supervised svm tree utils
scipy:
    cluster.hierarchy cluster.vq constants fft integrate interpolate io linalg ndimage
    optimize signal sparse sparse.csgraph sparse.linalg spatial spatial.distance special stats
"""
NAMESPACES: dict[str, list[str]] = {}
"""Package -> namespaces with its public names ("." is the package). Missing ones are skipped."""
for _word in _NAMESPACES.split():
    if _word.endswith(":"):
        NAMESPACES[_word[:-1]] = []
    else:
        NAMESPACES[[*NAMESPACES][-1]].append(_word)

DISTRIBUTIONS = {package: package for package in NAMESPACES} | {"sklearn": "scikit-learn"}


def gather(folder: Path) -> None:
    """Write the files."""
    skipped: dict[str, str] = {}
    entries: dict[str, tuple[str, str]] = {}
    inherited: dict[str, str] = {}
    for name in _standard_names():
        for module_name in _with_submodules(name, skipped):
            module = _import(module_name, skipped)
            if module is not None:
                _members(module, module_name, "python", entries, inherited)
        _step(folder)
    _members(importlib.import_module("os.path"), "os.path", "python", entries, inherited)
    _members(importlib.import_module("builtins"), "", "python", entries, inherited)
    for package, namespaces in NAMESPACES.items():
        for namespace in namespaces if _import(package, skipped) is not None else ():
            module_name = package if namespace == "." else f"{package}.{namespace}"
            module = _import(module_name, skipped)
            if module is not None:
                _members(module, module_name, package, entries, None)
            _step(folder)
    with open(folder / "entries.jsonl", "w", encoding="utf-8", errors="replace") as stream:
        for name, (package, docstring) in sorted(entries.items()):
            stream.write(json.dumps({"name": name, "package": package, "doc": docstring}) + "\n")
    with open(folder / "inherited.jsonl", "w", encoding="utf-8") as stream:
        for name, key in sorted(inherited.items()):
            stream.write(json.dumps([name, key]) + "\n")
    (folder / "skipped.json").write_text(
        json.dumps(skipped, indent=1, sort_keys=True), encoding="utf-8"
    )


def number_of_steps() -> int:
    """The number of top-level modules of the standard library and of namespaces of packages."""
    return len(_standard_names()) + sum(map(len, NAMESPACES.values()))


def _step(folder: Path) -> None:
    with open(folder / "steps", "ab") as stream:
        stream.write(b".")


def _standard_names() -> list[str]:
    return [
        name
        for name in sorted(sys.stdlib_module_names)
        if not name.startswith("_") and name not in SKIPPED_MODULES and name != "builtins"
    ]


def _with_submodules(name: str, skipped: dict[str, str]) -> Iterator[str]:
    module = _import(name, skipped)
    if module is None:
        return
    yield name
    submodules = pkgutil.iter_modules(getattr(module, "__path__", []))
    for info in sorted(submodules, key=lambda info: info.name):
        if not info.name.startswith("_") and info.name not in {"test", "tests"}:
            yield from _with_submodules(f"{name}.{info.name}", skipped)


def _import(name: str, skipped: dict[str, str]) -> ModuleType | None:
    if name in skipped:
        return None
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        skipped[name] = f"{type(error).__name__}: {error}"[:200]
        return None


def _public(module: ModuleType) -> list[str]:
    """The public names of a module: ``__all__``, or else the names that it defines."""
    exported = getattr(module, "__all__", None)
    if exported is not None:
        return sorted(
            {name for name in exported if isinstance(name, str) and not name.startswith("_")}
        )
    module_names = {module.__name__, f"_{module.__name__}"}

    def is_defined_here(value: Any) -> bool:
        return (
            module.__name__ == "builtins"
            or type(value).__name__ == "ufunc"
            or _module_of(value) in module_names
        )

    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and is_defined_here(value)
    )


def _module_of(value: Any) -> str:
    try:
        return str(getattr(value, "__module__", ""))
    except Exception:
        return ""


def _members(
    module: ModuleType,
    prefix: str,
    package: str,
    entries: dict[str, tuple[str, str]],
    inherited: dict[str, str] | None,
) -> None:
    for name in _public(module):
        try:
            value = getattr(module, name)
        except Exception:
            continue
        full = f"{prefix}.{name}" if prefix else name
        if inspect.isclass(value):
            if package != "python" and not _module_of(value).startswith(package):
                continue
            if package == "torch" and name.endswith(("Tensor", "Storage")) and name != "Tensor":
                continue  # a class for each number type, with the methods of Tensor
            _add(full, package, vars(value).get("__doc__"), entries)
            _methods(value, full, package, entries, inherited)
        elif (
            inspect.isroutine(value)
            or type(value).__name__ == "ufunc"
            or hasattr(value, "__wrapped__")
        ):
            _add(full, package, getattr(value, "__doc__", None), entries)


def _methods(
    owner: type,
    prefix: str,
    package: str,
    entries: dict[str, tuple[str, str]],
    inherited: dict[str, str] | None,
) -> None:
    names = set(vars(owner))
    for base in owner.__mro__[1:]:
        if inherited is not None or (
            base.__name__.startswith("_") and base.__module__.startswith(package)
        ):
            names |= set(vars(base))
    for name in sorted(names):
        if name.startswith("_"):
            continue
        definer = next(base for base in owner.__mro__ if name in vars(base))
        value = vars(definer)[name]
        if inspect.isclass(value) or not (
            inspect.isroutine(value)
            or isinstance(value, (property, classmethod, staticmethod))
            or inspect.isdatadescriptor(value)
            or type(value).__name__ == "cached_property"
        ):
            continue
        docstring = getattr(value, "__doc__", None)
        if docstring == type(value).__doc__:  # it has none itself
            continue
        if (
            definer is owner
            or definer.__name__.startswith("_")
            or definer.__module__.startswith("_")
        ):
            _add(f"{prefix}.{name}", package, docstring, entries)
        elif inherited is not None and isinstance(docstring, str):
            inherited[f"{prefix}.{name}"] = text_key(inspect.cleandoc(docstring))


def _add(name: str, package: str, docstring: Any, entries: dict[str, tuple[str, str]]) -> None:
    if (
        isinstance(docstring, str)
        and docstring.strip()
        and "torch._C." not in docstring.split("\n")[0]
    ):
        entries.setdefault(name, (package, inspect.cleandoc(docstring).strip()))


def text_key(docstring: str) -> str:
    """The key of a docstring; docstrings that differ only in spaces have the same key."""
    return hashlib.sha256(" ".join(docstring.split()).encode("utf-8", "replace")).hexdigest()[:16]


def main() -> None:
    """Write into the folder named on the command line, and discard all other output."""
    warnings.simplefilter("ignore")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        gather(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
