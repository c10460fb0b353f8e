"""Pairs of a query and a document that are worth a look by a person, one after another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any, Literal

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.judging.judge_log import Pair
from irdistill.errors import OptionError
from irdistill.evaluation.auditing.query_sample import ScoredList, scored, shared_parts
from irdistill.evaluation.auditing.suspects import BOTTOM, FEWEST, contradictions_of
from irdistill.runs import Run

PairSource = Literal["suspects", "bottom", "disagreements", "unjudged"]
BLOCK = 512
"""Most queries that are read and ordered together."""
FAR = 0.5
"""From this distance of two ranks on, as a share of the list, rankers disagree on a document."""


@dataclass(frozen=True)
class QueueOptions:
    """Which pairs, and how many.

    Attributes:
        source: ``suspects``: unjudged documents above the best judged-relevant one. ``bottom``:
            judged-relevant documents in the lowest quarter. ``disagreements``: unjudged documents
            whose ranks in two runs are at least half a list apart. ``unjudged``: unjudged documents
            among the first k.
        k: depth of ``unjudged``.
        per_query: most pairs of one query.
        relevant_from: lowest grade of a relevant document.
        seed: random seed of the order of the blocks.
    """

    source: PairSource = "suspects"
    k: int = 10
    per_query: int = 1
    relevant_from: int = 1
    seed: int = 42

    def __post_init__(self) -> None:
        if self.source not in SOURCES or min(self.k, self.per_query, self.relevant_from) < 1:
            raise OptionError(
                f"source={self.source!r}, k={self.k}, per_query={self.per_query} and"
                f" relevant_from={self.relevant_from} were given; one of {', '.join(SOURCES)} and"
                " numbers from 1 were expected."
            )


@dataclass(frozen=True)
class QueuedPair:
    """A pair to judge, and what the runs and the judgments say of it.

    Attributes:
        strength: pairs with more come first.
        rank, of: rank among the ``of`` scored documents of the run (of both runs, for
            ``disagreements``).
        passage: number of the passage that was scored; None for a whole document.
        grade: of the collection's judgments; None if it is not judged.
        other_rank, other_score: in the other run.
        positive, positive_rank, positive_score: the best judged-relevant document of the run.
    """

    query_id: str
    doc_id: str
    strength: float
    rank: int
    of: int
    score: float
    passage: int | None = None
    grade: int | None = None
    other_rank: int | None = None
    other_score: float | None = None
    positive: str | None = None
    positive_rank: int | None = None
    positive_score: float | None = None

    @property
    def pair(self) -> Pair:
        """Query id and document id."""
        return self.query_id, self.doc_id


class JudgingQueue:
    """The pairs of a run to judge, in an order that is the same for everybody.

    Queries are read in blocks of at most BLOCK neighbors. The blocks come in random order, and
    within a block the strongest pairs first; a run of at most BLOCK queries is ordered as a whole.
    Threads may share a queue; no other thread may use its runs.

    Args:
        other: the second run, for ``disagreements``.

    Attributes:
        pairs: those read so far.
        queries: number of queries of the run that the collection has.
        queries_read: number of these that were looked at so far.

    Examples:
        >>> from irdistill.runs import as_run
        >>> collection = Collection.from_dicts(
        ...     "demo", {"a": "cat", "b": "dog", "c": "cow"}, {"q": "pets"}, {"q": {"b": 1}}
        ... )
        >>> queue = JudgingQueue(collection, as_run({"q": {"a": 3.0, "b": 2.0, "c": 1.0}}))
        >>> [(pair.doc_id, pair.strength) for pair in queue]
        [('a', 1.0)]
    """

    def __init__(
        self,
        collection: Collection,
        run: Run,
        options: QueueOptions | None = None,
        other: Run | None = None,
    ) -> None:
        self.collection, self.run, self.other = collection, run, other
        self.options = options or QueueOptions()
        if (self.options.source == "disagreements") != (other is not None):
            raise OptionError("disagreements need a second run, and other sources take none.")
        query_ids = [query for query in run.query_ids if query in collection.queries]
        count = -(-len(query_ids) // BLOCK)
        edges = [len(query_ids) * number // max(1, count) for number in range(count + 1)]
        blocks = [query_ids[start:end] for start, end in pairwise(edges)]
        order = np.random.default_rng(self.options.seed).permutation(len(blocks))
        self._blocks = [blocks[number] for number in order.tolist()]
        self._next = 0
        self._reading = Lock()
        self.queries, self.queries_read = len(query_ids), 0
        self.pairs: list[QueuedPair] = []
        self.places: dict[Pair, int] = {}

    @property
    def complete(self) -> bool:
        """Whether all queries were looked at."""
        return self._next == len(self._blocks)

    def __iter__(self) -> Iterator[QueuedPair]:
        place = 0
        while True:
            while place < len(self.pairs):
                yield self.pairs[place]
                place += 1
            if self.complete:
                return
            self.read_block()

    def read_block(self) -> None:
        """Look at the next queries, if any are left."""
        with self._reading:
            if self.complete:
                return
            queries = self._blocks[self._next]
            pairs = [pair for query in queries for pair in self._pairs_of(query)]
            for pair in sorted(pairs, key=_order):
                self.places[pair.pair] = len(self.pairs)
                self.pairs.append(pair)
            self.queries_read += len(queries)
            self._next += 1

    def _pairs_of(self, query_id: str) -> list[QueuedPair]:
        """The strongest pairs of a query."""
        ranked = scored(self.run[query_id])
        grades = self.collection.qrels.get(query_id, {})
        excluded = set(self.collection.queries[query_id].excluded)
        if self.options.source == "disagreements":
            pairs = self._disagreements(ranked, grades, excluded)
        elif self.options.source == "unjudged":
            best = self._best(ranked, grades)
            pairs = [
                _pair(ranked, place, -place, **best)
                for place, doc in enumerate(ranked.doc_ids[: self.options.k])
                if doc not in grades and doc not in excluded
            ]
        else:
            pairs = self._contradictions(ranked, grades, excluded)
        return sorted(pairs, key=_order)[: self.options.per_query]

    def _contradictions(
        self, ranked: ScoredList, grades: Mapping[str, int], excluded: set[str]
    ) -> list[QueuedPair]:
        known = contradictions_of(ranked, grades, self.options.relevant_from)
        if known is None:
            return []
        best = self._best(ranked, grades)
        if self.options.source == "bottom":
            return [
                _pair(
                    ranked,
                    place,
                    place / len(ranked.doc_ids),
                    grade=grades[ranked.doc_ids[place]],
                    **(best if place != known.best else {}),
                )
                for place in known.low.tolist()
            ]
        return [
            _pair(ranked, place, float(ranked.scores[place]) - best["positive_score"], **best)
            for place in known.above.tolist()
            if ranked.doc_ids[place] not in excluded
        ]

    def _best(self, ranked: ScoredList, grades: Mapping[str, int]) -> dict[str, Any]:
        """The best judged-relevant document, as fields of a pair; empty if there is none."""
        relevant = np.flatnonzero(ranked.relevant(grades, self.options.relevant_from))
        if not len(relevant):
            return {}
        place = int(relevant[0])
        return {
            "positive": ranked.doc_ids[place],
            "positive_rank": place + 1,
            "positive_score": float(ranked.scores[place]),
        }

    def _disagreements(
        self, ranked: ScoredList, grades: Mapping[str, int], excluded: set[str]
    ) -> list[QueuedPair]:
        assert self.other is not None
        if ranked.query_id not in self.other:
            return []
        left, right = shared_parts(ranked, scored(self.other[ranked.query_id]))
        length = len(left.doc_ids)
        if length < FEWEST:
            return []
        places = {doc: place for place, doc in enumerate(right.doc_ids)}
        best, left_out = self._best(left, grades), excluded.union(grades)
        return [
            _pair(
                left,
                place,
                abs(1 / (place + 1) - 1 / (there + 1)),
                other_rank=there + 1,
                other_score=float(right.scores[there]),
                **best,
            )
            for place, doc in enumerate(left.doc_ids)
            if abs((there := places[doc]) - place) >= FAR * length and doc not in left_out
        ]


def _order(pair: QueuedPair) -> tuple[float, str, str]:
    return -pair.strength, pair.query_id, pair.doc_id


def _pair(ranked: ScoredList, place: int, strength: float, **more: Any) -> QueuedPair:
    passage = -1 if ranked.passages is None else int(ranked.passages[place])
    return QueuedPair(
        ranked.query_id,
        ranked.doc_ids[place],
        strength,
        place + 1,
        len(ranked.doc_ids),
        float(ranked.scores[place]),
        passage if passage >= 0 else None,
        **more,
    )


SOURCES = {
    "suspects": "Suspected false negatives",
    "bottom": "Relevant documents at the bottom",
    "disagreements": "Disagreements of two runs",
    "unjudged": "Unjudged documents at the top",
}
"""Title of each source of pairs."""
SOURCE_DESCRIPTIONS = {
    "suspects": "Documents without a judgment that the run puts above the best document that is"
    " judged relevant.",
    "bottom": f"Documents that are judged relevant in the lowest {BOTTOM:.0%} of a list of at least"
    f" {FEWEST}.",
    "disagreements": "Documents without a judgment whose ranks in two runs are at least half a list"
    " apart.",
    "unjudged": "Documents without a judgment among the first k of a run.",
}
"""What each source of pairs is, as a sentence."""


def reason_of(pair: QueuedPair, source: PairSource) -> str:
    """Why a pair is in the queue, as a sentence.

    Examples:
        >>> reason_of(QueuedPair("q", "d", 0.5, 2, 100, 1.5, positive="e", positive_rank=7,
        ...                      positive_score=1.0), "suspects")
        'Not judged, and 0.5 above the best document that is judged relevant (rank 7).'
    """
    match source:
        case "suspects":
            return (
                f"Not judged, and {pair.strength:.4g} above the best document that is judged"
                f" relevant (rank {pair.positive_rank})."
            )
        case "bottom":
            return (
                f"Judged relevant (grade {pair.grade}), and in the lowest {BOTTOM:.0%} of the list."
            )
        case "disagreements":
            return (
                f"Not judged; rank {pair.rank} in one run and {pair.other_rank} in the other, of"
                f" the {pair.of} documents that both scored."
            )
        case _:
            return f"Not judged, and at rank {pair.rank}."
