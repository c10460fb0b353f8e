"""Which queries a step takes: pure functions of (seed, step), so that nothing of them needs
saving.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

#: Lists drawn in a curriculum are of "epochs" from here on, so that none is the same as in an epoch
#: over all queries.
_CURRICULUM = 1 << 40


class QueryOrder(Protocol):
    """Gives the (epoch, query number) of all queries of a step (from 0); a list is drawn anew in
    each epoch.
    """

    def __call__(self, step: int) -> list[tuple[int, int]]: ...


class Shuffled:
    """Every epoch goes through all queries in a new order; a step may end one and begin the next.

    Args:
        count: queries there are.
        size: queries a step.
    """

    def __init__(self, count: int, size: int, seed: int) -> None:
        self.count, self.size, self.seed = count, size, seed
        self._last: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> list[tuple[int, int]]:
        chosen = []
        for position in range(step * self.size, (step + 1) * self.size):
            epoch, within = divmod(position, self.count)
            if self._last is None or self._last[0] != epoch:
                self._last = (
                    epoch,
                    np.random.default_rng([self.seed, 0, epoch]).permutation(self.count),
                )
            chosen.append((epoch, int(self._last[1][within])))
        return chosen


class InOrder:
    """Every query once, in the order they have; the last step may have fewer."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.steps = -(-count // size)

    def __call__(self, step: int) -> list[tuple[int, int]]:
        return [
            (0, query) for query in range(step * self.size, min(self.count, (step + 1) * self.size))
        ]


class Curriculum:
    """Draws each step from the easiest queries, a share that grows; from the time it is all of
    them, as `Shuffled`.

    Within a step no query comes twice, as long as there are enough.

    Args:
        difficulty: (Q,) of the queries; equal ones stand in their order.
        pace: the share to draw from in a step, above 0.
    """

    def __init__(
        self, difficulty: np.ndarray, pace: Callable[[int], float], size: int, seed: int
    ) -> None:
        self.easiest = np.argsort(difficulty, kind="stable")
        self.pace, self.size, self.seed = pace, size, seed
        self.afterwards = Shuffled(len(difficulty), size, seed)

    def __call__(self, step: int) -> list[tuple[int, int]]:
        share = self.pace(step)
        if share >= 1:
            return self.afterwards(step)
        count = max(min(self.size, len(self.easiest)), math.ceil(share * len(self.easiest) - 1e-9))
        random = np.random.default_rng([self.seed, 2, step])
        chosen = random.choice(self.easiest[:count], self.size, replace=self.size > count)
        return [(_CURRICULUM + step, query) for query in chosen.tolist()]


def pacing(kind: str, start: float, length: int) -> Callable[[int], float]:
    """How the share of a curriculum grows from ``start`` in step 0 to 1 in step ``length``.

    ``linear``, or by the ``root`` of a line, under which the time a query has been in the pool
    falls as new ones come in (Platanios et al. 2019, arXiv:1903.09848).
    """

    def share(step: int) -> float:
        done = min(1.0, step / length) if length else 1.0
        if done == 1:
            return 1.0
        return (
            start + (1 - start) * done
            if kind == "linear"
            else math.sqrt(start**2 + (1 - start**2) * done)
        )

    return share


class Clustered:
    """Steps of queries that lie close together, so that the documents of the other lists are hard
    negatives.

    In every epoch the queries of a cluster are shuffled and cut into steps, those left over of all
    clusters make the last steps together, and the steps are shuffled (after Hofstaetter et al.
    2021, arXiv:2104.06967, who draw a cluster for each step). Up to ``size - 1`` queries, others
    each time, have no place in an epoch.

    Args:
        clusters: (Q,) the cluster of each query.
    """

    def __init__(self, clusters: Sequence[int] | np.ndarray, size: int, seed: int) -> None:
        self.clusters, self.size, self.seed = np.asarray(clusters), size, seed
        self.steps = max(1, len(self.clusters) // size)
        self._last: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> list[tuple[int, int]]:
        epoch, within = divmod(step, self.steps)
        if self._last is None or self._last[0] != epoch:
            self._last = epoch, self._epoch(epoch)
        return [(epoch, query) for query in self._last[1][within].tolist()]

    def _epoch(self, epoch: int) -> np.ndarray:
        """(steps, size) query numbers."""
        random = np.random.default_rng([self.seed, 0, epoch])
        shuffled = random.permutation(len(self.clusters))
        named = random.permutation(int(self.clusters.max()) + 1)[
            self.clusters
        ]  # so that no cluster is always the last
        shuffled = shuffled[np.argsort(named[shuffled], kind="stable")]
        sizes = np.unique(named, return_counts=True)[1]
        place = np.arange(len(shuffled)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        whole = place < np.repeat(sizes // self.size * self.size, sizes)
        joined = np.resize(
            np.concatenate([shuffled[whole], shuffled[~whole]]), (self.steps, self.size)
        )
        return random.permutation(joined)
