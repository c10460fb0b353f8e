"""Import a user's modules, so that own losses and teachers work in every verb."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from pathlib import Path

from irdistill.errors import NotFoundError


def import_user_modules(names: Iterable[str]) -> None:
    """Import modules by name or Python files by path, each once.

    Raises:
        NotFoundError: there is no such module or file.
    """
    for name in names:
        if name.endswith(".py"):
            _import_file(Path(name))
        elif name not in sys.modules:
            if str(Path.cwd()) not in sys.path:
                sys.path.insert(0, str(Path.cwd()))
            try:
                importlib.import_module(name)
            except ModuleNotFoundError as error:
                if error.name != name.partition(".")[0] and error.name != name:
                    raise
                raise NotFoundError(
                    f"there is no module {name!r}; give a module that Python finds, or the path of"
                    " a .py file."
                ) from error


def _import_file(path: Path) -> None:
    if not path.is_file():
        raise NotFoundError(f"there is no file {path} to import.")
    known = sys.modules.get(path.stem)
    if known is not None and getattr(known, "__file__", None) == str(path.resolve()):
        return
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
