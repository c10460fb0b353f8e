"""Which Java is used, and what is reported of the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from irdistill.search.lucene import java_runtime
from irdistill.search.lucene.java_runtime import JavaHome, all_javas, find_java, parse_version

RELEASES = {"17": "17.0.15", "21": "21.0.2", "25": "25"}


def make_java(folder: Path, release: str | None, script: str | None = None) -> Path:
    """A folder with ``bin/java``, a shell script that prints its release."""
    program = folder / "bin" / "java"
    program.parent.mkdir(parents=True)
    text = script or f"echo 'openjdk version \"{release}\" 2024-01-16' >&2"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return folder


@pytest.fixture
def jvms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of Java installations, the only known one; no JAVA_HOME and no PATH."""
    folder = tmp_path / "jvm"
    folder.mkdir()
    monkeypatch.setattr(java_runtime, "KNOWN_FOLDERS", (f"{folder}/*",))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
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
def test_parse_version_without_a_version(output: str) -> None:
    assert parse_version(output) is None


def test_first_known_folder_that_is_new_enough(jvms: Path) -> None:
    for name, release in RELEASES.items():
        make_java(jvms / f"java-{name}", release)
    assert find_java() == (jvms / "java-21", 21, "21.0.2")
    assert [java.version for java in all_javas()] == [17, 21, 25]


def test_java_home_has_priority(
    jvms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_java(jvms / "java-21", "21.0.2")
    home = make_java(tmp_path / "mine", "25")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java() == (home, 25, "25")


def test_an_old_java_home_is_not_used(
    jvms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_java(jvms / "java-25", "25")
    home = make_java(tmp_path / "old", "1.8.0_392")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert find_java() == (jvms / "java-25", 25, "25")
    assert next(all_javas()) == JavaHome(home, 8, "1.8.0_392")


def test_path_comes_last_and_links_are_followed(
    jvms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = make_java(tmp_path / "real", "21.0.2")
    links = tmp_path / "links"
    links.mkdir()
    (links / "java").symlink_to(home / "bin" / "java")
    path = f"{os.pathsep.join(['', str(tmp_path / 'none'), str(links)])}{os.pathsep}/bin"
    monkeypatch.setenv("PATH", path)
    assert find_java() == (home, 21, "21.0.2")
    make_java(jvms / "java-25", "25")
    assert [java.home for java in all_javas()][:2] == [jvms / "java-25", home]


def test_one_java_with_two_names_is_listed_once(jvms: Path) -> None:
    make_java(jvms / "java-21-long-name", "21.0.2")
    (jvms / "java-21").symlink_to(jvms / "java-21-long-name")
    assert [java.home for java in all_javas()] == [jvms / "java-21"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            "echo 'Error: could not find libjava.so' >&2; exit 2",
            "exit 2: Error: could not find libjava.so",
        ),
        ("exit 0", "no output"),
        ("echo 'openjdk version \"21.0.2\"' >&2; exit 1", "exit 1"),
    ],
)
def test_a_broken_java_has_a_reason(jvms: Path, script: str, reason: str) -> None:
    make_java(jvms / "broken", None, script)
    assert find_java() is None
    [java] = all_javas()
    assert java.version is None and reason in java.release


def test_a_java_that_hangs_is_skipped(jvms: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java_runtime, "TIMEOUT_SECONDS", 0.5)
    make_java(jvms / "a", None, "exec /bin/sleep 20")
    [java] = all_javas()
    assert java.version is None and "no answer" in java.release
    monkeypatch.setattr(java_runtime, "TIMEOUT_SECONDS", 5.0)
    make_java(jvms / "b", "25")
    (jvms / "a" / "bin" / "java").unlink()
    java_25 = find_java()
    assert java_25 is not None and java_25.version == 25


def test_java_home_without_java(
    jvms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(all_javas()) == []
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nowhere"))
    [java] = all_javas()
    assert java.version is None and "bin/java" in java.release


def test_conda_and_home_folders(
    jvms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ("~/.sdkman/candidates/java/*", "$CONDA_PREFIX/lib/jvm")
    monkeypatch.setattr(java_runtime, "KNOWN_FOLDERS", folders)
    sdk = make_java(tmp_path / "home" / ".sdkman" / "candidates" / "java" / "21.0.2-tem", "21.0.2")
    conda = make_java(tmp_path / "conda" / "lib" / "jvm", "22.0.1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "conda"))
    assert [java.home for java in all_javas()] == [sdk, conda]
    monkeypatch.delenv("CONDA_PREFIX")
    assert [java.home for java in all_javas()] == [sdk]
