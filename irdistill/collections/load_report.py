"""What loading a collection found: counts, and the places where it found them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

KEPT_PLACES = 20
"""How many places are kept for each kind of finding; the count goes on."""


@dataclass
class Problem:
    """How often something was found, and the first places (``corpus.jsonl line 12``)."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.places) < KEPT_PLACES:
            self.places.append(place)


@dataclass
class LoadReport:
    """What a collection holds and what was put up with when it was loaded.

    Kinds of findings: ``empty documents``, ``duplicate documents`` (same id and text, kept once),
    ``duplicate queries``, ``duplicate judgments``, ``unjudged queries`` (left out of the split),
    ``judgments without document``, ``positive judgments without document``, ``judgments without
    query``, ``qrels without header``, ``responses without document`` (a canonical answer of CAsT
    2020 that the corpus has not), ``no judgments`` (the file that would hold them is not there),
    and those of the embedded collection.
    """

    documents: int = 0
    queries: int = 0
    judgments: int = 0
    findings: dict[str, Problem] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def add(self, kind: str, place: str) -> None:
        """Count a finding of this kind at this place."""
        self.findings.setdefault(kind, Problem()).add(place)

    def count(self, kind: str) -> int:
        """How many of this kind were found (0 for a kind never met)."""
        return self.findings[kind].count if kind in self.findings else 0

    def places(self, kind: str) -> list[str]:
        """The first places of this kind."""
        return list(self.findings[kind].places) if kind in self.findings else []

    def add_stored(self, findings: Mapping[str, Any]) -> None:
        """Add findings that were stored as JSON with a compiled corpus."""
        for kind, found in findings.items():
            mine = self.findings.setdefault(kind, Problem())
            mine.count += int(found["count"])
            mine.places.extend(found["places"][: KEPT_PLACES - len(mine.places)])

    def to_json(self) -> dict[str, Any]:
        """Plain values for a JSON file."""
        return {
            "documents": self.documents,
            "queries": self.queries,
            "judgments": self.judgments,
            "findings": problems_json(self.findings),
            "notes": self.notes,
        }

    def lines(self, without: Collection[str] = ()) -> list[str]:
        """One readable line for the counts and one for each kind of finding.

        Args:
            without: kinds to leave out.
        """
        first = f"{self.documents} documents, {self.queries} queries, {self.judgments} judgments"
        return [
            first,
            *(
                _line(kind, found)
                for kind, found in self.findings.items()
                if found.count and kind not in without
            ),
        ]


def problems_json(findings: Mapping[str, Problem]) -> dict[str, Any]:
    """Findings as plain values."""
    return {
        kind: {"count": found.count, "places": found.places} for kind, found in findings.items()
    }


def _line(kind: str, found: Problem) -> str:
    shown = "; ".join(_first(found.places, 3))
    more = f" and {found.count - min(3, len(found.places))} more" if found.count > 3 else ""
    return f"{found.count} {kind}: {shown}{more}"


def _first(places: Iterable[str], n: int) -> list[str]:
    return list(places)[:n]
