"""Options of `train` for its length, peak learning rates and batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field


@dataclass(frozen=True)
class LoopOptions:
    """Length, peak learning rates and batches of a training; a part of `TrainOptions`."""

    # Length and learning rate
    steps: Annotated[int, Field(ge=1, description="Optimizer steps.")] = 1000
    epochs: Annotated[
        float,
        Field(
            ge=0,
            description="Passes over the queries, instead of steps; may be a fraction."
            " 0 uses steps.",
        ),
    ] = 0.0
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 2e-5
    head_learning_rate: Annotated[
        Annotated[float, Field(gt=0)] | None,
        Field(
            description="Peak learning rate of the new layers (the head) of a split cross-encoder"
            " or kernel student, and of the query weights of an inference-free sparse student. None"
            " uses learning_rate."
        ),
    ] = None

    # Batches
    batch_size: Annotated[int, Field(ge=1, description="Lists per step and process.")] = 16
    list_size: Annotated[int, Field(ge=2, description="Documents per list.")] = 8
    gradient_accumulation: Annotated[
        int,
        Field(
            ge=1,
            description="Micro-batches per step. The lists of a step are split into this many"
            " parts, whose gradients are averaged. In-batch losses and sparsity penalties see one"
            " micro-batch at a time, so in-batch negatives are fewer; grad_cache saves memory"
            " without this effect.",
        ),
    ] = 1
    grad_cache: Annotated[
        bool,
        Field(
            description="Recompute activations for the gradients (GradCache). Memory is bounded by"
            " token_budget instead of the batch, for a second forward pass. The gradients are the"
            " same."
        ),
    ] = False
    dropout: Annotated[
        bool,
        Field(
            description="Use the dropout of the backbone. Short trainings of few layers are better"
            " without it."
        ),
    ] = True
