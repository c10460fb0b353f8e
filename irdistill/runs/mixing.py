"""Mixing several teachers' scores of one query, for fused runs and for training lists."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np

from irdistill.errors import OptionError
from irdistill.runs.gate import Gate, Part, pairwise_tau, scored, zscores

Missing = Literal["null", "skip", "min"]
RRF_K = 60
"""Cormack, Clarke and Büttcher (SIGIR 2009): 60 works on all their collections."""

MISSING, DISAGREE = "missing", "teachers disagree"
DISAGREE_ON_IT = "teachers disagree on the document"
REASONS: tuple[str | None, ...] = (None, MISSING, DISAGREE, DISAGREE_ON_IT)
"""The flag for each code of `Mixed.reasons`."""

_ABSTAIN = re.compile(r"(?:(tau)<|(sd)>)([-+.\deE]+)")


def _mean(values: np.ndarray, scores: np.ndarray, tau: float) -> np.ndarray:
    return values


def _zscore(values: np.ndarray, scores: np.ndarray, tau: float) -> np.ndarray:
    return zscores(scores, values)


def _minmax(values: np.ndarray, scores: np.ndarray, tau: float) -> np.ndarray:
    spread = np.ptp(scores)
    return (values - scores.min()) / spread if spread > 0 else np.zeros_like(values)


def _logsoftmax(values: np.ndarray, scores: np.ndarray, tau: float) -> np.ndarray:
    high = scores.max()
    return (values - high) / tau - np.log(np.exp((scores - high) / tau).sum())


def _softmax(values: np.ndarray, scores: np.ndarray, tau: float) -> np.ndarray:
    high = scores.max()
    return np.exp((values - high) / tau) / np.exp((scores - high) / tau).sum()


def _rrf(values: np.ndarray, scores: np.ndarray, tau: float) -> np.ndarray:
    return 1.0 / (RRF_K + 1.0 + np.arange(len(values)))


HEAD = "head"
"""The method that joins two lists instead of mixing scores."""

METHODS: Mapping[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "mean": _mean,
    "zscore": _zscore,
    "minmax": _minmax,
    "softmax": _softmax,
    "logsoftmax": _logsoftmax,
    "rrf": _rrf,
}
"""How values (m,) are made comparable by one run's scores of a query, (n,) float64 best first.

The values are the scores themselves or, except for ``rrf``, scores of further documents.
"""


class Mixed(NamedTuple):
    """One query's mixed scores.

    Attributes:
        scores: (n,) float32, NaN where there is no score.
        reasons: (n,) uint8, index into ``REASONS``: why there is no score.
    """

    scores: np.ndarray
    reasons: np.ndarray


@dataclass(frozen=True)
class Mixing:
    """How the scores of T teachers are mixed: the weighted mean of their normalized scores.

    - ``mean``: raw scores, for teachers on one scale (Hofstätter et al., arXiv 2010.02666: three
      cross-encoders of one training); else the teacher with the widest scale dominates;
    - ``zscore``: (score - mean) / standard deviation of the query's list (population; 0 if all are
      equal);
    - ``minmax``: (score - minimum) / (maximum - minimum) of the list; 0 if all are equal;
    - ``softmax``: the list's ``softmax(score / tau)`` (MEAL V2, arXiv 2009.08453: the mean of the
      teachers' softmaxes);
    - ``logsoftmax``: the logarithm of that mean: same order, and the target of
      ``KL(teacher_tau=1)`` is the mean itself;
    - ``rrf``: the weighted *sum* of 1 / (60 + rank) (Cormack, Clarke and Büttcher, SIGIR 2009);
    - ``head``: no mixing: the first ``head`` documents of the first list, then the second list,
      then what only the first list has. The scores are 1 / rank.

    Attributes:
        method: one of the above.
        weights: one per teacher; equal if None. A teacher of weight 0 is ignored.
        missing: the score of a document that a teacher did not score: ``null`` (flagged
            ``missing``, the safe choice for teachers), ``skip`` (the mean of the other teachers),
            or ``min`` (the teacher's lowest normalized score for the query). ``rrf`` always adds
            nothing.
        tau: divides the scores in a softmax; one number, or one per teacher.
        abstain: ``tau<0.2``: if the teachers' mean pairwise Kendall tau-b is lower, the whole query
            is null, flagged ``teachers disagree`` (unless no two teachers can be compared).
            ``sd>1``: if the standard deviation over teachers of a document's z-scores is higher,
            the document is null. A comma joins both.
        gate: multiplies the weights, query by query.
        head: number of documents that ``head`` takes from the first list.

    Examples:
        >>> import numpy as np
        >>> from irdistill.runs import Mixing
        >>> first, second = np.array([3.0, 1.0]), np.array([10.0, 20.0])
        >>> mixing = Mixing("minmax", weights=(3, 1)).for_teachers(2)
        >>> lists = [(np.arange(2), first), (np.arange(2), second)]
        >>> mixing.mix(lists, 2).scores.tolist()
        [0.75, 0.25]
    """

    method: str = "zscore"
    weights: tuple[float, ...] | None = None
    missing: Missing = "null"
    tau: float | tuple[float, ...] = 1.0
    abstain: str = ""
    gate: Gate | None = None
    head: int = 3

    def __post_init__(self) -> None:
        for name in ("weights", "tau"):
            value = getattr(self, name)
            if isinstance(value, Sequence):
                object.__setattr__(self, name, tuple(float(number) for number in value))
        if self.method not in (*METHODS, HEAD) or self.missing not in ("null", "skip", "min"):
            raise OptionError(
                f"method {self.method!r} and missing {self.missing!r} were given; one of"
                f" {', '.join((*METHODS, HEAD))} and one of null, skip, min were expected."
            )
        if self.head < 1:
            raise OptionError(f"head is {self.head}; at least 1 document was expected.")
        parse_abstain(self.abstain)

    def for_teachers(self, count: int) -> Mixing:
        """The same with a weight and a temperature for each of ``count`` teachers."""
        if self.method == HEAD and count != 2:
            raise OptionError(f"the method head joins two runs, and {count} were given.")
        if self.method == HEAD and (self.weights or self.abstain or self.gate):
            raise OptionError(
                "the method head joins two lists and mixes no scores; leave out weights, gate and"
                " abstain, or choose another method."
            )
        shares = checked_weights(self.weights, count)
        taus = self.tau if isinstance(self.tau, tuple) else (float(self.tau),) * count
        if len(taus) != count or not all(0 < tau < math.inf for tau in taus):
            raise OptionError(
                f"the temperature {self.tau} was given for {count} teachers; one number above 0, or"
                " one per teacher, was expected."
            )
        if self.gate is not None and len(self.gate) != count:
            raise OptionError(
                f"the gate is for {len(self.gate)} teachers, and {count} were given; fit it for"
                " these."
            )
        return replace(self, weights=shares, tau=taus)

    def identity(self) -> dict[str, Any]:
        """What decides the numbers, for a manifest; call ``for_teachers`` first."""
        assert self.weights is not None and isinstance(self.tau, tuple)
        if self.method == HEAD:
            return {"method": HEAD, "head": self.head}
        values: dict[str, Any] = {
            "method": self.method,
            "weights": list(self.weights),
            "missing": "skip" if self.method == "rrf" else self.missing,
        }
        if "softmax" in self.method:
            values["tau"] = list(self.tau)
        if self.abstain:
            values["abstain"] = self.abstain
        if self.gate is not None:
            values["gate"] = self.gate.to_json()
        return values

    def mix(self, parts: Sequence[Part | None], count: int) -> Mixed:
        """Mix one query's lists; call ``for_teachers`` first.

        Args:
            parts: each teacher's list; None if it has no list for the query.
            count: documents in the union of the lists.
        """
        assert self.weights is not None and isinstance(self.tau, tuple)
        if self.method == HEAD:
            return self._joined(parts, count)
        parts = self._weighted(parts)
        values = np.full((len(parts), count), np.nan)
        standard = values.copy()
        for row, other, part, tau in zip(values, standard, parts, self.tau, strict=True):
            places, scores = scored(part)
            if len(scores):
                normalized = METHODS[self.method](scores, scores, tau)
                row[places], other[places] = normalized, zscores(scores)
                if self.missing == "min" and self.method != "rrf":
                    row[np.isnan(row)] = normalized.min()
        return self._combine(parts, count, values, standard)

    def mix_further(
        self, parts: Sequence[Part | None], count: int, further: np.ndarray
    ) -> np.ndarray:
        """Mix the scores of further documents of one query, on the scale of its mixed list.

        Each teacher's scores are normalized by the statistics of its list, so a document's mixed
        score does not depend on the other further documents, and a document of the list has the
        score that `mix` gives it. Call ``for_teachers`` first.

        Args:
            parts, count: as for `mix`.
            further: (T, m) scores of the m documents; NaN where a teacher has none.

        Returns:
            (m,) float32, NaN where there is no score.

        Raises:
            OptionError: the method is ``rrf``, which reads ranks.

        Examples:
            >>> import numpy as np
            >>> parts = [(np.array([0, 1]), np.array([3.0, 1.0]))]
            >>> mixing = Mixing("minmax").for_teachers(1)
            >>> mixing.mix_further(parts, 2, np.array([[3.0, 2.0, 0.0]])).tolist()
            [1.0, 0.5, -0.5]
        """
        assert self.weights is not None and isinstance(self.tau, tuple)
        if self.method in ("rrf", HEAD):
            raise OptionError(
                f"{self.method} mixes ranks, and documents of other lists have none in the query's"
                " list. Choose another method, such as zscore."
            )
        parts = self._weighted(parts)
        values = np.full(further.shape, np.nan)
        standard = values.copy()
        for row, other, part, tau, raw in zip(
            values, standard, parts, self.tau, further.astype(np.float64), strict=True
        ):
            _, scores = scored(part)
            if len(scores):
                known = ~np.isnan(raw)
                row[known] = METHODS[self.method](raw[known], scores, tau)
                other[known] = zscores(scores, raw[known])
                if self.missing == "min":
                    row[~known] = METHODS[self.method](scores, scores, tau).min()
        return self._combine(parts, count, values, standard).scores

    def _joined(self, parts: Sequence[Part | None], count: int) -> Mixed:
        """The head of the first list, the second list, and the rest of the first."""
        first, second = (scored(part)[0] for part in parts)
        order = np.concatenate([first[: self.head], second, first])
        _, places = np.unique(order, return_index=True)
        order = order[np.sort(places)]
        scores = np.full(count, np.nan, np.float32)
        scores[order] = 1 / np.arange(1, len(order) + 1)
        reasons = np.where(np.isnan(scores), REASONS.index(MISSING), 0).astype(np.uint8)
        return Mixed(scores, reasons)

    def _weighted(self, parts: Sequence[Part | None]) -> list[Part | None]:
        """The lists of the teachers with a weight."""
        assert self.weights is not None
        return [
            part if weight > 0 else None for part, weight in zip(parts, self.weights, strict=True)
        ]

    def _combine(
        self, parts: Sequence[Part | None], count: int, values: np.ndarray, standard: np.ndarray
    ) -> Mixed:
        """Mix normalized scores (T, m), NaN where missing; ``standard`` are their z-scores."""
        weights = np.asarray(self.weights)
        if self.gate is not None:
            weights = weights * self.gate.weights(parts, count)
        present = ~np.isnan(values)
        mass = (weights[:, None] * present).sum(0)
        scores = _combined(self.method, values, present, weights, mass)
        lost = mass == 0
        if self.missing == "null" and self.method != "rrf":
            lost |= ~present[weights > 0].all(0)
        reasons = lost.astype(np.uint8)
        self._abstain(parts, count, standard, reasons)
        return Mixed(np.where(reasons > 0, np.nan, scores).astype(np.float32), reasons)

    def _abstain(
        self, parts: Sequence[Part | None], count: int, standard: np.ndarray, reasons: np.ndarray
    ) -> None:
        least, most = parse_abstain(self.abstain)
        if most is not None:
            two = (~np.isnan(standard)).sum(0) > 1
            wide = np.zeros(len(reasons), dtype=bool)
            wide[two] = np.nanstd(standard[:, two], axis=0) > most
            reasons[wide & (reasons == 0)] = REASONS.index(DISAGREE_ON_IT)
        if least is not None:
            taus = pairwise_tau(parts, count)
            if not np.isnan(taus).all() and np.nanmean(taus) < least:
                reasons[:] = REASONS.index(DISAGREE)


def _combined(
    method: str, values: np.ndarray, present: np.ndarray, weights: np.ndarray, mass: np.ndarray
) -> np.ndarray:
    """(n,) float64; undefined where ``mass`` is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        if method == "logsoftmax":  # the probabilities may be too small for a float
            high = np.where(present, values, -np.inf).max(0, initial=-np.inf)
            raised = np.where(present, np.exp(values - high), 0.0)
            return high + np.log((weights[:, None] * raised).sum(0) / mass)
        total = (weights[:, None] * np.where(present, values, 0.0)).sum(0)
        return total if method == "rrf" else total / mass


def checked_weights(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """A weight for each of ``count`` teachers, equal if None."""
    shares = np.asarray(weights if weights is not None else [1.0] * count, dtype=np.float64)
    if (
        shares.shape != (count,)
        or not np.isfinite(shares).all()
        or (shares < 0).any()
        or shares.sum() <= 0
    ):
        raise OptionError(
            f"the weights {shares.tolist()} were given for {count} runs; one finite number per"
            " run was expected, none below 0 and one above."
        )
    return tuple(shares.tolist())


def parse_abstain(text: str) -> tuple[float | None, float | None]:
    """The bounds of ``tau<0.2,sd>1``: Kendall tau and standard deviation; None if absent."""
    bounds: dict[str, float] = {}
    for part in filter(None, text.replace(" ", "").split(",")):
        match = _ABSTAIN.fullmatch(part)
        try:
            value = float(match[3]) if match else math.nan
        except ValueError:
            value = math.nan
        name = (match[1] or match[2]) if match else ""
        if not (-1 < value <= 1 if name == "tau" else 0 < value < math.inf) or name in bounds:
            raise OptionError(
                f"abstain {text!r} has a part {part!r} that cannot be read. Write tau<NUMBER (above"
                " -1, at most 1), sd>NUMBER (above 0), or both joined by a comma, each once:"
                " tau<0.2,sd>1."
            )
        bounds[name] = value
    return bounds.get("tau"), bounds.get("sd")
