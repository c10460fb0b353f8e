"""The doctor: says what is there, never fails, downloads nothing; and Java is chosen in the stated
order.
"""

from __future__ import annotations

import io
import json
import os
import re
import socket
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from irdistill import doctor
from irdistill.doctor import Check, examine, is_healthy, render, to_json
from irdistill.search.lucene import java_runtime as java
from irdistill.search.lucene.java_runtime import JavaHome, all_javas, find_java, parse_version

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
RELEASES = {"17": "17.0.15", "21": "21.0.2", "25": "25"}


def make_java(folder: Path, release: str | None, script: str | None = None) -> Path:
    """A folder that looks like Java's: ``bin/java`` is a shell script that names its release."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    said = script or f"echo 'openjdk version \"{release}\" 2024-01-16' >&2"
    program.write_text(f"#!/bin/sh\n{said}\n")
    program.chmod(0o755)
    return folder


@pytest.fixture()
def jvms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Javas, the only known one."""
    folder = tmp_path / "jvm"
    folder.mkdir()
    monkeypatch.setattr(java, "KNOWN_FOLDERS", (f"{folder}/*",))
    return folder


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ("1.8.0_392", 8),
        ("17.0.1", 17),
        ("25", 25),
        ("22-ea", 22),
        ("21.0.2+13-LTS", 21),
        ("11.0.22", 11),
    ],
)
def test_parse_version(release: str, version: int) -> None:
    output = (
        f'Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "{release}" 2024-01-16\nOpenJDK'
        " 64-Bit VM"
    )
    assert parse_version(output) == (version, release)


@pytest.mark.parametrize("output", ["", "command not found", 'version ""', 'version "unknown"'])
def test_parse_version_of_something_else(output: str) -> None:
    assert parse_version(output) is None


def test_first_of_the_known_folders_that_is_new_enough(jvms: Path) -> None:
    for name, release in RELEASES.items():
        make_java(jvms / f"java-{name}", release)
    found = find_java({})
    assert found is not None
    assert (found.home, found.version, found.release, found.found_by) == (
        jvms / "java-21",
        21,
        "21.0.2",
        "folder",
    )
    assert [other.version for other in found.others] == [17, 25]


def test_java_home_goes_first(jvms: Path, tmp_path: Path) -> None:
    make_java(jvms / "java-21", "21.0.2")
    home = make_java(tmp_path / "mine", "25")
    found = find_java({"JAVA_HOME": str(home)})
    assert found is not None and (found.home, found.version, found.found_by) == (
        home,
        25,
        "JAVA_HOME",
    )


def test_an_old_java_home_is_passed_over_and_remembered(jvms: Path, tmp_path: Path) -> None:
    make_java(jvms / "java-25", "25")
    home = make_java(tmp_path / "old", "1.8.0_392")
    found = find_java({"JAVA_HOME": str(home)})
    assert found is not None and found.home == jvms / "java-25"
    assert found.others == (JavaHome(home, 8, "1.8.0_392", "JAVA_HOME"),)


def test_path_goes_last_and_links_are_followed(jvms: Path, tmp_path: Path) -> None:
    home = make_java(tmp_path / "real", "21.0.2")
    links = tmp_path / "links"
    links.mkdir()
    (links / "java").symlink_to(home / "bin" / "java")
    environment = {"PATH": os.pathsep.join(["", str(tmp_path / "none"), str(links)])}
    found = find_java(environment)
    assert found is not None and (found.home, found.found_by) == (home, "PATH")
    make_java(jvms / "java-25", "25")
    better = find_java(environment)
    assert (
        better is not None
        and better.version == 25
        and [other.home for other in better.others] == [home]
    )


def test_one_java_under_two_names_is_seen_once(jvms: Path) -> None:
    make_java(jvms / "java-21-long-name", "21.0.2")
    (jvms / "java-21").symlink_to(jvms / "java-21-long-name")
    assert [seen.home for seen in all_javas({})] == [jvms / "java-21"]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (
            "echo 'Error: could not find libjava.so' >&2; exit 2",
            "exit 2: Error: could not find libjava.so",
        ),
        ("exit 0", "it said nothing"),
        ("echo 'openjdk version \"21.0.2\"' >&2; exit 1", "exit 1"),
    ],
)
def test_a_broken_java_is_told_of(jvms: Path, script: str, said: str) -> None:
    make_java(jvms / "broken", None, script)
    assert find_java({}) is None
    [seen] = all_javas({})
    assert seen.version is None and said in seen.release


def test_a_java_that_hangs(jvms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "TIMEOUT_SECONDS", 0.2)
    make_java(jvms / "a", None, "exec sleep 20")
    make_java(jvms / "b", "25")
    found = find_java({})
    assert found is not None and found.version == 25
    monkeypatch.setattr(java, "TIMEOUT_SECONDS", 5.0)
    assert found.others[0].version is None and "no answer" in found.others[0].release


def test_java_home_that_is_no_java(jvms: Path, tmp_path: Path) -> None:
    [seen] = all_javas({"JAVA_HOME": str(tmp_path / "nowhere")})
    assert seen.version is None and "bin/java" in seen.release
    assert all_javas({}) == []


def test_conda_and_home_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        java, "KNOWN_FOLDERS", ("~/.sdkman/candidates/java/*", "$CONDA_PREFIX/lib/jvm")
    )
    sdk = make_java(tmp_path / "home" / ".sdkman" / "candidates" / "java" / "21.0.2-tem", "21.0.2")
    conda = make_java(tmp_path / "conda" / "lib" / "jvm", "22.0.1")
    environment = {"HOME": str(tmp_path / "home"), "CONDA_PREFIX": str(tmp_path / "conda")}
    assert [seen.home for seen in all_javas(environment)] == [sdk, conda]
    assert [seen.home for seen in all_javas({"HOME": str(tmp_path / "home")})] == [sdk]


@pytest.fixture(scope="module")
def checks(tmp_path_factory: pytest.TempPathFactory) -> list[Check]:
    """One examination with every connection refused."""

    def refuse(*_: Any) -> None:
        raise AssertionError("the doctor tried to connect")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        return examine(tmp_path_factory.mktemp("work") / "not" / "there" / "yet")


def test_all_is_looked_at(checks: list[Check]) -> None:
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {
        "Python",
        *doctor.NAMED,
        "other libraries",
        "disk, cache",
        "disk, here",
        "memory",
        "Java",
    } <= set(names)
    assert {f"extra {name}" for name in doctor.EXTRAS} <= set(names)
    by_name = {check.name: check for check in checks}
    for name in doctor.NAMED:
        assert by_name[name].status == "ok", by_name[name]
    assert by_name["torch"].found.startswith(metadata.version("torch"))
    assert "threads" in by_name["torch"].found and "bfloat16" in by_name["torch"].found
    assert not any("tried to connect" in check.found for check in checks)


def test_missing_extras_say_how_to_get_them(checks: list[Check]) -> None:
    for check in checks:
        if check.name.startswith("extra ") and check.status == "missing":
            assert check.advice == f"pip install 'irdistill[{check.extra}]'"
            assert "not installed: " in check.found


def test_json_and_table(checks: list[Check]) -> None:
    read = json.loads(json.dumps(to_json(checks)))
    assert read["ok"] is is_healthy(checks)
    assert set(read["checks"][0]) == {"name", "status", "found", "advice", "extra"}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(
        render([Check("extra ray", "missing", "adds", "pip install 'irdistill[ray]'", "ray")])
    )
    text = console.export_text()
    assert "optional" in text and "pip install 'irdistill[ray]'" in text


def test_only_what_is_required_counts() -> None:
    fine = Check("Python", "ok", "3.11")
    assert is_healthy(
        [fine, Check("Java", "problem", "17", "", "lucene"), Check("x", "missing", "", "", "ray")]
    )
    assert not is_healthy([fine, Check("torch", "missing", "")])
    assert not is_healthy([fine, Check("memory", "problem", "")])


def test_a_check_that_raises_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def fall(*_: Any) -> None:
        raise RuntimeError("fell\nover")

    for name in (
        "find_java",
        "cache_folder",
        "_version",
        "_check_memory",
        "_check_gpu",
        "_check_python",
    ):
        monkeypatch.setattr(doctor, name, fall)
    found = {check.name: check for check in examine()}
    for name in ("Java", "disk, cache", "memory", "Python", "torch", "extra ray"):
        assert (found[name].status, found[name].found) == ("problem", "RuntimeError: fell over")
    assert found["Java"].extra == "lucene" and found["memory"].extra is None


def test_old_missing_and_broken_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise OSError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(
        doctor, "_version", lambda name: {"pyarrow": "9.0.0", "bm25s": "0.3"}.get(name)
    )
    old = doctor._check_library("pyarrow", None)
    assert (old.status, old.advice) == ("problem", "pip install --upgrade 'pyarrow>=17'")
    missing = doctor._check_library("torch", None)
    assert (missing.status, missing.advice) == ("missing", "pip install 'torch>=2.6'")
    damaged = doctor._check_library("bm25s", broken)
    assert (
        damaged.status == "problem"
        and "libgomp" in damaged.found
        and "--force-reinstall" in damaged.advice
    )
    rest = doctor._check_rest(["numpy"])
    assert (rest.status, rest.advice) == ("missing", "pip install --upgrade 'numpy>=1.26'")


@pytest.mark.parametrize(
    ("version", "least", "older"),
    [
        ("2.13.0+cpu", "2.6", False),
        ("2.5.9", "2.6", True),
        ("17", "17.0.0", False),
        ("16.9", "17", True),
    ],
)
def test_versions_compare_by_number(version: str, least: str, older: bool) -> None:
    assert doctor._older(version, least) is older


def test_little_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "MINIMUM_DISK", 1 << 62)
    check = doctor._check_disk("disk, cache", tmp_path)
    assert check.status == "problem" and check.extra is None and "IRDISTILL_CACHE" in check.advice


def test_the_tables_agree_with_the_packaging() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert dict(line.split(">=") for line in project["dependencies"]) == doctor.REQUIRED
    extras = {
        name: {
            re.split(r"[>=;\[ ]", line)[0] for line in lines if not line.startswith("irdistill[")
        }
        for name, lines in project["optional-dependencies"].items()
    }
    assert {name: set(libraries) for name, (libraries, _) in doctor.EXTRAS.items()} == extras
