"""Which queries an audit looks at, and the lists it reads of them: each run is opened once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.runs import RankedList, Run


class Scored(NamedTuple):
    """One query's documents that have a score, best first.

    Attributes:
        scores: (n,) float64, all finite.
    """

    query_id: str
    doc_ids: list[str]
    scores: np.ndarray

    def only(self, wanted: Iterable[str]) -> Scored:
        """The part of the list whose documents are among ``wanted``, in the same order."""
        held = set(wanted)
        places = [place for place, doc in enumerate(self.doc_ids) if doc in held]
        return Scored(self.query_id, [self.doc_ids[place] for place in places], self.scores[places])

    def to_dict(self) -> dict[str, float]:
        """Document -> score."""
        return dict(zip(self.doc_ids, self.scores.tolist(), strict=True))


def scored(found: RankedList) -> Scored:
    """A list without what has no score."""
    keep = np.flatnonzero(~np.isnan(found.scores))
    return Scored(
        found.query_id,
        [found.doc_ids[place] for place in keep.tolist()],
        found.scores[keep].astype(np.float64),
    )


@dataclass(frozen=True)
class Sample:
    """What was read.

    Attributes:
        query_ids: the queries looked at, in the collection's order.
        population: how many there were to draw from: all that at least one teacher holds.
        lists: teacher -> query id -> list, nulls and flags included; a query that a teacher lacks
            is absent.
        first_stage: query id -> list, or None where no first stage was given.
        unheld: judged queries of the collection that no teacher holds; nothing can be said of them.
    """

    query_ids: list[str]
    population: int
    lists: Mapping[str, Mapping[str, RankedList]]
    first_stage: Mapping[str, RankedList] | None
    unheld: int

    @property
    def whole(self) -> bool:
        """Whether every query was looked at."""
        return len(self.query_ids) == self.population


def draw_sample(
    collection: Collection, runs: Mapping[str, Run], first_stage: Run | None, size: int, seed: int
) -> Sample:
    """Draw queries and read their lists, part by part.

    Raises:
        IrdistillError: ``size`` is below 1, or the teachers hold no query of the collection.
    """
    if size < 1:
        raise IrdistillError(
            f"an audit of {size} queries was asked for; give --sample a whole number of at least 1."
        )
    held = [query for query in collection.queries if any(query in run for run in runs.values())]
    if not held:
        raise IrdistillError(
            f"the runs {', '.join(runs)} hold no query of {collection.id}; audit runs of this"
            " collection."
        )
    chosen = held
    if len(held) > size:
        places = np.random.default_rng(seed).choice(len(held), size, replace=False)
        chosen = [held[place] for place in sorted(places.tolist())]
    everyone = [*runs.values(), *([first_stage] if first_stage is not None else [])]
    with progress(len(chosen) * len(everyone), "lists", "read") as bar:

        def read(run: Run) -> dict[str, RankedList]:
            wanted = set(chosen)
            lists = {}
            # in the run's own order, so that each part is read once
            for query in run.query_ids:
                if query in wanted:
                    lists[query] = run[query]
                    bar.update(1)
            return lists

        lists = {name: read(run) for name, run in runs.items()}
        first = read(first_stage) if first_stage is not None else None
    known = set(held)
    return Sample(
        chosen, len(held), lists, first, sum(query not in known for query in collection.qrels)
    )
