"""The option group of vectors that may be cut: dimensions at which the loss is taken."""

from __future__ import annotations

import math
from dataclasses import dataclass

from irdistill.errors import IrdistillError


@dataclass(frozen=True)
class Matryoshka:
    """Of a dense student: the loss is taken on vectors cut to each of some dimensions, so that the
    saved model may be cut to any.

    Vectors that are cut are made of length 1 again, for cosine (Kusupati et al. 2022,
    arXiv:2205.13147).

    Attributes:
        matryoshka_dims: numbers of dimensions, whose losses are summed. List the full dimension too
            if it is to be used.
        matryoshka_weights: of the losses at these dimensions; all 1 unless given.
    """

    matryoshka_dims: tuple[int, ...] = ()
    matryoshka_weights: tuple[float, ...] | None = None

    def check(self) -> None:
        dims, weights = tuple(self.matryoshka_dims), self.matryoshka_weights
        if any(int(dim) != dim or dim < 1 for dim in dims) or len(set(dims)) < len(dims):
            raise IrdistillError(
                f"matryoshka_dims is {dims}; different whole numbers of at least 1 were expected."
            )
        object.__setattr__(self, "matryoshka_dims", tuple(map(int, dims)))
        if weights is None:
            return
        if len(weights) != len(dims) or not all(0 < weight < math.inf for weight in weights):
            raise IrdistillError(
                f"matryoshka_weights is {weights}; a number above 0 for each of {len(dims)}"
                " dimensions is wanted."
            )
        object.__setattr__(self, "matryoshka_weights", tuple(map(float, weights)))

    def idle(self) -> set[str]:
        return set() if self.matryoshka_dims else {"matryoshka_dims", "matryoshka_weights"}

    @property
    def matryoshka(self) -> tuple[tuple[int | None, float], ...]:
        """The dimensions at which the loss is taken, with their weights; None is all of them."""
        if not self.matryoshka_dims:
            return ((None, 1.0),)
        return tuple(
            zip(
                self.matryoshka_dims,
                self.matryoshka_weights or (1.0,) * len(self.matryoshka_dims),
                strict=True,
            )
        )
