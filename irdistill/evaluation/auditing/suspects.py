"""Documents on which teacher and judgments contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.evaluation.auditing.query_sample import Lists, ScoredList, scored_texts

BOTTOM = 0.25
"""The share of a list, of at least FEWEST documents, that is its bottom."""
FEWEST = 8
_SNIPPET = 240


@dataclass(frozen=True)
class Example:
    """A contradiction to read.

    Attributes:
        query, text: texts; the document's is cut to its beginning.
        rank, of: the document's rank among the teacher's ``of`` scored documents.
        margin: distance of the score above the best judged-relevant document's, or, at the bottom,
            below the list's best.
        positive, positive_text: the best judged-relevant document; None at the bottom.
    """

    query_id: str
    query: str
    doc_id: str
    text: str
    rank: int
    of: int
    margin: float
    grade: int | None = None
    positive: str | None = None
    positive_text: str | None = None


@dataclass(frozen=True)
class Suspects:
    """Contradictions of one teacher, over the lists in which a relevant document is scored.

    Attributes:
        queries: number of those lists.
        judged: share of their documents that is judged.
        unjudged: number of their documents without a judgment.
        above: number of these above the best judged-relevant document.
        queries_above: number of lists with at least one of them.
        positives: number of judged-relevant documents in lists of at least FEWEST.
        bottom: number of these in the lowest BOTTOM of the list.
        missed: examples of ``above``, one per query, the largest margin first.
        doubtful: examples of ``bottom``, the lowest first.
    """

    queries: int
    judged: float
    unjudged: int
    above: int
    queries_above: int
    positives: int
    bottom: int
    missed: tuple[Example, ...]
    doubtful: tuple[Example, ...]

    @property
    def fully_judged(self) -> bool:
        """Whether every document is judged, so that none can be a missed positive."""
        return self.queries > 0 and self.unjudged == 0


def find_suspects(
    collection: Collection, lists: Lists, examples: int, relevant_from: int = 1
) -> Suspects:
    """Find contradictions; documents of grade ``relevant_from`` or above are relevant.

    Texts are read for the examples only.
    """
    queries = documents = unjudged = above = queries_above = positives = bottom = 0
    missed: list[tuple[float, str, int, int]] = []
    doubtful: list[tuple[float, float, str, int]] = []
    for query, ranked in lists.items():
        grades, length = collection.qrels.get(query, {}), len(ranked.doc_ids)
        contradictions = contradictions_of(ranked, grades, relevant_from)
        if contradictions is None:
            continue
        best, over, low, unknown, known_relevant = contradictions
        queries, documents = queries + 1, documents + length
        unjudged += unknown
        above, queries_above = above + len(over), queries_above + bool(len(over))
        if len(over):
            margin = float(ranked.scores[over[0]] - ranked.scores[best])
            missed.append((margin, query, int(over[0]), best))
        if length >= FEWEST:
            positives, bottom = positives + known_relevant, bottom + len(low)
            if len(low):
                place = int(low[-1])
                margin = float(ranked.scores[0] - ranked.scores[place])
                doubtful.append((place / length, margin, query, place))
    return Suspects(
        queries,
        1 - unjudged / documents if documents else 0.0,
        unjudged,
        above,
        queries_above,
        positives,
        bottom,
        tuple(
            _example(collection, lists[query], place, margin, best)
            for margin, query, place, best in sorted(missed, reverse=True)[:examples]
        ),
        tuple(
            _example(collection, lists[query], place, margin)
            for _, margin, query, place in sorted(doubtful, reverse=True)[:examples]
        ),
    )


class Contradictions(NamedTuple):
    """The contradictions in one list, as places in it.

    Attributes:
        best: the best judged-relevant document.
        above: unjudged documents above it.
        low: judged-relevant documents in the lowest BOTTOM; none in a list shorter than FEWEST.
        unjudged, relevant: number of documents without a judgment, and judged relevant.
    """

    best: int
    above: np.ndarray
    low: np.ndarray
    unjudged: int
    relevant: int


def contradictions_of(
    ranked: ScoredList, grades: Mapping[str, int], relevant_from: int = 1
) -> Contradictions | None:
    """The contradictions in a list; None if no relevant document is scored."""
    length, relevant = len(ranked.doc_ids), ranked.relevant(grades, relevant_from)
    if not relevant.any():
        return None
    unknown = np.array([doc not in grades for doc in ranked.doc_ids])
    best = int(np.flatnonzero(relevant)[0])
    low = relevant & (np.arange(length) >= length * (1 - BOTTOM)) & (length >= FEWEST)
    return Contradictions(
        best,
        np.flatnonzero(unknown & (ranked.scores > ranked.scores[best])),
        np.flatnonzero(low),
        int(unknown.sum()),
        int(relevant.sum()),
    )


def _example(
    collection: Collection, ranked: ScoredList, place: int, margin: float, best: int | None = None
) -> Example:
    def text(at: int) -> str:
        return snippet(scored_texts(collection.corpus, ranked, [at])[0])

    return Example(
        ranked.query_id,
        snippet(collection.queries[ranked.query_id].text),
        ranked.doc_ids[place],
        text(place),
        place + 1,
        len(ranked.doc_ids),
        margin,
        collection.qrels[ranked.query_id].get(ranked.doc_ids[place]),
        ranked.doc_ids[best] if best is not None else None,
        text(best) if best is not None else None,
    )


def snippet(text: str, length: int = _SNIPPET) -> str:
    """The beginning of a text on one line, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length + 1].rsplit(" ", 1)[0][:length] + " …"
