"""Rules for modules: import direction, length, cost of importing, and no machine paths."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "irdistill"

#: Subpackages, the highest layer first. A subpackage may import itself and lower layers.
LAYERS = (
    ("__main__",),
    ("cli",),
    ("view",),
    ("doctor", "recipes"),
    ("verbs",),
    ("training", "queries"),
    ("evaluation",),
    ("bundles", "teachers"),
    ("search",),
    ("students",),
    ("losses", "runs"),
    ("collections",),
)
LAYER = {name: -number for number, names in enumerate(LAYERS) for name in names}

#: Modules that every layer may import. They import no layer.
BASE = {
    "card_files",
    "console",
    "distributed",
    "errors",
    "modeling",
    "option_checks",
    "storage",
    "user_modules",
}

HEAVY_LIBRARIES = {"torch", "transformers", "sentence_transformers", "pandas"}
LIGHT_PACKAGES = ("collections", "runs")
MAX_LINES = 500
VAGUE_NAMES = {"utils", "util", "helpers", "misc", "common"}


@dataclass(frozen=True)
class Import:
    """An imported module and the line of the import."""

    target: str
    line: int


@dataclass(frozen=True)
class Module:
    path: Path

    @property
    def name(self) -> str:
        parts = self.path.relative_to(REPOSITORY).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        """Subpackage of the module: ``runs`` for ``irdistill/runs/store.py``."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""

    def where(self, imported: Import) -> str:
        return f"{self.path.relative_to(REPOSITORY)}:{imported.line} imports {imported.target}"


@cache
def modules() -> tuple[Module, ...]:
    return tuple(Module(path) for path in sorted(PACKAGE.rglob("*.py")))


@cache
def imports(module: Module) -> tuple[Import, ...]:
    """All imports, those inside functions and under TYPE_CHECKING as well."""
    return tuple(_imports(module))


def _imports(module: Module) -> Iterator[Import]:
    tree = ast.parse(module.path.read_text(encoding="utf-8"), str(module.path))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.name.split(".")
                package = package if module.path.name == "__init__.py" else package[:-1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            if base == "irdistill":
                for alias in node.names:
                    yield Import(f"irdistill.{alias.name}", node.lineno)
            else:
                yield Import(base, node.lineno)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield Import(node.args[0].value, node.lineno)


def package_imports(module: Module) -> Iterator[tuple[Import, str]]:
    """The imports of our own package, with the package each goes to."""
    for imported in imports(module):
        parts = imported.target.split(".")
        if parts[0] == "irdistill" and len(parts) > 1 and parts[1] != "__version__":
            yield imported, parts[1]


def library_imports(module: Module) -> Iterator[tuple[Import, str]]:
    """The imports at run time of libraries that do not come with Python."""
    tree = ast.parse(module.path.read_text(encoding="utf-8"))
    typing_only = {
        inner.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in node.body
    }
    for imported in imports(module):
        if imported.line in typing_only:
            continue
        library = imported.target.split(".")[0]
        if library not in sys.stdlib_module_names and library != "irdistill":
            yield imported, library


def test_every_module_has_its_place() -> None:
    unknown = {module.package for module in modules()} - LAYER.keys() - BASE - {""}
    assert not unknown, f"add these to LAYERS or to BASE: {sorted(unknown)}"


def test_imports_go_one_way() -> None:
    wrong = [
        module.where(imported)
        for module in modules()
        if module.package in LAYER
        for imported, package in package_imports(module)
        if package in LAYER
        and package != module.package
        and LAYER[package] >= LAYER[module.package]
    ]
    assert wrong == []


def test_base_modules_import_no_layer() -> None:
    wrong = [
        module.where(imported)
        for module in modules()
        if module.package in BASE
        for imported, package in package_imports(module)
        if package not in BASE
    ]
    assert wrong == []


def test_losses_import_torch_only() -> None:
    losses = [module for module in modules() if module.package == "losses"]
    wrong = [
        module.where(imported)
        for module in losses
        for imported, library in library_imports(module)
        if library != "torch"
    ]
    wrong += [
        module.where(imported)
        for module in losses
        for imported, package in package_imports(module)
        if package != "losses" and package not in BASE
    ]
    assert wrong == []


def test_collections_and_runs_import_nothing_heavy() -> None:
    heavy_base = {
        module.name
        for module in modules()
        if module.package in BASE
        and any(library in HEAVY_LIBRARIES for _, library in library_imports(module))
    }
    assert "irdistill.modeling.hardware" in heavy_base
    light = [module for module in modules() if module.package in LIGHT_PACKAGES]
    wrong = [
        module.where(imported)
        for module in light
        for imported, library in library_imports(module)
        if library in HEAVY_LIBRARIES
    ]
    wrong += [
        module.where(imported)
        for module in light
        for imported, _ in package_imports(module)
        if imported.target in heavy_base
    ]
    assert wrong == []


def test_modules_are_short_and_named_for_what_they_do() -> None:
    lengths = {
        module.name: len(module.path.read_text(encoding="utf-8").splitlines())
        for module in modules()
    }
    assert {name: length for name, length in lengths.items() if length > MAX_LINES} == {}
    assert [
        module.name
        for module in modules()
        if module.path.stem in VAGUE_NAMES or module.package in VAGUE_NAMES
    ] == []


@pytest.mark.parametrize("name", ["", "collections", "runs"])
def test_importing_costs_little(name: str) -> None:
    if name and not (PACKAGE / name / "__init__.py").is_file():
        pytest.skip(f"there is no irdistill.{name} yet")
    module = f"irdistill.{name}".rstrip(".")
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {HEAVY_LIBRARIES!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True)
    if listed.returncode != 0:
        pytest.skip(f"git does not list the files: {listed.stderr.decode().strip()}")
    place = re.compile(rb"(?<![\w.$~}\-])/(?:work|root)/")
    wrong = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = REPOSITORY / name
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if b"\0" in content[:8192]:
            continue
        wrong += [
            f"{name}:{number}"
            for number, line in enumerate(content.split(b"\n"), 1)
            if place.search(line)
        ]
    assert wrong == []
