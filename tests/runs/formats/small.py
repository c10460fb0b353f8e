"""A collection with ids of MS MARCO's kind, and what a run holds as plain dictionaries."""

from __future__ import annotations

from irdistill.collections import Collection
from irdistill.runs import Run

DOCS: dict[str, str | tuple[str, str]] = {
    "10": "cats purr",
    "20": ("Dogs", "dogs bark"),
    "30": "fish swim",
    "40": "birds sing",
    "50": "bees hum",
    "d/ü": "Füchse bellen",
}
QUERIES = {"7": "what purrs", "8": "what barks", "q x": "wer bellt"}
QRELS = {"7": {"10": 1, "30": 0}, "8": {"20": 2}}


def small() -> Collection:
    """Six documents, three queries, two relevant documents."""
    return Collection.from_dicts("small", DOCS, QUERIES, QRELS)


def plain(run: Run) -> dict[str, dict[str, float | None]]:
    """query -> document -> score, None where there is none; queries with an empty list are left
    out.
    """
    return {
        ranked.query_id: {
            doc: None if score != score else score
            for doc, score in zip(ranked.doc_ids, ranked.scores.tolist(), strict=True)
        }
        for ranked in run
        if ranked.doc_ids
    }
