"""The queries that an audit looks at, and their lists; each run is read once."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from irdistill.collections import Collection, Corpus
from irdistill.console.progress_bars import progress
from irdistill.errors import WrongCollectionError
from irdistill.runs import RankedList, Run
from irdistill.runs.named_passages import list_texts


class ScoredList(NamedTuple):
    """The documents of one query that have a score, best first.

    Attributes:
        scores: (n,) float64, all finite.
        passages: (n,) int32 number of the best passage of each document, -1 where not known; None
            if documents were read whole.
    """

    query_id: str
    doc_ids: list[str]
    scores: np.ndarray
    passages: np.ndarray | None = None

    def only(self, doc_ids: Container[str]) -> ScoredList:
        """The part of the list with these documents, in the same order."""
        places = [place for place, doc in enumerate(self.doc_ids) if doc in doc_ids]
        return ScoredList(
            self.query_id,
            [self.doc_ids[place] for place in places],
            self.scores[places],
            None if self.passages is None else self.passages[places],
        )

    def to_dict(self) -> dict[str, float]:
        """Document -> score."""
        return dict(zip(self.doc_ids, self.scores.tolist(), strict=True))

    def relevant(self, grades: Mapping[str, int], relevant_from: int) -> np.ndarray:
        """(n,) whether each document has at least the grade ``relevant_from``."""
        return np.array([grades.get(doc, 0) >= relevant_from for doc in self.doc_ids], dtype=bool)


Lists = Mapping[str, ScoredList]
Grades = Mapping[str, Mapping[str, int]]


def shared_parts(left: ScoredList, right: ScoredList) -> tuple[ScoredList, ScoredList]:
    """Both lists without the documents that the other one lacks."""
    return left.only(set(right.doc_ids)), right.only(set(left.doc_ids))


def scored(ranked_list: RankedList) -> ScoredList:
    """Return a list without the documents that have no score."""
    keep = np.flatnonzero(~np.isnan(ranked_list.scores))
    return ScoredList(
        ranked_list.query_id,
        [ranked_list.doc_ids[place] for place in keep.tolist()],
        ranked_list.scores[keep].astype(np.float64),
        None if ranked_list.passages is None else ranked_list.passages[keep],
    )


def scored_texts(
    corpus: Corpus, scores: ScoredList, places: Sequence[int] | None = None
) -> list[str]:
    """The texts that were scored, of all documents or of those at some places: the passages that
    the list names, else whole documents.
    """
    chosen = list(range(len(scores.doc_ids)) if places is None else places)
    passages = None if scores.passages is None else scores.passages[chosen]
    doc_ids = [scores.doc_ids[place] for place in chosen]
    return list_texts(
        corpus, RankedList(scores.query_id, doc_ids, scores.scores[chosen], None, passages)
    )


@dataclass(frozen=True)
class QuerySample:
    """The lists that an audit reads.

    Attributes:
        query_ids: the queries looked at, in the collection's order.
        population: number of queries of the collection that at least one teacher has.
        lists: teacher -> query id -> list, with nulls and flags; a query that a teacher lacks is
            absent.
        first_stage: query id -> list; None without a first stage.
        unheld: number of judged queries of the collection that no teacher has.
    """

    query_ids: list[str]
    population: int
    lists: Mapping[str, Mapping[str, RankedList]]
    first_stage: Mapping[str, RankedList] | None
    unheld: int


def sampled_queries(population: Sequence[str], size: int, seed: int) -> list[str]:
    """At most ``size`` of the queries, drawn at random, in their order."""
    if len(population) <= size:
        return list(population)
    places = np.random.default_rng(seed).choice(len(population), size, replace=False)
    return [population[place] for place in sorted(places.tolist())]


def draw_sample(
    collection: Collection, runs: Mapping[str, Run], first_stage: Run | None, size: int, seed: int
) -> QuerySample:
    """Draw at most ``size`` queries and read their lists."""
    population = [
        query for query in collection.queries if any(query in run for run in runs.values())
    ]
    if not population:
        raise WrongCollectionError(
            f"the runs {', '.join(runs)} have no query of {collection.id}; audit runs of this"
            " collection."
        )
    chosen = sampled_queries(population, size, seed)
    every_run = [*runs.values(), *([first_stage] if first_stage is not None else [])]
    with progress(len(chosen) * len(every_run), "lists", "read") as bar:

        def read(run: Run) -> dict[str, RankedList]:
            remaining = set(chosen)
            lists = {}
            # in the run's order, so that each part is read once
            for query in run.query_ids:
                if query in remaining:
                    lists[query] = run[query]
                    bar.update(1)
            return lists

        lists = {name: read(run) for name, run in runs.items()}
        first = read(first_stage) if first_stage is not None else None
    known = set(population)
    unheld = sum(query not in known for query in collection.qrels)
    return QuerySample(chosen, len(population), lists, first, unheld)
