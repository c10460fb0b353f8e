"""The examples in docstrings run and print what they show."""

from __future__ import annotations

import ast
import doctest
import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from irdistill.losses import REGISTRY

PACKAGE = Path(__file__).resolve().parents[1] / "irdistill"

MODULES = [
    ".".join(
        part
        for part in path.relative_to(PACKAGE.parent).with_suffix("").parts
        if part != "__init__"
    )
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # examples register losses of their own
    known = dict(REGISTRY)
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    REGISTRY.clear()
    REGISTRY.update(known)
    assert result.failed == 0


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_examples_are_in_a_section_of_examples(path: Path) -> None:
    """Outside such a section the API reference shows ``>>>`` as nested quotations."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = inspect.cleandoc(ast.get_docstring(node) or "")
            assert not re.search(r"^>>>|^Examples?::", text, re.MULTILINE), text
