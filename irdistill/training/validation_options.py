"""Options of `train` for measuring the student during training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

LOSS = "loss"
"""The measure that is the loss on the lists of held-out queries."""


@dataclass(frozen=True)
class ValidationOptions:
    """How the student is measured during training; a part of `TrainOptions`.

    What it is measured on is the argument ``validate`` of `train`.
    """

    # Validation
    validate_measures: Annotated[
        str,
        Field(
            description="Measures of the validation, as ir-measures writes them, and loss, the loss"
            " on the lists of held-out queries. The first one decides which weights are kept."
        ),
    ] = "nDCG@10 R@100"
    validate_every: Annotated[
        int,
        Field(
            ge=0,
            description="Steps between validations; one before the first step and one after the"
            " last are added. 0 chooses as many as take about 5% of the training, by the number of"
            " encoded texts.",
        ),
    ] = 0
    validate_queries: Annotated[
        int,
        Field(
            ge=0,
            description="Most queries of each validation collection, a random sample; 0 uses all.",
        ),
    ] = 200
    validate_documents: Annotated[
        Annotated[int, Field(ge=0)] | None,
        Field(
            description="Documents to search in a validation: the judged ones, the candidates, and"
            " random ones up to this number; 0 searches all. By default all if the document tower"
            " is frozen, else 2000."
        ),
    ] = None
    validate_depth: Annotated[
        int,
        Field(
            ge=1,
            description="Candidates per query that a validation reranks, or adds to a sample of the"
            " documents.",
        ),
    ] = 20
    early_stop: Annotated[
        int,
        Field(
            ge=0,
            description="Stop after this many validations without a better value of the first"
            " measure. 0 trains all steps; the best weights are kept either way.",
        ),
    ] = 0

    def validation_settings(self) -> dict[str, Any]:
        """The values of these options, by name."""
        return {name: getattr(self, name) for name in VALIDATION}


VALIDATION = frozenset(ValidationOptions.__dataclass_fields__)
"""Names of the options. They are in the identity of a training only if it has a validation."""
