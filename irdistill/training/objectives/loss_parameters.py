"""What a loss learns beside the student: made before the first step, written when the training is
finished.
"""

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
from irdistill.students.base import Student
from irdistill.training.data.collate import Collator
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.teacher_states import TeacherStates
from irdistill.training.objectives.encode import Encoder
from irdistill.training.objectives.scoring import score_batch
from irdistill.training.options import TrainOptions

FILE = "loss.safetensors"


def make_learnt(
    loss: Loss, student: Student, collator: Collator, sampler: ListSampler, options: TrainOptions
) -> dict[str, nn.Module]:
    """New modules in the shapes of the first batch, by the loss as it is written; none for losses
    without parameters.

    Raises:
        IrdistillError: the loss cannot be fitted to the teacher's representations.
    """
    if not any(one.has_parameters for one in loss.basic_losses):
        return {}
    sample = None
    if any(one.fits_to_sample for one in loss.basic_losses):
        assert isinstance(collator.states, TeacherStates)
        sample = collator.states.sample(sampler.runs[0])
    student.model.eval()
    with torch.no_grad():
        encoder = Encoder(
            student, choose_dtype(options.precision, student.device), options.token_budget
        )
        example = score_batch(student, encoder, collator(0), loss.uses_in_batch)
    return make_loss_parameters(loss, example, sample, options.seed)


def save_learnt(folder: Path, learnt: Mapping[str, nn.Module]) -> dict[str, Any]:
    """Write what the loss has learnt to ``loss.safetensors``; gives how many parameters each has,
    and the checksum.

    No part of the model needs it: it is there to be looked at.
    """
    held = {
        f"{name}/{key}": value.detach().cpu().contiguous()
        for name, module in learnt.items()
        for key, value in module.state_dict().items()
    }
    with atomic_path(folder / FILE) as temporary:
        save_file(held, temporary)
    parameters = {
        name: sum(p.numel() for p in module.parameters()) for name, module in learnt.items()
    }
    return {"parameters": parameters, "sha256": file_sha256(folder / FILE)}
