"""The verb *merge*: the weighted average of models, written to a folder with its origin."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irdistill.errors import SettingsDifferError
from irdistill.modeling.library_output import quiet_libraries
from irdistill.storage.files import (
    differences,
    make_folder,
    read_json_object,
    staging_path,
    write_json,
)
from irdistill.storage.locking import lock_folder
from irdistill.students.student_base import Student
from irdistill.students.weight_averaging import average_students, check_weights, without_adapters
from irdistill.training.checkpoints import has_checksums
from irdistill.training.training_files import TRAINING, check_training_folder, place_model


def merge_models(
    students: Sequence[Student],
    out: str | Path,
    weights: Sequence[float],
    overwrite: bool = False,
) -> Path:
    """Write the weighted average of models of one architecture; see `average_students`.

    ``OUT/training.json`` has the origin: name, revision, weights and share of each model. A
    finished merge of the same models returns at once.

    Returns:
        The folder of the merged model, ``OUT/model``.

    Raises:
        OptionError: the weights do not fit.
        ModelError: the models cannot be merged.
        SettingsDifferError: ``out`` has another merge or training.
    """
    check_weights(weights, len(students))
    students = [without_adapters(student) for student in students]
    models = [
        {"weight": weight, **student.identity()}
        for student, weight in zip(students, weights, strict=True)
    ]
    identity = {"verb": "merge", "models": models}
    folder = Path(out)
    check_training_folder(folder)
    make_folder(folder)
    with lock_folder(folder):
        if overwrite or not _is_merged(folder, identity):
            staged = staging_path(folder / "model")
            shutil.rmtree(staged, ignore_errors=True)
            with quiet_libraries():
                average_students(students, weights).save(staged)
            record: dict[str, Any] = {"identity": identity}
            files = place_model(folder, staged, record)
            write_json(folder / TRAINING, record | {"finished": True, "model": files})
    return folder / "model"


def _is_merged(folder: Path, identity: dict[str, Any]) -> bool:
    if not (folder / TRAINING).is_file():
        return False
    record = read_json_object(folder / TRAINING)
    if different := differences(record.get("identity") or {}, identity):
        raise SettingsDifferError(
            f"{folder} has another model: {'; '.join(different)}. Choose another --out, or give"
            " --overwrite."
        )
    return bool(record.get("finished")) and has_checksums(
        folder / "model", record.get("model") or {}
    )
