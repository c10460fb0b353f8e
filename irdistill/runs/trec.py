"""TREC run files: ``query Q0 document rank score tag``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa

from irdistill.collections import Collection
from irdistill.collections.byte_strings import group_starts
from irdistill.collections.table_layout import check_trec, read_sample, trec_header
from irdistill.collections.text_files import decompress, explain_damage
from irdistill.errors import IrdistillError
from irdistill.runs.blocks import BlockRun, ListBlock
from irdistill.runs.line_fields import Lines, WrongWidth, check_utf8, decimals, split_lines
from irdistill.runs.manifest import Manifest, RunIdentity
from irdistill.runs.ranked_lists import RankedList, order_ties
from irdistill.runs.ranks import RankFaults
from irdistill.runs.regrouping import Piece, Rows, regrouped
from irdistill.runs.run import Run
from irdistill.runs.score_file import ScoreFile
from irdistill.storage.files import digest

logger = logging.getLogger(__name__)

MEMORY = 1 << 27
"""Bytes that the lists of a file, or its rows where they are not grouped by query, may take in
memory.
"""
_QUERY, _DOCUMENT, _RANK, _SCORE, _TAG, _WIDTH = 0, 2, 3, 4, 5, 6
_ODD = np.uint64(0x9E3779B97F4A7C15)


def _header_line(path: Path) -> int:
    """The number of the line that names the columns; 0 where there is none."""
    with open(path, "rb") as stream, explain_damage(path):
        sample = read_sample(decompress(stream, path), path)
    if trec_header(sample) is not None:
        return sample.lines[0][0]
    check_trec(sample)
    return 0


class NotGroupedError(Exception):
    """A query comes again after another one."""


def read_trec(path: Path, collection: Collection | None = None, memory: int = MEMORY) -> BlockRun:
    """Read a TREC run file. Scores decide the order, as in trec_eval; ranks that contradict them
    are warned of.

    Compressed files are recognized by their content, and a first line of column names is left out.
    Fields are separated by white space. A file whose lines are grouped by query is read once; one
    that is not is read twice more, and its rows wait in a nameless temporary file. Memory is
    bounded, whatever the length: ``memory``, twice the lines of the longest query, and about 100
    bytes a query.

    Args:
        collection: if given, queries that it lacks are left out (with a warning), and documents
            must be in its corpus.

    Raises:
        IrdistillError: a line has not six columns, a score is not a finite number or a rank no
            whole number, a document comes twice for a query, the file is empty, damaged or not
            UTF-8, or it does not fit the collection.
    """
    run = BlockRun(memory)
    skip = _header_line(path)
    reader = _Reader(path, collection, skip)
    with ScoreFile(path) as source:
        try:
            for block in reader.lists(_ahead(_grouped(source, reader))):
                run.add(block)
        except NotGroupedError:
            logger.info("%s: the lines of a query are not together; they are sorted first", path)
            run, reader = BlockRun(memory), _Reader(path, collection, skip)
            pieces = partial(_pieces, path, reader)
            for block in reader.lists(regrouped(pieces, memory)):
                run.add(block)
        checksum = source.sha256()
    run.close(reader.identity(checksum))
    return run


class StreamedRun(Run):
    """A TREC run file whose lists are given out once while it is read, and not kept; for measuring
    it alone.

    Any other use reads the file into a `BlockRun` first. What is wrong with the file is noticed
    when it is read.
    """

    def __init__(self, path: Path, collection: Collection | None = None) -> None:
        super().__init__()
        self._file, self._collection = path, collection
        self._stored: BlockRun | None = None

    def blocks(self) -> Iterator[ListBlock]:
        """The lists as arrays, a block in memory at a time.

        Raises:
            NotGroupedError: a query comes again after another one; what was given out is wrong, and
                is right at the next call.
            IrdistillError: as `read_trec`.
        """
        return (
            self._read()
            if self._stored is None and self._manifest is None
            else self.stored().blocks()
        )

    def _read(self) -> Iterator[ListBlock]:
        reader = _Reader(self._file, self._collection, _header_line(self._file))
        query_ids: list[str] = []
        with ScoreFile(self._file) as source:
            try:
                for block in reader.lists(_ahead(_grouped(source, reader))):
                    query_ids += block.query_ids
                    yield block
            except NotGroupedError:
                self.stored()
                raise
            count = len(query_ids)
            self._manifest = Manifest(
                reader.identity(source.sha256()),
                count,
                digest(query_ids),
                max(1, count),
                complete=True,
            )

    def stored(self) -> BlockRun:
        """The same run with its lists."""
        if self._stored is None:
            self._stored = read_trec(self._file, self._collection)
        return self._stored

    @property
    def manifest(self) -> Manifest:
        """What the run is."""
        return self._manifest or self.stored().manifest

    @property
    def query_ids(self) -> list[str]:
        """All queries in order."""
        return self.stored().query_ids

    @property
    def num_rows(self) -> int:
        """How many (query, document) rows."""
        return self.stored().num_rows

    def parts(self) -> Iterator[tuple[list[str], pa.Table]]:
        """The lists of each block."""
        return self.stored().parts()

    def __getitem__(self, query_id: str) -> RankedList:
        return self.stored()[query_id]

    def __repr__(self) -> str:
        return f"StreamedRun({str(self._file)!r})"


class _Reader:
    """Checks rows and puts them in rank order.

    Attributes:
        queries: how many there were. unknown: how many of them the collection lacks. first: the
            first of these.
        tag: of the first line.
        faults: how ranks and scores fit together. example: the first query where they do not.
    """

    def __init__(self, path: Path, collection: Collection | None, skip: int) -> None:
        self.path, self.collection, self._skip = path, collection, skip
        self.rows = 0
        self.faults, self.example = RankFaults(), ""
        self.queries = self.unknown = 0
        self.first = self.tag = ""

    def lists(self, blocks: Iterator[Rows]) -> Iterator[ListBlock]:
        """The lists of all blocks."""
        for rows in blocks:
            self._compare_ranks(rows)
            self.queries += len(rows.query_ids)
            rows = self._known(rows)
            if len(rows.query_ids):
                hashes = rows.docs.hashes()
                self._refuse_unknown(rows, hashes)
                self.rows += len(hashes)
                yield self._ranked(rows, hashes)

    def identity(self, checksum: str) -> RunIdentity:
        """What the run is, after its last block; warns of what was left out and of ranks that
        contradict the scores.

        Raises:
            IrdistillError: there was no row.
        """
        path, collection = self.path, self.collection
        if not self.rows:
            reason = "it holds no line"
            if self.queries and collection is not None:
                reason = f"none of its {self.queries} queries is in {collection.id!r}"
            raise IrdistillError(f"{path} gives no run: {reason}.")
        if self.unknown and collection is not None:
            logger.warning(
                "%s: %d queries are not in %s and were left out (first: %s)",
                path,
                self.unknown,
                collection.id,
                self.first,
            )
        for line in self.faults.warnings(self.queries, self.example):
            logger.warning("%s: %s", path, line)
        return RunIdentity(
            "imported",
            {"format": "trec", "file": path.name, "sha256": checksum, "tag": self.tag},
            collection.describe() if collection is not None else {},
        )

    def _compare_ranks(self, rows: Rows) -> None:
        """Note queries whose ranks and scores do not fit together."""
        sizes, inner = np.diff(rows.edges), rows.edges[1:-1] - 1
        falls, rises = rows.scores[1:] <= rows.scores[:-1], rows.ranks[1:] >= rows.ranks[:-1]
        falls[inner] = rises[inner] = True
        if falls.all() and rises.all():
            equal = (sizes > 1) & (rows.scores[rows.edges[:-1]] == rows.scores[rows.edges[1:] - 1])
            lists = self.faults.lists + int((sizes > 1).sum())
            self.faults = self.faults._replace(
                lists=lists, equal=self.faults.equal + int(equal.sum())
            )
            return
        groups = np.repeat(np.arange(len(sizes)), sizes)
        order = np.lexsort((rows.ranks, groups))
        before = self.faults.against_scores
        self.faults = self.faults.and_of(groups[order], rows.ranks[order], rows.scores[order])
        if not before and self.faults.against_scores:
            self.example = rows.query_ids[self.faults.example]

    def _known(self, rows: Rows) -> Rows:
        """The rows of the queries that the collection has."""
        if self.collection is None:
            return rows
        known = np.array([query_id in self.collection.queries for query_id in rows.query_ids], bool)
        if not known.all():
            self.first = self.first or rows.query_ids[int(np.argmin(known))]
            self.unknown += int((~known).sum())
            sizes = np.diff(rows.edges)
            kept = np.repeat(known, sizes)
            rows = Rows(
                [
                    query_id
                    for query_id, good in zip(rows.query_ids, known.tolist(), strict=True)
                    if good
                ],
                np.concatenate([[0], np.cumsum(sizes[known])]),
                rows.docs.take(kept),
                rows.ranks[kept],
                rows.scores[kept],
                rows.lines[kept],
            )
        return rows

    def _refuse_unknown(self, rows: Rows, hashes: np.ndarray) -> None:
        if self.collection is None:
            return
        strange = np.flatnonzero(self.collection.corpus.find_fields(rows.docs, hashes) < 0)
        if len(strange):
            place = int(strange[np.argmin(rows.lines[strange])])
            raise IrdistillError(
                f"{self.path}, line {rows.lines[place]}: the document {rows.docs.text(place)!r} is"
                f" not in the corpus of {self.collection.id!r}; the run belongs to another"
                " collection."
            )

    def _ranked(self, rows: Rows, hashes: np.ndarray) -> ListBlock:
        """The rows in the order of trec_eval: score, then document id, both descending."""
        groups = np.repeat(np.arange(len(rows.query_ids)), np.diff(rows.edges))
        self._refuse_repeated(rows, hashes, groups)
        docs, scores = rows.docs, rows.scores
        falls = scores[1:] <= scores[:-1]
        falls[rows.edges[1:-1] - 1] = True
        order = np.arange(len(scores))
        moved = not falls.all()
        if moved:
            order = np.lexsort((-scores, groups))
            scores = scores[order]
        moved |= order_ties(
            order, scores, rows.edges[:-1], lambda places: docs.take(places).texts()
        )
        if moved:
            docs, hashes = docs.take(order), hashes[order]
        return ListBlock(rows.query_ids, rows.edges, docs, scores, hashes)

    def _refuse_repeated(self, rows: Rows, hashes: np.ndarray, groups: np.ndarray) -> None:
        keys = hashes ^ groups.astype(np.uint64) * _ODD
        ordered = np.sort(keys)
        if not (ordered[1:] == ordered[:-1]).any():
            return
        known: set[tuple[int, str]] = set()
        names = rows.docs.texts()
        for place in np.argsort(rows.lines, kind="stable").tolist():
            key = (int(groups[place]), names[place])
            if key in known:
                raise IrdistillError(
                    f"{self.path}, line {rows.lines[place]}: the document {names[place]!r} comes"
                    f" twice for query {rows.query_ids[key[0]]!r}."
                )
            known.add(key)

    def checked(self, data: bytes, first: int) -> tuple[Lines, int]:
        """Lines of six fields, and the number of the line after them.

        Raises:
            IrdistillError: a line has another number of fields, or is not UTF-8.
        """
        if first <= self._skip:
            count = min(self._skip + 1 - first, data.count(b"\n") + (not data.endswith(b"\n")))
            data = b"\n" * count + b"".join(data.split(b"\n", count)[count:])
        check_utf8(data, first, self.path)
        try:
            lines, number = split_lines(data, _WIDTH, first)
        except WrongWidth as error:
            raise IrdistillError(
                f"{self.path}, line {error.number}: {error.fields} columns, and six were expected"
                " (query Q0 document rank score tag):"
                f" {error.line.strip()[:80].decode('utf-8', 'replace')!r}. Other tables and score"
                " files are read by irdistill runs import."
            ) from None
        if len(lines) and not self.tag:
            self.tag = lines.field(_TAG).text(0)
        return lines, number

    def numbers(self, lines: Lines) -> tuple[np.ndarray, np.ndarray]:
        """Ranks and scores, (n,) float32 each.

        Raises:
            IrdistillError: a score is not a finite number, or a rank is not a whole number from 0.
        """
        fields, places = lines.field(_SCORE), lines.field(_RANK)
        with np.errstate(over="ignore", invalid="ignore"):
            scores, ranks = decimals(fields)[0].astype(np.float32), decimals(places)[0]
            wrong = ~np.isfinite(scores)
            strange = ~((ranks >= 0) & (ranks == np.floor(ranks)))
        bad = wrong | strange
        if bad.any():
            place = int(np.argmax(bad))
            what = f"the score {fields.text(place)!r} is not a finite number that float32 can hold."
            if not wrong[place]:
                what = (
                    f"the rank is {places.text(place)!r}, and a whole number from 0 or 1 was"
                    " expected. Are rank and score in each other's places?"
                )
            raise IrdistillError(f"{self.path}, line {lines.numbers[place]}: {what}")
        return ranks.astype(np.float32), scores


def _grouped(source: ScoreFile, reader: _Reader) -> Iterator[Rows]:
    """Blocks of a file whose lines are grouped by query; the last query of a block waits for its
    other lines.

    Raises:
        NotGroupedError: they are not.
    """
    seen: set[str] = set()
    number, waiting, least = 1, b"", 0
    for data in source.blocks():
        waiting += data
        if len(waiting) < least:
            continue
        lines, after = reader.checked(waiting, number)
        if not len(lines):
            number, waiting = after, b""
            continue
        edges = group_starts(lines.field(_QUERY))
        # the data may have been shortened; what follows the last query's first byte is the same
        last = int(lines.field(_QUERY).starts[edges[-1]])
        if len(edges) == 1:
            least = 2 * len(waiting)
            continue
        yield _rows(lines, edges[:-1], int(edges[-1]), reader, seen)
        number, least = int(lines.numbers[edges[-1]]), 0
        waiting = lines.data[last:-8].tobytes()
    if waiting:
        lines, _ = reader.checked(waiting, number)
        if len(lines):
            yield _rows(lines, group_starts(lines.field(_QUERY)), len(lines), reader, seen)


def _ahead(blocks: Iterator[Rows]) -> Iterator[Rows]:
    """The same blocks; the next one is read in a thread while one is worked on."""
    end = object()
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        following = pool.submit(next, blocks, end)
        while isinstance(rows := following.result(), Rows):
            following = pool.submit(next, blocks, end)
            yield rows


def _rows(lines: Lines, starts: np.ndarray, end: int, reader: _Reader, seen: set[str]) -> Rows:
    names = lines.field(_QUERY).take(starts).texts()
    before = len(seen)
    seen.update(names)
    if len(seen) != before + len(names):
        raise NotGroupedError
    cut = slice(None, end)
    ranks, scores = reader.numbers(lines)
    return Rows(
        names,
        np.append(starts, end),
        lines.field(_DOCUMENT).take(cut),
        ranks[cut],
        scores[cut],
        lines.numbers[cut],
    )


def _pieces(path: Path, reader: _Reader) -> Iterator[Piece]:
    """The rows of a file as they stand there."""
    number = 1
    with ScoreFile(path) as source:
        for data in source.blocks():
            lines, number = reader.checked(data, number)
            if len(lines):
                yield Piece(
                    lines.field(_QUERY),
                    lines.field(_DOCUMENT),
                    *reader.numbers(lines),
                    lines.numbers,
                )
