"""Encoding many texts without gradients, in batches of a token budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from irdistill.console.progress_bars import ProgressCallback, progress
from irdistill.errors import ModelError
from irdistill.modeling.batching import TokenBudget, run_batches
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.truncation import PLURAL
from irdistill.students.student_base import Student
from irdistill.students.tower_model import TextKind

Take = Callable[[np.ndarray, Any], bool]


@torch.inference_mode()
def encode_batches(
    student: Student,
    texts: Sequence[str],
    kind: TextKind,
    precision: Precision,
    budget: int | TokenBudget | None,
    show_progress: bool | ProgressCallback,
    take: Take,
) -> None:
    """Encode texts in eval mode, longest first, and pass each batch to ``take``.

    The budget is halved when memory runs out.

    Args:
        precision: ``auto`` is bfloat16 where the device has instructions for it, else float32.
        budget: padded tokens in a batch; a TokenBudget remembers that it was halved. None chooses
            for the kind of student.
        show_progress: show a bar, or call a function with the number of texts of each batch.
        take: gets the places of the texts and their encoding; returns whether all numbers are
            finite.

    Raises:
        ModelError: a number is not finite.
    """
    device = student.device
    if not isinstance(budget, TokenBudget):
        default = student.tokens_cpu if device.type == "cpu" else student.tokens_gpu
        budget = TokenBudget(budget or default)
    if not len(texts):
        return
    dtype = choose_dtype(precision, device)
    tokens = student.tokenize(texts, kind)
    lengths = np.array([len(ids) for ids in tokens["input_ids"]])
    was_training = student.model.training
    if was_training:  # passing through all modules takes longer than a look-up in token vectors
        student.model.eval()
    bar = (
        progress(len(texts), "texts", f"encode {PLURAL[kind]}")
        if show_progress is True
        else nullcontext()
    )
    try:
        with bar as shown:
            done = show_progress if callable(show_progress) else getattr(shown, "update", None)

            def forward(rows: np.ndarray) -> None:
                features = student.pad(tokens, kind, rows, device)
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    encoded = student.embed(features, kind)
                if not take(rows, encoded):
                    raise ModelError(
                        f"vectors of {student.source!r} are not finite in {dtype}; use"
                        " precision='float32'."
                    )
                if done is not None:
                    done(len(rows))

            run_batches(lengths, budget, forward)
    finally:
        if was_training:
            student.model.train()
