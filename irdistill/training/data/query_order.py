"""The queries of each step: functions of (seed, step), so that no state has to be saved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

_CURRICULUM = 1 << 40
"""First epoch number of a curriculum, so that its lists differ from those of later epochs."""


class QueryOrder(Protocol):
    """Gives the queries of a step."""

    def __call__(self, step: int) -> list[tuple[int, int]]:
        """(epoch, query number) of the queries of a step; each epoch draws new lists."""
        ...


class Shuffled:
    """Every epoch goes through all queries in a new order; a step may span two epochs.

    Args:
        count: number of queries.
        size: queries per step.
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        self.count, self.size, self.seed = count, size, seed
        self._last: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> list[tuple[int, int]]:
        """(epoch, query number) of the queries of a step."""
        chosen = []
        for position in range(step * self.size, (step + 1) * self.size):
            epoch, place = divmod(position, self.count)
            if self._last is None or self._last[0] != epoch:
                random = np.random.default_rng([self.seed, 0, epoch])
                self._last = epoch, random.permutation(self.count)
            chosen.append((epoch, int(self._last[1][place])))
        return chosen


class InOrder:
    """Every query once, in order; the last step may have fewer queries."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.steps = -(-count // size)

    def __call__(self, step: int) -> list[tuple[int, int]]:
        """(0, query number) of the queries of a step."""
        start = step * self.size
        return [(0, query) for query in range(start, min(self.count, start + self.size))]


class Curriculum:
    """Draws each step from the easiest queries, a growing share; `Shuffled` once it is all of them.

    No query is repeated within a step if there are enough.

    Args:
        difficulty: (Q,) of the queries; equal ones keep their order.
        pace: share to draw from in a step, above 0.
    """

    def __init__(
        self, difficulty: np.ndarray, pace: Callable[[int], float], size: int, seed: int
    ) -> None:
        self.easiest = np.argsort(difficulty, kind="stable")
        self.pace, self.size, self.seed = pace, size, seed
        self.afterwards = Shuffled(len(difficulty), size, seed)

    def __call__(self, step: int) -> list[tuple[int, int]]:
        """(epoch, query number) of the queries of a step."""
        share = self.pace(step)
        if share >= 1:
            return self.afterwards(step)
        count = max(min(self.size, len(self.easiest)), math.ceil(share * len(self.easiest) - 1e-9))
        random = np.random.default_rng([self.seed, 2, step])
        chosen = random.choice(self.easiest[:count], self.size, replace=self.size > count)
        return [(_CURRICULUM + step, query) for query in chosen.tolist()]


def pacing(kind: str, start: float, length: int) -> Callable[[int], float]:
    """The share of a curriculum by step, from ``start`` in step 0 to 1 in step ``length``.

    ``linear``, or the ``root`` of a line: new queries come in more slowly as the pool grows
    (Platanios et al. 2019, arXiv:1903.09848).
    """

    def share(step: int) -> float:
        done = min(1.0, step / length) if length else 1.0
        if done == 1:
            return 1.0
        if kind == "linear":
            return start + (1 - start) * done
        return math.sqrt(start**2 + (1 - start**2) * done)

    return share


class Clustered:
    """Steps of similar queries, so that the documents of the other lists are hard negatives.

    In every epoch the queries of a cluster are shuffled and cut into steps. The rest of all
    clusters makes the last steps, and the steps are shuffled (after Hofstaetter et al. 2021,
    arXiv:2104.06967, who draw a cluster for each step). Up to ``size - 1`` queries, different ones
    each time, are left out of an epoch.

    Args:
        clusters: (Q,) the cluster of each query.
    """

    def __init__(self, clusters: Sequence[int] | np.ndarray, size: int, seed: int) -> None:
        self.clusters, self.size, self.seed = np.asarray(clusters), size, seed
        self.steps = max(1, len(self.clusters) // size)
        self._last: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> list[tuple[int, int]]:
        """(epoch, query number) of the queries of a step."""
        epoch, place = divmod(step, self.steps)
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, self._epoch(epoch)
        return [(epoch, query) for query in self._last[1][place].tolist()]

    def _epoch(self, epoch: int) -> np.ndarray:
        """(steps, size) query numbers."""
        random = np.random.default_rng([self.seed, 0, epoch])
        shuffled = random.permutation(len(self.clusters))
        # clusters are renumbered, so that the rest is not always of the same clusters
        numbers = random.permutation(int(self.clusters.max()) + 1)[self.clusters]
        shuffled = shuffled[np.argsort(numbers[shuffled], kind="stable")]
        sizes = np.unique(numbers, return_counts=True)[1]
        place = np.arange(len(shuffled)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        whole = place < np.repeat(sizes // self.size * self.size, sizes)
        joined = np.concatenate([shuffled[whole], shuffled[~whole]])
        return random.permutation(np.resize(joined, (self.steps, self.size)))
