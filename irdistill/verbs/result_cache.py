"""Results of verbs that were called without ``out``: kept in the cache, under their inputs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.errors import IrdistillError
from irdistill.storage.files import input_checksums

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.runs import Run
    from irdistill.students.student_base import Student
    from irdistill.verbs.declaration import Verb

RESULT = "result"
logger = logging.getLogger(__name__)

_FINGERPRINTED = ("collection", "collections", "run", "runs", "validation")


def cached_result(verb: Verb, values: Mapping[str, Any]) -> Any:
    """The result of a verb, from the cache if it was called with the same inputs before.

    The folder's name is a hash of the verb, its options, the fingerprints of collections, runs,
    models and teachers, and the contents of the files that options name. A stopped call resumes.
    The artifact checks its own, complete identity too. A result that was damaged is computed again.
    """
    from irdistill import __version__
    from irdistill.storage.files import cache_folder, digest
    from irdistill.storage.sealed_folder import seal_files
    from irdistill.verbs.input_contents import named_contents

    assert verb.reopen is not None
    opened = _opened(verb, values)
    identity = {"verb": verb.name, "version": __version__} | {
        name: _identity(verb.options[name].source if name in verb.options else "", value)
        for name, value in sorted(opened.items())
        if name not in ("out", "overwrite")
    }
    if contents := named_contents(verb, opened):
        identity["contents"] = contents
    folder = cache_folder() / "results" / f"{verb.name}-{digest(identity)}"
    if not values.get("overwrite") and _is_kept(folder):
        return verb.reopen(folder / RESULT)
    result = verb.function(**opened | {"out": folder / RESULT})
    split = str(getattr(result, "id", "")).partition("#")[2]
    seal_files(folder, {"verb": verb.name, "split": split})
    return result


def _is_kept(folder: Path) -> bool:
    """Whether a folder has a finished result. A damaged one is removed."""
    from irdistill.storage.checksums import REBUILT
    from irdistill.storage.sealed_folder import MANIFEST, check_sealed_files

    if not (folder / MANIFEST).is_file():
        return False
    try:
        check_sealed_files(folder)
    except IrdistillError as error:
        reason = str(error).removesuffix(REBUILT).rstrip()
        logger.warning("%s The result is computed again.", reason)
        shutil.rmtree(folder)
        return False
    return True


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
    if source in ("model", "student", "teacher", "llm") and not isinstance(value, str | Path):
        return None if value is None else _object_identity(value)
    if source == "loss":
        return _loss_identity(value)
    if source == "texts":
        texts = value if isinstance(value, list | tuple) else [value]
        return [str(text) if isinstance(text, str | Path) else _fingerprint(text) for text in texts]
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
    if identity is not None and not isinstance(value, type):
        return repr(identity() if callable(identity) else identity)
    from irdistill.teachers.function_teacher import function_identity

    return function_identity(value)


def _loss_identity(loss: Any) -> Any:
    """A loss as it is written, and the code of losses outside the package."""
    from irdistill.losses import parse_loss
    from irdistill.losses.loss_code import code_digests

    expression = parse_loss(loss)
    return [str(expression), code_digests(expression)]


def _model_identity(model: str) -> Any:
    """The name of a model, or the identity of a hosted embedder."""
    from irdistill.verbs.opening_inputs import with_encoder

    opened = with_encoder(model)
    return opened if isinstance(opened, str) else _object_identity(opened)


def open_cached_run(folder: Path) -> Run:
    """Open a run."""
    from irdistill.runs import open_run

    return open_run(folder)


def open_cached_collection(folder: Path) -> Collection:
    """Open a collection that a verb made, in the split that it returned."""
    from irdistill.collections import load_collection
    from irdistill.storage.files import read_json
    from irdistill.storage.sealed_folder import MANIFEST

    split = read_json(folder.parent / MANIFEST)["split"]
    return load_collection(f"{folder}#{split}" if split else str(folder))


def open_cached_student(folder: Path) -> Student:
    """Load the student of a training's folder."""
    from irdistill.verbs.opening_inputs import open_student

    return open_student(folder / "model")
