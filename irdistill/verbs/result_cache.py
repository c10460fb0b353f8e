"""Results of verbs that were called without ``out``: kept in the cache, under their inputs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.storage.files import input_checksums

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.runs import Run
    from irdistill.students.student_base import Student
    from irdistill.verbs.declaration import Verb

DONE = "done.json"
_FINGERPRINTED = ("collection", "collections", "run", "runs", "validation")


def cached_result(verb: Verb, values: Mapping[str, Any]) -> Any:
    """The result of a verb, from the cache if it was called with the same inputs before.

    The folder's name is a hash of the verb, its options, and the fingerprints of collections, runs,
    models and teachers. A stopped call resumes. The artifact checks its own, complete identity too.
    """
    from irdistill import __version__
    from irdistill.storage.files import cache_folder, digest, make_folder, write_json

    assert verb.reopen is not None
    opened = _opened(verb, values)
    identity = {"verb": verb.name, "version": __version__} | {
        name: _identity(verb.options[name].source if name in verb.options else "", value)
        for name, value in sorted(opened.items())
        if name not in ("out", "overwrite")
    }
    folder = cache_folder() / "results" / f"{verb.name}-{digest(identity)}"
    if values.get("overwrite") or not (folder / DONE).is_file():
        result = verb.function(**opened | {"out": folder / "result"})
        split = str(getattr(result, "id", "")).partition("#")[2]
        write_json(make_folder(folder) / DONE, {"verb": verb.name, "split": split})
        return result
    return verb.reopen(folder / "result")


def _opened(verb: Verb, values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with collections and runs opened, so that they have fingerprints."""
    from irdistill.runs import as_run
    from irdistill.verbs.opening_inputs import (
        named_runs,
        open_collection,
        open_collections,
        open_validation,
    )

    opened = dict(values)
    for name, value in values.items():
        source = verb.options[name].source if name in verb.options else ""
        if source == "collection":
            opened[name] = open_collection(value, queries=False)
        elif source == "collections" and value is not None:
            opened[name] = open_collections(value)
        elif source == "validation" and value is not None:
            opened[name] = open_validation(value)
        elif source == "run":
            opened[name] = (
                [as_run(run) for run in value] if isinstance(value, list) else as_run(value)
            )
        elif source == "runs":
            opened[name] = [as_run(run) for run in named_runs(value).values()]
    return opened


def _identity(source: str, value: Any) -> Any:
    if source in _FINGERPRINTED and not isinstance(value, float):
        several = value if isinstance(value, list) else [value]
        return [_fingerprint(item) for item in several]
    if source in ("model", "student", "teacher") and not isinstance(value, str | Path):
        return _object_identity(value)
    if source == "model":
        return _model_identity(str(value))
    if source == "files" and value is not None:
        return input_checksums(value)
    if source == "models":
        models = value if isinstance(value, list | tuple) else [value]
        return [_identity("model", model) for model in models]
    if is_dataclass(value) and not isinstance(value, type):
        return repr(sorted(asdict(value).items()))
    return str(value)


def _fingerprint(item: Any) -> str:
    """A collection's fingerprint covers its judgments as well as its texts."""
    qrels = getattr(item, "qrels", None)
    return f"{item.fingerprint}-{qrels.fingerprint}" if qrels is not None else str(item.fingerprint)


def _object_identity(value: Any) -> Any:
    identity = getattr(value, "identity", None)
    if identity is not None:
        return repr(identity() if callable(identity) else identity)
    source = inspect.getsource(value) if inspect.isfunction(value) else ""
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', value)}: {source}"


def _model_identity(model: str) -> Any:
    """A folder's files with their sizes and times, the name of a model on the Hub, or the identity
    of a hosted embedder.
    """
    from irdistill.modeling.model_files import resolve_model
    from irdistill.search.lexical.first_stages import is_lexical
    from irdistill.verbs.opening_inputs import with_encoder

    if is_lexical(model):
        return model
    opened = with_encoder(model)
    if not isinstance(opened, str):
        return _object_identity(opened)
    folder = Path(resolve_model(model))
    if not folder.exists():
        return model
    files = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
    return [
        [str(path), path.stat().st_size, path.stat().st_mtime_ns]
        for path in files
        if path.is_file()
    ]


def open_cached_run(folder: Path) -> Run:
    """Open a run."""
    from irdistill.runs import open_run

    return open_run(folder)


def open_cached_collection(folder: Path) -> Collection:
    """Open a collection that a verb made, in the split that it returned."""
    from irdistill.collections import load_collection
    from irdistill.storage.files import read_json

    split = read_json(folder.parent / DONE)["split"]
    return load_collection(f"{folder}#{split}" if split else str(folder))


def open_cached_student(folder: Path) -> Student:
    """Load the student of a training's folder."""
    from irdistill.verbs.opening_inputs import open_student

    return open_student(folder / "model")
