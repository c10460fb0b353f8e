"""What a suite leaves out of a ranking before it is measured, and how often that was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs import RankedList, Run, open_run
from irdistill.runs.lists import from_table, to_table


class PolicyRun(Run):
    """A run as a suite counts it. Nothing is copied: lists are thinned out as they are read.

    What a query excludes is always left out.

    Attributes:
        excluded, self_matches, duplicates: documents left out in the last reading.
    """

    def __init__(self, run: Run, collection: Collection, self_match: bool = False, duplicates: bool = False,
                 depth: int | None = None) -> None:
        """Thin out a run.

        Args:
            self_match: leave out a document whose id is the query's own (ArguAna's and Quora's queries are documents).
            duplicates: leave out a document with the text, but for white space, of one ranked above it.
            depth: documents a query that are left at most; all where None.
        """
        self.path, self.manifest = run.path, run.manifest
        self._run, self._corpus = run, collection.corpus
        self._excluded = {query.id: query.excluded for query in collection.queries.values() if query.excluded}
        self._self_match, self._duplicates, self._depth = self_match, duplicates, depth
        self.excluded = self.self_matches = self.duplicates = 0

    @property
    def fingerprint(self) -> str:
        """That of the run itself."""
        return self._run.fingerprint

    @cached_property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self._run.query_ids

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and what is left of its rows."""
        for ids, table in self._run.parts():
            yield ids, to_table(self._thinned(found) for found in from_table(table, ids))

    def __iter__(self) -> Iterator[RankedList]:
        self.excluded = self.self_matches = self.duplicates = 0
        return map(self._thinned, self._run)

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._run

    def __getitem__(self, query_id: str) -> RankedList:
        return self._thinned(self._run[query_id])

    def _thinned(self, found: RankedList) -> RankedList:
        given, found = found, found.without(self._excluded.get(found.query_id, ()))
        self.excluded += len(given.doc_ids) - len(found.doc_ids)
        keep = np.ones(len(found.doc_ids), dtype=bool)
        if self._self_match:
            keep = np.array([doc != found.query_id for doc in found.doc_ids], dtype=bool)
            self.self_matches += int((~keep).sum())
        if self._duplicates:
            first = self._first_of_its_text(found)
            self.duplicates += int((keep & ~first).sum())
            keep &= first
        places = np.flatnonzero(keep)[: self._depth].tolist()
        flags = None if found.flags is None else [found.flags[place] for place in places]
        return RankedList(found.query_id, [found.doc_ids[place] for place in places], found.scores[places], flags)

    def _first_of_its_text(self, found: RankedList) -> np.ndarray:
        seen: set[str] = set()
        first = []
        for text in self._corpus.texts(self._corpus.rows(found.doc_ids)):
            words = " ".join(text.split())
            first.append(words not in seen)
            seen.add(words)
        return np.array(first, dtype=bool)


def measured_run(given: Run | str | Path, collection: Collection) -> Run:
    """Open a run of a collection as it is measured everywhere: without the documents that its queries exclude.

    Raises:
        IrdistillError: as `irdistill.runs.open_run`.
    """
    run = open_run(given, collection)
    if isinstance(run, PolicyRun) or not any(query.excluded for query in collection.queries.values()):
        return run
    return PolicyRun(run, collection)


def with_rewrites(collection: Collection) -> Collection:
    """The collection with each query's rewrite as its text.

    Raises:
        IrdistillError: a query has no rewrite.
    """
    without = [query.id for query in collection.queries.values() if not query.rewrite]
    if without:
        raise IrdistillError(
            f"{len(without)} of {len(collection.queries)} queries of {collection.id} have no rewrite, as {without[0]!r}; the "
            "suite asks the rewrites of this dataset."
        )
    rewritten = {key: replace(query, text=str(query.rewrite)) for key, query in collection.queries.items()}
    return replace(collection, id=f"{collection.id} (rewrites)", queries=rewritten)
