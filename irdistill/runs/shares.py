"""Runs of more queries than a collection has: a run of ``pydocs/test`` serves
``pydocs/test[:300]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from irdistill.collections import Collection
from irdistill.collections.collection import collection_mismatch
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.store import Run
from irdistill.storage.files import digest


class ShareOfRun(Run):
    """Some of a run's queries, in the order of the run. Nothing is copied.

    The fingerprint is that of the whole run: with the collection, which every identity names too,
        it decides the rows.

    Attributes:
        whole: the run with all its queries.
    """

    def __init__(self, whole: Run, query_ids: Sequence[str], collection: Mapping[str, Any]) -> None:
        """Take some queries of a run.

        Args:
            query_ids: those to take; the run has them all.
            collection: what the share is of, as `Collection.describe` gives it.
        """
        self.whole, self.path = whole, whole.path
        chosen = set(query_ids)
        self.query_ids = [query_id for query_id in whole.query_ids if query_id in chosen]
        self.manifest = replace(
            whole.manifest,
            identity=replace(whole.identity, collection=dict(collection)),
            queries=len(self.query_ids),
            queries_digest=digest(self.query_ids),
        )
        self.query_fingerprints = {
            query_id: value
            for query_id, value in whole.query_fingerprints.items()
            if query_id in chosen
        }

    @property
    def fingerprint(self) -> str:
        """That of the whole run."""
        return self.whole.fingerprint

    @cached_property
    def num_rows(self) -> int:
        """How many (query, document) rows the share has."""
        return sum(table.num_rows for table in self.tables())

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """Each part's query ids and rows, without those of other queries."""
        for ids, table in self.whole.parts():
            kept = [query_id for query_id in ids if query_id in self]
            if len(kept) == len(ids):
                yield kept, table
            elif kept:
                yield (
                    kept,
                    table.filter(pc.is_in(table.column("query_id"), value_set=pa.array(kept))),
                )

    def __getitem__(self, query_id: str) -> RankedList:
        if query_id not in self:
            raise KeyError(f"{self} has no query {query_id!r}")
        return self.whole[query_id]


def holds_queries(run: Run, fingerprints: Mapping[str, str]) -> bool:
    """Whether a run has all these queries, with the same texts, histories and excluded documents.

    Args:
        fingerprints: query id -> fingerprint, as `Collection.query_fingerprints`.
    """
    known = run.query_fingerprints
    return bool(fingerprints) and all(
        known.get(query_id) == value for query_id, value in fingerprints.items()
    )


def share_of_run(run: Run, collection: Collection) -> Run:
    """A run of this collection, without the queries that the collection does not have."""
    if len(run) <= len(collection.queries) and all(
        query_id in collection.queries for query_id in run.query_ids
    ):
        return run
    return ShareOfRun(run, list(collection.queries), collection.describe())


def common_queries(runs: Sequence[Run]) -> list[Run]:
    """Runs of one corpus, cut down to the queries of the one with the fewest, where the others hold
    these with the same texts.

    Runs of the same queries, and runs that do not fit together, are returned as they are.
    """
    if not runs:
        return []
    smallest = min(runs, key=len)
    ours = smallest.identity.collection
    cut: list[Run] = []
    for run in runs:
        part = collection_mismatch(ours, run.identity.collection)
        if part == "queries" and holds_queries(run, smallest.query_fingerprints):
            run = ShareOfRun(run, smallest.query_ids, ours)
        cut.append(run)
    return cut
