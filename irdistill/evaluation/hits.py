"""Where a run has the judged documents: all that most measures need to know of its lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irdistill.runs import Run
from irdistill.runs.lists import boundaries, column_scores


class Judgments:
    """Relevance judgments as arrays.

    Attributes:
        query_ids: the judged queries, in their order; Q of them.
        query, grade: (J,) place of the query, and grade, by query and falling grade.
        position: (J,) place of each judgment among those of its query, from 1.
    """

    def __init__(self, qrels: Mapping[str, Mapping[str, int]]) -> None:
        self.query_ids = list(qrels)
        self.places = {query_id: place for place, query_id in enumerate(self.query_ids)}
        sizes = np.array([len(documents) for documents in qrels.values()], np.int64)
        query = np.repeat(np.arange(len(sizes)), sizes)
        grade = np.array([grade for documents in qrels.values() for grade in documents.values()], np.int64)
        ids = pa.array([doc_id for documents in qrels.values() for doc_id in documents], pa.string())
        encoded = ids.dictionary_encode()
        self._documents = encoded.dictionary
        keys = query * len(self._documents) + encoded.indices.to_numpy()
        by_key = np.argsort(keys, kind="stable")
        self._keys, self._grades = keys[by_key], grade[by_key]
        order = np.lexsort((-grade, query))
        self.query, self.grade = query[order], grade[order]
        self.position = np.arange(len(query)) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 1

    def __len__(self) -> int:
        return len(self.query_ids)

    def relevant(self, level: int) -> np.ndarray:
        """(Q,) how many documents of each query have at least this grade."""
        return np.bincount(self.query[self.grade >= level], minlength=len(self))

    def find(self, run: Run) -> Hits:
        """The judged documents in a run's lists; a document without a score is in no list."""
        retrieved = np.zeros(len(self), np.int64)
        found = [np.empty((5, 0), np.int64)]
        self_matches: dict[str, int] = {}
        unscored = strangers = 0
        for ids, table in run.parts():
            edges = boundaries(table)
            own = table.column("query_id").take(pa.array(edges[:-1])).to_pylist()
            places = np.array([self.places.get(query_id, -1) for query_id in own], np.int64)
            strangers += sum(query_id not in self.places for query_id in ids)
            if (places >= 0).any():
                scored = ~np.isnan(column_scores(table))
                kept = np.add.reduceat(scored, edges[:-1], dtype=np.int64)
                judged = places >= 0
                retrieved[places[judged]] = kept[judged]
                unscored += int((np.diff(edges) - kept)[judged].sum())
                found.append(self._part(table, edges, places, scored))
                self_matches |= self._self_matches(table, scored)
        columns = np.concatenate(found, axis=1)
        query, rank, grade, first, size = columns[:, np.lexsort((columns[1], columns[0]))]
        return Hits(query, rank, grade, first, size, retrieved, unscored, strangers, self_matches)

    def _self_matches(self, table: pa.Table, scored: np.ndarray) -> dict[str, int]:
        """Judged query -> rank of the document with the query's own id."""
        same = pc.equal(table.column("query_id"), table.column("doc_id")).to_numpy() & scored
        rows = pa.array(np.flatnonzero(same))
        pairs = zip(table.column("query_id").take(rows).to_pylist(), table.column("rank").take(rows).to_pylist(), strict=True)
        return {query_id: rank for query_id, rank in pairs if query_id in self.places}

    def _part(self, table: pa.Table, edges: np.ndarray, places: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """(5, H) query, rank, grade, and first rank and number of the documents of the same score."""
        documents = pc.index_in(table.column("doc_id"), self._documents).fill_null(-1).to_numpy()
        rows = np.flatnonzero((documents >= 0) & scored)
        query = places[np.searchsorted(edges, rows, side="right") - 1]
        keys = query * len(self._documents) + documents[rows]
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        hit = (query >= 0) & (self._keys[at] == keys)
        rows, query, grade = rows[hit], query[hit], self._grades[at[hit]]
        scores, rank = column_scores(table), table.column("rank").to_numpy()
        firsts = np.flatnonzero(np.append(True, (scores[1:] != scores[:-1]) | (rank[1:] == 1)))
        group = np.searchsorted(firsts, rows, side="right") - 1
        size = np.diff(np.append(firsts, len(scores)))[group]
        return np.stack([query, rank[rows], grade, rank[firsts[group]], size]).astype(np.int64)


@dataclass(frozen=True)
class Hits:
    """The judged documents in a run's lists, H of them, by query and rank.

    Attributes:
        query: (H,) place of the query among the judged ones.
        rank: (H,) from 1.
        grade: (H,) as judged.
        first, size: (H,) the first rank, and number, of the documents with the same score in this list.
        retrieved: (Q,) length of each query's list.
        unscored: documents without a score.
        strangers: queries of the run that are not judged.
        self_matches: query -> rank of the document that has the query's own id.
    """

    query: np.ndarray
    rank: np.ndarray
    grade: np.ndarray
    first: np.ndarray
    size: np.ndarray
    retrieved: np.ndarray
    unscored: int
    strangers: int
    self_matches: dict[str, int] = field(default_factory=dict)

    def best(self) -> Hits:
        """The same lists, documents of equal score ordered by falling grade: no order gives a higher figure.

        Any measure that gives no less when a better document moves up is highest then, and lowest in ``worst``.
        """
        return self._tied(worst=False)

    def worst(self) -> Hits:
        """The same lists, documents of equal score ordered by rising grade, those not judged first."""
        return self._tied(worst=True)

    def _tied(self, worst: bool) -> Hits:
        order = np.lexsort((-self.grade, self.first, self.query))
        query, first, size = self.query[order], self.first[order], self.size[order]
        new = np.append(True, (query[1:] != query[:-1]) | (first[1:] != first[:-1]))[: len(query)]
        starts = np.flatnonzero(new)
        within = np.arange(len(query)) - np.repeat(starts, np.diff(np.append(starts, len(query))))
        rank = first + (size - 1 - within if worst else within)
        again = np.lexsort((rank, query))
        return replace(self, query=query[again], rank=rank[again], grade=self.grade[order][again], first=first[again],
                       size=size[again])
