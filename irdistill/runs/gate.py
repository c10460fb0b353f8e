"""A weight for each teacher and query, computed from the teachers' lists without labels.

This is the routing of MST-Distill in a simple form: a softmax over teachers whose input is not the
student's output but features of the teachers' lists. The coefficients are set by hand, or fitted on
labeled queries (`irdistill.evaluation.fit_gate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

from irdistill.errors import OptionError

Part = tuple[np.ndarray, np.ndarray]
"""One teacher's list: positions of its documents in the union of all lists, (n,) int, and their
scores, best first.
"""

FEATURES = ("entropy", "gap", "agreement")


def zscores(scores: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """(score - mean) / standard deviation (population); 0 if all are equal.

    Args:
        values: standardize these numbers by the scores' mean and deviation instead.
    """
    deviation = scores.std()
    values = scores if values is None else values
    return (values - scores.mean()) / deviation if deviation > 0 else np.zeros_like(values)


def scored(part: Part | None) -> Part:
    """The scored documents of a list, in float64; empty for None."""
    if part is None:
        return np.empty(0, np.int64), np.empty(0)
    places, scores = part
    good = ~np.isnan(scores)
    return places[good], scores[good].astype(np.float64)


def pairwise_tau(parts: Sequence[Part | None], count: int) -> np.ndarray:
    """Kendall's tau-b of each pair of teachers over the documents that both scored.

    Args:
        parts: the teachers' lists.
        count: documents in the union of the lists.

    Returns:
        (T, T) symmetric; NaN on the diagonal, and if the two have fewer than two documents in
        common or one gives all of them the same score.
    """
    from scipy.stats import kendalltau

    values = np.full((len(parts), count), np.nan)
    for row, part in zip(values, parts, strict=True):
        places, scores = scored(part)
        row[places] = scores
    result = np.full((len(parts), len(parts)), np.nan)
    for i in range(len(parts)):
        for j in range(i):
            both = ~np.isnan(values[i]) & ~np.isnan(values[j])
            left, right = values[i, both], values[j, both]
            if len(left) > 1 and np.ptp(left) > 0 and np.ptp(right) > 0:
                # `method` is that of the p-value, which is not used: asymptotic is the fast one,
                # and divides by n - 2.
                method = "asymptotic" if len(left) > 2 else "exact"
                result[i, j] = result[j, i] = kendalltau(left, right, method=method).statistic
    return result


def features(parts: Sequence[Part | None], count: int) -> np.ndarray:
    """Features of each teacher's list that need no labels.

    - ``entropy``: of the softmax of its z-scores, as a share of the maximum (1 for fewer than two
      documents);
    - ``gap``: from its first to its second document, in standard deviations of the list;
    - ``agreement``: the mean Kendall tau-b with the other teachers, 0 if there is none.

    Returns:
        (T, 3) float64, in the order of ``FEATURES``.
    """
    rows = np.zeros((len(parts), len(FEATURES)))
    for row, part, taus in zip(rows, parts, pairwise_tau(parts, count), strict=True):
        values = zscores(scored(part)[1]) if part is not None else np.empty(0)
        row[0] = 1.0
        if len(values) > 1:
            share = np.exp(values - values.max())
            share /= share.sum()
            row[0] = -(share * np.log(np.maximum(share, 1e-300))).sum() / np.log(len(values))
            row[1] = values[0] - values[1]
        known = taus[~np.isnan(taus)]
        row[2] = known.mean() if len(known) else 0.0
    return rows


@dataclass(frozen=True)
class Gate:
    """Weights of T teachers: a softmax over teachers of a linear function of their features.

    The logit of teacher m is
    ``bias_m + sum_f coefficient_mf * (feature_mf - mean_mf) / scale_mf``.

    Attributes:
        coefficients: T rows with one number for each of ``FEATURES``.
        bias: T numbers; 0 if empty.
        mean: T rows that standardize the features; 0 if empty.
        scale: T rows that standardize the features; 1 if empty.
        top: use only the teachers with the largest weights for a query; None for all.
        origin: how the coefficients were chosen; recorded with the run.
    """

    coefficients: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...] = ()
    mean: tuple[tuple[float, ...], ...] = ()
    scale: tuple[tuple[float, ...], ...] = ()
    top: int | None = None
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.coefficients)
        rows = {"coefficients": self.coefficients, "mean": self.mean, "scale": self.scale}
        for name, value in rows.items():
            default = ((1.0 if name == "scale" else 0.0,) * len(FEATURES),) * count
            object.__setattr__(
                self, name, tuple(tuple(map(float, row)) for row in value or default)
            )
        object.__setattr__(self, "bias", tuple(map(float, self.bias or (0.0,) * count)))
        shapes = {np.asarray(getattr(self, name)).shape for name in rows}
        numbers = np.concatenate([np.ravel(getattr(self, name)) for name in (*rows, "bias")])
        if (
            shapes != {(count, len(FEATURES))}
            or len(self.bias) != count
            or not np.isfinite(numbers).all()
            or np.min(self.scale) <= 0
            or (self.top is not None and not 1 <= self.top <= count)
        ):
            raise OptionError(
                f"a gate of {count} teachers was given with coefficients, mean and scale of shapes"
                f" {sorted(shapes)}, {len(self.bias)} biases and top={self.top}; {count} rows of"
                f" {len(FEATURES)} finite numbers ({', '.join(FEATURES)}), {count} biases, scales"
                f" above 0 and a top from 1 to {count} were expected."
            )

    @classmethod
    def by_hand(cls, teachers: int, top: int | None = None, **coefficients: float) -> Self:
        """A gate with the same coefficients for all teachers, on features that are not scaled.

        Examples:
            >>> from irdistill.runs import Gate
            >>> Gate.by_hand(2, agreement=2, gap=1).coefficients
            ((0.0, 1.0, 2.0), (0.0, 1.0, 2.0))
        """
        unknown = set(coefficients) - set(FEATURES)
        if unknown:
            raise OptionError(
                f"a gate has no feature {sorted(unknown)[0]!r}; there are {', '.join(FEATURES)}."
            )
        row = tuple(float(coefficients.get(name, 0.0)) for name in FEATURES)
        return cls((row,) * teachers, top=top, origin={"by": "hand"})

    def __len__(self) -> int:
        return len(self.coefficients)

    def of(self, values: np.ndarray) -> np.ndarray:
        """The weights for features (..., T, F): (..., T), at least 0 and of sum 1."""
        scaled = (values - np.asarray(self.mean)) / np.asarray(self.scale)
        logits = (scaled * np.asarray(self.coefficients)).sum(-1) + np.asarray(self.bias)
        if self.top is not None and self.top < len(self):
            least = np.sort(logits, axis=-1)[..., -self.top, None]
            logits = np.where(logits < least, -np.inf, logits)
        raised = np.exp(logits - logits.max(-1, keepdims=True))
        return raised / raised.sum(-1, keepdims=True)

    def weights(self, parts: Sequence[Part | None], count: int) -> np.ndarray:
        """The weights (T,) of the teachers for one query."""
        return self.of(features(parts, count))

    def to_json(self) -> dict[str, Any]:
        """All attributes, as JSON values."""
        return {"features": list(FEATURES), **asdict(self)}
