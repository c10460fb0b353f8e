"""Options of `train`.

Each field is declared once, with its type, bounds and help text. The command line, the recipe
schema and the option tables in the documentation are derived from these declarations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.option_checks import check_fields
from irdistill.runs import Mixing
from irdistill.training.data.sources import parse_sources
from irdistill.training.list_options import ListOptions
from irdistill.training.loop_options import LoopOptions
from irdistill.training.optimizer_options import (
    WITHOUT_EFFECT,
    CheckpointOptions,
    MatryoshkaOptions,
    OptimizerOptions,
    QuantizeOptions,
)
from irdistill.training.validation_options import VALIDATION, ValidationOptions


@dataclass(frozen=True)
class TrainOptions(
    CheckpointOptions,
    MatryoshkaOptions,
    QuantizeOptions,
    ValidationOptions,
    ListOptions,
    OptimizerOptions,
    LoopOptions,
):
    """Options of `train`, apart from its data, student and loss.

    Raises:
        OptionError: a value is out of bounds, or two options contradict each other.

    Examples:
        >>> options = TrainOptions(steps=100, warmup=0.1, learning_rate=1e-4)
        >>> options.warmup_steps, options.rate(5)
        (10, 0.5)
    """

    # Sparse students
    query_flops: Annotated[float, Field(ge=0, description="FLOPS penalty of query vectors.")] = 0.0
    document_flops: Annotated[
        float, Field(ge=0, description="FLOPS penalty of document vectors.")
    ] = 0.0
    query_l1: Annotated[float, Field(ge=0, description="L1 penalty of query vectors.")] = 0.0
    document_l1: Annotated[float, Field(ge=0, description="L1 penalty of document vectors.")] = 0.0
    ramp: Annotated[
        float,
        Field(
            ge=0,
            description="Quadratic ramp of the penalties: a share of the steps (below 1) or a"
            " number of steps.",
        ),
    ] = 0.33
    query_active: Annotated[
        int,
        Field(
            ge=0,
            description="Target number of active dimensions of query vectors. A controller adjusts"
            " the penalty weights instead of the ramp. 0 sets no target.",
        ),
    ] = 0
    document_active: Annotated[int, Field(ge=0, description="Target for documents.")] = 0
    document_above: Annotated[
        int,
        Field(
            ge=0,
            description="Penalize only documents with more active dimensions than this (the l0 mask"
            " of Shen et al. 2025, arXiv:2504.14839).",
        ),
    ] = 0
    idf_penalty: Annotated[
        bool,
        Field(
            description="Divide the weights of documents by the IDF of their tokens in the"
            " penalties, so that rare tokens are penalized less (Geng et al. 2024,"
            " arXiv:2411.04403)."
        ),
    ] = False
    idf_start: Annotated[
        bool,
        Field(
            description="Start the query weights of an inference-free student at the IDF of the"
            " tokens in the corpus, instead of the weights that it has."
        ),
    ] = False
    anti_zero: Annotated[
        float,
        Field(
            ge=0,
            description="Weight of a penalty that grows as all weights of a side approach zero.",
        ),
    ] = 0.0

    # Guard against forgetting
    keep_tolerance: Annotated[
        float,
        Field(ge=0, description="How far the measure may fall on a probe that keep names."),
    ] = 0.0
    bank_size: Annotated[
        int, Field(ge=2, description="Texts of the bank, drawn at random from its sources.")
    ] = 256
    bank_queries: Annotated[
        int,
        Field(
            ge=0,
            description="Texts of the bank that are read as queries in each step, besides the"
            " training queries.",
        ),
    ] = 16
    bank_weight: Annotated[
        float, Field(gt=0, description="Weight of the divergence over the bank in the loss.")
    ] = 3.0
    bank_tau: Annotated[
        float,
        Field(
            gt=0,
            description="Divides the scores of student and teacher in the softmax over the bank.",
        ),
    ] = 0.05

    def __post_init__(self) -> None:
        check_fields(self)
        sources = parse_sources(self.sources)
        for problem in self._contradictions(any(source.take for source in sources)):
            raise OptionError(problem)
        if self.mix != "none":
            self.mixing()

    def _contradictions(self, counted_sources: bool) -> Iterator[str]:
        """Messages about options that do not work together."""
        if self.gradient_accumulation > self.batch_size:
            yield (
                f"gradient_accumulation is {self.gradient_accumulation}, and a step has"
                f" {self.batch_size} lists; each micro-batch needs at least one list."
            )
        if self.margin_bins and counted_sources:
            yield (
                "margin_bins and sources with counts were both given; each decides how many"
                " documents come from where. Use one of them."
            )
        if self.mix == "none" and (self.abstain or self.missing != "null" or self.mix_tau != 1.0):
            yield (
                "abstain, missing or mix_tau was given without a mix; choose one, such as"
                " mix=zscore."
            )
        if self.curriculum != "none" and self.clusters:
            yield (
                "curriculum and clusters were both given; each decides the queries of a step. Use"
                " one of them."
            )
        if self.cluster_model and not self.clusters:
            yield "cluster_model was given without clusters; set their number, as clusters=200."
        if (self.mine_teacher or self.mine_take) and not self.mine_every:
            yield (
                "mine_teacher or mine_take was given without mine_every; set the steps between"
                " searches, as mine_every=500."
            )
        if (self.document_above or self.idf_penalty) and not self.penalty_weights("document"):
            yield (
                "document_above or idf_penalty was given without a penalty on documents; set one,"
                " as document_flops=0.001 or document_active=128."
            )
        if len(set(self.matryoshka_dims)) < len(self.matryoshka_dims):
            yield f"matryoshka_dims is {self.matryoshka_dims}; the dimensions must differ."
        weights = self.matryoshka_weights
        if weights is not None and len(weights) != len(self.matryoshka_dims):
            yield (
                f"matryoshka_weights is {weights}; expected one number for each of"
                f" {len(self.matryoshka_dims)} dimensions."
            )

    def mixing(self) -> Mixing:
        """The rule that combines the runs, if ``mix`` is not ``none``."""
        return Mixing(
            self.mix, self.teacher_weights, self.missing, self.mix_tau, self.abstain, self.gate
        )

    def in_steps(self, share: float) -> int:
        """Convert a share of the steps (below 1) or a number of steps to steps."""
        return int(share * self.steps) if share < 1 else int(share)

    @property
    def warmup_steps(self) -> int:
        """Length of the warmup in steps."""
        return self.in_steps(self.warmup)

    @property
    def ramp_steps(self) -> int:
        """Length of the ramp of the sparsity penalties in steps."""
        return self.in_steps(self.ramp)

    def rate(self, step: int) -> float:
        """Learning rate in optimizer step ``step`` (from 0), as a share of the peak."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if self.schedule == "constant":
            return 1.0
        left = max(0.0, (self.steps - step) / max(1, self.steps - self.warmup_steps))
        shape = left if self.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left)
        return self.floor + (1 - self.floor) * shape

    @property
    def has_penalties(self) -> bool:
        """Whether a sparsity penalty has a weight or a target."""
        return any(getattr(self, name) for name in _PENALTIES - _OF_PENALTIES)

    def penalty_weights(self, side: str) -> dict[str, float]:
        """Weights of the sparsity penalties of a side, before the ramp or the controller.

        A side with a target and without weights has L1 at 0.001.
        """
        weights = {"FLOPS": getattr(self, f"{side}_flops"), "L1": getattr(self, f"{side}_l1")}
        nonzero = {name: weight for name, weight in weights.items() if weight}
        return nonzero or ({"L1": 1e-3} if getattr(self, f"{side}_active") else {})

    def identity(self) -> dict[str, Any]:
        """The options that decide the trained weights.

        Options of a feature that is off are left out, so that a new feature does not change the
        identity of trainings without it. Those of a validation, of its guard and of a bank are
        in their own identities.
        """
        ignored = WITHOUT_EFFECT | VALIDATION | {"keep_tolerance"} | BANK | self._inactive()
        return {name: value for name, value in asdict(self).items() if name not in ignored}

    def _inactive(self) -> set[str]:
        at_default = {
            name
            for name in (
                "schedule",
                "floor",
                "epochs",
                "loss_learning_rate",
                "margin_bins",
                "query_active",
                "document_active",
                "anti_zero",
                "document_above",
                "idf_penalty",
                "idf_start",
                "gradient_accumulation",
                "quantize",
            )
            if getattr(self, name) == getattr(TrainOptions, name)
        }
        switches = (
            (self.curriculum != "none", {"curriculum", "pacing", "pacing_start", "pacing_end"}),
            (self.clusters, {"clusters", "cluster_model"}),
            (self.mine_every, {"mine_every", "mine_depth", "mine_take", "mine_teacher"}),
            (self.has_penalties, _PENALTIES),
            (self.matryoshka_dims, {"matryoshka_dims", "matryoshka_weights"}),
            (not self.epochs, {"steps"}),
        )
        return at_default.union(*(names for active, names in switches if not active))


BANK = frozenset({"bank_size", "bank_queries", "bank_weight", "bank_tau"})
"""Options of a bank of texts."""
_PENALTIES = frozenset(
    {
        "query_flops",
        "document_flops",
        "query_l1",
        "document_l1",
        "ramp",
        "query_active",
        "document_active",
        "document_above",
        "idf_penalty",
        "anti_zero",
    }
)
_OF_PENALTIES = frozenset({"ramp", "document_above", "idf_penalty"})
"""Options that shape penalties, and are none."""
