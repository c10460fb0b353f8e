"""Which files of a training's folder are the training's: those that its records name."""

from __future__ import annotations

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.runs.run_files import run_files
from irdistill.storage.files import fsync_tree, move_into_place, read_json, staging_path, write_json
from irdistill.storage.ownership import (
    FileTest,
    is_manifest,
    no_file,
    refuse_foreign_files,
    remove_owned_files,
)
from irdistill.training import checkpoints
from irdistill.training.data.clusters import FILE as CLUSTERS
from irdistill.training.objectives.loss_parameters import FILE as LEARNT
from irdistill.training.validation import weight_files

TRAINING, MODEL, CHECKPOINTS, MINED = "training.json", "model", "checkpoints", "mined"
_PLAIN = (TRAINING, "train_log.jsonl", "journal.jsonl", CLUSTERS, LEARNT)
_MINED = re.compile(r"\d+(-new|-scores)?")


def training_files(folder: Path) -> FileTest:
    """Whether a file of a folder is part of the training in it: records, checkpoints, the model,
    runs of mined documents.
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
    """Refuse, before any work, a folder that no training can be written to.

    A training's own folder may hold other files, except where the training replaces or deletes
    files.

    Raises:
        IrdistillError: it holds files of others.
    """
    if folder.exists() and not folder.is_dir():
        raise IrdistillError(
            f"cannot write {folder}: it is a file and a folder was expected; choose another name."
        )
    ours = training_files(folder)
    if ours is no_file:
        refuse_foreign_files(folder, no_file, "a training")
    else:
        refuse_foreign_files(
            folder,
            lambda name: ours(name) or not name.startswith((f"{MODEL}/", f"{CHECKPOINTS}/")),
            "a training",
        )


def remove_checkpoints(folder: Path) -> None:
    """Delete what a training keeps to go on from, and nothing else."""
    place, ours = folder / CHECKPOINTS, training_files(folder)
    if place.is_dir():
        shutil.rmtree(staging_path(place / "checkpoint"), ignore_errors=True)
        remove_owned_files(place, lambda name: ours(f"{CHECKPOINTS}/{name}"))
        if not any(place.iterdir()):
            place.rmdir()


def recorded_model(folder: Path) -> dict[str, Any]:
    """The files of the model that the record names, as a part of a new record."""
    if not is_manifest(folder / TRAINING, ("identity", MODEL)):
        return {}
    return {MODEL: read_json(folder / TRAINING)[MODEL]}


def place_model(folder: Path, staged: Path, record: dict[str, Any]) -> dict[str, str]:
    """Move a saved model to ``folder/model``, whose files the record in ``training.json`` names
    before they are there.

    Returns:
        The SHA-256 of each file.
    """
    files = fsync_tree(staged)
    ours = training_files(folder)
    write_json(folder / TRAINING, record | {"finished": False, MODEL: files})
    move_into_place(staged, folder / MODEL, lambda name: ours(f"{MODEL}/{name}"))
    return files
