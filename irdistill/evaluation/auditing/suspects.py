"""Where teacher and judgments contradict each other: documents to read before either is
believed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from irdistill.collections import Collection
from irdistill.evaluation.auditing.sample import Scored

BOTTOM = 0.25
"""The part of a list that is its bottom; of FEWEST documents or more."""
FEWEST = 8
_SNIPPET = 240


@dataclass(frozen=True)
class Example:
    """A contradiction to read.

    Attributes:
        query, text: the texts, the document's cut to its beginning.
        rank, of: the document's place in the teacher's list of ``of`` scored documents.
        margin: the score's distance above the best judged-relevant document's, or (at the bottom)
            below the list's best.
        positive, positive_text: the best judged-relevant document; None where the contradiction is
            at the bottom.
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
    """Contradictions between one teacher and the judgments, over lists in which something relevant
    is scored.

    Attributes:
        queries: those lists. judged: share of their documents that is judged.
        unjudged: documents of theirs without a judgment. above: those above the best
            judged-relevant document.
        queries_above: lists with at least one of them.
        positives: judged-relevant documents in lists of FEWEST or more. bottom: those in the lowest
            BOTTOM of the list.
        missed: examples of ``above``, one a query, the largest margin first. doubtful: of
            ``bottom``, the lowest first.
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
        """Whether no document lacks a judgment, so that none can be a missed positive."""
        return self.queries > 0 and self.unjudged == 0


def suspects(
    collection: Collection, lists: Mapping[str, Scored], examples: int, relevant_from: int = 1
) -> Suspects:
    """Find them, documents of grade ``relevant_from`` or above being relevant; texts are read for
    the examples alone.
    """
    queries = documents = unjudged = above = queries_above = positives = bottom = 0
    missed: list[tuple[float, str, int, int]] = []
    doubtful: list[tuple[float, float, str, int]] = []
    for query, found in lists.items():
        grades = collection.qrels.get(query, {})
        relevant = np.array(
            [grades.get(doc, 0) >= relevant_from for doc in found.doc_ids], dtype=bool
        )
        if not relevant.any():
            continue
        strange = np.array([doc not in grades for doc in found.doc_ids])
        best = int(np.flatnonzero(relevant)[0])
        over = np.flatnonzero(strange & (found.scores > found.scores[best]))
        queries, documents, unjudged = (
            queries + 1,
            documents + len(strange),
            unjudged + int(strange.sum()),
        )
        above, queries_above = above + len(over), queries_above + bool(len(over))
        if len(over):
            missed.append(
                (float(found.scores[over[0]] - found.scores[best]), query, int(over[0]), best)
            )
        if len(strange) >= FEWEST:
            low = np.flatnonzero(
                relevant & (np.arange(len(strange)) >= len(strange) * (1 - BOTTOM))
            )
            positives, bottom = positives + int(relevant.sum()), bottom + len(low)
            if len(low):
                place = int(low[-1])
                doubtful.append(
                    (
                        place / len(strange),
                        float(found.scores[0] - found.scores[place]),
                        query,
                        place,
                    )
                )
    missed.sort(reverse=True)
    doubtful.sort(reverse=True)
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
            for margin, query, place, best in missed[:examples]
        ),
        tuple(
            _example(collection, lists[query], place, margin)
            for _, margin, query, place in doubtful[:examples]
        ),
    )


def _example(
    collection: Collection, found: Scored, place: int, margin: float, best: int | None = None
) -> Example:
    def text(at: int) -> str:
        return snippet(collection.corpus.text(collection.corpus.row(found.doc_ids[at])))

    return Example(
        found.query_id,
        snippet(collection.queries[found.query_id].text),
        found.doc_ids[place],
        text(place),
        place + 1,
        len(found.doc_ids),
        margin,
        collection.qrels[found.query_id].get(found.doc_ids[place]),
        found.doc_ids[best] if best is not None else None,
        text(best) if best is not None else None,
    )


def snippet(text: str, length: int = _SNIPPET) -> str:
    """The beginning of a text on one line, cut between words."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length + 1].rsplit(" ", 1)[0][:length] + " …"
