"""Teachers read passages: which ones of a candidate document, and how they score it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from irdistill.collections import Collection
from irdistill.collections.passage_corpus import passage_id
from irdistill.collections.split_collections import passage_view
from irdistill.errors import OptionError
from irdistill.runs import RankedList, Run
from irdistill.runs.named_passages import check_passages
from irdistill.runs.ranked_lists import to_table
from irdistill.search.passage_choice import PassageChoice
from irdistill.search.passage_ranking import DENSE_TAU, Aggregation
from irdistill.storage.files import digest
from irdistill.teachers.part_scoring import EMPTY, top_k
from irdistill.teachers.score_options import ScoreOptions

_ENCODED_ONCE = ("bm25", "retriever")
"""Kinds of teachers that read each passage once, whatever the queries."""
_LISTWISE = ("listwise", "pairwise")


@dataclass(frozen=True)
class PassageReading:
    """What a teacher reads of candidate documents that are split, and how it scores them.

    Attributes:
        collection: whose documents are the candidates.
        view: the collection whose documents are passages, which the teacher reads.
        count: most passages of a document that are read; None for all.
        aggregation: how their scores become the score of the document.
    """

    collection: Collection
    view: Collection
    count: int | None
    aggregation: Aggregation
    choice: PassageChoice

    @classmethod
    def of(
        cls,
        collection: Collection,
        candidates: Run,
        options: ScoreOptions,
        teacher: Mapping[str, Any],
    ) -> PassageReading:
        """The reading of a scoring job.

        Args:
            teacher: the identity of the teacher.

        Raises:
            WrongCollectionError: the candidates name passages of another split.
            OptionError: the teacher orders lists, and scores of orders cannot be added.
        """
        check_passages([candidates], collection)
        kind = str(teacher.get("kind"))
        if any(name in kind for name in _LISTWISE) and options.aggregate == "logsumexp":
            raise OptionError(
                "aggregate is logsumexp, which adds scores, and a listwise or pairwise teacher"
                " gives orders. Use --aggregate maxp."
            )
        read = options.score_passages
        if read == "auto":
            read = "all" if kind in _ENCODED_ONCE else "best"
        tau = DENSE_TAU if teacher.get("type") == "dense" else 1.0
        method = "maxp" if options.aggregate == "whole" else options.aggregate
        return cls(
            collection,
            passage_view(collection),
            {"all": None, "best": 1}.get(read) if read in ("all", "best") else int(read),
            Aggregation(method, options.aggregate_tau or tau),
            PassageChoice(collection.corpus),
        )

    def settings(self) -> dict[str, Any]:
        """What determines the scores, as JSON values."""
        read = "all" if self.count is None else self.count
        first = self.aggregation.method == "firstp"
        return {"read": "first" if first else read, "aggregate": self.aggregation.settings()}

    def pairs(self, documents: int) -> int:
        """About how many passages are read of some documents."""
        if self.aggregation.method == "firstp":
            return documents
        mean = len(self.choice.passages) / max(1, len(self.collection.corpus))
        return round(documents * (mean if self.count is None else min(mean, self.count)))

    def expand(self, ranked: RankedList) -> RankedList:
        """The passages to read of a list of documents, in their order."""
        if self.aggregation.method == "firstp":
            numbers = [np.zeros(1, np.int32)] * len(ranked.doc_ids)
        else:
            query = self.collection.queries[ranked.query_id]
            numbers = self.choice.first(query, ranked, self.count)
        ids = [
            passage_id(doc_id, number)
            for doc_id, some in zip(ranked.doc_ids, numbers, strict=True)
            for number in some.tolist()
        ]
        scores = np.repeat(ranked.scores, [len(some) for some in numbers])
        return RankedList(ranked.query_id, ids, scores)

    def collapse(self, ranked: RankedList, scored: RankedList) -> RankedList:
        """The scores of the documents of a list.

        A document is null if none of its passages has a score, with the flag of the first one. The
        flag of a passage that has no score although it has a text is kept for its document.

        Args:
            scored: the scores of the passages that `expand` returned.
        """
        places: dict[str, list[int]] = {doc_id: [] for doc_id in ranked.doc_ids}
        for place, name in enumerate(scored.doc_ids):
            places[name.rpartition("#")[0]].append(place)
        flags = scored.flags or [None] * len(scored.doc_ids)
        lines = [self._document(scored, flags, sorted(places[doc_id])) for doc_id in ranked.doc_ids]
        return RankedList(
            ranked.query_id,
            ranked.doc_ids,
            np.array([score for score, _, _ in lines], np.float32),
            [flag for _, flag, _ in lines],
            np.array([number for _, _, number in lines], np.int32),
        )

    def _document(
        self, scored: RankedList, flags: Sequence[str | None], places: Sequence[int]
    ) -> tuple[float, str | None, int]:
        """Score, flag and best passage of a document."""
        numbers = [int(scored.doc_ids[place].rpartition("#")[2]) for place in places]
        values = np.asarray(scored.scores)[places]
        if np.isnan(values).all():
            return float("nan"), flags[places[0]], numbers[0]
        known = np.where(np.isnan(values), -np.inf, values)
        # the best of equal scores is the first in the document
        best = min(range(len(places)), key=lambda place: (-known[place], numbers[place]))
        score = self.aggregation.reduce(known[None], np.zeros(1, np.int64))[0, 0]
        problems = [
            flag
            for value, place in zip(values, places, strict=True)
            if (flag := flags[place]) is not None and np.isnan(value) and flag != EMPTY
        ]
        flag = flags[places[best]]
        if flag is None and problems:
            flag = f"passage {problems[0]}"
        return float(score), flag, numbers[best]


class PassageCandidates(Run):
    """The passages that a teacher reads of a run's documents, as a run of passages.

    Args:
        candidates: the run whose documents are scored.
        k: only the top k documents of each query are read; None for all.
    """

    def __init__(self, candidates: Run, reading: PassageReading, k: int | None) -> None:
        super().__init__(candidates.manifest)
        self._candidates, self._reading, self._k = candidates, reading, k

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprints of run and passages, and what is read of the run."""
        passages = self._reading.view.corpus.fingerprint
        return digest([self._candidates.fingerprint, passages, self._k, self._reading.settings()])

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self._candidates.query_ids

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """The passages of each query."""
        for query_id in self.query_ids:
            yield [query_id], to_table([self[query_id]])

    def __getitem__(self, query_id: str) -> RankedList:
        return self._reading.expand(top_k(self._candidates[query_id], self._k))
