"""Batches with random vectors of teacher and student, for losses between representations."""

from __future__ import annotations

import math
from typing import Any

import torch

from irdistill.losses import (
    BatchRepresentations,
    ScoreBatch,
    SpanVectors,
    TokenVectors,
)

NAN = math.nan


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def batch(
    student_vectors: BatchRepresentations,
    theirs: BatchRepresentations,
    lists: int = 3,
    width: int = 4,
    **sample_batch: Any,
) -> ScoreBatch:
    fields = {
        "student": normal(lists, width, seed=8),
        "teacher": normal(lists, width, seed=9),
    } | sample_batch
    return ScoreBatch(
        **fields, student_representations=student_vectors, teacher_representations=theirs
    )


def sides(student: torch.Tensor, teacher: torch.Tensor, **sample_batch: Any) -> ScoreBatch:
    return batch(
        BatchRepresentations(documents=student),
        BatchRepresentations(documents=teacher),
        **sample_batch,
    )


def tokens(vectors: torch.Tensor, *lengths: int) -> TokenVectors:
    return TokenVectors(
        vectors, torch.arange(vectors.shape[1])[None] < torch.tensor(lengths)[:, None]
    )


def spans(vectors: torch.Tensor, places: list[list[int]]) -> SpanVectors:
    """Spans whose numbers of each text's tokens are given."""
    sizes = torch.tensor([max([-1, *row]) + 1 for row in places])
    width = max(map(len, places))
    return SpanVectors(
        vectors,
        torch.arange(vectors.shape[1])[None] < sizes[:, None],
        torch.tensor([row + [-1] * (width - len(row)) for row in places]),
        torch.tensor([len(row) for row in places]),
    )


def graph(student_vectors: TokenVectors, theirs: TokenVectors) -> ScoreBatch:
    return batch(
        BatchRepresentations(document_tokens=student_vectors),
        BatchRepresentations(document_tokens=theirs),
    )
