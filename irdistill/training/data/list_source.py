"""What lists are drawn from, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from irdistill.runs import Gate

Judgments = Mapping[str, Mapping[int, int]]
"""For each query id the judged documents: row number -> grade."""


class ListSource(Protocol):
    """What the sampler reads of a compiled run; a run with flags also has ``flags(i)``."""

    @property
    def query_ids(self) -> Sequence[str]:
        """Ids of the Q queries."""
        ...

    @property
    def index(self) -> Mapping[str, int]:
        """Query id -> number of its list."""
        ...

    def list(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of one list, both (n,), best first."""
        ...


@dataclass(frozen=True)
class SamplerOptions:
    """How lists are drawn.

    Attributes:
        batch_size: lists per step.
        list_size: documents per list, at most.
        sources: ranks to draw from, see `parse_sources`.
        positives: put judged relevant documents first, at most ``max_positives``.
        scored: draw only documents that a run with a weight above 0 scored.
        unscored_positives: include relevant documents that no run scored or contains.
        flagged: ``mask``, ``drop`` or ``keep``, see `irdistill.training.TrainOptions`. Flags of all
            runs count.
        margin_bins: draw from this many ranges of the first run's score, see `draw_by_margin`; 0
            draws by rank.
        teacher_weights: (T,) weights of the runs in the loss; ``gate`` multiplies them query by
            query.
    """

    batch_size: int
    list_size: int
    seed: int
    sources: str = "all"
    positives: bool = True
    max_positives: int = 1
    scored: bool = True
    unscored_positives: bool = False
    flagged: Literal["mask", "drop", "keep"] = "keep"
    margin_bins: int = 0
    teacher_weights: tuple[float, ...] | None = None
    gate: Gate | None = None

    def active(self, runs: int) -> list[bool]:
        """Which of the runs have a weight above 0."""
        if self.teacher_weights is None:
            return [True] * runs
        return [weight > 0 for weight in self.teacher_weights]
