"""Some of a run's queries: a run of ``pydocs/test`` is accepted for ``pydocs/test[:300]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from irdistill.collections.collection import collection_mismatch
from irdistill.console.terminal import counted
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.storage.files import digest


class RunSubset(Run):
    """Some of a run's queries, in the order of the run. Nothing is copied.

    The fingerprint is that of the whole run. Together with the collection, which every identity
    names too, it decides the rows.

    Args:
        whole: the run with all its queries.
        query_ids: the queries to keep; the run must have them all.
        collection: the collection of the subset, as `Collection.describe` returns it.
    """

    def __init__(self, whole: Run, query_ids: Sequence[str], collection: Mapping[str, Any]) -> None:
        self.whole = whole
        chosen = set(query_ids)
        self._query_ids = [query_id for query_id in whole.query_ids if query_id in chosen]
        manifest = replace(
            whole.manifest,
            identity=replace(whole.identity, collection=dict(collection)),
            queries=len(self._query_ids),
            queries_digest=digest(self._query_ids),
        )
        super().__init__(manifest, whole.path)

    @property
    def query_ids(self) -> list[str]:
        """The queries that are kept, in the order of the run."""
        return self._query_ids

    @cached_property
    def query_fingerprints(self) -> dict[str, str]:
        """Query id -> fingerprint of the query."""
        known = self.whole.query_fingerprints
        return {query_id: known[query_id] for query_id in self._query_ids if query_id in known}

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the whole run."""
        return self.whole.fingerprint

    @cached_property
    def num_rows(self) -> int:
        """Number of (query, document) rows of the subset."""
        return super().num_rows

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and rows, without those of other queries."""
        for query_ids, table in self.whole.parts():
            kept = [query_id for query_id in query_ids if query_id in self]
            if len(kept) == len(query_ids):
                yield kept, table
            elif kept:
                rows = pc.is_in(table.column("query_id"), value_set=pa.array(kept))
                yield kept, table.filter(rows)

    def __getitem__(self, query_id: str) -> RankedList:
        if query_id not in self:
            raise KeyError(f"{self} has no query {query_id!r}")
        return self.whole[query_id]

    def __repr__(self) -> str:
        return f"RunSubset({counted(len(self), 'query')} of {self.whole!r})"


def has_queries(run: Run, fingerprints: Mapping[str, str]) -> bool:
    """Whether a run has all these queries, with the same texts, histories and excluded documents.

    Args:
        fingerprints: query id -> fingerprint, as in `Collection.query_fingerprints`.
    """
    known = run.query_fingerprints
    return bool(fingerprints) and all(
        known.get(query_id) == value for query_id, value in fingerprints.items()
    )


def common_queries(runs: Sequence[Run]) -> list[Run]:
    """Runs of one corpus, reduced to the queries of the smallest run.

    A run is reduced only if it has these queries with the same texts. Runs of the same queries, and
    runs that do not fit together, are returned unchanged.
    """
    if not runs:
        return []
    smallest = min(runs, key=len)
    collection = smallest.identity.collection
    reduced: list[Run] = []
    for run in runs:
        part = collection_mismatch(collection, run.identity.collection)
        if part == "queries" and has_queries(run, smallest.query_fingerprints):
            run = RunSubset(run, smallest.query_ids, collection)
        reduced.append(run)
    return reduced
