"""Two systems query by query: the cells of a scatter plot, and the queries in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from irdistill.evaluation.significance import equal_within

ORDERS = {
    "difference": "largest difference first",
    "gains": "most gained first",
    "losses": "most lost first",
    "queries": "as in the collection",
}
ORDERS_OF_ONE = {
    "losses": "lowest value first",
    "gains": "highest value first",
    "queries": "as in the collection",
}
"""The orders of the queries of a single system, whose differences are its values."""
_MOST = 1500
"""Cells of a plot; with more distinct points, queries are gathered in a grid."""
_BINS = 40


@dataclass(frozen=True)
class ScatterCells:
    """The points of a scatter plot, each with its number of queries.

    Attributes:
        across, up: (C,) where each cell is.
        counts: (C,) number of queries.
        cell_of: (Q,) the cell of each query.
        low, high: the ends of both axes.
        width: side of a cell of a grid; 0 where a cell is one point.
    """

    across: np.ndarray
    up: np.ndarray
    counts: np.ndarray
    cell_of: np.ndarray
    low: float
    high: float
    width: float = 0.0


def scatter_cells(across: np.ndarray, up: np.ndarray) -> ScatterCells:
    """Gather the queries that have the same values, or nearly the same if there are too many.

    Args:
        across, up: (Q,) values of two systems on the same queries.

    Examples:
        >>> cells = scatter_cells(np.array([0.0, 0.5, 0.5]), np.array([1.0, 0.5, 0.5]))
        >>> cells.counts.tolist(), cells.cell_of.tolist()
        ([1, 2], [0, 1, 1])
    """
    both = np.stack([across, up]).astype(np.float64)
    low, high = min(0.0, float(both.min())), max(1.0, float(both.max()))
    width = 0.0
    points, cell_of, counts = _distinct(np.round(both, 6))
    if len(counts) > _MOST:
        width = (high - low) / _BINS
        numbers = np.minimum((both - low) // width, _BINS - 1)
        points, cell_of, counts = _distinct(low + (numbers + 0.5) * width)
    return ScatterCells(points[0], points[1], counts, cell_of, low, high, width)


def _distinct(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(2, C) distinct points of (2, Q), (Q,) the number of each point's own, and (C,) counts."""
    ranks, sizes = [], []
    for values in points:
        distinct, inverse = np.unique(values, return_inverse=True)
        ranks.append(inverse)
        sizes.append(len(distinct))
    _, first, cell_of, counts = np.unique(
        ranks[0] * sizes[1] + ranks[1], return_index=True, return_inverse=True, return_counts=True
    )
    return points[:, first], cell_of, counts


def query_order(across: np.ndarray, up: np.ndarray, order: str) -> np.ndarray:
    """(Q,) queries in one of `ORDERS`; those that are equal stay as in the collection.

    Examples:
        >>> query_order(np.array([0.0, 0.5, 1.0]), np.array([0.1, 1.0, 0.8]), "gains").tolist()
        [1, 0, 2]
    """
    difference = np.asarray(up, np.float64) - across
    difference[np.abs(difference) < equal_within(across, up)] = 0.0
    keys = {
        "difference": -np.abs(difference),
        "gains": -difference,
        "losses": difference,
        "queries": np.zeros(len(difference)),
    }
    return np.argsort(np.round(keys[order], 12), kind="stable")
