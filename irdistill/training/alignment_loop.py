"""The training loop of `align`: losses between the vectors of student and teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from irdistill.errors import OptionError
from irdistill.losses import BatchRepresentations, Loss, ScoreBatch, make_loss_parameters
from irdistill.losses.embedding import SIDES, TowerSide
from irdistill.losses.loss_base import weighted_sum
from irdistill.modeling.hardware import choose_dtype
from irdistill.students.student_base import Student
from irdistill.training.align_options import AlignOptions, Side
from irdistill.training.data.collate import TokenRows, TrainBatch
from irdistill.training.data.text_batches import TextCollator
from irdistill.training.loop import TrainingLoop
from irdistill.training.objectives.encode import Encoder
from irdistill.training.processes import Processes


def learned_sides(side: Side) -> tuple[TowerSide, ...]:
    """The towers that learn.

    Examples:
        >>> learned_sides("both")
        ('query', 'document')
    """
    return ("query", "document") if side == "both" else (side,)


def loss_of_sides(loss: Loss, side: Side) -> Loss:
    """The loss with the sides that learn; the mean of both for ``both``.

    Losses are written without a side, such as ``EmbeddingCosine + 0.1*Relational``.

    Raises:
        OptionError: a loss reads scores, labels or pairs, or names a side.

    Examples:
        >>> from irdistill.losses import EmbeddingMSE
        >>> loss_of_sides(EmbeddingMSE(), "both")
        0.5*EmbeddingMSE + 0.5*EmbeddingMSE(side="document")
    """
    sides = learned_sides(side)
    for _, term in loss.terms:
        named = getattr(term, "side", None)
        compared = term.representations and term.representations <= {"queries", "documents"}
        if named is None or not compared or not term.needs <= {"representation"}:
            raise OptionError(
                f"the loss {term} does not compare vectors of texts, and align has no documents,"
                " scores or labels. Use EmbeddingCosine, EmbeddingMSE, Relational, SpreadOut or"
                " MIAlpha; train takes them together with losses of scores."
            )
        if named not in ("query", *sides):
            raise OptionError(
                f"the loss {term} is of documents, and side={side}; leave the side out of the loss."
            )
    share = 1 / len(sides)
    parts = [
        (share * weight, replace(term, side=name))  # type: ignore[type-var]
        for name in sides
        for weight, term in loss.terms
    ]
    return weighted_sum(tuple(parts))


class AlignmentLoop(TrainingLoop):
    """A training loop on texts without documents: the loss compares vectors."""

    def loss_terms(self, step: int, batch: TrainBatch) -> tuple[list[str], Tensor]:
        """The names (n,) and weighted values (n,) of the terms of the loss."""
        student = encode_texts(self.encoder, batch)
        names: list[str] = []
        terms: list[Tensor] = []
        for dimension, share in self.options.matryoshka:
            scores = vector_batch(student, batch, dimension, self.loss_parameters)
            for weight, term in self.loss.terms:
                names.append(str(term) if dimension is None else f"{term} [:{dimension}]")
                terms.append(share * weight * term(scores))
        return names, torch.stack(terms)


def encode_texts(encoder: Encoder, batch: TrainBatch) -> BatchRepresentations:
    """The student's vectors of a batch's texts, with gradients."""
    documents = batch.documents
    assert isinstance(documents, TokenRows)
    return BatchRepresentations(
        queries=encoder(batch.queries, "query") if batch.queries.rows else None,
        documents=encoder.documents(documents) if documents.rows else None,
    )


def vector_batch(
    student: BatchRepresentations,
    batch: TrainBatch,
    dimension: int | None = None,
    parameters: Mapping[str, nn.Module] | None = None,
) -> ScoreBatch:
    """The input of a loss that compares vectors; there are no scores.

    Args:
        dimension: cut the vectors of both models to this many numbers.
    """
    vectors = next(
        value for name in SIDES.values() if (value := getattr(student, name)) is not None
    )
    teacher = batch.representations
    assert teacher is not None
    teacher = teacher.to(vectors.device)
    if dimension is not None:
        student, teacher = student.first(dimension), teacher.first(dimension)
    return ScoreBatch(
        student=vectors[:, :0],
        student_representations=student,
        teacher_representations=teacher,
        parameters=parameters or {},
    )


def new_loss_parameters(
    loss: Loss,
    student: Student,
    collator: TextCollator,
    options: AlignOptions,
    processes: Processes,
) -> dict[str, nn.Module]:
    """New modules that the loss learns, in the shapes of the first batch."""
    if not any(basic.has_parameters for basic in loss.basic_losses):
        return {}
    student.model.eval()
    with torch.no_grad():
        encoder = Encoder(
            student,
            choose_dtype(options.precision, student.device),
            options.token_budget,
            processes=processes,
        )
        batch = collator(0)
        example = vector_batch(encode_texts(encoder, batch), batch)
    return make_loss_parameters(loss, example, None, options.seed)
