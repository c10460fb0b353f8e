"""The ranks of judged documents in a run, which is all that most measures need."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from irdistill.collections.byte_strings import ByteStrings, HashIndex
from irdistill.runs import Run
from irdistill.runs.blocks import BlockRun
from irdistill.runs.ranked_lists import boundaries, column_scores
from irdistill.runs.trec import NotGroupedError, StreamedRun


class Judgments:
    """Relevance judgments as arrays.

    Attributes:
        query_ids: the Q judged queries, in their order.
        query, grade: (J,) number of the query, and grade, sorted by query and descending grade.
        position: (J,) position of each judgment among those of its query, from 1.
    """

    def __init__(self, qrels: Mapping[str, Mapping[str, int]]) -> None:
        self.query_ids = list(qrels)
        self.places = {query_id: place for place, query_id in enumerate(self.query_ids)}
        sizes = np.array([len(documents) for documents in qrels.values()], np.int64)
        query = np.repeat(np.arange(len(sizes)), sizes)
        grade = np.array(
            [grade for documents in qrels.values() for grade in documents.values()], np.int64
        )
        ids = pa.array(
            [doc_id for documents in qrels.values() for doc_id in documents], pa.string()
        )
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
        """(Q,) number of documents of each query with at least this grade."""
        return np.bincount(self.query[self.grade >= level], minlength=len(self))

    def find(self, run: Run) -> JudgedHits:
        """Find the judged documents in a run's lists; documents without a score are left out."""
        try:
            return self._find(run)
        except NotGroupedError:  # a TREC file measured while it is read; it is sorted now
            return self._find(run)

    def _find(self, run: Run) -> JudgedHits:
        retrieved = np.zeros(len(self), np.int64)
        columns = [np.empty((5, 0), np.int64)]
        self_matches: dict[str, int] = {}
        unscored = unknown_queries = 0
        for ids, part in self._parts(run):
            places = np.array(
                [self.places.get(query_id, -1) for query_id in part.query_ids], np.int64
            )
            unknown_queries += sum(query_id not in self.places for query_id in ids)
            if (places >= 0).any():
                scored = ~np.isnan(part.scores)
                kept = np.add.reduceat(scored, part.edges[:-1], dtype=np.int64)
                judged = places >= 0
                retrieved[places[judged]] = kept[judged]
                unscored += int((np.diff(part.edges) - kept)[judged].sum())
                columns.append(self._hits(part, places, scored))
                self_matches |= self._self_matches(part, scored)
        table = np.concatenate(columns, axis=1)
        query, rank, grade, first, size = table[:, np.lexsort((table[1], table[0]))]
        return JudgedHits(
            query, rank, grade, first, size, retrieved, unscored, unknown_queries, self_matches
        )

    def _self_matches(self, part: _Lists, scored: np.ndarray) -> dict[str, int]:
        """Judged query -> rank of the document with the query's own id."""
        rows = part.self_matches[scored[part.self_matches]]
        owners = np.searchsorted(part.edges, rows, side="right") - 1
        pairs = zip(owners.tolist(), (rows - part.edges[owners] + 1).tolist(), strict=True)
        return {
            part.query_ids[owner]: rank
            for owner, rank in pairs
            if part.query_ids[owner] in self.places
        }

    def _parts(self, run: Run) -> Iterator[tuple[list[str], _Lists]]:
        """Each part's queries, and the lists of those that are not empty."""
        if isinstance(run, BlockRun | StreamedRun):
            for block in run.blocks():
                numbers = self._numbers(block.docs, block.hashes)
                yield (
                    block.query_ids,
                    _Lists(
                        block.query_ids, block.edges, numbers, block.scores, block.named_as_query()
                    ),
                )
            return
        for ids, table in run.parts():
            edges = boundaries(table)
            names = table.column("query_id").take(pa.array(edges[:-1])).to_pylist()
            documents = (
                pc.index_in(table.column("doc_id"), self._documents).fill_null(-1).to_numpy()
            )
            same = pc.equal(table.column("query_id"), table.column("doc_id")).to_numpy()
            yield ids, _Lists(names, edges, documents, column_scores(table), np.flatnonzero(same))

    def _numbers(self, docs: ByteStrings, hashes: np.ndarray) -> np.ndarray:
        """(n,) int64: number of each document among the judged documents, -1 for others."""
        index, order, names = self._index
        places = index.places(hashes)
        hits = np.flatnonzero(places >= 0)
        numbers = np.full(len(docs), -1, np.int64)
        numbers[hits] = order[places[hits]]
        wrong = ~names.take(numbers[hits]).equal(docs.take(hits))
        if wrong.any():  # another document with the same hash
            exact = pc.index_in(docs.take(hits[wrong]).to_arrow(), self._documents)
            numbers[hits[wrong]] = exact.fill_null(-1).to_numpy()
        return numbers

    @cached_property
    def _index(self) -> tuple[HashIndex, np.ndarray, ByteStrings]:
        names = ByteStrings.of(self._documents.to_pylist())
        hashes = names.hashes()
        order = np.argsort(hashes)
        return HashIndex(hashes[order]), order, names

    def _hits(self, part: _Lists, places: np.ndarray, scored: np.ndarray) -> np.ndarray:
        """(5, H) query, rank, grade, and first rank and number of documents of the same score."""
        edges, scores = part.edges, part.scores
        rows = np.flatnonzero((part.documents >= 0) & scored)
        owner = np.searchsorted(edges, rows, side="right") - 1
        query = places[owner]
        keys = query * len(self._documents) + part.documents[rows]
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        hit = (query >= 0) & (self._keys[at] == keys)
        rows, owner, query, grade = rows[hit], owner[hit], query[hit], self._grades[at[hit]]
        new = np.append(True, scores[1:] != scores[:-1])
        new[edges[:-1]] = True
        firsts = np.flatnonzero(new)
        group = np.searchsorted(firsts, rows, side="right") - 1
        size = np.diff(np.append(firsts, len(scores)))[group]
        begin = edges[owner] - 1
        return np.stack([query, rows - begin, grade, firsts[group] - begin, size]).astype(np.int64)


class _Lists(NamedTuple):
    """The lists of Q queries with n documents in total.

    Attributes:
        edges: (Q + 1,) start of each list.
        documents: (n,) numbers of the judged documents, -1 for others.
        scores: (n,).
        self_matches: rows whose document has the id of the query.
    """

    query_ids: list[str]
    edges: np.ndarray
    documents: np.ndarray
    scores: np.ndarray
    self_matches: np.ndarray


@dataclass(frozen=True)
class JudgedHits:
    """The H judged documents in a run's lists, sorted by query and rank.

    Attributes:
        query: (H,) number of the query among the judged queries.
        rank: (H,) from 1.
        grade: (H,) as judged.
        first, size: (H,) first rank, and number, of the documents with the same score in the list.
        retrieved: (Q,) length of each query's list.
        unscored: number of documents without a score.
        unknown_queries: number of queries of the run that are not judged.
        self_matches: query -> rank of the document that has the query's own id.
    """

    query: np.ndarray
    rank: np.ndarray
    grade: np.ndarray
    first: np.ndarray
    size: np.ndarray
    retrieved: np.ndarray
    unscored: int
    unknown_queries: int
    self_matches: dict[str, int] = field(default_factory=dict)

    def best(self) -> JudgedHits:
        """The same lists with documents of equal score in the order of descending grade.

        Any measure that does not fall when a better document moves up is highest in this order, and
        lowest in `worst`.
        """
        return self._tied(worst=False)

    def worst(self) -> JudgedHits:
        """The same lists with ties in the order of ascending grade, unjudged documents first."""
        return self._tied(worst=True)

    def _tied(self, worst: bool) -> JudgedHits:
        order = np.lexsort((-self.grade, self.first, self.query))
        query, first, size = self.query[order], self.first[order], self.size[order]
        new = np.append(True, (query[1:] != query[:-1]) | (first[1:] != first[:-1]))[: len(query)]
        starts = np.flatnonzero(new)
        within = np.arange(len(query)) - np.repeat(starts, np.diff(np.append(starts, len(query))))
        rank = first + (size - 1 - within if worst else within)
        again = np.lexsort((rank, query))
        return replace(
            self,
            query=query[again],
            rank=rank[again],
            grade=self.grade[order][again],
            first=first[again],
            size=size[again],
        )
