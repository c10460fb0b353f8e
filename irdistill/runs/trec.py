"""TREC run files as runs: read into bounded memory, or measured while they are read."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from irdistill.collections import Collection
from irdistill.collections.byte_strings import ByteStrings, group_starts
from irdistill.collections.table_layout import check_trec
from irdistill.console.terminal import counted
from irdistill.errors import InputError, WrongCollectionError
from irdistill.runs.blocks import BlockRun, ListBlock
from irdistill.runs.manifest import Manifest, RunIdentity
from irdistill.runs.rank_faults import RankFaults
from irdistill.runs.ranked_lists import RankedList, order_ties
from irdistill.runs.regrouping import QueryRows, regroup
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile
from irdistill.runs.trec_rows import TrecRows, read_file_sample, read_trec_rows
from irdistill.storage.files import digest

logger = logging.getLogger(__name__)

MEMORY = 1 << 27
"""Bytes of memory for the lists of a file, or for its rows while they are grouped by query."""
_ODD = np.uint64(0x9E3779B97F4A7C15)


class NotGroupedError(Exception):
    """A query comes again after another one."""


def read_trec(path: Path, collection: Collection | None = None, memory: int = MEMORY) -> BlockRun:
    """Read a TREC run file. Scores decide the order, as in trec_eval.

    Compressed files are recognized by their content. A file whose lines are grouped by query is
    read once; any other file is read twice more, and its rows are kept in a temporary file. Memory
    is bounded, whatever the length: ``memory``, twice the lines of the longest query, and about 100
    bytes per query. Ranks that contradict the scores cause a warning.

    Args:
        collection: if given, queries that it does not have are left out (with a warning), and
            documents must be in its corpus.
        memory: bytes; longer runs are kept in a temporary file.
    """
    run = BlockRun(memory)
    with ScoreFile(path) as source:
        builder = _ListBuilder(source, collection)
        try:
            for block in builder.grouped_lists():
                run.add(block)
        except NotGroupedError:
            logger.info("%s: the lines of a query are not together; they are sorted first", path)
            run, builder = BlockRun(memory), _ListBuilder(source, collection)
            for block in builder.lists(regroup(partial(_read_again, path), memory)):
                run.add(block)
        run.close(builder.identity())
    return run


class StreamedRun(Run):
    """A TREC run file whose lists are yielded once while it is read, and not kept.

    It serves measuring. Any other use reads the file into a `BlockRun` first. Errors of the file
    are raised when it is read.
    """

    def __init__(self, path: Path, collection: Collection | None = None) -> None:
        super().__init__()
        self._file, self._collection = path, collection
        self._stored: BlockRun | None = None

    def blocks(self) -> Iterator[ListBlock]:
        """The lists as arrays, one block in memory at a time."""
        if self._stored is None and self._manifest is None:
            return self._read()
        return self.stored().blocks()

    def _read(self) -> Iterator[ListBlock]:
        query_ids: list[str] = []
        with ScoreFile(self._file) as source:
            builder = _ListBuilder(source, self._collection)
            try:
                for block in builder.grouped_lists():
                    query_ids += block.query_ids
                    yield block
            except NotGroupedError:
                self.stored()
                raise
            count = len(query_ids)
            self._manifest = Manifest(
                builder.identity(), count, digest(query_ids), max(1, count), complete=True
            )

    def stored(self) -> BlockRun:
        """The same run with its lists."""
        if self._stored is None:
            self._stored = read_trec(self._file, self._collection)
        return self._stored

    @property
    def manifest(self) -> Manifest:
        """Identity, parts and counts."""
        return self._manifest or self.stored().manifest

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self.stored().query_ids

    @property
    def num_rows(self) -> int:
        """Number of (query, document) rows."""
        return self.stored().num_rows

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """The lists of each block."""
        return self.stored().parts()

    def __getitem__(self, query_id: str) -> RankedList:
        return self.stored()[query_id]

    def __repr__(self) -> str:
        return f"StreamedRun({str(self._file)!r})"


class _ListBuilder:
    """Checks the rows of a file and puts them in rank order."""

    def __init__(self, source: ScoreFile, collection: Collection | None) -> None:
        self._source, self._path, self._collection = source, source.path, collection
        self._rows = self._queries = self._unknown_queries = 0
        self._first_unknown = ""
        self._faults, self._example = RankFaults(), ""

    def grouped_lists(self) -> Iterator[ListBlock]:
        """The lists of a file whose lines are grouped by query."""
        sample = read_file_sample(self._path)
        check_trec(sample)
        return self.lists(_read_ahead(_group(read_trec_rows(self._source, sample))))

    def lists(self, blocks: Iterator[QueryRows]) -> Iterator[ListBlock]:
        """The lists of all blocks."""
        for rows in blocks:
            self._compare_ranks(rows)
            self._queries += len(rows.query_ids)
            rows = self._without_unknown_queries(rows)
            if len(rows.query_ids):
                hashes = rows.docs.hashes()
                self._check_documents(rows, hashes)
                self._rows += len(hashes)
                yield self._ranked(rows, hashes)

    def identity(self) -> RunIdentity:
        """What the run is, after its last block; logs the warnings."""
        path, collection = self._path, self._collection
        if not self._rows and self._queries and collection is not None:
            raise WrongCollectionError(
                f"{path} cannot be used as a run: none of its"
                f" {counted(self._queries, 'query')} is in"
                f" {collection.id!r}."
            )
        if not self._rows:
            raise InputError(f"{path} cannot be used as a run: it holds no line.")
        if self._unknown_queries and collection is not None:
            logger.warning(
                "%s: left out %s that %s does not have (first: %s)",
                path,
                counted(self._unknown_queries, "query"),
                collection.id,
                self._first_unknown,
            )
        for line in self._faults.warnings(self._queries, self._example):
            logger.warning("%s: %s", path, line)
        return RunIdentity(
            "imported",
            {
                "format": "trec",
                "file": path.name,
                "sha256": self._source.sha256(),
                "tag": self._source.notes["tag"],
            },
            collection.describe() if collection is not None else {},
        )

    def _compare_ranks(self, rows: QueryRows) -> None:
        """Count queries whose ranks and scores contradict each other."""
        sizes, inner = np.diff(rows.edges), rows.edges[1:-1] - 1
        falls, rises = rows.scores[1:] <= rows.scores[:-1], rows.ranks[1:] >= rows.ranks[:-1]
        falls[inner] = rises[inner] = True
        if falls.all() and rises.all():
            equal = (sizes > 1) & (rows.scores[rows.edges[:-1]] == rows.scores[rows.edges[1:] - 1])
            self._faults = self._faults._replace(
                lists=self._faults.lists + int((sizes > 1).sum()),
                equal=self._faults.equal + int(equal.sum()),
            )
            return
        groups = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((rows.ranks, groups))
        before = self._faults.against_scores
        self._faults = self._faults.add(groups[order], rows.ranks[order], rows.scores[order])
        if not before and self._faults.against_scores:
            self._example = rows.query_ids[self._faults.example]

    def _without_unknown_queries(self, rows: QueryRows) -> QueryRows:
        if self._collection is None:
            return rows
        queries = self._collection.queries
        known = np.array([query_id in queries for query_id in rows.query_ids], bool)
        if known.all():
            return rows
        self._first_unknown = self._first_unknown or rows.query_ids[int(np.argmin(known))]
        self._unknown_queries += int((~known).sum())
        sizes = np.diff(rows.edges)
        kept = np.repeat(known, sizes)
        return QueryRows(
            [rows.query_ids[number] for number in np.flatnonzero(known).tolist()],
            np.concatenate([[0], np.cumsum(sizes[known])]),
            rows.docs.take(kept),
            rows.ranks[kept],
            rows.scores[kept],
            rows.lines[kept],
        )

    def _check_documents(self, rows: QueryRows, hashes: np.ndarray) -> None:
        if self._collection is None:
            return
        unknown = np.flatnonzero(self._collection.corpus.find_fields(rows.docs, hashes) < 0)
        if len(unknown):
            row = int(unknown[np.argmin(rows.lines[unknown])])
            raise WrongCollectionError(
                f"{self._path}, line {rows.lines[row]}: the document {rows.docs.text(row)!r} is"
                f" not in the corpus of {self._collection.id!r}; the run belongs to another"
                " collection."
            )

    def _ranked(self, rows: QueryRows, hashes: np.ndarray) -> ListBlock:
        """The rows in the order of trec_eval: score, then document id, both descending."""
        groups = np.repeat(np.arange(len(rows.query_ids)), np.diff(rows.edges))
        self._check_repeated(rows, hashes, groups)
        docs, scores = rows.docs, rows.scores
        falls = scores[1:] <= scores[:-1]
        falls[rows.edges[1:-1] - 1] = True
        order = np.arange(len(scores))
        moved = not falls.all()
        if moved:
            order = np.lexsort((-scores, groups))
            scores = scores[order]
        moved |= order_ties(order, scores, rows.edges[:-1], lambda some: docs.take(some).texts())
        if moved:
            docs, hashes = docs.take(order), hashes[order]
        return ListBlock(rows.query_ids, rows.edges, docs, scores, hashes)

    def _check_repeated(self, rows: QueryRows, hashes: np.ndarray, groups: np.ndarray) -> None:
        keys = np.sort(hashes ^ groups.astype(np.uint64) * _ODD)
        if not (keys[1:] == keys[:-1]).any():
            return
        known: set[tuple[int, str]] = set()
        names = rows.docs.texts()
        for row in np.argsort(rows.lines, kind="stable").tolist():
            key = (int(groups[row]), names[row])
            if key in known:
                raise InputError(
                    f"{self._path}, line {rows.lines[row]}: the document {names[row]!r} comes"
                    f" twice for query {rows.query_ids[key[0]]!r}."
                )
            known.add(key)


def _group(blocks: Iterator[TrecRows]) -> Iterator[QueryRows]:
    """Whole queries of a file whose lines are grouped by query.

    The last query of a block waits for its lines in the next blocks.
    """
    known: set[str] = set()
    waiting: list[TrecRows] = []
    for rows in blocks:
        starts = group_starts(rows.queries)
        if waiting and rows.queries.bytes_at(0) == waiting[0].queries.bytes_at(0):
            end = int(starts[1]) if len(starts) > 1 else None
            waiting.append(rows.select(slice(end)).packed())
            starts = starts[1:]
            if not len(starts):
                continue
        if waiting:
            yield _joined(waiting, known)
        last = int(starts[-1])
        if len(starts) > 1:
            first = int(starts[0])
            yield _whole_queries(rows.select(slice(first, last)), starts[:-1] - first, known)
        waiting = [rows.select(slice(last, None)).packed()]
    if waiting:
        yield _joined(waiting, known)


def _joined(pieces: list[TrecRows], known: set[str]) -> QueryRows:
    """The rows of one query."""
    rows = pieces[0]
    if len(pieces) > 1:
        rows = TrecRows(
            rows.queries,
            ByteStrings.joined([piece.docs for piece in pieces]),
            *(np.concatenate([piece[column] for piece in pieces]) for column in (2, 3, 4)),
        )
    return _whole_queries(rows, np.zeros(1, np.int64), known)


def _whole_queries(rows: TrecRows, starts: np.ndarray, known: set[str]) -> QueryRows:
    query_ids = rows.queries.take(starts).texts()
    before = len(known)
    known.update(query_ids)
    if len(known) != before + len(query_ids):
        raise NotGroupedError
    edges = np.append(starts, len(rows.lines))
    return QueryRows(query_ids, edges, rows.docs, rows.ranks, rows.scores, rows.lines)


def _read_ahead(blocks: Iterator[QueryRows]) -> Iterator[QueryRows]:
    """The same blocks; a thread reads the next one while the caller works on one."""
    end = object()
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        following = pool.submit(next, blocks, end)
        while isinstance(rows := following.result(), QueryRows):
            following = pool.submit(next, blocks, end)
            yield rows


def _read_again(path: Path) -> Iterator[TrecRows]:
    """The rows of a file from its beginning."""
    with ScoreFile(path) as source:
        yield from read_trec_rows(source, read_file_sample(path))
