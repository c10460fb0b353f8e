"""The start and the end of a training: its record, its checkpoints and its saved model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.truncation import Truncation
from irdistill.storage.files import staging_path, write_json
from irdistill.storage.json_lines import write_event
from irdistill.training.checkpoints import latest_checkpoint, remove_unfinished, step_of
from irdistill.training.log_rows import LOG
from irdistill.training.objectives.loss_parameters import save_loss_parameters
from irdistill.training.training_files import place_model, recorded_model, remove_checkpoints
from irdistill.training.training_log import truncate_log

if TYPE_CHECKING:
    from irdistill.students.student_base import Student

logger = logging.getLogger(__name__)


def start_training(
    folder: Path,
    record: Mapping[str, Any],
    student: Student,
    steps: int,
    warnings: Sequence[str] = (),
) -> Path | None:
    """Write the record of a training that starts or resumes.

    Returns:
        The checkpoint to resume; None to start at the first step.

    Raises:
        ModelError: the saved student would load as another model.
    """
    started_before = (folder / "training.json").exists()
    checkpoint = latest_checkpoint(folder / "checkpoints")
    step = step_of(checkpoint) if checkpoint else 0
    remove_unfinished(folder / "checkpoints")
    shutil.rmtree(staging_path(folder / "checking"), ignore_errors=True)
    if not step:
        student.check_saving(folder)
    truncate_log(folder / LOG, step if checkpoint else -1)
    write_json(folder / "training.json", {**record, "finished": False} | recorded_model(folder))
    write_event(
        folder,
        event="start",
        step=step,
        steps=steps,
        device=str(student.device),
        warnings=list(warnings),
    )
    if checkpoint:
        logger.info("%s: resumed at step %d of %d", folder, step, steps)
    elif started_before:
        logger.info(
            "%s: the training was stopped before its first checkpoint; it starts again at step 0"
            " of %d",
            folder,
            steps,
        )
    return checkpoint


def finish_training(
    student: Student,
    loss_parameters: Mapping[str, nn.Module],
    folder: Path,
    record: dict[str, Any],
    journal: Mapping[str, Any],
) -> None:
    """Save the model, complete the record and delete the checkpoints."""
    staged = staging_path(folder / "model")
    shutil.rmtree(staged, ignore_errors=True)
    _reset_tokenizers(student)
    with quiet_libraries():
        student.save(staged)
    record["model"] = place_model(folder, staged, record)
    if loss_parameters:
        record["loss"] = save_loss_parameters(folder, loss_parameters)
    write_json(folder / "training.json", record | {"finished": True})
    write_event(folder, **journal)
    remove_checkpoints(folder)


def report_truncation(student: Student, truncation: Mapping[str, Truncation]) -> None:
    """Log how much of the texts the student did not read."""
    for kind in student.sides:
        counts = truncation.get(kind, Truncation())
        counts.report(kind, student.source, logger, student.max_length(kind))


def _reset_tokenizers(student: Student) -> None:
    """Undo the settings of the last call, which would be saved with the tokenizers."""
    for module in student.model.modules():
        backend = getattr(getattr(module, "tokenizer", None), "backend_tokenizer", None)
        if backend is not None:
            backend.no_padding()
            backend.no_truncation()
