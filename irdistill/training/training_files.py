"""The files of a training's folder: those that its records name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError, OutputExistsError, SettingsDifferError
from irdistill.runs.run_ownership import run_files
from irdistill.storage.files import differences, fsync_tree, read_json, read_json_object, write_json
from irdistill.storage.ownership import (
    FileTest,
    is_manifest,
    move_into_place,
    no_file,
    refuse_foreign_files,
    remove_owned_files,
)
from irdistill.students.keep_report import FILE as KEEP
from irdistill.training import checkpoints
from irdistill.training.data.clusters import FILE as CLUSTERS
from irdistill.training.objectives.loss_parameters import FILE as LOSS_PARAMETERS
from irdistill.training.validation import weight_files

TRAINING, MODEL, CHECKPOINTS, MINED = "training.json", "model", "checkpoints", "mined"
_PLAIN = (TRAINING, KEEP, "train_log.jsonl", "journal.jsonl", CLUSTERS, LOSS_PARAMETERS)
_MINED = re.compile(r"\d+(-new|-scores)?")


def training_file_test(folder: Path) -> FileTest:
    """Tells whether a file of a folder is part of the training in it: records, checkpoints, the
    model, runs of mined documents.
    """
    if not is_manifest(folder / TRAINING, ("identity",)):
        return no_file
    model = read_json(folder / TRAINING).get(MODEL) or {}
    files = model if isinstance(model, dict) else {}
    held_out = weight_files(folder / CHECKPOINTS)
    checkpoint_files, mined_files = cache(checkpoints.checkpoint_files), cache(_mined_files)

    def ours(name: str) -> bool:
        place, _, inner = name.partition("/")
        first, _, rest = inner.partition("/")
        if place == MODEL:
            return inner in files
        if place == CHECKPOINTS:
            return inner in held_out or (
                bool(rest) and checkpoint_files(folder / place / first)(rest)
            )
        if place == MINED and _MINED.fullmatch(first):
            return mined_files(folder / place / first)(rest)
        return name in _PLAIN

    return ours


def _mined_files(folder: Path) -> FileTest:
    try:
        return run_files(folder)
    except IrdistillError:
        return no_file


def check_training_folder(folder: Path) -> None:
    """Refuse, before any work, a folder that a training cannot be written to.

    The folder of a training may have other files, except where the training replaces or deletes
    files.

    Raises:
        OutputExistsError: it has files that irdistill did not write.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputExistsError(
            f"cannot write {folder}: it is a file, and a folder was expected; choose another name."
        )
    ours = training_file_test(folder)
    if ours is no_file:
        refuse_foreign_files(folder, no_file, "a training")
    else:
        refuse_foreign_files(
            folder,
            lambda name: ours(name) or not name.startswith((f"{MODEL}/", f"{CHECKPOINTS}/")),
            "a training",
        )


def is_finished(
    folder: Path, identity: Mapping[str, Any], details: Mapping[str, Any] | None = None
) -> bool:
    """Whether a training is finished; False if it has to be started or resumed.

    Args:
        details: by keys of the identity, what their fingerprints stand for.

    Raises:
        SettingsDifferError: the folder has a different training; the message shows the difference.
        OutputExistsError: the folder has a model without a record.
    """
    if not (folder / TRAINING).exists():
        if (folder / MODEL).exists():
            raise OutputExistsError(
                f"{folder} has a model that irdistill did not train; choose another --out."
            )
        return False
    known = read_json_object(folder / TRAINING)
    recorded, current = dict(known.get("identity", {})), dict(identity)
    for key, value in (details or {}).items():
        before = (known.get("about") or {}).get(key)
        if recorded.get(key) != current.get(key) and differences({key: before}, {key: value}):
            recorded[key], current[key] = before, value
    different = differences(recorded, current)
    if different:
        raise SettingsDifferError(
            f"{folder} has a different training: {'; '.join(different)}. Choose another --out, or"
            " remove the folder."
        )
    return bool(known.get("finished")) and checkpoints.has_checksums(
        folder / MODEL, known.get(MODEL, {})
    )


def remove_checkpoints(folder: Path) -> None:
    """Delete the checkpoints of a finished training, and nothing else."""
    place, ours = folder / CHECKPOINTS, training_file_test(folder)
    if place.is_dir():
        checkpoints.remove_unfinished(place)
        remove_owned_files(place, lambda name: ours(f"{CHECKPOINTS}/{name}"))
        if not any(place.iterdir()):
            place.rmdir()


def recorded_model(folder: Path) -> dict[str, Any]:
    """The files of the model that the record names, as an entry of a new record."""
    if not is_manifest(folder / TRAINING, ("identity", MODEL)):
        return {}
    return {MODEL: read_json(folder / TRAINING)[MODEL]}


def place_model(folder: Path, staged: Path, record: Mapping[str, Any]) -> dict[str, str]:
    """Move a saved model to ``folder/model``, after ``training.json`` names its files.

    Returns:
        The SHA-256 checksum of each file.
    """
    files = fsync_tree(staged)
    ours = training_file_test(folder)
    write_json(folder / TRAINING, {**record, "finished": False, MODEL: files})
    move_into_place(staged, folder / MODEL, lambda name: ours(f"{MODEL}/{name}"))
    return files
