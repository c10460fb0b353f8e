"""Losses between representations: gradients, number formats, several teachers, and expressions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from irdistill.errors import IrdistillError
from irdistill.losses import (
    KL,
    LELP,
    TRG,
    BatchRepresentations,
    EmbeddingCosine,
    EmbeddingMSE,
    FittingSample,
    Loss,
    MIAlpha,
    Relational,
    ScoreBatch,
    SpanCosine,
    SpanRelation,
    TokenVectors,
    make_loss_parameters,
    parse_loss,
)
from tests.losses.representation_batches import NAN, normal, spans, tokens

ALL: list[Loss] = [
    EmbeddingMSE(),
    EmbeddingMSE(side="document", normalize=False),
    EmbeddingMSE(side="pair"),
    EmbeddingCosine(),
    MIAlpha(dimension=3),
    MIAlpha(side="pair", alpha=1, dimension=None),
    MIAlpha(side="query", alpha=0.4, baseline="learned", dimension=2),
    Relational(side="document", tau=0.5),
    Relational(tau=0.2),
    SpanCosine(),
    SpanRelation(side="query", tau=0.5),
    SpanRelation(spans=6),
    TRG(),
    TRG(side="query", neighbors=2, cross=0.5),
    LELP(directions=2),
]


def everything(
    dtype: torch.dtype = torch.float64, student_vectors: int = 4, theirs: int = 5
) -> ScoreBatch:
    def states(size: int, seed: int) -> BatchRepresentations:
        return BatchRepresentations(
            normal(3, size, seed=seed).to(dtype),
            normal(6, size, seed=seed + 1).to(dtype),
            normal(3, 4, size, seed=seed + 2).to(dtype),
            tokens(normal(3, 5, size, seed=seed + 3).to(dtype), 5, 3, 1),
            tokens(normal(6, 5, size, seed=seed + 4).to(dtype), 5, 4, 3, 2, 1, 0),
            spans(normal(3, 3, size, seed=seed + 5).to(dtype), [[0, 1, 1, -1, 2], [-1, 0, 1], [0]]),
            spans(
                normal(6, 4, size, seed=seed + 6).to(dtype),
                [[0, 1, 1, -1, 2], [-1, 0, 1, 1], [0, 1, 2], [0, 0], [-1], []],
            ),
        )

    teacher = normal(3, 4, seed=30).to(dtype)
    teacher[1, 2] = NAN
    mask = torch.ones(3, 4, dtype=torch.bool)
    mask[2, 2:] = False
    return ScoreBatch(
        normal(3, 4, seed=31).to(dtype),
        teacher,
        mask,
        student_representations=states(student_vectors, 40),
        teacher_representations=states(theirs, 50),
    )


SAMPLE = FittingSample(normal(40, 5, seed=20), normal(40, seed=21), normal(2, 5, seed=22))


def parameters_for(loss: Loss, sample_batch: ScoreBatch) -> dict[str, nn.Module]:
    return make_loss_parameters(
        loss, sample_batch, SAMPLE if loss.basic_losses[0].fits_to_sample else None
    )


def fitting(loss: Loss, dtype: torch.dtype = torch.float64) -> ScoreBatch:
    same = isinstance(loss, MIAlpha) and loss.dimension is None
    return everything(dtype, 5 if same else 4)


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_gradients(loss: Loss) -> None:
    sample_batch = fitting(loss)
    parameters = parameters_for(loss, sample_batch)
    states = sample_batch.student_representations
    assert (
        states is not None
        and states.query_tokens is not None
        and states.document_tokens is not None
    )
    inputs = [
        sample_batch.student,
        states.queries,
        states.documents,
        states.pairs,
        states.query_tokens.vectors,
        states.document_tokens.vectors,
    ]

    def of(*values: torch.Tensor) -> torch.Tensor:
        assert (
            states is not None
            and states.query_tokens is not None
            and states.document_tokens is not None
        )
        made = BatchRepresentations(
            *values[1:4],
            TokenVectors(values[4], states.query_tokens.mask),
            TokenVectors(values[5], states.document_tokens.mask),
        )
        return loss(
            ScoreBatch(
                values[0],
                sample_batch.teacher,
                sample_batch.mask,
                student_representations=made,
                teacher_representations=sample_batch.teacher_representations,
                parameters=parameters,
            )
        ) + sum(value.sum() * 0.0 for value in values)

    assert torch.autograd.gradcheck(of, [value.clone().requires_grad_() for value in inputs])  # type: ignore[union-attr]


@pytest.mark.parametrize("loss", ALL, ids=str)
def test_half_precision_several_teachers_and_the_language(loss: Loss) -> None:
    half = fitting(loss, torch.float16)
    parameters = parameters_for(loss, half)
    value = loss(
        ScoreBatch(
            half.student,
            half.teacher,
            half.mask,
            student_representations=half.student_representations,
            teacher_representations=half.teacher_representations,
            parameters=parameters,
        )
    )
    assert value.dtype == torch.float32
    wide = fitting(loss)
    exact = loss(
        ScoreBatch(
            wide.student,
            wide.teacher,
            wide.mask,
            student_representations=wide.student_representations,
            teacher_representations=wide.teacher_representations,
            parameters={k: m.double() for k, m in parameters.items()},
        )
    )
    assert value.item() == pytest.approx(exact.item(), rel=0.02, abs=0.005)
    assert (
        parse_loss(str(loss)) == loss
        and parse_loss(f"KL + 0.5*{loss}@2").representations == loss.representations
    )
    assert "representation" in loss.needs and loss.representations
    both = ScoreBatch(
        wide.student,
        torch.stack([wide.teacher, wide.teacher]),
        wide.mask,  # type: ignore[list-item]
        teacher_weights=torch.tensor([[1.0, 2.0, 1.0], [2.0, 1.0, 1.0]]),
        student_representations=wide.student_representations,
        teacher_representations=wide.teacher_representations,
        columns=torch.zeros(3, 4, dtype=torch.int64),
        parameters=parameters,
    )
    assert torch.isfinite(loss(both)) and torch.isfinite((KL() + 0.1 * loss)(both))


def test_parameters_that_have_no_meaning() -> None:
    for text, match in (
        ('EmbeddingMSE(side="token")', "must be one of"),
        ("EmbeddingMSE(normalize=2)", "True or False"),
        ("MIAlpha(alpha=1.5)", "at most 1"),
        ("MIAlpha(dimension=0)", "whole number of at least 1"),
        ("TRG(cross=0, within=0)", "compares nothing"),
        ("TRG(within=-1)", "at least 0"),
        ("TRG(tokens=1)", "at least 2"),
        ("LELP(directions=0)", "at least 1"),
        ('LELP(threshold="x")', "must be a finite number"),
    ):
        with pytest.raises(IrdistillError, match=match):
            parse_loss(text)
