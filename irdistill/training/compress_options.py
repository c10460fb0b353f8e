"""Options of `compress`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.option_checks import check_fields


@dataclass(frozen=True, kw_only=True)
class CompressOptions:
    """How linear layers for short vectors are fitted.

    Raises:
        OptionError: a value is out of bounds, or dimensions are repeated.

    Examples:
        >>> CompressOptions(dimensions=(192, 96), vectors="binary").sizes
        (192, 96)
    """

    dimensions: Annotated[
        tuple[Annotated[int, Field(ge=1)], ...],
        Field(
            description="Dimensions that searches will cut the vectors to; the model's vectors have"
            " the largest (default: that of the model)."
        ),
    ] = ()
    vectors: Annotated[
        Literal["float", "int8", "binary"],
        Field(description="Codes that the document vectors are fitted for."),
    ] = "binary"
    method: Annotated[
        Literal["learned", "rotation", "pca"],
        Field(
            description="pca: principal components of the document vectors. rotation: these,"
            " rotated so that signs lose least (ITQ). learned: begins there, and learns the"
            " model's own float scores by gradients."
        ),
    ] = "rotation"
    steps: Annotated[int, Field(ge=1, description="Optimizer steps of learned.")] = 300
    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, description="Queries per step.")] = 64
    nearest: Annotated[
        int, Field(ge=1, description="Nearest documents of each query in the loss.")
    ] = 16
    random_documents: Annotated[
        int, Field(ge=0, description="Random documents of each step in the loss.")
    ] = 256
    tau: Annotated[
        float, Field(gt=0, description="Temperature of the float scores that are learned.")
    ] = 0.03
    spread_out: Annotated[
        float,
        Field(ge=0, description="Weight of the squared cosines of random documents, times D."),
    ] = 1.0
    document_queries: Annotated[
        int,
        Field(ge=0, description="Documents that serve as queries, besides the collection's own."),
    ] = 8192
    seed: Annotated[int, Field(ge=0, lt=2**32, description="Random seed.")] = 42

    def __post_init__(self) -> None:
        check_fields(self)
        if len(set(self.dimensions)) < len(self.dimensions):
            raise OptionError(f"dimensions is {list(self.dimensions)}; the dimensions must differ.")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The dimensions in descending order."""
        return tuple(sorted(self.dimensions, reverse=True))
