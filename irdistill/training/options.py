"""What a training run is told, apart from its data, student and loss."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import Precision
from irdistill.runs import Gate, Mixing
from irdistill.runs.mixing import Missing
from irdistill.training.data.sources import parse_sources
from irdistill.training.objectives.matryoshka import Matryoshka
from irdistill.training.option_groups import (
    GROUPS,
    EarlyStop,
    Mining,
    Penalties,
    SamplingOptions,
    Schedule,
    one_of,
)

#: Options that change how a run is watched or cut up, and not what comes out of it.
_WITHOUT_EFFECT = (
    "checkpoint_every",
    "checkpoint_seconds",
    "keep_checkpoints",
    "log_every",
    "grad_cache",
)


@dataclass(frozen=True)
class TrainOptions(Schedule, EarlyStop, Penalties, SamplingOptions, Mining, Matryoshka):
    """Settings of one training: these, and those of `irdistill.training.option_groups`.

    Attributes:
        batch_size: queries a step (for each process).
        list_size: documents a query, the judged relevant ones included.
        weight_decay: of AdamW.
        max_grad_norm: gradients are clipped to this norm.
        precision: of the encoders' forward pass; the loss is always float32.
        dropout: as the backbone has it. Where little is trained for a short time it costs more than
            it gives: a query tower of two layers on labels alone gained 0.007 nDCG@10 on pydocs
            without it.
        seed: of the lists drawn and of dropout.
        sources: where the documents of a list come from, see `parse_sources`: ``all``, ``top``,
            ``1-50``, ``1-10:4,11-100:12``.
        positives: put documents judged relevant first in each list.
        only_scored: draw no document without a teacher's score even if the loss needs none, so that
            all losses are given the same lists.
        max_positives: at most so many of them.
        mix: how several runs become one when a list is drawn, as `fuse` would: ``mean``,
            ``zscore``, ``minmax``, ``softmax``, ``logsoftmax`` or ``rrf`` (see
            `irdistill.runs.Mixing`). ``none`` keeps them apart: the loss is taken against each, and
            the first run gives candidates and ranks.
        teacher_weights: one number a run: of the scores that are mixed, or with ``none`` of the
            losses.
        missing, mix_tau, abstain: of the mixing, as in `irdistill.runs.Mixing`.
        gate: multiplies the weights, query by query, of the scores or of the losses.
        flagged: what becomes of documents that a run flags though they have a score. ``mask``:
            those suspected to be false negatives (see `irdistill.runs.mask`) stay in the lists with
            their scores, and are nobody's negatives; ``drop``: no flagged document is drawn that is
            not judged relevant; ``keep``: flags are not looked at.
        token_budget: padded tokens in one forward pass of a tower; 0 chooses for the device.
        grad_cache: keep of a forward pass only the vectors and make its activations again for the
            gradients, so that memory is bounded by the token budget and not by the batch, at the
            price of a second forward pass. The gradients are the same.
        deterministic: on a GPU, use slower kernels whose results are the same bits every time.
        checkpoint_every: steps between checkpoints; 0 writes none, by time neither.
        checkpoint_seconds: seconds of training between checkpoints, so that a short or slow
            training has some too; 0 for none by time. Where a checkpoint takes more than a
            twentieth of this to write, they are further apart.
        keep_checkpoints: how many are kept while training goes on.
        log_every: steps between writes of the log; every step has a line in it.
    """

    batch_size: int = 16
    list_size: int = 8
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
    token_budget: int = 0
    grad_cache: bool = False
    deterministic: bool = False
    checkpoint_every: int = 500
    checkpoint_seconds: float = 60.0
    keep_checkpoints: int = 2
    log_every: int = 20

    def __post_init__(self) -> None:
        for name, least in (
            ("batch_size", 1),
            ("list_size", 2),
            ("max_positives", 1),
            ("keep_checkpoints", 1),
            ("log_every", 1),
            ("checkpoint_every", 0),
            ("checkpoint_seconds", 0),
            ("seed", 0),
        ):
            if getattr(self, name) < least:
                raise IrdistillError(
                    f"{name} is {getattr(self, name)}; it must be at least {least}."
                )
        for group in (*GROUPS, Matryoshka):
            group.check(self)
        if self.margin_bins and any(source.take for source in parse_sources(self.sources)):
            raise IrdistillError(
                "margin_bins was given, and sources with counts; the bins say how many come from"
                " where."
            )
        parse_sources(self.sources)
        for name in ("teacher_weights", "mix_tau"):  # YAML gives lists
            if isinstance(value := getattr(self, name), list):
                object.__setattr__(self, name, tuple(map(float, value)))
        one_of(self, "flagged", "mask", "drop", "keep")
        if self.mix != "none":
            self.mixing()
        elif self.abstain or self.missing != "null" or self.mix_tau != 1.0:
            raise IrdistillError(
                "abstain, missing or mix_tau was given and the teachers are not mixed; choose how,"
                " as mix=zscore."
            )

    def mixing(self) -> Mixing:
        """How the runs are mixed, where ``mix`` is not ``none``."""
        return Mixing(
            self.mix, self.teacher_weights, self.missing, self.mix_tau, self.abstain, self.gate
        )

    @property
    def ramp_steps(self) -> int:
        """The ramp of the penalties in steps."""
        return self.in_steps(self.ramp)

    def identity(self) -> dict[str, Any]:
        """What decides the trained weights, and nothing that is idle, so that a policy that is off
        changes no identity.
        """
        left_out = set(_WITHOUT_EFFECT)
        for group in (*GROUPS, Matryoshka):
            left_out |= group.idle(self)
        return {key: value for key, value in asdict(self).items() if key not in left_out}
