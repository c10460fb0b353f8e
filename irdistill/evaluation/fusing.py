"""The verb *fuse*, with weights given or fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from irdistill.collections import Collection
from irdistill.errors import OptionError
from irdistill.evaluation.weighting import (
    Weighting,
    agreement_weights,
    check_not_held_out,
    fit_gate,
    labelled_weights,
)
from irdistill.runs import Gate, Run, check_out, fuse, open_run
from irdistill.runs.label_injection import LabelInjection
from irdistill.runs.mixing import Missing
from irdistill.runs.subsets import common_queries


@dataclass(frozen=True)
class FusionWeights:
    """How much each teacher counts.

    Attributes:
        weights: numbers; ``"similarity"``: by nDCG@10 on the labelled queries of ``dev``;
            ``"agreement"``: by agreement with the other teachers, without labels.
        power: exponent of the qualities; 0 is uniform, infinity uses only the best teacher.
        dev, dev_runs: labelled queries, not from test and not among those fused, and the same
            teachers' runs on them.
        gate: ``"fit"`` on ``dev``, or coefficients such as ``"agreement=2,gap=1"``.
        balance, top: options of the gate, see `fit_gate`.
        head: documents that the method ``head`` takes from the first run.
        labels: of a training collection, which are added to the fused scores.
    """

    weights: Sequence[float] | str | None = None
    power: float = 1.0
    dev: Collection | None = None
    dev_runs: Sequence[str | Path | Run] = ()
    gate: str | None = None
    balance: float = 0.1
    top: int | None = None
    head: int = 3
    labels: LabelInjection | None = None


def fuse_teachers(
    runs: Sequence[str | Path | Run],
    out: str | Path,
    method: str = "zscore",
    weighting: FusionWeights | None = None,
    missing: Missing = "null",
    overwrite: bool = False,
    *,
    tau: float | Sequence[float] = 1.0,
    abstain: str = "",
) -> Run:
    """Fuse runs with given or fitted weights; the manifest records how they were found."""
    options = weighting or FusionWeights()
    if options.labels is not None:
        check_not_held_out(options.labels.collection, "scores would contain")
    weights, gate, top = options.weights, options.gate, options.top
    power, dev, dev_runs = options.power, options.dev, options.dev_runs
    if top is not None and gate is None:
        raise OptionError(f"top is {top}, but no gate was given; give a gate, or leave top out.")
    opened = common_queries([open_run(run) for run in runs])
    check_out(out, overwrite, [*runs, *opened])
    fitted = weights == "similarity" or gate == "fit"
    if fitted and (dev is None or not dev_runs):
        raise OptionError(
            "weights by similarity and a fitted gate need labelled queries: give a dev collection,"
            " and the same teachers' runs on it in the same order."
        )
    if not fitted and (dev is not None or dev_runs):
        raise OptionError(
            "labelled queries were given and nothing is fitted on them; use weights by"
            " similarity or a fitted gate."
        )
    fitted_weights: Weighting | None = None
    if weights == "similarity" and dev is not None:
        fitted_weights = labelled_weights(opened, dev, dev_runs, power)
    elif weights == "agreement":
        fitted_weights = agreement_weights(opened, power)
    elif isinstance(weights, str):
        raise OptionError(
            f"the weights are {weights!r}; numbers, similarity or agreement were expected."
        )
    shares = None if isinstance(weights, str) else weights
    shares = shares if fitted_weights is None else fitted_weights.values
    chosen = None
    if gate == "fit" and dev is not None:
        chosen = fit_gate(opened, dev, dev_runs, options.balance, top=top)
    elif gate is not None:
        chosen = Gate.by_hand(len(opened), top, **_coefficients(gate))
    return fuse(
        opened,
        out,
        method,
        shares,
        missing,
        overwrite,
        tau=tau,
        abstain=abstain,
        gate=chosen,
        head=options.head,
        labels=options.labels,
        origin=None if fitted_weights is None else fitted_weights.origin,
    )


def _coefficients(text: str) -> dict[str, float]:
    coefficients: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            coefficients[name.strip()] = float(value)
        except ValueError as error:
            raise OptionError(
                f"the gate {text!r} cannot be read; write fit, or coefficients as"
                " agreement=2,gap=1."
            ) from error
    return coefficients
