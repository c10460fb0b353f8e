"""Finding a Java that Lucene can run on, among all that a machine may have."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

MINIMUM_VERSION = 21
TIMEOUT_SECONDS = 5.0

#: Where Java is installed, by package managers and by hand; ``~`` and variables are expanded.
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
_VERSION = re.compile(r'version "([^"]+)"')


@dataclass(frozen=True)
class JavaHome:
    """One Java.

    Attributes:
        home: the folder that ``JAVA_HOME`` names.
        version: its feature release (8, 17, 21 ...), None if it does not run.
        release: the whole version, or why it does not run.
        found_by: ``JAVA_HOME``, ``folder`` or ``PATH``.
        others: what else was seen, in the order of preference; filled only by `find_java`.
    """

    home: Path
    version: int | None
    release: str
    found_by: str
    others: tuple[JavaHome, ...] = ()


def find_java(environment: Mapping[str, str] | None = None) -> JavaHome | None:
    """The first Java of version 21 or later: JAVA_HOME, known folders, then PATH; None without
    one.
    """
    seen = all_javas(environment)
    for place, java in enumerate(seen):
        if java.version is not None and java.version >= MINIMUM_VERSION:
            return replace(java, others=tuple(seen[:place] + seen[place + 1 :]))
    return None


def all_javas(environment: Mapping[str, str] | None = None) -> list[JavaHome]:
    """Every Java there is, each once, in the order of preference; those that do not run have no
    version.
    """
    given = os.environ if environment is None else environment
    found: dict[Path, tuple[Path, str]] = {}
    for home, found_by in _places(given):
        found.setdefault(_real(home), (home, found_by))
    if not found:
        return []
    with ThreadPoolExecutor(max_workers=min(8, len(found))) as pool:
        return list(pool.map(lambda place: _ask(*place), found.values()))


def install_command() -> str:
    """The command that installs a Java that is new enough, for this machine."""
    if os.environ.get("CONDA_PREFIX"):
        return f"conda install -c conda-forge openjdk={MINIMUM_VERSION}"
    if sys.platform == "darwin":
        return f"brew install openjdk@{MINIMUM_VERSION}"
    return f"sudo apt-get install openjdk-{MINIMUM_VERSION}-jdk-headless"


def parse_version(output: str) -> tuple[int, str] | None:
    """(feature release, whole version) out of what ``java -version`` prints; None if there is none
    in it.

    ``1.8.0_392`` is 8, ``17.0.1`` is 17, ``25`` is 25, ``22-ea`` is 22.
    """
    match = _VERSION.search(output)
    numbers = re.findall(r"\d+", match[1]) if match else []
    if match is None or not numbers:
        return None
    old_style = numbers[0] == "1" and len(numbers) > 1
    return int(numbers[1] if old_style else numbers[0]), match[1]


def _places(environment: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    if given := environment.get("JAVA_HOME"):
        yield Path(given), "JAVA_HOME"
    for pattern in KNOWN_FOLDERS:
        for home in _expand(pattern, environment):
            if (home / "bin" / "java").is_file():
                yield home, "folder"
    for folder in environment.get("PATH", "").split(os.pathsep):
        program = Path(folder) / "java"
        if folder and program.is_file() and os.access(program, os.X_OK):
            home = program.resolve().parent.parent
            if (home / "bin" / "java").is_file():
                yield home, "PATH"


def _expand(pattern: str, environment: Mapping[str, str]) -> list[Path]:
    if pattern.startswith("$"):
        name, _, rest = pattern[1:].partition("/")
        if not environment.get(name):
            return []
        pattern = f"{environment[name]}/{rest}"
    pattern = pattern.replace("~", environment.get("HOME") or str(Path.home()), 1)
    start, star, end = pattern.partition("*")
    if not star:
        return [Path(pattern)]
    folder, prefix = os.path.split(start)
    try:
        return sorted(Path(folder).glob(f"{prefix}*{end}"))
    except OSError:
        return []


def _real(home: Path) -> Path:
    """What two names of one Java have in common: its program with all links followed."""
    return (home / "bin" / "java").resolve()


def _ask(home: Path, found_by: str) -> JavaHome:
    program = home / "bin" / "java"
    try:
        done = subprocess.run(
            [str(program), "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return JavaHome(home, None, f"gave no answer within {TIMEOUT_SECONDS:g} s", found_by)
    except FileNotFoundError:
        return JavaHome(home, None, "has no bin/java that runs", found_by)
    except OSError as error:
        return JavaHome(home, None, f"does not run ({error.strerror})", found_by)
    output = (done.stderr + b"\n" + done.stdout).decode("utf-8", "replace")
    version = parse_version(output)
    if done.returncode != 0 or version is None:
        said = " ".join(output.split())[:100] or "it said nothing"
        return JavaHome(home, None, f"does not run (exit {done.returncode}: {said})", found_by)
    return JavaHome(home, version[0], version[1], found_by)
