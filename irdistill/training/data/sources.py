"""The ranks of a run that the documents of a list are drawn from."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from irdistill.errors import OptionError

_PATTERN = re.compile(r"(?:(?P<word>all|top)|(?P<first>\d+)-(?P<last>\d+))(?::(?P<count>\d+))?")


class RankRange(NamedTuple):
    """Ranks ``first`` to ``last`` (from 1, inclusive), from which ``take`` documents are drawn.

    ``take`` 0 is an equal share of what the other ranges leave; ``top`` takes the best ones instead
    of random ones.
    """

    first: int
    last: int
    take: int
    top: bool


def parse_sources(text: str) -> tuple[RankRange, ...]:
    """Parse ``RANKS[:COUNT],…`` with ``all``, ``top`` or ``FIRST-LAST`` as ranks.

    Raises:
        OptionError: the text cannot be parsed.

    Examples:
        >>> parse_sources("1-10:4")
        (RankRange(first=1, last=10, take=4, top=False),)
    """
    ranges = []
    for part in text.replace(" ", "").split(","):
        match = _PATTERN.fullmatch(part)
        first, last = (int(match["first"] or 1), int(match["last"] or 2**31)) if match else (0, 0)
        if match is None or not 1 <= first <= last or match["count"] == "0":
            raise OptionError(
                f"sources is {text!r}, and its part {part!r} cannot be read. Write all, top or"
                " ranks such as 1-50, each with an optional :COUNT, separated by commas:"
                " 1-10:4,11-100:12."
            )
        ranges.append(RankRange(first, last, int(match["count"] or 0), match["word"] == "top"))
    return tuple(ranges)


def draw(
    sources: tuple[RankRange, ...], ranked: np.ndarray, want: int, random: np.random.Generator
) -> np.ndarray:
    """Draw at most ``want`` of the ``ranked`` items (best first), each once, in rank order.

    If a range has fewer items than its count, the list is shorter.
    """
    open_ranges = sum(source.take == 0 for source in sources)
    left = max(0, want - sum(source.take for source in sources))
    taken = np.zeros(len(ranked), dtype=bool)
    for source in sources:
        share = source.take
        if not share:
            share = -(-left // open_ranges)
            left, open_ranges = left - share, open_ranges - 1
        room = min(share, want - int(taken.sum()))
        choices = np.flatnonzero(~taken[source.first - 1 : source.last]) + source.first - 1
        if len(choices) > room:
            choices = choices[:room] if source.top else random.choice(choices, room, replace=False)
        taken[choices] = True
    return ranked[taken]


def draw_by_margin(
    scores: np.ndarray, allowed: np.ndarray, want: int, bins: int, random: np.random.Generator
) -> np.ndarray:
    """Draw at most ``want`` of the allowed places, each once, evenly from ranges of the score, in
    rank order.

    The range between the lowest and the highest score is cut into ``bins`` of equal width. Each
    document is drawn from a random bin that is not empty, so that rare margins are as frequent as
    common ones (after the balanced margins of Hofstaetter et al. 2021, arXiv:2104.06967; a margin
    to the positive differs from the score by a constant). Documents without a score are a bin of
    their own.

    Args:
        scores: (n,) of one teacher, NaN where not scored.
        allowed: places in ``scores``.
    """
    values = scores[allowed].astype(np.float64)
    known = ~np.isnan(values)
    group = np.full(len(values), bins)
    if known.any():
        low, high = values[known].min(), values[known].max()
        group[known] = np.minimum(
            bins - 1, (values[known] - low) / max(high - low, 1e-12) * bins
        ).astype(np.int64)
    members = {
        number: random.permutation(allowed[group == number]).tolist()
        for number in np.unique(group).tolist()
    }
    taken: list[int] = []
    while members and len(taken) < want:
        number = list(members)[random.integers(len(members))]
        taken.append(members[number].pop())
        if not members[number]:
            del members[number]
    return np.sort(np.array(taken, dtype=np.int64))


def within(sources: tuple[RankRange, ...], count: int) -> np.ndarray:
    """The places (from 0) of ``count`` ranked items that are in any of the ranges."""
    reached = np.zeros(count, dtype=bool)
    for source in sources:
        reached[source.first - 1 : source.last] = True
    return np.flatnonzero(reached)
