"""Java inside this process, with the classes of Anserini and Lucene that Pyserini brings; started
on first use.

Only Pyserini's bridge is imported, not its searchers: those load PyTorch models and ask for an
OpenAI key, and nothing of that is needed to search.
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

from irdistill.errors import IrdistillError, MissingExtraError
from irdistill.search.lucene.java_runtime import (
    MINIMUM_VERSION,
    JavaHome,
    all_javas,
    find_java,
    install_command,
)

MEMORY = "IRDISTILL_JAVA_MEMORY"
"""The environment variable with the most memory that Java may take, as 4g; a quarter of the
machine's unless set.
"""

_OPTIONS = (
    "-Xrs",  # Ctrl-C stays Python's
    "--enable-native-access=ALL-UNNAMED",
    "-Dsun.misc.unsafe.memory.access=allow",  # no warnings about what Lucene uses
)


def java_class(name: str) -> Any:
    """A class of Java by its full name, as ``org.apache.lucene.search.Sort``; Java is started where
    it does not run yet.

    Raises:
        MissingExtraError: Pyserini is not installed.
        IrdistillError: there is no Java that is new enough, it does not start, or another library
            of this process has started one without Lucene.
    """
    _start()
    return import_module("jnius").autoclass(name)


def as_class(name: str, instance: Any) -> Any:
    """An object of Java as one of a class above its own, where methods that take either cannot be
    told apart.
    """
    return import_module("jnius").cast(name, instance)


def anserini_version() -> str:
    """What decides how Lucene tokenises and scores: the version of Pyserini, which holds its
    jar.
    """
    try:
        return metadata.version("pyserini")
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError("pyserini", "lucene", "searching with Lucene") from error


@contextmanager
def java_errors(doing: str) -> Iterator[None]:
    """Turn an exception of Java into an error that says what was being done.

    Raises:
        IrdistillError: Java raised; where its memory is used up, the message says how to give it
            more.
    """
    _start()
    try:
        yield
    except import_module("jnius").JavaException as error:
        said = " ".join(str(error).split())[:300]
        more = f" Give Java more memory, as in: export {MEMORY}=8g" if "OutOfMemory" in said else ""
        raise IrdistillError(f"Lucene failed while {doing}: {said}.{more}") from error


@cache
def _start() -> None:
    anserini_version()
    running = "jnius" in sys.modules
    java = None if running else find_java()
    if java is None and not running:
        raise IrdistillError(_none_found())
    try:
        if java is None:
            import_module("pyserini.pyclass").autoclass("io.anserini.index.SimpleIndexer")
        else:
            _launch(java)
    except Exception as error:
        if running:
            raise IrdistillError(
                "another library of this process has already started Java, without the classes of"
                f" Lucene ({type(error).__name__}). Search in a process of its own, or before that"
                " library is used."
            ) from error
        raise IrdistillError(
            f"Java {java.release if java else ''} in {java.home if java else ''} does not start:"
            f" {' '.join(str(error).split())[:300]}. Set JAVA_HOME to another, or install one:"
            f" {install_command()}"
        ) from error
    _hush()


def _launch(java: JavaHome) -> None:
    """Start Java; what it prints while it starts is kept back, and told only where it fails."""
    config = import_module("jnius_config")
    config.add_options(
        *_OPTIONS, *([f"-Xmx{os.environ[MEMORY]}"] if os.environ.get(MEMORY) else [])
    )
    before = os.environ.get("JAVA_HOME")
    os.environ["JAVA_HOME"] = str(java.home)
    with tempfile.TemporaryFile() as said:
        try:
            with _stderr_to(said.fileno()):
                import_module("pyserini.pyclass").autoclass("io.anserini.index.SimpleIndexer")
        except Exception as error:
            said.seek(0)
            raise RuntimeError(f"{error} {said.read().decode('utf-8', 'replace')}") from error
        finally:
            os.environ.pop("JAVA_HOME")
            if before is not None:
                os.environ["JAVA_HOME"] = before


@contextmanager
def _stderr_to(target: int) -> Iterator[None]:
    sys.stderr.flush()
    kept = os.dup(2)
    os.dup2(target, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


_loggers: list[Any] = []  # Java forgets the level of a logger that nobody holds


def _hush() -> None:
    """Let Anserini and Lucene log errors only."""
    autoclass = import_module("jnius").autoclass
    autoclass("org.apache.logging.log4j.core.config.Configurator").setRootLevel(
        autoclass("org.apache.logging.log4j.Level").ERROR
    )
    logger = autoclass("java.util.logging.Logger").getLogger("org.apache.lucene")
    logger.setLevel(autoclass("java.util.logging.Level").SEVERE)
    _loggers.append(logger)


def _none_found() -> str:
    seen = ", ".join(f"{java.release} in {java.home}" for java in all_javas())
    return (
        f"Lucene needs Java {MINIMUM_VERSION} or newer;"
        f" {'seen: ' + seen if seen else 'there is none'}. Install it with: {install_command()} or"
        " set JAVA_HOME to the folder of one. `irdistill doctor` shows what is found."
    )
