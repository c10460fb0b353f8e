"""Options that the trainings share: optimizer, numbers, dimensions, checkpoints and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from irdistill.modeling import Precision

Warmup = Annotated[
    float,
    Field(
        ge=0,
        description="Warmup of the learning rate: a share of the steps (below 1) or a number"
        " of steps.",
    ),
]

Tracker = Literal[
    "tensorboard",
    "wandb",
    "trackio",
    "mlflow",
    "comet_ml",
    "aim",
    "clearml",
    "dvclive",
    "swanlab",
]

#: Options that do not change the trained weights.
WITHOUT_EFFECT = frozenset(
    {
        "checkpoint_every",
        "checkpoint_seconds",
        "keep_checkpoints",
        "log_every",
        "grad_cache",
        "track",
    }
)


@dataclass(frozen=True)
class OptimizerOptions:
    """Rate schedule, optimizer and numbers; a part of `TrainOptions` and `AlignOptions`."""

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
    warmup: Warmup = 0.1
    weight_decay: Annotated[float, Field(description="Weight decay of AdamW.")] = 0.0
    max_grad_norm: Annotated[float, Field(description="Maximum gradient norm; 0 is no limit.")] = (
        1.0
    )
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
    seed: Annotated[int, Field(ge=0, description="Random seed.")] = 42
    deterministic: Annotated[
        bool, Field(description="Bit-identical results on a GPU (slower).")
    ] = False


@dataclass(frozen=True)
class MatryoshkaOptions:
    """Dimensions of the loss; a part of `TrainOptions` and `AlignOptions`."""

    matryoshka_dims: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        Field(
            description="Dimensions at which the loss of a dense student is taken and summed"
            " (Kusupati et al. 2022, arXiv:2205.13147). Include the full dimension if it will be"
            " used."
        ),
    ] = ()
    matryoshka_weights: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...] | None,
        Field(description="Weight of the loss at each of the matryoshka_dims; 1 by default."),
    ] = None

    @property
    def matryoshka(self) -> tuple[tuple[int | None, float], ...]:
        """Dimensions at which the loss is taken, with their weights; None is all dimensions."""
        if not self.matryoshka_dims:
            return ((None, 1.0),)
        weights = self.matryoshka_weights or (1.0,) * len(self.matryoshka_dims)
        return tuple(zip(self.matryoshka_dims, weights, strict=True))


@dataclass(frozen=True)
class QuantizeOptions:
    """Short codes of document vectors; a part of `TrainOptions` and `AlignOptions`."""

    quantize: Annotated[
        Literal["none", "int8", "binary"],
        Field(
            description="Round the document vectors of a dense student to bytes or to signs before"
            " the loss, with straight-through gradients, as retrieve --vectors searches them."
            " Queries stay float. Retrieval measures of a validation search these codes, too."
        ),
    ] = "none"

    @property
    def codes(self) -> Literal["int8", "binary"] | None:
        """The codes of the document vectors, if they are rounded."""
        return None if self.quantize == "none" else self.quantize


@dataclass(frozen=True)
class CheckpointOptions:
    """Checkpoints and logs; a part of `TrainOptions` and `AlignOptions`."""

    checkpoint_every: Annotated[
        int, Field(ge=0, description="Steps between checkpoints; 0: none.")
    ] = 500
    checkpoint_seconds: Annotated[
        float,
        Field(
            ge=0,
            description="Seconds between checkpoints; 0 disables checkpoints by time. They are"
            " less frequent if writing one takes more than a twentieth of this time.",
        ),
    ] = 60.0
    keep_checkpoints: Annotated[int, Field(ge=1, description="Checkpoints to keep.")] = 2
    log_every: Annotated[
        int,
        Field(
            ge=1,
            description="Steps between writes of the log; at most five seconds pass between them.",
        ),
    ] = 20
    track: Annotated[
        tuple[Tracker, ...], Field(description="Experiment trackers, besides train_log.jsonl.")
    ] = ()
