"""The scale of a teacher's scores, detected from the numbers: logits, cosines, ranks and others.

Nothing here is certain, since any number may come from anywhere. `recognize_scale` has the rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irdistill.evaluation.auditing.query_sample import ScoredList

MOST = 0.95
"""Share of lists that must show a pattern."""
LEVELS = 11
"""At most this many different scores in all lists are grades."""
ENDS = 0.01
CLUMPED = 0.05
"""Scores come from a sigmoid when this share lies within ENDS of 0 or 1; a uniform distribution has
2 * ENDS = 0.02 there.
"""
NEARLY = 0.2
"""And this share of those is not exactly 0 or 1."""
_FEWEST = 20
_GRID = 0.999

RAW, COSINE, SIGMOID, UNIT, SOFTMAX = "raw", "cosine", "sigmoid", "unit interval", "softmax"
LOG_SOFTMAX, LOG_PROBABILITY = "log-softmax", "log-probability"
RANKS, GRADES, MIN_MAX, CENTERED = "ranks", "grades", "min-max", "centered"
CONSTANT, TOO_FEW = "constant", "too few"

_WORDS: Mapping[str, tuple[str, str]] = {
    RAW: ("unbounded numbers, such as raw logits and inner products", ""),
    COSINE: (
        "numbers between -1 and 1, such as cosines",
        "Differences of cosines are small: a softmax over them needs a small temperature.",
    ),
    SIGMOID: (
        "squashed by a sigmoid (or by a softmax over yes and no)",
        "Near 0 and 1 the differences between documents are lost, and no margin exceeds 1."
        " Score again with raw logits: activation none, in sentence-transformers"
        " activation_fn=torch.nn.Identity(). If that is not possible, log(p / (1 - p)) restores the"
        " logits of scores that were not rounded to 0 or 1.",
    ),
    UNIT: (
        "numbers between 0 and 1 that reach both ends without crowding there",
        "They may be probabilities or something else; if the teacher ended in a sigmoid, its"
        " raw logits say more.",
    ),
    SOFTMAX: (
        "probabilities that sum to 1 over each list, as from a softmax",
        "A loss such as KL would apply a softmax to them again, which flattens them. Use the raw"
        " scores, or the logarithms of these with teacher_tau=1.",
    ),
    LOG_SOFTMAX: (
        "logarithms of probabilities that sum to 1 over each list",
        "KL with teacher_tau=1 gives exactly these probabilities.",
    ),
    LOG_PROBABILITY: (
        "logarithms of probabilities, crowded at 0",
        "The best documents are all close to 0, so their differences are lost. Score again with"
        " the difference of the logits (log-odds).",
    ),
    RANKS: (
        "ranks: the same steps from place to place in every list",
        "They tell the order and no distances, so margins mean nothing; use a loss of the"
        " order, or KL with a temperature that says how much the first places count.",
    ),
    GRADES: (
        "a few levels only, such as grades",
        "Documents of one level are tied; only a loss that leaves ties alone learns no"
        " order that is not there.",
    ),
    MIN_MAX: (
        "stretched from 0 to 1 in each list",
        "A list of documents that are all alike looks like one with a clear winner, so"
        " distances mean nothing across lists.",
    ),
    CENTERED: ("centered in each list, such as z-scores", "Distances mean little across lists."),
    CONSTANT: ("one and the same number in each list", "There is no order to learn."),
    TOO_FEW: ("too few to detect their scale", ""),
}
_GRIDS = {
    "bfloat16": "8 binary digits, steps of 0.125 at a score of 20",
    "float16": "11 binary digits, steps of 0.016 at a score of 20",
}


@dataclass(frozen=True)
class Scale:
    """The scale of the scores.

    Attributes:
        kind: one of this module's names.
        ends: share of the scores within ENDS of 0 or 1; None unless all lie between 0 and 1.
        grid: ``bfloat16`` or ``float16`` if the scores lie on that type's grid, else None.
        levels: number of different scores.
    """

    kind: str
    ends: float | None
    grid: str | None
    levels: int

    @property
    def words(self) -> str:
        """The scale, as the end of a sentence that begins with *the scores are*."""
        return _WORDS[self.kind][0]

    @property
    def remedy(self) -> str:
        """What to do about it, in sentences; empty if nothing."""
        return _WORDS[self.kind][1]

    @property
    def grid_words(self) -> str:
        """A sentence on half precision; empty if the scores are on no coarse grid."""
        if self.grid is None:
            return ""
        return (
            f"All scores lie on the grid of {self.grid} ({_GRIDS[self.grid]}), which makes ties out"
            " of small differences; score again with --precision float32 if many are tied."
        )

    @property
    def spoilt(self) -> bool:
        """Whether the numbers lost what a loss needs, though their order may be good."""
        return self.kind in (SIGMOID, SOFTMAX, LOG_PROBABILITY)


def recognize_scale(
    lists: Sequence[ScoredList], producer: Mapping[str, Any] | None = None
) -> Scale:
    """Name the scale.

    The first rule that holds:

    - all lists constant: constant;
    - equal steps, or equal scores at every rank: ranks;
    - sums of 1 per list: softmax, or its logarithm;
    - at most LEVELS different scores: grades;
    - 0 and 1 in every list: min-max;
    - mean 0 in every list: centered;
    - a retriever by cosine according to ``producer``: cosine;
    - all in [0, 1], CLUMPED of them within ENDS of 0 or 1, and NEARLY of these not exactly there:
      sigmoid;
    - all in [0, 1], the middle 98% over more than 0.9 of it: unit interval;
    - all at most 0, CLUMPED of them within ENDS of 0: log-probability;
    - all in [-1, 1]: cosine;
    - else raw.

    Args:
        producer: the producer in the run's manifest.
    """
    arrays = [ranked.scores for ranked in lists if len(ranked.scores)]
    values = np.concatenate(arrays) if arrays else np.empty(0)
    levels = len(np.unique(values))
    inside = len(values) > 0 and bool(values.min() >= 0 and values.max() <= 1)
    ends = float(np.mean((values <= ENDS) | (values >= 1 - ENDS))) if inside else None
    longer = [scores for scores in arrays if len(scores) >= 3]
    if len(values) < _FEWEST or not longer:
        return Scale(TOO_FEW, ends, None, levels)
    kind = _pattern_of_lists(longer, values, levels) or _range_of_values(
        values, ends, producer or {}
    )
    return Scale(kind, ends, None if kind in (RANKS, GRADES, CONSTANT) else _grid(values), levels)


def _pattern_of_lists(arrays: Sequence[np.ndarray], values: np.ndarray, levels: int) -> str | None:
    """The scale that shows in each list, or None."""

    def most(holds: Sequence[bool]) -> bool:
        return bool(np.mean(holds) >= MOST)

    if all(np.ptp(scores) == 0 for scores in arrays):
        return CONSTANT
    if _are_ranks(arrays):
        return RANKS
    if values.min() >= 0 and most([abs(scores.sum() - 1) < 1e-3 for scores in arrays]):
        return SOFTMAX
    if values.max() <= 0 and most([abs(np.exp(scores).sum() - 1) < 1e-3 for scores in arrays]):
        return LOG_SOFTMAX
    if levels <= LEVELS:
        return GRADES
    if most([scores[-1] == 0 and scores[0] == 1 for scores in arrays]):
        return MIN_MAX
    return CENTERED if most([abs(s.mean()) < 1e-4 * s.std() for s in arrays]) else None


def _range_of_values(values: np.ndarray, ends: float | None, producer: Mapping[str, Any]) -> str:
    """The scale that the range of all scores shows."""
    cosine = producer.get("kind") == "retriever" and producer.get("similarity") == "cosine"
    if cosine and np.abs(values).max() <= 1.01:
        return COSINE
    if ends is not None:
        # overlap measures are often exactly 0 and rarely nearly 0; a sigmoid is nearly 0 first
        exact = float(np.mean((values == 0) | (values == 1)))
        if ends >= CLUMPED and ends - exact >= NEARLY * ends:
            return SIGMOID
        low, high = np.quantile(values, [0.01, 0.99])
        return UNIT if high - low > 0.9 else COSINE
    if values.max() <= 0 and values.min() < -1 and np.mean(values > -ENDS) >= CLUMPED:
        return LOG_PROBABILITY
    return COSINE if np.abs(values).max() <= 1.001 else RAW


def _are_ranks(arrays: Sequence[np.ndarray]) -> bool:
    step = float(np.median([scores[0] - scores[1] for scores in arrays]))
    equal = [np.allclose(np.diff(scores), -step, rtol=1e-5, atol=0) for scores in arrays]
    if step > 0 and np.mean(equal) >= MOST:
        return True
    depth = min(10, *map(len, arrays)) if len(arrays) > 1 else 0
    if len(arrays) < 5 or depth < 3:
        return False
    table = np.array([scores[:depth] for scores in arrays])
    falling = (np.diff(table, axis=1) < 0).all()
    return bool(falling and np.ptp(table, axis=0).max() <= 1e-6 * np.abs(table).max())


def _grid(values: np.ndarray) -> str | None:
    """The half-precision type that all values fit; multiples of 0.5 fit all and prove nothing."""
    telling = values[(values * 2) % 1 != 0].astype(np.float32)
    if len(np.unique(telling)) < _FEWEST:
        return None
    if np.mean((telling.view(np.uint32) & 0xFFFF) == 0) >= _GRID:
        return "bfloat16"
    with np.errstate(over="ignore"):
        half = telling.astype(np.float16).astype(np.float32)
    return "float16" if np.mean(half == telling) >= _GRID else None
