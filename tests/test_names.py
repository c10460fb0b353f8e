"""Rules for names: no vague locals, one file name for each module, no function named like its module."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = ("irdistill", "tests", "benchmarks", "examples")

#: Participles that say that something exists, and not what it is.
VAGUE = frozenset({"found", "own", "given", "held", "asked", "wanted", "told", "heard"})

#: British spelling; the verb `specialise` is a name of the interface.
BRITISH = re.compile(
    r"(normal|token|optim|serial|standard|random|regular|recogn|initial|summar|visual|organ|general"
    r"|final|minim|maxim)is(e|ation|ing)|licence|colour|behaviour|neighbour|centre(d|s|$)|artefact"
)


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.py"))]


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def bound_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Names of locals, parameters, keywords, attributes, functions and classes, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg | ast.keyword) and node.arg is not None:
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def test_no_vague_names() -> None:
    places = [
        f"{path.relative_to(REPOSITORY)}:{line} {name}"
        for path in python_files(*FOLDERS)
        for name, line in bound_names(parsed(path))
        if name in VAGUE
    ]
    assert places == []


def test_identifiers_use_american_spelling() -> None:
    places = [
        f"{path.relative_to(REPOSITORY)}:{line} {name}"
        for path in python_files("irdistill")
        for name, line in bound_names(parsed(path))
        if BRITISH.search(name.lower())
    ]
    assert places == []


def test_file_names_are_unique() -> None:
    names = Counter(
        path.name for path in python_files("irdistill") if not path.name.startswith("__")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_public_classes_have_one_meaning() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for path in python_files("irdistill"):
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module_name(path))
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_no_function_has_the_name_of_a_module() -> None:
    modules = {module_name(path) for path in python_files("irdistill")}
    clashes = []
    for path in python_files("irdistill"):
        module = module_name(path)
        for node in parsed(path).body:
            named = isinstance(node, ast.FunctionDef | ast.ClassDef)
            if named and module.rsplit(".", 1)[-1] == node.name:
                clashes.append(f"{module}.{node.name}")
            if path.name == "__init__.py" and isinstance(node, ast.ImportFrom):
                clashes += [
                    f"{module}.{alias.asname or alias.name}"
                    for alias in node.names
                    if f"{module}.{alias.asname or alias.name}" in modules and node.module != module
                ]
    assert clashes == []


def runtime_imports(path: Path, modules: set[str]) -> set[str]:
    """Modules of the package that a module imports when it runs, inside functions too."""
    module = module_name(path)
    typing_only = {
        id(inner)
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    targets = set()
    for node in ast.walk(parsed(path)):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            targets |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                targets.add(inner if inner in modules else node.module)
    return {target for target in targets if target in modules and target != module}


def test_no_import_circles() -> None:
    files = {module_name(path): path for path in python_files("irdistill")}
    graph = {module: runtime_imports(path, set(files)) for module, path in files.items()}
    circles: list[str] = []
    state: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> None:
        state[module] = 1
        for target in sorted(graph[module]):
            if state.get(target) == 1:
                circles.append(" -> ".join([*trail[trail.index(target) :], target]))
            elif target not in state:
                visit(target, [*trail, target])
        state[module] = 2

    for module in sorted(graph):
        if module not in state:
            visit(module, [module])
    assert circles == []
