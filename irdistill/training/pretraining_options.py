"""Options of `pretrain`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field

from irdistill.modeling import Precision
from irdistill.option_checks import check_fields
from irdistill.training.optimizer_options import WITHOUT_EFFECT, Tracker


@dataclass(frozen=True)
class PretrainOptions:
    """Options of `pretrain`.

    Raises:
        OptionError: a value is out of bounds.

    Examples:
        >>> PretrainOptions(steps=0).identity()["max_length"]
        128
    """

    steps: Annotated[
        int,
        Field(
            ge=0,
            description="Optimizer steps; 0 only shortens the backbone or draws random weights.",
        ),
    ] = 1000
    batch_size: Annotated[int, Field(ge=1, description="Documents per step.")] = 32
    learning_rate: Annotated[
        float, Field(gt=0, description="Peak learning rate of a linear schedule that ends at 0.")
    ] = 1e-4
    warmup: Annotated[
        float, Field(ge=0, lt=1, description="Warmup of the learning rate, a share of the steps.")
    ] = 0.1
    masked: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Share of the tokens to predict; 80% of them are masked and 10% replaced."
            " With a teacher: share of the tokens that both models do not read.",
        ),
    ] = 0.15
    teacher_layer: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(
            description="Layer of the teacher, counted from 1, whose states are learned; the layers"
            " above it do not run (default: at three quarters of its depth)."
        ),
    ] = None
    max_length: Annotated[
        int, Field(ge=3, description="Maximum length of a document in tokens.")
    ] = 128
    precision: Annotated[
        Precision,
        Field(
            description="Precision of the forward pass; auto is bfloat16 where the hardware is"
            " fast at it."
        ),
    ] = "auto"
    seed: Annotated[int, Field(ge=0, description="Random seed.")] = 42
    checkpoint_every: Annotated[int, Field(ge=1, description="Steps between checkpoints.")] = 500
    checkpoint_seconds: Annotated[
        float,
        Field(ge=0, description="Seconds between checkpoints; 0 disables checkpoints by time."),
    ] = 60.0
    log_every: Annotated[int, Field(ge=1, description="Steps per line of the log.")] = 20
    track: Annotated[
        tuple[Tracker, ...],
        Field(description="Experiment trackers to log to, besides train_log.jsonl."),
    ] = ()

    def __post_init__(self) -> None:
        check_fields(self)

    def identity(self) -> dict[str, Any]:
        """The options that decide the trained weights; the layer is with the teacher."""
        ignored = WITHOUT_EFFECT | {"teacher_layer"}
        return {name: value for name, value in asdict(self).items() if name not in ignored}
