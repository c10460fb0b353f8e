"""Models that are computed in one go, fitted in closed form or merged, and the record of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from irdistill.errors import SettingsDifferError
from irdistill.storage.files import (
    differences,
    make_folder,
    read_json_object,
    staging_path,
    write_json,
)
from irdistill.storage.locking import lock_folder
from irdistill.students.student_base import Student
from irdistill.training.checkpoints import has_checksums
from irdistill.training.training_files import (
    MODEL,
    TRAINING,
    check_training_folder,
    place_model,
)


def write_computed_model(
    out: str | Path,
    identity: Mapping[str, Any],
    compute: Callable[[], tuple[Student, Mapping[str, Any]]],
    overwrite: bool = False,
) -> Path:
    """Compute a model and save it, unless the folder has it already.

    Args:
        out: folder; the model goes to ``model`` in it, and its record to ``training.json``.
        identity: all that determines the model.
        compute: returns the model and further entries of the record.

    Returns:
        The folder of the model.

    Raises:
        LockedError: another process writes to ``out``.
        OutputExistsError: ``out`` has files that irdistill did not write.
        SettingsDifferError: ``out`` has another model.
    """
    folder = Path(out)
    check_training_folder(folder)
    make_folder(folder)
    with lock_folder(folder):
        if overwrite or not _is_computed(folder, identity):
            model, entries = compute()
            staged = staging_path(folder / MODEL)
            shutil.rmtree(staged, ignore_errors=True)
            model.save(staged)
            record = {"identity": identity, **entries}
            files = place_model(folder, staged, record)
            write_json(folder / TRAINING, record | {"finished": True, MODEL: files})
    return folder / MODEL


def _is_computed(folder: Path, identity: Mapping[str, Any]) -> bool:
    if not (folder / TRAINING).is_file():
        return False
    record = read_json_object(folder / TRAINING)
    if different := differences(record.get("identity") or {}, identity):
        raise SettingsDifferError(
            f"{folder} has another model: {'; '.join(different)}. Choose another --out, or give"
            " --overwrite."
        )
    return bool(record.get("finished")) and has_checksums(folder / MODEL, record.get(MODEL) or {})
