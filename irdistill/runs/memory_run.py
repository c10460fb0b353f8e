"""A run in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import pyarrow as pa

from irdistill.runs.manifest import Manifest, RunIdentity
from irdistill.runs.ranked_lists import RankedList, ranked, to_table
from irdistill.runs.run import Run
from irdistill.storage.files import digest


class MemoryRun(Run):
    """A run in memory.

    Args:
        identity: what the run is.
        lists: one per query; each is checked and put in rank order.

    Examples:
        >>> import numpy as np
        >>> from irdistill.runs import MemoryRun, RankedList, RunIdentity
        >>> scores = np.array([1.0, 2.0], np.float32)
        >>> run = MemoryRun(RunIdentity("imported", {}, {}), [RankedList("q", ["a", "b"], scores)])
        >>> run["q"].doc_ids
        ['b', 'a']
    """

    def __init__(self, identity: RunIdentity, lists: Iterable[RankedList]) -> None:
        self._lists = {checked.query_id: checked for checked in map(ranked, lists)}
        ids = list(self._lists)
        super().__init__(Manifest(identity, len(ids), digest(ids), max(1, len(ids)), complete=True))

    @property
    def num_rows(self) -> int:
        """Number of (query, document) rows."""
        return sum(len(ranked.doc_ids) for ranked in self._lists.values())

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits over all rows."""
        return digest(
            [
                [
                    query_id,
                    row.doc_ids,
                    [s if s == s else None for s in row.scores.tolist()],
                    *([] if row.passages is None else [row.passages.tolist()]),
                ]
                for query_id, row in self._lists.items()
            ]
        )

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return list(self._lists)

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """All rows as one part."""
        yield self.query_ids, to_table(self._lists.values())

    def __iter__(self) -> Iterator[RankedList]:
        return iter(self._lists.values())

    def __contains__(self, query_id: object) -> bool:
        return query_id in self._lists

    def __getitem__(self, query_id: str) -> RankedList:
        return self._lists[query_id]
