"""From a batch of texts to the scores that a loss sees, and where it reads any to the student's
representations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from irdistill.losses import BatchRepresentations, ScoreBatch
from irdistill.search.vectors.vector_store import VectorBatch
from irdistill.training.data.collate import Tokens, TrainBatch
from irdistill.training.objectives.encode import Encoder

if TYPE_CHECKING:
    from irdistill.students.base import Student


def encode_batch(student: Student, encoder: Encoder, batch: TrainBatch) -> tuple[Any, Any]:
    """Encode the queries and the unique documents once each; of a student that reads pairs, the
    scores of each pair, and None.
    """
    if batch.pairs is not None:
        return encoder(batch.pairs, "pair"), None
    queries = encoder(batch.queries, "query")
    documents = (
        batch.documents.on(student.device)
        if isinstance(batch.documents, VectorBatch)
        else encoder(batch.documents, "document")
    )
    return queries, documents


def score_batch(
    student: Student,
    encoder: Encoder,
    batch: TrainBatch,
    in_batch: bool,
    parameters: Mapping[str, nn.Module] | None = None,
    encoded: tuple[Any, Any] | None = None,
    dimension: int | None = None,
) -> ScoreBatch:
    """Lay out the scores a loss sees.

    Where the batch holds the teacher's representations, the student's of the same forward pass are
    laid out too.

    Args:
        parameters: what the loss learns beside the student.
        encoded: what `encode_batch` gave, where the scores of one batch are wanted more than once.
        dimension: of dense vectors, score by the first so many numbers of each; representations are
            whole.
    """
    device = student.device
    index, mask = batch.index.to(device), batch.mask.to(device)
    lists: Tensor
    every: Tensor | None = None
    states: BatchRepresentations | None = None
    queries, documents = encoded or encode_batch(student, encoder, batch)
    positives = batch.positives.to(device)
    if documents is not None:
        asking, there = (
            present(encoder, batch.queries, queries),
            present(encoder, batch.documents, documents),
        )
        mask = mask & asking[:, None] & there[index]
        positives = positives | ~there  # what has no tokens is never a negative
    if documents is None:
        if queries.dim() == 2:
            table = queries.new_zeros(*mask.shape, queries.shape[1] - 1)
            states = BatchRepresentations(
                pairs=table.masked_scatter(mask[:, :, None], queries[:, 1:])
            )
        scores = queries if states is None else queries[:, 0]
        lists = scores.new_zeros(mask.shape).masked_scatter(mask, scores)
    else:
        states = student.representations(queries, documents) if batch.states is not None else None
        if dimension is not None:
            queries, documents = queries[:, :dimension], documents[:, :dimension]
        with (
            encoder.autocast()
        ):  # for layers that read both; what compares vectors does so in float32
            lists, every = student.scores(queries, documents, index, in_batch)
    weights = batch.teacher_weights if len(batch.teacher) > 1 else None
    return ScoreBatch(
        student=lists,
        teacher=batch.teacher.to(device).squeeze(0),
        mask=mask,
        labels=batch.labels.to(device),
        columns=index,
        in_batch=every if in_batch else None,
        positives=positives,
        teacher_weights=None if weights is None else weights.to(device),
        student_representations=states,
        teacher_representations=None if batch.states is None else batch.states.to(device),
        parameters=parameters or {},
    )


def present(encoder: Encoder, texts: Tokens | VectorBatch, encoded: Any) -> Tensor:
    """(n,) bool: which texts of all processes have tokens; the others stand in no loss.

    Args:
        encoded: what ``encode_batch`` gave for them.
    """
    device = encoder.student.device
    if not isinstance(
        encoded, Tensor
    ):  # a text of which no token is scored counts as one without tokens
        return torch.tensor([len(vectors) > 0 for vectors in encoded], device=device)
    if isinstance(texts, VectorBatch):
        return (
            encoded.any(dim=1)
            if encoder.student.kind == "dense"
            else torch.ones(len(encoded), dtype=torch.bool, device=device)
        )
    readable = torch.from_numpy(texts.lengths > 0).to(device)
    everywhere: Tensor = encoder.processes.gather(readable.long(), texts.total)
    return everywhere.bool()
