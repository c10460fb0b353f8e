"""On which scale a teacher's scores lie, told from the numbers: logits, cosines, a sigmoid's
output, ranks …

Nothing here is certain, as any number may come from anywhere; the rules are those of `recognise`,
and each scale is named with what to do about it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irdistill.evaluation.auditing.sample import Scored

MOST = 0.95
"""The share of lists that must show a pattern."""
LEVELS = 11
"""So many different scores or fewer, in all lists together, are grades."""
ENDS = 0.01
CLUMPED = 0.05
"""A sigmoid is recognised when this share of the scores lies within ENDS of 0 or 1; evenly spread
ones give 2 * ENDS = 0.02.
"""
NEARLY = 0.2
"""And this share of those is not 0 or 1 exactly."""
_FEWEST = 20
_GRID = 0.999

RAW, COSINE, SIGMOID, UNIT, SOFTMAX = "raw", "cosine", "sigmoid", "unit interval", "softmax"
LOG_SOFTMAX, LOG_PROBABILITY = "log-softmax", "log-probability"
RANKS, GRADES, MIN_MAX, CENTRED = "ranks", "grades", "min-max", "centred"
CONSTANT, TOO_FEW = "constant", "too few"

_WORDS: Mapping[str, tuple[str, str]] = {
    RAW: ("unbounded numbers, as raw logits and inner products are", ""),
    COSINE: (
        "numbers between -1 and 1, as cosines are",
        "Differences of cosines are small: a softmax over them needs a small temperature.",
    ),
    SIGMOID: (
        "squashed by a sigmoid (or a softmax over yes and no)",
        (
            "Near 0 and 1 the differences between documents are lost, and no margin exceeds 1."
            " Score again with raw logits: activation none, in sentence-transformers"
            " activation_fn=torch.nn.Identity(). Failing that, log(p / (1 - p)) gives the logits"
            " back, as far as they were not rounded to 0 or 1."
        ),
    ),
    UNIT: (
        "numbers between 0 and 1 that reach both ends without crowding there",
        (
            "They may be probabilities or something else; if the teacher ended in a sigmoid, its"
            " raw logits say more."
        ),
    ),
    SOFTMAX: (
        "probabilities that sum to 1 over each list, as a softmax gives",
        (
            "A loss such as KL would take a softmax of them again, which flattens them. Use the raw"
            " scores, or the logarithms of these with teacher_tau=1."
        ),
    ),
    LOG_SOFTMAX: (
        "logarithms of probabilities that sum to 1 over each list",
        "KL with teacher_tau=1 gives them back exactly.",
    ),
    LOG_PROBABILITY: (
        "logarithms of probabilities, crowded at 0",
        (
            "The best documents are all close to 0, so their differences are lost. Score again with"
            " the difference of the logits (log-odds)."
        ),
    ),
    RANKS: (
        "ranks: the same steps from place to place in every list",
        (
            "They tell the order and no distances, so margins mean nothing; use a loss of the"
            " order, or KL with a temperature that says how much the first places count."
        ),
    ),
    GRADES: (
        "a few levels only, as grades are",
        (
            "Documents of one level are tied; only a loss that leaves ties alone learns no "
            "order that is not there."
        ),
    ),
    MIN_MAX: (
        "stretched from 0 to 1 in each list",
        (
            "A list of documents that are all alike looks like one with a clear winner, so"
            " distances mean nothing across lists."
        ),
    ),
    CENTRED: ("centred in each list, as z-scores are", "Distances mean little from list to list."),
    CONSTANT: ("one and the same number in each list", "There is no order to learn."),
    TOO_FEW: ("too few to tell on which scale they lie", ""),
}


@dataclass(frozen=True)
class Scale:
    """What the scores look like.

    Attributes:
        kind: one of this module's names.
        ends: share of the scores within ENDS of 0 or 1, where all lie between these; else None.
        grid: ``bfloat16`` or ``float16`` where the scores lie on that type's grid, else None.
        levels: different scores in all.
    """

    kind: str
    ends: float | None
    grid: str | None
    levels: int

    @property
    def words(self) -> str:
        """What they are, as the end of a sentence that begins with *the scores are*."""
        return _WORDS[self.kind][0]

    @property
    def remedy(self) -> str:
        """What follows from it, in sentences; empty where nothing does."""
        return _WORDS[self.kind][1]

    @property
    def grid_words(self) -> str:
        """The sentence on half precision; empty where the scores are on no coarse grid."""
        if self.grid is None:
            return ""
        digits = {
            "bfloat16": "8 binary digits, steps of 0.125 at a score of 20",
            "float16": "11 binary digits, steps of 0.016 at a score of 20",
        }
        return (
            f"All scores lie on the grid of {self.grid} ({digits[self.grid]}), which makes ties out"
            " of small differences; score again with --precision float32 if many are tied."
        )

    @property
    def spoilt(self) -> bool:
        """Whether the numbers lost what a loss needs, though their order may be good."""
        return self.kind in (SIGMOID, SOFTMAX, LOG_PROBABILITY)


def recognise(lists: Sequence[Scored], producer: Mapping[str, Any] | None = None) -> Scale:
    """Name the scale.

    The rules, the first that holds: all lists constant; equal steps or equal scores at every rank
        (ranks); sums of 1 per
    list (softmax, or its logarithm); a few levels (grades); 0 and 1 in every list (min-max); mean 0
    in every list (centred); all in [0, 1] and CLUMPED of them within ENDS of 0 or 1, NEARLY of
    these not exactly there (sigmoid); all in [0, 1] with the middle 98% over more than 0.9 of it
    (unit interval); all at most 0 and CLUMPED of them within ENDS of 0 (log-probability); all in
    [-1, 1] (cosine); else raw.

    Args:
        producer: what the run says of its producer; a retriever by cosine is believed.
    """
    lists = [found for found in lists if len(found.scores)]
    values = np.concatenate([found.scores for found in lists]) if lists else np.empty(0)
    levels = len(np.unique(values))
    inside = len(values) > 0 and bool(values.min() >= 0 and values.max() <= 1)
    ends = float(np.mean((values <= ENDS) | (values >= 1 - ENDS))) if inside else None
    kind = _kind(lists, values, levels, ends, producer or {})
    return Scale(
        kind, ends, None if kind in (RANKS, GRADES, CONSTANT, TOO_FEW) else _grid(values), levels
    )


def _kind(
    lists: Sequence[Scored],
    values: np.ndarray,
    levels: int,
    ends: float | None,
    producer: Mapping[str, Any],
) -> str:
    several = [found.scores for found in lists if len(found.scores) >= 3]
    if len(values) < _FEWEST or not several:
        return TOO_FEW
    if all(np.ptp(scores) == 0 for scores in several):
        return CONSTANT
    if _ranks(several):
        return RANKS
    if values.min() >= 0 and _most([abs(scores.sum() - 1) < 1e-3 for scores in several]):
        return SOFTMAX
    if values.max() <= 0 and _most([abs(np.exp(scores).sum() - 1) < 1e-3 for scores in several]):
        return LOG_SOFTMAX
    if levels <= LEVELS:
        return GRADES
    if _most([scores[-1] == 0 and scores[0] == 1 for scores in several]):
        return MIN_MAX
    if _most([abs(scores.mean()) < 1e-4 * scores.std() for scores in several]):
        return CENTRED
    if (
        producer.get("kind") == "retriever"
        and producer.get("similarity") == "cosine"
        and np.abs(values).max() <= 1.01
    ):
        return COSINE
    if ends is not None:
        # a measure of overlap is often exactly 0 and seldom nearly so; a sigmoid is nearly 0 before
        # it is 0
        exact = float(np.mean((values == 0) | (values == 1)))
        if ends >= CLUMPED and ends - exact >= NEARLY * ends:
            return SIGMOID
        low, high = np.quantile(values, [0.01, 0.99])
        return UNIT if high - low > 0.9 else COSINE
    if values.max() <= 0 and values.min() < -1 and np.mean(values > -ENDS) >= CLUMPED:
        return LOG_PROBABILITY
    return COSINE if np.abs(values).max() <= 1.001 else RAW


def _ranks(several: Sequence[np.ndarray]) -> bool:
    step = float(np.median([scores[0] - scores[1] for scores in several]))
    if step > 0 and _most(
        [bool(np.allclose(np.diff(scores), -step, rtol=1e-5, atol=0)) for scores in several]
    ):
        return True
    depth = min(10, *(len(scores) for scores in several)) if len(several) > 1 else 0
    if len(several) < 5 or depth < 3:
        return False
    table = np.array([scores[:depth] for scores in several])
    return bool(
        (np.diff(table, axis=1) < 0).all()
        and np.ptp(table, axis=0).max() <= 1e-6 * np.abs(table).max()
    )


def _most(holds: Sequence[bool]) -> bool:
    return bool(np.mean(holds) >= MOST)


def _grid(values: np.ndarray) -> str | None:
    """Whole numbers and halves are on every grid, so they prove nothing."""
    telling = values[(values * 2) % 1 != 0].astype(np.float32)
    if len(np.unique(telling)) < _FEWEST:
        return None
    if np.mean((telling.view(np.uint32) & 0xFFFF) == 0) >= _GRID:
        return "bfloat16"
    with np.errstate(over="ignore"):
        return (
            "float16"
            if np.mean(telling.astype(np.float16).astype(np.float32) == telling) >= _GRID
            else None
        )
