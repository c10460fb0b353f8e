"""The parameters that a loss learns: created before the first step, saved after the last."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from irdistill.losses import Loss, make_loss_parameters
from irdistill.modeling.hardware import choose_dtype
from irdistill.storage.files import atomic_path, file_sha256
from irdistill.students.student_base import Student
from irdistill.training.data.collate import Collator
from irdistill.training.data.teacher_representations import TeacherRepresentations
from irdistill.training.objectives.batch_scores import score_batch
from irdistill.training.objectives.encode import Encoder
from irdistill.training.options import TrainOptions

FILE = "loss.safetensors"


def fit_loss_parameters(
    loss: Loss, student: Student, collator: Collator, options: TrainOptions
) -> dict[str, nn.Module]:
    """New modules in the shapes of the first batch, by the expression of their loss.

    Raises:
        InputError: the loss cannot be fitted to the teacher's representations.
    """
    if not any(basic.has_parameters for basic in loss.basic_losses):
        return {}
    sample = None
    if any(basic.fits_to_sample for basic in loss.basic_losses):
        assert isinstance(collator.representations, TeacherRepresentations)
        sample = collator.representations.sample(collator.sampler.runs[0])
    student.model.eval()
    dtype = choose_dtype(options.precision, student.device)
    with torch.no_grad():
        encoder = Encoder(student, dtype, options.token_budget)
        example = score_batch(encoder, collator(0), loss.uses_in_batch)
    return make_loss_parameters(loss, example, sample, options.seed)


def save_loss_parameters(folder: Path, parameters: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Write the parameters of the loss to ``loss.safetensors``. The model does not need them.

    Returns:
        The number of parameters of each loss, and the checksum of the file.
    """
    tensors = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, module in parameters.items()
        for key, value in module.state_dict().items()
    }
    with atomic_path(folder / FILE) as temporary:
        save_file(tensors, temporary)
    counts = {
        name: sum(p.numel() for p in module.parameters()) for name, module in parameters.items()
    }
    return {"parameters": counts, "sha256": file_sha256(folder / FILE)}
