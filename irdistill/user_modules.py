"""Import a user's modules, so that own losses and teachers work in every verb."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from irdistill.errors import NotFoundError

FILE_MODULE = "_irdistill_file_"
"""Prefix of the module's name of an imported file."""
_VERSION = "_irdistill_version"


def import_user_modules(names: Iterable[str]) -> None:
    """Import modules by name, or Python files by path.

    Raises:
        NotFoundError: there is no such module or file.
    """
    for name in names:
        if name.endswith(".py"):
            import_file(Path(name))
            continue
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name not in (name, name.partition(".")[0]):
                raise
            raise NotFoundError(
                f"there is no module {name!r}; give a module that Python finds, or the path of a"
                " .py file."
            ) from error


def import_file(path: Path) -> ModuleType:
    """Import a Python file; once, unless it changed.

    Raises:
        NotFoundError: there is no such file.
    """
    if not path.is_file():
        raise NotFoundError(f"there is no file {path} to import.")
    name, place, state = f"{FILE_MODULE}{path.stem}", str(path.resolve()), path.stat()
    version = (place, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    known = sys.modules.get(name)
    if known is not None and getattr(known, _VERSION, None) == version:
        return known
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    setattr(module, _VERSION, version)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
