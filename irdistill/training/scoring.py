"""From a batch of texts to the scores that a loss sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from irdistill.losses import ScoreBatch
from irdistill.search.vectors import Taken
from irdistill.training.collate import TrainBatch
from irdistill.training.encode import Encoder

if TYPE_CHECKING:
    from irdistill.students.base import Student


def encode_batch(student: Student, encoder: Encoder, batch: TrainBatch) -> tuple[Any, Any]:
    """Encode the queries and the unique documents once each; of a student that reads pairs, the scores of each pair, and None."""
    if batch.pairs is not None:
        return encoder(batch.pairs, "pair"), None
    queries = encoder(batch.queries, "query")
    documents = batch.documents.on(student.device) if isinstance(batch.documents, Taken) else encoder(
        batch.documents, "document"
    )
    return queries, documents


def score_batch(student: Student, encoder: Encoder, batch: TrainBatch, in_batch: bool, encoded: tuple[Any, Any] | None = None,
                dimension: int | None = None) -> ScoreBatch:
    """Lay out the scores a loss sees.

    Args:
        encoded: what `encode_batch` gave, where the scores of one batch are wanted more than once.
        dimension: of dense vectors, score by the first so many numbers of each.
    """
    device = student.device
    index, mask = batch.index.to(device), batch.mask.to(device)
    lists: Tensor
    every: Tensor | None = None
    queries, documents = encoded or encode_batch(student, encoder, batch)
    if documents is None:
        lists = queries.new_zeros(mask.shape).masked_scatter(mask, queries)
    else:
        if dimension is not None:
            queries, documents = queries[:, :dimension], documents[:, :dimension]
        with encoder.autocast():  # for layers that read both; what compares vectors does so in float32
            lists, every = student.scores(queries, documents, index, in_batch)
    weights = batch.teacher_weights if len(batch.teacher) > 1 else None
    return ScoreBatch(
        student=lists, teacher=batch.teacher.to(device).squeeze(0), mask=mask,
        labels=batch.labels.to(device), columns=index, in_batch=every if in_batch else None,
        positives=batch.positives.to(device), teacher_weights=None if weights is None else weights.to(device),
    )
