"""The verb *merge*: the weighted average of models, written to a folder with its origin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irdistill.modeling.library_output import quiet_libraries
from irdistill.students.student_base import Student
from irdistill.students.weight_averaging import average_students, check_weights, without_adapters
from irdistill.training.computed_models import write_computed_model


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

    def average() -> tuple[Student, dict[str, Any]]:
        with quiet_libraries():
            return average_students(students, weights), {}

    return write_computed_model(out, {"verb": "merge", "models": models}, average, overwrite)
