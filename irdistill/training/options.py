"""What a training run is told, apart from its data, student and loss."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from irdistill.errors import IrdistillError
from irdistill.hardware import Precision
from irdistill.runs import Gate, Mixing
from irdistill.runs.mixing import Missing
from irdistill.training.sources import parse_sources

#: Options that change how a run is watched or cut up, and not what comes out of it.
_WITHOUT_EFFECT = ("checkpoint_every", "keep_checkpoints", "log_every")

_PENALTIES = ("query_flops", "document_flops", "query_l1", "document_l1")


@dataclass(frozen=True)
class TrainOptions:
    """Settings of one training.

    Attributes:
        steps: optimiser steps.
        batch_size: queries a step (for each process).
        list_size: documents a query, the judged relevant ones included.
        learning_rate: peak of a linear schedule that ends at 0.
        warmup: share of the steps (below 1) or number of steps over which the rate rises.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        precision: of the encoders' forward pass; the loss is always float32.
        dropout: as the backbone has it. Where little is trained for a short time it costs more than it gives:
            a query tower of two layers on labels alone gained 0.007 nDCG@10 on pydocs without it.
        seed: of the lists drawn and of dropout.
        sources: where the documents of a list come from, see `parse_sources`: ``all``, ``top``, ``1-50``,
            ``1-10:4,11-100:12``.
        positives: put documents judged relevant first in each list.
        only_scored: draw no document without a teacher's score even if the loss needs none, so that all losses are
            given the same lists.
        max_positives: at most so many of them.
        mix: how several runs become one when a list is drawn, as `fuse` would: ``mean``, ``zscore``, ``minmax``,
            ``softmax``, ``logsoftmax`` or ``rrf`` (see `irdistill.runs.Mixing`). ``none`` keeps them apart: the
            loss is taken against each, and the first run gives candidates and ranks.
        teacher_weights: one number a run: of the scores that are mixed, or with ``none`` of the losses.
        missing, mix_tau, abstain: of the mixing, as in `irdistill.runs.Mixing`.
        gate: multiplies the weights, query by query, of the scores or of the losses.
        flagged: what becomes of documents that a run flags though they have a score. ``mask``: those suspected
            to be false negatives (see `irdistill.runs.mask`) stay in the lists with their scores, and are
            nobody's negatives; ``drop``: no flagged document is drawn that is not judged relevant; ``keep``:
            flags are not looked at.
        query_flops, document_flops, query_l1, document_l1: of a sparse student, the weights of the penalties that keep its
            vectors sparse (see `irdistill.losses.regularisers`); 0 leaves one out.
        ramp: share of the steps (below 1) or number of steps over which those weights rise, quadratically.
        token_budget: padded tokens in one forward pass of a tower; 0 chooses for the device.
        deterministic: on a GPU, use slower kernels whose results are the same bits every time.
        checkpoint_every: steps between checkpoints; 0 writes none.
        keep_checkpoints: how many are kept while training goes on.
        log_every: steps between writes of the log; every step has a line in it.
    """

    steps: int = 1000
    batch_size: int = 16
    list_size: int = 8
    learning_rate: float = 2e-5
    warmup: float = 0.1
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: Precision = "auto"
    dropout: bool = True
    seed: int = 42
    sources: str = "all"
    positives: bool = True
    only_scored: bool = False
    max_positives: int = 1
    mix: str = "none"
    teacher_weights: tuple[float, ...] | None = None
    missing: Missing = "null"
    mix_tau: float | tuple[float, ...] = 1.0
    abstain: str = ""
    gate: Gate | None = None
    flagged: Literal["mask", "drop", "keep"] = "mask"
    query_flops: float = 0.0
    document_flops: float = 0.0
    query_l1: float = 0.0
    document_l1: float = 0.0
    ramp: float = 0.33
    token_budget: int = 0
    deterministic: bool = False
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    log_every: int = 20

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch_size", 1), ("list_size", 2), ("max_positives", 1),
                            ("keep_checkpoints", 1), ("log_every", 1), ("checkpoint_every", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise IrdistillError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if not self.learning_rate > 0 or self.warmup < 0:
            raise IrdistillError(
                f"learning_rate is {self.learning_rate} and warmup {self.warmup}; "
                "the rate must be above 0 and the warm-up not below."
            )
        for name in (*_PENALTIES, "ramp"):
            if not 0 <= getattr(self, name) < math.inf:
                raise IrdistillError(f"{name} is {getattr(self, name)}; it must be a finite number not below 0.")
        parse_sources(self.sources)
        for name in ("teacher_weights", "mix_tau"):  # YAML gives lists
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(map(float, value)))
        if self.flagged not in ("mask", "drop", "keep"):
            raise IrdistillError(f"flagged is {self.flagged!r}; mask, drop or keep was expected.")
        if self.mix != "none":
            self.mixing()
        elif self.abstain or self.missing != "null" or self.mix_tau != 1.0:
            raise IrdistillError(
                "abstain, missing or mix_tau was given and the teachers are not mixed; choose how, as mix=zscore."
            )

    def mixing(self) -> Mixing:
        """How the runs are mixed, where ``mix`` is not ``none``."""
        return Mixing(self.mix, self.teacher_weights, self.missing, self.mix_tau, self.abstain, self.gate)

    @property
    def warmup_steps(self) -> int:
        """The warm-up in steps."""
        return int(self.warmup * self.steps) if self.warmup < 1 else int(self.warmup)

    @property
    def ramp_steps(self) -> int:
        """The ramp of the penalties in steps."""
        return int(self.ramp * self.steps) if self.ramp < 1 else int(self.ramp)

    @property
    def regularised(self) -> bool:
        """Whether a penalty has a weight."""
        return any(getattr(self, name) for name in _PENALTIES)

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights; the penalties only where there is one."""
        left_out = {*_WITHOUT_EFFECT, *(() if self.regularised else (*_PENALTIES, "ramp"))}
        return {key: value for key, value in asdict(self).items() if key not in left_out}
