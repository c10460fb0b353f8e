"""Where the documents of a training list come from, by rank in the run."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from irdistill.errors import IrdistillError

_PATTERN = re.compile(r"(?:(?P<word>all|top)|(?P<first>\d+)-(?P<last>\d+))(?::(?P<count>\d+))?")


class Source(NamedTuple):
    """Ranks ``first`` to ``last`` (from 1, both included), from which ``take`` documents are taken.

    ``take`` 0 means a fair share of what the others leave; ``top`` takes the best in order, else at
    random.
    """

    first: int
    last: int
    take: int
    top: bool


def parse_sources(text: str) -> tuple[Source, ...]:
    """Read ``SOURCE[:COUNT],…`` with ``all``, ``top`` or ``FIRST-LAST``, as ``1-10:4,11-100:12``.

    Raises:
        IrdistillError: it cannot be read.
    """
    sources = []
    for part in text.replace(" ", "").split(","):
        match = _PATTERN.fullmatch(part)
        first, last = (int(match["first"] or 1), int(match["last"] or 2**31)) if match else (0, 0)
        if match is None or not 1 <= first <= last or match["count"] == "0":
            raise IrdistillError(
                f"the sources {text!r} have a part {part!r} that cannot be read. Write all, top or"
                " ranks such as 1-50, each with :COUNT if wanted, joined by commas:"
                " 1-10:4,11-100:12."
            )
        sources.append(Source(first, last, int(match["count"] or 0), match["word"] == "top"))
    return tuple(sources)


def draw(
    sources: tuple[Source, ...], ranked: np.ndarray, want: int, random: np.random.Generator
) -> np.ndarray:
    """Choose at most ``want`` of the ``ranked`` items (best first), each once, in rank order.

    Where a source holds fewer than its count the list is shorter; nothing is taken from elsewhere.
    """
    open_sources = sum(source.take == 0 for source in sources)
    left = max(0, want - sum(source.take for source in sources))
    taken = np.zeros(len(ranked), dtype=bool)
    for source in sources:
        share = source.take
        if not share:
            share = -(-left // open_sources)
            left, open_sources = left - share, open_sources - 1
        room = min(share, want - int(taken.sum()))
        choices = np.flatnonzero(~taken[source.first - 1 : source.last]) + source.first - 1
        if len(choices) > room:
            choices = choices[:room] if source.top else random.choice(choices, room, replace=False)
        taken[choices] = True
    return ranked[taken]


def draw_by_margin(
    scores: np.ndarray, allowed: np.ndarray, want: int, bins: int, random: np.random.Generator
) -> np.ndarray:
    """Choose at most ``want`` of the allowed places, each once, evenly from ranges of the score, in
    rank order.

    The range between the lowest and the highest score is cut into ``bins`` of one width. Each
    document is drawn from one of those that still hold some, all equally likely, so that rare
    margins come as often as common ones (after the balanced margins of Hofstaetter et al. 2021,
    arXiv:2104.06967; a margin to the positive differs from the score by a constant). Those without
    a score are a range of their own.

    Args:
        scores: (n,) of one teacher, NaN where not scored.
        allowed: places in ``scores``.
    """
    own = scores[allowed].astype(np.float64)
    known = ~np.isnan(own)
    group = np.full(len(own), bins)
    if known.any():
        low, high = own[known].min(), own[known].max()
        group[known] = np.minimum(
            bins - 1, (own[known] - low) / max(high - low, 1e-12) * bins
        ).astype(np.int64)
    held = {
        number: random.permutation(allowed[group == number]).tolist()
        for number in np.unique(group).tolist()
    }
    taken: list[int] = []
    while held and len(taken) < want:
        number = list(held)[random.integers(len(held))]
        taken.append(held[number].pop())
        if not held[number]:
            del held[number]
    return np.sort(np.array(taken, dtype=np.int64))


def within(sources: tuple[Source, ...], count: int) -> np.ndarray:
    """The places (from 0), of ``count`` ranked items, that the sources reach."""
    reached = np.zeros(count, dtype=bool)
    for source in sources:
        reached[source.first - 1 : source.last] = True
    return np.flatnonzero(reached)
