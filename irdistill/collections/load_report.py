"""Counts and problems of loading a collection."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from irdistill.console.terminal import counted

KEPT_PLACES = 20
"""Places that are kept for each kind of problem; the count continues."""
_SHOWN_PLACES = 3


@dataclass
class Problem:
    """How often a problem occurred, and the first places (``corpus.jsonl line 12``)."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < KEPT_PLACES:
            self.places.append(place)


@dataclass
class LoadReport:
    """What a collection holds, and the problems tolerated while loading.

    Kinds of problems: ``empty documents``, ``duplicate documents`` (same id and text, kept once),
    ``duplicate queries``, ``duplicate judgments``, ``unjudged queries`` (not in the split),
    ``judgments without document``, ``positive judgments without document``, ``judgments without
    query``, ``qrels without header``, ``responses without document`` (a canonical answer of CAsT
    2020 that is not in the corpus), ``no judgments`` (their file does not exist), and those of the
    embedded collection.
    """

    documents: int = 0
    queries: int = 0
    judgments: int = 0
    problems: dict[str, Problem] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, place: str) -> None:
        """Count a problem of this kind at this place."""
        self.problems.setdefault(kind, Problem()).add(place)

    def count(self, kind: str) -> int:
        """The number of problems of this kind."""
        return self.problems[kind].count if kind in self.problems else 0

    def places(self, kind: str) -> list[str]:
        """The first places of this kind."""
        return list(self.problems[kind].places) if kind in self.problems else []

    def add_stored(self, problems: Mapping[str, Any]) -> None:
        """Add problems that were stored as JSON with a compiled corpus."""
        for kind, stored in problems.items():
            problem = self.problems.setdefault(kind, Problem())
            problem.count += int(stored["count"])
            problem.places.extend(stored["places"][: KEPT_PLACES - len(problem.places)])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "documents": self.documents,
            "queries": self.queries,
            "judgments": self.judgments,
            "findings": problems_json(self.problems),
            "notes": self.notes,
        }

    def lines(self, without: Collection[str] = ()) -> list[str]:
        """One line with the counts, and one line for each kind of problem.

        Args:
            without: kinds to omit.
        """
        counts = ", ".join(
            counted(number, noun)
            for number, noun in (
                (self.documents, "document"),
                (self.queries, "query"),
                (self.judgments, "judgment"),
            )
        )
        return [counts] + [
            _line(kind, problem)
            for kind, problem in self.problems.items()
            if problem.count and kind not in without
        ]


def problems_json(problems: Mapping[str, Problem]) -> dict[str, Any]:
    """Problems as plain values."""
    return {
        kind: {"count": problem.count, "places": problem.places}
        for kind, problem in problems.items()
    }


def _line(kind: str, problem: Problem) -> str:
    shown = problem.places[:_SHOWN_PLACES]
    more = f" and {problem.count - len(shown)} more" if problem.count > _SHOWN_PLACES else ""
    return f"{problem.count} {kind}: {'; '.join(shown)}{more}"
