"""From a batch of texts to what a loss reads: scores, and representations if it needs any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from irdistill.losses import KL, BatchRepresentations, ScoreBatch
from irdistill.search.vectors.vector_store import VectorBatch
from irdistill.training.data.collate import BankBatch, TokenRows, TrainBatch
from irdistill.training.objectives.encode import Encoder


def encode_batch(encoder: Encoder, batch: TrainBatch) -> tuple[Any, Any]:
    """Encode the queries and the unique documents once each.

    For a student that reads pairs: the scores of the pairs, and None.
    """
    if batch.pairs is not None:
        return encoder(batch.pairs, "pair"), None
    return encoder(batch.queries, "query"), encoder.documents(batch.documents)


def score_batch(
    encoder: Encoder,
    batch: TrainBatch,
    in_batch: bool,
    parameters: Mapping[str, nn.Module] | None = None,
    encoded: tuple[Any, Any] | None = None,
    dimension: int | None = None,
) -> ScoreBatch:
    """The input of a loss; teacher scores have the shape (T, B, N).

    Args:
        in_batch: compute the scores of each query against all documents of the batch.
        parameters: the modules that the loss learns, by its expression.
        encoded: the result of `encode_batch`, to score one batch more than once.
        dimension: cut dense vectors to this many dimensions; representations are not cut.
    """
    student, device = encoder.student, encoder.student.device
    index, mask = batch.index.to(device), batch.mask.to(device)
    positives = batch.positives.to(device)
    queries, documents = encoded or encode_batch(encoder, batch)
    representations: BatchRepresentations | None = None
    every: Tensor | None = None
    teacher_in_batch = _on(batch.teacher_in_batch, device)
    if documents is None:
        lists, representations = _pair_scores(queries, mask)
    else:
        has_tokens = _has_tokens(encoder, batch.documents, documents)
        mask = mask & _has_tokens(encoder, batch.queries, queries)[:, None] & has_tokens[index]
        positives = positives | ~has_tokens  # a text without tokens is never a negative
        if teacher_in_batch is not None:  # nor in a list
            teacher_in_batch = teacher_in_batch.masked_fill(~has_tokens, torch.nan)
        if batch.representations is not None or student.keep_representations:
            representations = student.representations(queries, documents)
        if dimension is not None:
            queries, documents = queries[:, :dimension], documents[:, :dimension]
        with encoder.autocast():  # for interaction layers; vectors are compared in float32
            lists, every = student.scores(queries, documents, index, in_batch)
    return ScoreBatch(
        student=lists,
        teacher=batch.teacher.to(device),
        mask=mask,
        labels=batch.labels.to(device),
        columns=index,
        in_batch=every if in_batch else None,
        teacher_in_batch=teacher_in_batch if in_batch else None,
        positives=positives,
        teacher_weights=_on(batch.teacher_weights, device),
        student_representations=representations,
        teacher_representations=(
            None if batch.representations is None else batch.representations.to(device)
        ),
        parameters=parameters or {},
    )


def bank_divergence(encoder: Encoder, queries: Any, bank: BankBatch, tau: float) -> Tensor:
    """``KL(P_T || P_S)`` over the texts of a bank, the mean over queries.

    Args:
        queries: the student's vectors of the batch's queries.
        tau: divides the scores of both models.
    """
    student = encoder.student
    if bank.queries.total:
        queries = torch.cat([queries, encoder(bank.queries, "query")])
    index = torch.zeros((len(queries), 1), dtype=torch.long, device=student.device)
    _, scores = student.scores(queries, encoder.documents(bank.texts), index)
    assert scores is not None
    teacher = bank.teacher.to(student.device)
    return KL(tau=tau, teacher_tau=tau)(ScoreBatch(student=scores, teacher=teacher))


def _on(values: Tensor | None, device: torch.device) -> Tensor | None:
    return None if values is None else values.to(device)


def _pair_scores(scores: Tensor, mask: Tensor) -> tuple[Tensor, BatchRepresentations | None]:
    """Pair scores (p,) as lists (B, N). With representations they are (p, 1 + D)."""
    representations = None
    if scores.dim() == 2:
        table = scores.new_zeros(*mask.shape, scores.shape[1] - 1)
        representations = BatchRepresentations(
            pairs=table.masked_scatter(mask[:, :, None], scores[:, 1:])
        )
        scores = scores[:, 0]
    return scores.new_zeros(mask.shape).masked_scatter(mask, scores), representations


def _has_tokens(encoder: Encoder, texts: TokenRows | VectorBatch, encoded: Any) -> Tensor:
    """(n,) bool, which texts of all processes have tokens; the others are in no loss.

    Args:
        encoded: what `encode_batch` gave for the texts.
    """
    device = encoder.student.device
    if not isinstance(encoded, Tensor):  # token vectors, of scored tokens only
        return torch.tensor([len(vectors) > 0 for vectors in encoded], device=device)
    if isinstance(texts, VectorBatch):
        if encoder.student.kind == "dense":
            return encoded.any(dim=1)
        return torch.ones(len(encoded), dtype=torch.bool, device=device)
    has_tokens = torch.from_numpy(texts.lengths > 0).to(device)
    return encoder.processes.gather(has_tokens.long(), texts.total).bool()
