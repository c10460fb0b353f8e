"""Options of `align`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.modeling import Precision
from irdistill.option_checks import check_fields
from irdistill.training.options import WITHOUT_EFFECT, Tracker, TrainOptions

Side = Literal["query", "document", "both"]


@dataclass(frozen=True)
class AlignOptions:
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
    loss_learning_rate: Annotated[
        float,
        Field(
            gt=0,
            description="Peak learning rate of the parameters of the loss, such as the maps of"
            " MIAlpha.",
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
    ] = 0.05
    weight_decay: Annotated[float, Field(description="Weight decay of AdamW.")] = 0.0
    max_grad_norm: Annotated[float, Field(description="Maximum gradient norm; 0 is no limit.")] = (
        1.0
    )

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
    token_budget: Annotated[
        int, Field(ge=0, description="Padded tokens per forward pass of a tower; 0 is automatic.")
    ] = 0
    matryoshka_dims: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        Field(
            description="Dimensions at which the loss is taken and summed, on the first numbers of"
            " the vectors of both models. Include the full dimension if it will be used."
        ),
    ] = ()
    matryoshka_weights: Annotated[
        tuple[Annotated[float, Field(gt=0)], ...] | None,
        Field(description="Weight of the loss at each of the matryoshka_dims; 1 by default."),
    ] = None
    precision: Annotated[
        Precision,
        Field(
            description="Precision of the forward passes of both models; auto is bfloat16 where"
            " the hardware is fast at it. The loss is always computed in float32."
        ),
    ] = "auto"
    dropout: Annotated[bool, Field(description="Use the dropout of the student.")] = False
    seed: Annotated[int, Field(ge=0, description="Random seed.")] = 42
    deterministic: Annotated[
        bool, Field(description="Bit-identical results on a GPU (slower).")
    ] = False

    # Checkpoints and logs
    checkpoint_every: Annotated[
        int, Field(ge=0, description="Steps between checkpoints; 0: none.")
    ] = 500
    checkpoint_seconds: Annotated[
        float,
        Field(ge=0, description="Seconds between checkpoints; 0 disables checkpoints by time."),
    ] = 60.0
    keep_checkpoints: Annotated[int, Field(ge=1, description="Checkpoints to keep.")] = 2
    log_every: Annotated[int, Field(ge=1, description="Steps between writes of the log.")] = 20
    track: Annotated[
        tuple[Tracker, ...], Field(description="Experiment trackers, besides train_log.jsonl.")
    ] = ()

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.steps and not self.epochs:
            raise OptionError("epochs and steps are both 0; set one of them.")
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
        return {name: value for name, value in asdict(self).items() if name not in WITHOUT_EFFECT}
