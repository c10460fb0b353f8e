"""Encoding many texts without gradients: tokenised once, sorted by length, cut into batches of a
token budget.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch

from irdistill.console.progress import ProgressCallback, progress
from irdistill.errors import IrdistillError
from irdistill.modeling.batching import TokenBudget, run_batches
from irdistill.modeling.hardware import Precision, choose_dtype
from irdistill.modeling.truncation import PLURAL
from irdistill.students.base import Kind, Student

Take = Callable[[np.ndarray, Any], bool]


@torch.inference_mode()
def encode_batches(
    student: Student,
    texts: Sequence[str],
    kind: Kind,
    precision: Precision,
    budget: int | TokenBudget | None,
    show_progress: bool | ProgressCallback,
    take: Take,
) -> None:
    """Hand to ``take`` the places of the texts of each batch and what the student makes of them,
    longest texts first.

    The budget is halved when memory runs out. The model is in eval mode meanwhile.

    Args:
        precision: ``auto`` is bfloat16 where the device has instructions for it, else float32.
        budget: padded tokens a batch; a TokenBudget remembers a halving; None is what suits the
            kind of student.
        show_progress: show a bar, or a function that is told how many texts were encoded, batch by
            batch.
        take: says whether all numbers of the batch are finite.

    Raises:
        IrdistillError: they are not.
    """
    device = student.device
    if not isinstance(budget, TokenBudget):
        budget = TokenBudget(
            budget or (student.tokens_cpu if device.type == "cpu" else student.tokens_gpu)
        )
    if not len(texts):
        return
    dtype = choose_dtype(precision, device)
    tokens = student.tokenize(texts, kind)
    lengths = np.array([len(ids) for ids in tokens["input_ids"]])
    was_training = student.model.training
    student.model.eval()
    try:
        with (
            progress(len(texts), "texts", f"encode {PLURAL[kind]}")
            if show_progress is True
            else nullcontext()
        ) as bar:
            done: ProgressCallback = (
                show_progress
                if callable(show_progress)
                else bar.update
                if bar is not None
                else _nothing
            )

            def forward(rows: np.ndarray) -> None:
                features = student.pad(tokens, kind, rows, device)
                with torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32):
                    found = student.embed(features, kind)
                if not take(rows, found):
                    raise IrdistillError(
                        f"vectors of {student.source!r} are not finite in {dtype}; use"
                        " precision='float32'."
                    )
                done(len(rows))

            run_batches(lengths, budget, forward)
    finally:
        student.model.train(was_training)


def _nothing(count: int) -> None:
    """Show no progress."""
