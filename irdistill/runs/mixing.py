"""How several teachers' scores of one query become one: the same rule when runs are fused and when
lists are drawn.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.runs.gate import Gate, Part, pairwise_tau, scored, zscores

Missing = Literal["null", "skip", "min"]
RRF_K = 60
"""Cormack, Clarke and Büttcher (SIGIR 2009) found 60 good everywhere."""

MISSING, DISAGREE, DISAGREE_ON_IT = (
    "missing",
    "teachers disagree",
    "teachers disagree on the document",
)
REASONS: tuple[str | None, ...] = (None, MISSING, DISAGREE, DISAGREE_ON_IT)
"""The flag for each code of `Mixed.reasons`."""

_ABSTAIN = re.compile(r"(?:(tau)<|(sd)>)([-+.\deE]+)")


def _mean(scores: np.ndarray, tau: float) -> np.ndarray:
    return scores


def _zscore(scores: np.ndarray, tau: float) -> np.ndarray:
    return zscores(scores)


def _minmax(scores: np.ndarray, tau: float) -> np.ndarray:
    spread = np.ptp(scores)
    return (scores - scores.min()) / spread if spread > 0 else np.zeros_like(scores)


def _logsoftmax(scores: np.ndarray, tau: float) -> np.ndarray:
    raised = (scores - scores.max()) / tau
    return raised - np.log(np.exp(raised).sum())


def _softmax(scores: np.ndarray, tau: float) -> np.ndarray:
    raised = np.exp((scores - scores.max()) / tau)
    return raised / raised.sum()


def _rrf(scores: np.ndarray, tau: float) -> np.ndarray:
    return 1.0 / (RRF_K + 1.0 + np.arange(len(scores)))


METHODS: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "mean": _mean,
    "zscore": _zscore,
    "minmax": _minmax,
    "softmax": _softmax,
    "logsoftmax": _logsoftmax,
    "rrf": _rrf,
}
"""How one query's scores of one run, (n,) float64 best first, are made comparable before they are
mixed.
"""


class Mixed(NamedTuple):
    """One query's mixed scores.

    Attributes:
        scores: (n,) float32, NaN where there is none.
        reasons: (n,) uint8, index into ``REASONS``: why there is none.
    """

    scores: np.ndarray
    reasons: np.ndarray


@dataclass(frozen=True)
class Mixing:
    """A rule that mixes T teachers. With s the weighted mean over teachers of a document's
    normalised scores:

    - ``mean``: the raw scores, for teachers on one scale (Hofstätter et al., arXiv 2010.02666:
      three cross-encoders of one training); else the teacher with the widest scale decides;
    - ``zscore``: (score - mean) / standard deviation of the query's list (population; 0 where all
      are equal);
    - ``minmax``: (score - least) / (most - least) of the list; 0 where all are equal;
    - ``softmax``: the list's ``softmax(score / tau)`` (MEAL V2, arXiv 2009.08453: the mean of the
      teachers' softmaxes);
    - ``logsoftmax``: the logarithm of that mean: same order, and ``KL(teacher_tau=1)`` gets the
      mean itself as target;
    - ``rrf``: the weighted *sum* of 1 / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR 2009).

    Attributes:
        weights: one a teacher; equal where None. A teacher of weight 0 counts as if it were not
            there.
        missing: what a document has that a teacher did not score: ``null`` (flagged ``missing``,
            the safe choice for teachers), ``skip`` (the mean of the teachers that have it), or
            ``min`` (the teacher's least normalised score for the query). ``rrf`` always adds
            nothing.
        tau: divides the scores in a softmax; one number, or one a teacher.
        abstain: ``tau<0.2``: where the teachers' mean pairwise Kendall tau-b is below, the whole
            query is null, flagged ``teachers disagree`` (kept where no two can be compared).
            ``sd>1``: where the standard deviation over teachers of a document's z-scores is above,
            it is null. Both are joined by a comma.
        gate: multiplies the weights, query by query.

    Raises:
        IrdistillError: a value is none of these.
    """

    method: str = "zscore"
    weights: tuple[float, ...] | None = None
    missing: Missing = "null"
    tau: float | tuple[float, ...] = 1.0
    abstain: str = ""
    gate: Gate | None = None

    def __post_init__(self) -> None:
        for name in ("weights", "tau"):
            value = getattr(self, name)
            if isinstance(value, Sequence):
                object.__setattr__(self, name, tuple(float(number) for number in value))
        if self.method not in METHODS or self.missing not in ("null", "skip", "min"):
            raise IrdistillError(
                f"method {self.method!r} and missing {self.missing!r} were given; one of"
                f" {', '.join(METHODS)} and one of null, skip, min were expected."
            )
        parse_abstain(self.abstain)

    def for_teachers(self, count: int) -> Mixing:
        """The rule with a weight and a temperature for each of ``count`` teachers.

        Raises:
            IrdistillError: weights, temperatures or the gate are for another number, or out of
                range.
        """
        shares = checked_weights(self.weights, count)
        taus = self.tau if isinstance(self.tau, tuple) else (float(self.tau),) * count
        if len(taus) != count or not all(0 < tau < math.inf for tau in taus):
            raise IrdistillError(
                f"the temperature {self.tau} was given for {count} teachers; one number above 0, or"
                " one a teacher, was expected."
            )
        if self.gate is not None and len(self.gate) != count:
            raise IrdistillError(
                f"the gate is for {len(self.gate)} teachers, and {count} were given; fit it for"
                " these."
            )
        return replace(self, weights=shares, tau=taus)

    def identity(self) -> dict[str, Any]:
        """What decides the numbers, for a manifest. Of a rule made ``for_teachers``."""
        assert self.weights is not None and isinstance(self.tau, tuple)
        found: dict[str, Any] = {
            "method": self.method,
            "weights": list(self.weights),
            "missing": "skip" if self.method == "rrf" else self.missing,
        }
        if "softmax" in self.method:
            found["tau"] = list(self.tau)
        if self.abstain:
            found["abstain"] = self.abstain
        if self.gate is not None:
            found["gate"] = self.gate.to_json()
        return found

    def mix(self, parts: Sequence[Part | None], count: int) -> Mixed:
        """Mix one query's lists. Of a rule made ``for_teachers``.

        Args:
            parts: each teacher's list, None where it has none for the query.
            count: documents in the union of the lists.
        """
        assert self.weights is not None and isinstance(self.tau, tuple)
        parts = [
            part if weight > 0 else None for part, weight in zip(parts, self.weights, strict=True)
        ]
        values = np.full((len(parts), count), np.nan)
        standard = values.copy()
        for row, other, part, tau in zip(values, standard, parts, self.tau, strict=True):
            places, scores = scored(part)
            if len(scores):
                own = METHODS[self.method](scores, tau)
                row[places], other[places] = own, zscores(scores)
                if self.missing == "min" and self.method != "rrf":
                    row[np.isnan(row)] = own.min()
        weights = np.asarray(self.weights)
        if self.gate is not None:
            weights = weights * self.gate.weights(parts, count)
        there = ~np.isnan(values)
        mass = (weights[:, None] * there).sum(0)
        scores = _combined(self.method, values, there, weights, mass)
        lost = mass == 0
        if self.missing == "null" and self.method != "rrf":
            lost |= ~there[weights > 0].all(0)
        reasons = lost.astype(np.uint8)
        self._abstain(parts, standard, reasons)
        return Mixed(np.where(reasons > 0, np.nan, scores).astype(np.float32), reasons)

    def _abstain(
        self, parts: Sequence[Part | None], standard: np.ndarray, reasons: np.ndarray
    ) -> None:
        least, most = parse_abstain(self.abstain)
        if most is not None:
            two = (~np.isnan(standard)).sum(0) > 1
            wide = np.zeros(len(reasons), dtype=bool)
            wide[two] = np.nanstd(standard[:, two], axis=0) > most
            reasons[wide & (reasons == 0)] = REASONS.index(DISAGREE_ON_IT)
        if least is not None:
            taus = pairwise_tau(parts, len(reasons))
            if not np.isnan(taus).all() and np.nanmean(taus) < least:
                reasons[:] = REASONS.index(DISAGREE)


def _combined(
    method: str, values: np.ndarray, there: np.ndarray, weights: np.ndarray, mass: np.ndarray
) -> np.ndarray:
    """(n,) float64; any value where ``mass`` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if method == "logsoftmax":  # of a mean of probabilities too small for a float
            high = np.where(there, values, -np.inf).max(0, initial=-np.inf)
            raised = np.where(there, np.exp(values - high), 0.0)
            return high + np.log((weights[:, None] * raised).sum(0) / mass)
        total = (weights[:, None] * np.where(there, values, 0.0)).sum(0)
        return total if method == "rrf" else total / mass


def checked_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """A weight for each of ``count`` teachers, equal where None.

    Raises:
        IrdistillError: another number of them, or one that is negative or not finite, or none above
            0.
    """
    shares = np.asarray(weights if weights is not None else [1.0] * count, dtype=np.float64)
    if (
        shares.shape != (count,)
        or not np.isfinite(shares).all()
        or (shares < 0).any()
        or shares.sum() <= 0
    ):
        raise IrdistillError(
            f"the weights {shares.tolist()} were given for {count} runs; one finite number a run"
            " was expected, none below 0 and one above."
        )
    return tuple(shares.tolist())


def parse_abstain(text: str) -> tuple[float | None, float | None]:
    """The least Kendall tau and the most standard deviation of ``tau<0.2,sd>1``; None where not
    given.

    Raises:
        IrdistillError: it cannot be read, or a bound could never or always be passed.
    """
    found: dict[str, float] = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        match = _ABSTAIN.fullmatch(part)
        try:
            value = float(match[3]) if match else math.nan
        except ValueError:
            value = math.nan
        name = (match[1] or match[2]) if match else ""
        if not (-1 < value <= 1 if name == "tau" else 0 < value < math.inf) or name in found:
            raise IrdistillError(
                f"abstain {text!r} has a part {part!r} that cannot be read. Write tau<NUMBER (above"
                " -1, at most 1), sd>NUMBER (above 0), or both joined by a comma, each once:"
                " tau<0.2,sd>1."
            )
        found[name] = value
    return found.get("tau"), found.get("sd")
