"""The doctor reports what is installed, never fails and downloads nothing."""

from __future__ import annotations

import ast
import io
import json
import socket
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from rich.console import Console

from irdistill.doctor import HealthCheck, examine, health, is_healthy, render, to_json
from irdistill.doctor.installed_packages import installed_version, modules_of, requirements
from irdistill.errors import MissingExtraError

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
EXTRAS = {
    extra: {Requirement(line).name for line in lines}
    for extra, lines in PROJECT["optional-dependencies"].items()
}


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> list[HealthCheck]:
    """One examination in which every connection fails."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the doctor tried to connect")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return examine(tmp_path_factory.mktemp("work") / "not" / "there" / "yet")


def test_everything_is_checked(checks: list[HealthCheck]) -> None:
    by_name = {check.name: check for check in checks}
    assert len(by_name) == len(checks)
    libraries = {line.name for line in requirements()[""]}
    assert {"Python", "faiss", "disk, cache", "disk, here", "memory", "Java"} <= set(by_name)
    for name in libraries | {"faiss"}:
        assert by_name[name].status == "ok", by_name[name]
    extras = {f"extra {name}" for name in requirements() if name not in ("", "cpu", "gpu")}
    assert extras <= set(by_name)
    assert by_name["torch"].detail.startswith(metadata.version("torch"))
    assert "threads" in by_name["torch"].detail and "bfloat16" in by_name["torch"].detail
    assert not any("tried to connect" in check.detail for check in checks)


def test_missing_extras_have_a_fix(checks: list[HealthCheck]) -> None:
    for check in checks:
        if check.name.startswith("extra ") and check.status == "missing":
            assert check.fix == f"pip install 'irdistill[{check.extra}]'"
            assert "needs " in check.detail


def test_json_and_table(checks: list[HealthCheck]) -> None:
    values = json.loads(json.dumps(to_json(checks)))
    assert values["ok"] is is_healthy(checks)
    assert set(values["checks"][0]) == {"name", "status", "detail", "fix", "extra"}
    console = Console(width=200, record=True, file=io.StringIO())
    missing = HealthCheck("extra ray", "missing", "ray", "pip install 'irdistill[ray]'", "ray")
    console.print(render([missing]))
    text = console.export_text()
    assert "optional" in text and "pip install 'irdistill[ray]'" in text


def test_only_required_libraries_count() -> None:
    fine = HealthCheck("Python", "ok", "3.11")
    optional = [
        HealthCheck("Java", "problem", "17", "", "lucene"),
        HealthCheck("x", "missing", "", "", "ray"),
    ]
    assert is_healthy([fine, *optional])
    assert not is_healthy([fine, HealthCheck("torch", "missing", "")])
    assert not is_healthy([fine, HealthCheck("memory", "problem", "")])


def test_a_check_that_raises_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("fell\nover")

    for name in ("find_java", "cache_folder", "installed_version", "_check_memory", "_check_gpu"):
        monkeypatch.setattr(health, name, fail)
    by_name = {check.name: check for check in examine()}
    for name in ("Java", "disk, cache", "memory", "torch", "extra ray"):
        assert by_name[name].status == "problem"
        assert by_name[name].detail == "RuntimeError: fell over"
    assert by_name["Java"].extra == "lucene" and by_name["memory"].extra is None


def test_old_missing_and_broken_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(library: str) -> list[str]:
        raise OSError("libgomp.so.1: cannot open shared object file")

    versions = {"pyarrow": "9.0.0", "bm25s": "0.3"}
    monkeypatch.setattr(health, "installed_version", versions.get)
    old = health._check_library(Requirement("pyarrow>=17"))
    assert (old[0], old[2]) == ("problem", "pip install --upgrade 'pyarrow>=17'")
    missing = health._check_library(Requirement("torch>=2.6"))
    assert (missing[0], missing[2]) == ("missing", "pip install 'torch>=2.6'")
    monkeypatch.setattr(health, "modules_of", broken)
    damaged = health._check_library(Requirement("bm25s>=0.2.10"))
    assert damaged[0] == "problem" and "libgomp" in damaged[1] and "--force-reinstall" in damaged[2]


@pytest.mark.parametrize(
    ("builds", "gpu", "status", "detail", "fix"),
    [
        ([], False, "missing", "neither", "pip install 'irdistill[cpu]'"),
        ([], True, "missing", "neither", "pip install 'irdistill[gpu]'"),
        (["faiss-cpu"], False, "ok", "faiss-cpu 1.15, searches on the processor", ""),
        (
            ["faiss-cpu", "faiss-gpu"],
            True,
            "problem",
            "faiss-cpu 1.15 and faiss-gpu 1.15 overwrite each other",
            "pip uninstall --yes faiss-cpu faiss-gpu && pip install 'irdistill[gpu]'",
        ),
    ],
)
def test_faiss_is_one_of_two_builds(
    builds: list[str],
    gpu: bool,
    status: str,
    detail: str,
    fix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "faiss_builds", lambda: builds)
    monkeypatch.setattr(health, "installed_version", lambda name: "1.15")
    monkeypatch.setattr(health, "_has_nvidia_gpu", lambda: gpu)
    result = health._check_faiss()
    assert (result[0], result[2]) == (status, fix) and detail in result[1]


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "MINIMUM_DISK", 1 << 62)
    status, _, fix = health._check_disk(tmp_path)
    assert status == "problem" and "IRDISTILL_CACHE" in fix


def test_modules_and_versions_of_libraries() -> None:
    assert modules_of("PyStemmer") == ["Stemmer"]
    assert installed_version("no-such-library") is None


def test_every_missing_library_names_the_extra_that_contains_it() -> None:
    """Calls of `MissingExtraError` with literal names, in the whole package."""
    calls = []
    for path in (REPOSITORY / "irdistill").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = {
            node.targets[0].id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MissingExtraError":
                pairs = [node.args[:2]]
                pairs += [word.value.elts for word in node.keywords if word.arg == "alternative"]
                for library, extra in pairs:
                    extra = constants.get(extra.id, extra) if isinstance(extra, ast.Name) else extra
                    calls.append((path.name, library, extra))
    assert len(calls) > 10
    for name, library, extra in calls:
        assert isinstance(extra, ast.Constant), f"{name}: write the name of the extra"
        if extra.value is None:  # a library that no extra installs
            continue
        assert extra.value in EXTRAS, f"{name}: no extra {extra.value!r} in pyproject.toml"
        if isinstance(library, ast.Constant):
            assert library.value in EXTRAS[extra.value], f"{name}: {extra.value}: {library.value}"


def test_one_of_two_libraries_is_enough() -> None:
    error = MissingExtraError("faiss-cpu", "cpu", "an index", alternative=("faiss-gpu", "gpu"))
    for text in ("faiss-cpu", "faiss-gpu", "irdistill[cpu]", "irdistill[gpu]"):
        assert text in str(error)
