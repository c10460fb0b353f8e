"""Runs of one collection compared query by query."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import NotFoundError, OptionError
from irdistill.evaluation.measures import PerQuery
from irdistill.evaluation.query_differences import (
    ORDERS,
    ORDERS_OF_ONE,
    ScatterCells,
    query_order,
    scatter_cells,
)
from irdistill.evaluation.reporting.query_rankings import QueryRankings, ShownQuery
from irdistill.runs import Run


class Pair(NamedTuple):
    """Two systems and a measure; the difference is ``right`` minus ``left``.

    For a system with itself the difference is its value.
    """

    left: str
    right: str
    measure: str


class QueryRow(NamedTuple):
    """A query in a list of differences; figures as text."""

    id: str
    text: str
    left: str
    right: str
    difference: str


class QueryPage(NamedTuple):
    """Some rows of a list.

    Attributes:
        total: number of rows of the whole list.
    """

    total: int
    rows: list[QueryRow]


class QueryComparison:
    """The values and rankings of single queries.

    Args:
        values: system -> values of its run, by the same measures.
        runs: system -> run, as it was measured.
        k: documents shown per list.
    """

    def __init__(
        self,
        values: Mapping[str, PerQuery],
        collection: Collection,
        runs: Mapping[str, Run],
        k: int = 10,
    ) -> None:
        self.per_query, self.collection, self.runs = values, collection, runs
        self.systems = list(runs)
        self.measures = list(values[self.systems[0]].values)
        self.query_ids = self.per_query[self.systems[0]].query_ids
        self._places = {query_id: place for place, query_id in enumerate(self.query_ids)}
        self._rankings = QueryRankings(collection, runs, k)
        self.cells = lru_cache(maxsize=32)(self._cells)
        self._order = lru_cache(maxsize=16)(self._make_order)

    def values(self, system: str, measure: str) -> np.ndarray:
        """(Q,) values of a system.

        Raises:
            NotFoundError: there is no such system or measure.
        """
        if system not in self.per_query or measure not in self.measures:
            raise NotFoundError(
                f"there are no values of {system!r} by {measure!r}. Systems:"
                f" {', '.join(self.systems)}; measures: {', '.join(self.measures)}."
            )
        return self.per_query[system].values[measure]

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._places

    def scatter(self, pair: Pair) -> dict[str, Any]:
        """The scatter plot of a pair as plain values: its axes, and (across, up, queries) cells."""
        cells = self.cells(pair)
        places = zip(cells.across.tolist(), cells.up.tolist(), cells.counts.tolist(), strict=True)
        return {"low": cells.low, "high": cells.high, "width": cells.width, "cells": list(places)}

    def rankings(self, query_id: str) -> ShownQuery:
        """The lists of all systems for a query."""
        return self._rankings.query(query_id)

    def shown_values(self, query_id: str, measure: str) -> list[str]:
        """The value of each system on a query."""
        place = self._places[query_id]
        return [f"{self.values(system, measure)[place]:.4f}" for system in self.systems]

    def page(
        self,
        pair: Pair,
        order: str = "difference",
        cell: int | None = None,
        text: str = "",
        start: int = 0,
        count: int = 100,
    ) -> QueryPage:
        """Some rows of the list of queries.

        Args:
            order: one of `ORDERS`.
            cell: only the queries of this cell of `cells`.
            text: only the queries that contain this text, or have it in their id.
        """
        if order not in ORDERS:
            raise OptionError(f"the order {order!r} is none of {', '.join(ORDERS)}.")
        places = self._order(pair, order, cell, text.strip().lower())
        chosen = places[max(0, start) :][:count].tolist()
        return QueryPage(len(places), [self.row(pair, place) for place in chosen])

    def row(self, pair: Pair, place: int) -> QueryRow:
        """The row of the query at a place."""
        left = float(self.values(pair.left, pair.measure)[place])
        right = float(self.values(pair.right, pair.measure)[place])
        query_id = self.query_ids[place]
        alone = pair.left == pair.right
        return QueryRow(
            query_id,
            self._text(query_id),
            "" if alone else f"{left:.4f}",
            "" if alone else f"{right:.4f}",
            f"{right:.4f}" if alone else _signed(right - left),
        )

    @property
    def orders(self) -> dict[str, str]:
        """The orders of the list, and their names."""
        return ORDERS if len(self.systems) > 1 else ORDERS_OF_ONE

    def _cells(self, pair: Pair) -> ScatterCells:
        """The scatter plot of a pair."""
        return scatter_cells(*self._both(pair))

    def _both(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        values = self.values(pair.right, pair.measure)
        if pair.left == pair.right:
            return np.zeros_like(values), values
        return self.values(pair.left, pair.measure), values

    def _make_order(self, pair: Pair, order: str, cell: int | None, text: str) -> np.ndarray:
        places = query_order(*self._both(pair), order)
        if cell is not None:
            places = places[self.cells(pair).cell_of[places] == cell]
        if text:
            ids = self.query_ids
            matches = [
                text in ids[place].lower() or text in self._text(ids[place]).lower()
                for place in places.tolist()
            ]
            places = places[np.array(matches, bool)]
        return places

    def _text(self, query_id: str) -> str:
        query = self.collection.queries.get(query_id)
        return "" if query is None else query.text


def _signed(difference: float) -> str:
    """A difference; without a sign where it rounds to 0.

    Examples:
        >>> _signed(0.25), _signed(-1e-17)
        ('+0.2500', '0.0000')
    """
    text = f"{difference:+.4f}"
    return "0.0000" if float(text) == 0 else text
