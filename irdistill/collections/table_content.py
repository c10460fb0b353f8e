"""The known layouts of text tables, and which of them the content of a table allows."""

from __future__ import annotations

import re
from collections.abc import Callable

READINGS: dict[str, dict[int, tuple[tuple[str, ...], ...]]] = {
    "run": {
        3: (
            ("query", "document", "score"),
            ("query", "document", "rank"),
            ("query", "positive", "negative"),
        ),
        4: (
            ("query", "iteration", "document", "score"),
            ("query", "document", "rank", "score"),
            ("query", "document", "score", "rank"),
            ("query", "iteration", "document", "rank"),
            ("index", "query", "document", "score"),
            ("index", "query", "document", "rank"),
            ("query", "document", "score", "tag"),
            ("query", "document", "rank", "tag"),
        ),
        5: (
            ("first score", "second score", "query", "document", "document"),
            ("index", "query", "document", "rank", "score"),
            ("query", "iteration", "document", "rank", "score"),
            ("query", "document", "rank", "score", "tag"),
            ("index", "query", "iteration", "document", "score"),
            ("index", "query", "document", "score", "tag"),
        ),
        6: (
            ("query", "iteration", "document", "rank", "score", "tag"),
            ("index", "query", "document", "rank", "score", "tag"),
        ),
    },
    "judgments": {
        3: (
            ("query", "document", "grade"),
            ("query", "iteration", "document"),
            ("query", "positive", "negative"),
            ("query", "document", "rank"),
        ),
        4: (
            ("query", "iteration", "document", "grade"),
            ("index", "query", "document", "grade"),
            ("query", "document", "rank", "grade"),
        ),
    },
}
LARGEST_GRADE = 10
"""In judgments without a header, a larger number could be an id."""
TREC, TRIPLES = READINGS["run"][6][0], READINGS["run"][5][0]
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"\+?\d+(\.0*)?", re.ASCII)
_ZERO = {"0", "q0"}


class TableContent:
    """Rows with the same number of cells, and the possible roles of their columns."""

    def __init__(self, rows: list[list[str]]) -> None:
        self._columns = [[cell.strip() for cell in column] for column in zip(*rows, strict=True)]

    def allows(self, roles: tuple[str, ...], kind: str, chosen: bool = False) -> bool:
        """Whether the content allows a layout.

        Args:
            chosen: the user named the layout, so only a contradiction excludes it.
        """
        query = roles.index("query")
        trec = len(roles) == 6
        numbers = {place: self._all(_NUMBER, place) for place in range(len(roles))}
        checks: dict[str, Callable[[int], bool]] = {
            "query": self._filled,
            "document": self._filled,
            "positive": self._filled,
            "score": lambda place: (
                numbers[place] and not (chosen and self._counts_up(place, query))
            ),
            "rank": lambda place: (
                self._all(_WHOLE, place)
                and (trec or self._differs(place, query))
                and (kind == "run" or len(roles) != 3 or self._counts_up(place, query, 4))
            ),
            "grade": numbers.__getitem__,
            "index": self._is_index,
            "tag": lambda place: trec or not numbers[place],
            "iteration": lambda place: (
                trec
                or self.only_zero(place)
                or (kind == "judgments" and numbers[place] and len(roles) == 4)
            ),
            "negative": lambda place: self._is_id(place, place - 1, kind),
            "first score": lambda place: numbers[place] and (chosen or not self._whole(place)),
            "second score": lambda place: numbers[place] and (chosen or not self._whole(place)),
        }
        if not all(checks[role](place) for place, role in enumerate(roles)):
            return False
        return "rank" not in roles or trec or self._differs(roles.index("document"), query)

    def cell(self, row: int, place: int) -> str:
        """One cell."""
        return self._columns[place][row]

    def odd_number(self, place: int, expected: bool) -> int | None:
        """The first row whose cell is not a number in a column of numbers; None if there is none.

        Args:
            expected: the column should contain numbers; otherwise it counts as a column of numbers
                if at least half of its cells are.
        """
        wrong = [
            row for row, cell in enumerate(self._columns[place]) if not _NUMBER.fullmatch(cell)
        ]
        return (
            wrong[0]
            if wrong and (expected or 2 * len(wrong) <= len(self._columns[place]))
            else None
        )

    def _all(self, pattern: re.Pattern[str], place: int) -> bool:
        return all(map(pattern.fullmatch, self._columns[place]))

    def _filled(self, place: int) -> bool:
        return all(self._columns[place])

    def _whole(self, place: int) -> bool:
        """Whether a column has only whole numbers; they may be negative."""
        return all(_WHOLE.fullmatch(cell.removeprefix("-")) for cell in self._columns[place])

    def only_zero(self, place: int) -> bool:
        """Whether a column has only ``0`` or ``Q0``, as the second column of TREC files."""
        return all(cell.lower() in _ZERO for cell in self._columns[place])

    def _is_index(self, place: int) -> bool:
        """Whether a column numbers the rows from 0, as pandas does."""
        return all(cell == str(number) for number, cell in enumerate(self._columns[place]))

    def _is_id(self, place: int, other: int, kind: str) -> bool:
        """Whether a column could be ids, like its neighbor: no fractions, unless that has them."""
        if not self._filled(place):
            return False
        if kind == "judgments":
            return self._all(_WHOLE, place) and any(
                float(cell) > LARGEST_GRADE for cell in self._columns[place]
            )
        return (
            self._all(_WHOLE, place)
            or not self._all(_NUMBER, place)
            or (self._all(_NUMBER, other) and not self._whole(other))
        )

    def _differs(self, place: int, query: int) -> bool:
        """Whether no value of a column is repeated for a query."""
        pairs = list(zip(self._columns[query], self._columns[place], strict=True))
        return len(set(pairs)) == len(pairs)

    def _counts_up(self, place: int, query: int, rows: int = 2) -> bool:
        """Whether a column counts 1, 2, 3 … (or 0, 1, 2 …) for each query, and at least one query
        has this number of rows.
        """
        if not self._whole(place):
            return False
        values: dict[str, list[float]] = {}
        for name, cell in zip(self._columns[query], self._columns[place], strict=True):
            values.setdefault(name, []).append(float(cell))
        return any(len(ranks) >= rows for ranks in values.values()) and all(
            ranks == [ranks[0] + step for step in range(len(ranks))] and ranks[0] in (0, 1)
            for ranks in values.values()
        )
