"""Options of `train` for its length, learning rate and batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from irdistill.modeling import Precision


@dataclass(frozen=True)
class LoopOptions:
    """Length, learning rate and batches of a training; a part of `TrainOptions`."""

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
            " or kernel student. None uses learning_rate."
        ),
    ] = None
    loss_learning_rate: Annotated[
        float,
        Field(
            gt=0,
            description="Peak learning rate of the parameters of the loss, such as the projection"
            " of EmbeddingMSE.",
        ),
    ] = 1e-3
    schedule: Annotated[
        Literal["linear", "cosine", "constant"],
        Field(description="Shape of the learning rate after the warmup."),
    ] = "linear"
    floor: Annotated[
        float, Field(ge=0, le=1, description="Final share of the peak rate (0 to 1).")
    ] = 0.0
    warmup: Annotated[
        float,
        Field(
            ge=0,
            description="Warmup of the learning rate: a share of the steps (below 1) or a number"
            " of steps.",
        ),
    ] = 0.1
    weight_decay: Annotated[float, Field(description="Weight decay of AdamW.")] = 0.0
    max_grad_norm: Annotated[float, Field(description="Maximum gradient norm; 0 is no limit.")] = (
        1.0
    )

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
    token_budget: Annotated[
        int, Field(ge=0, description="Padded tokens per forward pass of a tower; 0 is automatic.")
    ] = 0
    precision: Annotated[
        Precision,
        Field(
            description="Precision of the forward pass; auto is bfloat16 where the hardware is"
            " fast at it. The loss is always computed in float32."
        ),
    ] = "auto"
    dropout: Annotated[
        bool,
        Field(
            description="Use the dropout of the backbone. Short trainings of few layers are better"
            " without it."
        ),
    ] = True
    seed: Annotated[int, Field(ge=0, description="Random seed.")] = 42
    deterministic: Annotated[
        bool, Field(description="Bit-identical results on a GPU (slower).")
    ] = False
