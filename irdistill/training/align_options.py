"""Options of `align`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.option_checks import check_fields
from irdistill.training.optimizer_options import (
    WITHOUT_EFFECT,
    CheckpointOptions,
    MatryoshkaOptions,
    OptimizerOptions,
    QuantizeOptions,
    Warmup,
)
from irdistill.training.options import TrainOptions

Side = Literal["query", "document", "both"]


@dataclass(frozen=True)
class AlignOptions(CheckpointOptions, MatryoshkaOptions, QuantizeOptions, OptimizerOptions):
    """Options of `align`, apart from its texts, models and loss.

    Raises:
        OptionError: a value is out of bounds.

    Examples:
        >>> options = AlignOptions(epochs=2, batch_size=32)
        >>> options.for_loop(texts=100).steps
        7
    """

    side: Annotated[
        Side,
        Field(
            description="Tower of the student that learns, and as what the teacher encodes the"
            " texts; both: each text as a query and as a document."
        ),
    ] = "query"

    # Start
    start: Annotated[
        Literal["least-squares", "none"],
        Field(
            description="How the student begins. least-squares: with a linear layer that maps its"
            " vectors as closely as possible to the teacher's. none: as it is, or with a random"
            " layer if its vectors have another length."
        ),
    ] = "least-squares"
    start_texts: Annotated[
        int, Field(ge=2, description="Texts that the linear layer is fitted to.")
    ] = 4096
    freeze_embeddings: Annotated[
        bool,
        Field(
            description="Keep the token embeddings of the student as they are. Saves time where"
            " they are most of its parameters."
        ),
    ] = False

    # Length and learning rate
    epochs: Annotated[
        float, Field(ge=0, description="Passes over the texts; may be a fraction.")
    ] = 3.0
    steps: Annotated[
        int, Field(ge=0, description="Optimizer steps, instead of epochs. 0 uses epochs.")
    ] = 0
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 3e-4
    warmup: Warmup = 0.05

    # Batches
    batch_size: Annotated[int, Field(ge=1, description="Texts per step and process.")] = 64
    gradient_accumulation: Annotated[
        int,
        Field(
            ge=1,
            description="Micro-batches per step, whose gradients are averaged. Relational and"
            " spread-out losses see one micro-batch at a time.",
        ),
    ] = 1
    dropout: Annotated[bool, Field(description="Use the dropout of the student.")] = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.steps and not self.epochs:
            raise OptionError("epochs and steps are both 0; set one of them.")
        if self.codes is not None and self.side == "query":
            raise OptionError(
                f"quantize={self.quantize} was given with side=query; it rounds document vectors,"
                " which are learned with side=document or side=both."
            )
        self.for_loop(self.batch_size)

    def for_loop(self, texts: int) -> TrainOptions:
        """The options of the training loop.

        Args:
            texts: number of texts of an epoch, divided by the number of processes.
        """
        values = {
            field.name: getattr(self, field.name)
            for field in fields(TrainOptions)
            if hasattr(self, field.name) and field.name != "epochs"
        }
        if not self.steps:
            values["steps"] = max(1, -int(-self.epochs * texts // self.batch_size))
        return TrainOptions(**values)

    def identity(self) -> dict[str, Any]:
        """The options that decide the trained weights."""
        ignored = WITHOUT_EFFECT | ({"quantize"} if self.codes is None else set())
        return {name: value for name, value in asdict(self).items() if name not in ignored}
