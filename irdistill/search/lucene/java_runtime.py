"""Find a Java installation that is new enough for Lucene."""

from __future__ import annotations

import glob
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MINIMUM_VERSION = 21
TIMEOUT_SECONDS = 5.0

KNOWN_FOLDERS = (
    "/usr/lib/jvm/*",
    "/usr/lib64/jvm/*",
    "/usr/java/*",
    "/opt/java/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "~/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "/usr/local/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
    "$CONDA_PREFIX/lib/jvm",
    "$CONDA_PREFIX",
)
"""Where package managers and installers put Java."""
_VERSION = re.compile(r'version "(([^"]*?)(\d+)(?:\.(\d+))?[^"]*)"')


class JavaHome(NamedTuple):
    """A Java installation.

    Attributes:
        home: its folder, a value for ``JAVA_HOME``.
        version: feature release (8, 17, 21 …); None if it does not run.
        release: full version, or why it does not run.
    """

    home: Path
    version: int | None
    release: str


def find_java() -> JavaHome | None:
    """The first Java that is new enough; None without one."""
    return next((java for java in all_javas() if (java.version or 0) >= MINIMUM_VERSION), None)


def all_javas() -> Iterator[JavaHome]:
    """Every Java once: that of ``JAVA_HOME``, of the known folders, then of ``PATH``."""
    programs = set()
    for home in _candidates():
        program = (home / "bin" / "java").resolve()
        if program not in programs:
            programs.add(program)
            yield _inspect(home)


def install_command() -> str:
    """The command that installs Java on this machine."""
    if os.environ.get("CONDA_PREFIX"):
        return f"conda install -c conda-forge openjdk={MINIMUM_VERSION}"
    if sys.platform == "darwin":
        return f"brew install openjdk@{MINIMUM_VERSION}"
    return f"sudo apt-get install openjdk-{MINIMUM_VERSION}-jdk-headless"


def parse_version(output: str) -> tuple[int, str] | None:
    """(feature release, full version) from the output of ``java -version``; None without one.

    Examples:
        >>> parse_version('java version "1.8.0_392"'), parse_version('openjdk version "22-ea"')
        ((8, '1.8.0_392'), (22, '22-ea'))
    """
    match = _VERSION.search(output)
    if match is None:
        return None
    return int(match[4] if match[3] == "1" and match[4] else match[3]), match[1]


def _candidates() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home)
    for folder in KNOWN_FOLDERS:
        pattern = os.path.expandvars(os.path.expanduser(folder))
        yield from (
            home for home in map(Path, sorted(glob.glob(pattern))) if (home / "bin/java").exists()
        )
    for folder in filter(None, os.environ.get("PATH", "").split(os.pathsep)):
        program = Path(folder, "java").resolve()
        if os.access(program, os.X_OK) and program.parent.name == "bin":
            yield program.parents[1]


def _inspect(home: Path) -> JavaHome:
    command = [str(home / "bin" / "java"), "-version"]
    try:
        process = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return JavaHome(home, None, f"no answer within {TIMEOUT_SECONDS:g} s")
    except OSError as error:
        return JavaHome(home, None, f"bin/java does not run ({error.strerror})")
    output = process.stdout.decode("utf-8", "replace")
    version = parse_version(output)
    if process.returncode != 0 or version is None:
        message = " ".join(output.split())[:100] or "no output"
        return JavaHome(home, None, f"does not run (exit {process.returncode}: {message})")
    return JavaHome(home, *version)
