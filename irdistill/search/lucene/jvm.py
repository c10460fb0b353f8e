"""Java in this process, with the classes of Lucene and Anserini from Pyserini's jar.

Only the bridge of Pyserini is imported. Its searchers load PyTorch models and need an OpenAI key,
which search with Lucene does not.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module, metadata
from typing import Any

from irdistill.errors import IrdistillError, MissingExtraError, NotFoundError
from irdistill.search.lucene.java_runtime import (
    MINIMUM_VERSION,
    JavaHome,
    all_javas,
    find_java,
    install_command,
)

MEMORY = "IRDISTILL_JAVA_MEMORY"
"""Environment variable: most memory that Java may use, such as 4g (default: a quarter)."""

_OPTIONS = (
    "-Xrs",  # Python keeps Ctrl-C
    "--enable-native-access=ALL-UNNAMED",
    "-Dsun.misc.unsafe.memory.access=allow",  # no warnings about what Lucene uses
)
_loggers: list[Any] = []  # Java drops the level of a logger without references


def java_class(name: str) -> Any:
    """A Java class by its full name, such as ``org.apache.lucene.search.Sort``; starts Java."""
    _start()
    return import_module("jnius").autoclass(name)


def as_class(name: str, instance: Any) -> Any:
    """A Java object cast to a superclass, for overloaded methods."""
    return import_module("jnius").cast(name, instance)


def anserini_version() -> str:
    """Version of Pyserini, whose jar determines how Lucene tokenizes and scores."""
    try:
        return metadata.version("pyserini")
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError("pyserini", "lucene", "search with Lucene") from error


@contextmanager
def java_errors(action: str) -> Iterator[None]:
    """Raise a Java exception as an error that names the action."""
    _start()
    try:
        yield
    except import_module("jnius").JavaException as error:
        advice = (
            f" Give Java more memory: export {MEMORY}=8g" if "OutOfMemory" in str(error) else ""
        )
        raise IrdistillError(f"Lucene failed while {action}: {_brief(error)}.{advice}") from error


@cache
def _start() -> None:
    anserini_version()
    if "jnius" in sys.modules:
        try:
            _load_lucene()
        except Exception as error:
            raise IrdistillError(
                "another library of this process has already started Java, without the classes of"
                f" Lucene ({type(error).__name__}). Search in a separate process, or before that"
                " library is used."
            ) from error
    else:
        java = find_java()
        if java is None:
            others = ", ".join(f"{other.release} in {other.home}" for other in all_javas())
            raise NotFoundError(
                f"Lucene needs Java {MINIMUM_VERSION} or newer; found {others or 'none'}. Install"
                f" it with: {install_command()} or set JAVA_HOME to its folder. `irdistill doctor`"
                " lists what is installed."
            )
        _launch(java)
    autoclass = import_module("jnius").autoclass
    autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(
        autoclass("org.apache.logging.log4j.Level").ERROR
    )
    _loggers.append(autoclass("java.util.logging.Logger").getLogger("org.apache.lucene"))
    _loggers[0].setLevel(autoclass("java.util.logging.Level").SEVERE)


def _load_lucene() -> None:
    import_module("pyserini.pyclass").autoclass("io.anserini.index.SimpleIndexer")


def _launch(java: JavaHome) -> None:
    """Start Java without its output, which is only shown when it fails to start."""
    memory = [f"-Xmx{os.environ[MEMORY]}"] if os.environ.get(MEMORY) else []
    import_module("jnius_config").add_options(*_OPTIONS, *memory)
    sys.stderr.flush()
    stderr, environment = os.dup(2), dict(os.environ)
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        os.environ["JAVA_HOME"] = str(java.home)
        try:
            _load_lucene()
        except Exception as error:
            output.seek(0)
            message = f"{error} {output.read().decode('utf-8', 'replace')}"
            raise IrdistillError(
                f"Java {java.release} in {java.home} does not start: {_brief(message)}. Set"
                f" JAVA_HOME to another one, or install one: {install_command()}"
            ) from error
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            del os.environ["JAVA_HOME"]
            os.environ.update(environment)


def _brief(message: object) -> str:
    return " ".join(str(message).split())[:300]
