"""Python code in the docs: it compiles, what it imports and names exists, and options are options."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from irdistill.verbs.declaration import declared_verb

REPOSITORY = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
SNIPPETS = [
    (f"{page.relative_to(REPOSITORY)}-{number}", code)
    for page in PAGES
    for number, code in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
]
MISSING = object()


def imported_names(tree: ast.Module) -> dict[str, Any]:
    """What the imports of a snippet bind; libraries that are not installed are left out."""
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        try:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    module = importlib.import_module(alias.name)
                    names[alias.asname or alias.name] = module
            elif isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                for alias in node.names:
                    names[alias.asname or alias.name] = getattr(module, alias.name)
        except ModuleNotFoundError as error:
            if str(error.name).startswith("irdistill"):
                raise
    return names


def resolve(node: ast.expr, names: dict[str, Any]) -> Any:
    """The object that ``a.b.c`` names, if ``a`` was imported from irdistill."""
    if isinstance(node, ast.Name):
        return names.get(node.id, MISSING)
    if isinstance(node, ast.Attribute):
        owner = resolve(node.value, names)
        if inspect.ismodule(owner) or inspect.isclass(owner):
            module = owner.__name__ if inspect.ismodule(owner) else owner.__module__
            if module.startswith("irdistill"):
                return getattr(owner, node.attr)
    return MISSING


@pytest.mark.parametrize(("place", "code"), SNIPPETS, ids=[place for place, _ in SNIPPETS])
def test_python_in_the_docs(place: str, code: str) -> None:
    tree = ast.parse(code)
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            resolve(node, names)
        function = resolve(node.func, names) if isinstance(node, ast.Call) else MISSING
        if isinstance(node, ast.Call) and "verb" in getattr(function, "__dict__", {}):
            options = set(declared_verb(function).options)
            unknown = {keyword.arg for keyword in node.keywords if keyword.arg} - options
            assert not unknown, f"{place} gives {function.__name__} {unknown}"


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) > 10
