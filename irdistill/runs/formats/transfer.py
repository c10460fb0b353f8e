"""Importing a score file as a run, and exporting a run as a score file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.runs.formats.dicts import write_scores
from irdistill.runs.formats.gather import Gather, Gathered
from irdistill.runs.formats.numbering import Numbering
from irdistill.runs.formats.registry import FORMATS, Format, format_of
from irdistill.runs.formats.rows import WriteOptions
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.opening import open_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.run_files import check_out
from irdistill.runs.score_file import ScoreFile
from irdistill.runs.writer import RunWriter
from irdistill.storage.files import make_folder

logger = logging.getLogger(__name__)
MEMORY = 1 << 29
PART_ROWS = 1 << 17


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        rows: how many rows it expresses. left_out: how many it does not.
        one_sided: queries that were left out whole, since they have no document that is judged
            relevant, or no other one.
    """

    rows: int
    left_out: int
    one_sided: int = 0


def import_run(
    file: str | Path,
    collection: Collection,
    out: str | Path,
    format: str | None = None,
    *,
    columns: str | Sequence[str] | None = None,
    scores: str | Path | None = None,
    unknown: str = "error",
    duplicates: str = "error",
    ranks: bool = False,
    memory: int = MEMORY,
    overwrite: bool = False,
) -> Run:
    """Bring a score file into the store; its queries come in the collection's order.

    The file is read once, in pieces; what does not fit into ``memory`` waits in nameless temporary
    files beside ``out``. Nothing is written to ``out`` before all of the file has been read and
    found good.

    Args:
        format: a name of ``FORMATS``; None where the content allows only one.
        columns: what the columns of a table are: roles in their order (``query,document,-,score``)
            or names in its header by role (``query=id,score=bm25``); None where the header says so,
            or the content allows one reading only.
        scores: the pickled scores of an ``st-jsonl`` file; the one beside it unless said.
        unknown: ``error``, or ``skip`` to leave out rows of queries and documents that the
            collection lacks.
        duplicates: ``error``, or ``first`` or ``mean`` of the scores of a pair that has several
            different ones.
        ranks: the ranks of the file decide: every list gets the scores n, n - 1, … 1 by them, as a
            listwise teacher's order does, whatever scores the file has.
        memory: bytes that rows may take at a time.

    Raises:
        IrdistillError: the file is truncated, damaged, of another layout or of another collection;
            a score is not a finite number; a pair has two scores; or as ``RunWriter``.
    """
    path, folder = Path(file), Path(out)
    form = format_of(format, path, reading=True, columns=columns)
    if ranks and not form.ranked:
        raise IrdistillError(f"ranks were asked for and files of the format {form.name} have none.")
    check_out(folder, overwrite)
    if columns is not None and not form.table:
        raise IrdistillError(
            f"--columns names the columns of a table, and files of the format {form.name} have"
            " fixed ones; leave it out."
        )
    make_folder(folder.parent)
    numbering = Numbering(collection, unknown)
    query_ids, corpus = list(collection.queries), collection.corpus

    def name(query: int, doc: int) -> str:
        return f"{path}: the pair of query {query_ids[query]!r} and document {corpus.id(doc)!r}"

    with Gather(len(query_ids), folder.parent, name, memory, duplicates) as gather:
        producer, ranked = _read(path, form, collection, numbering, gather, columns)
        beside = _scores_of(path, form, scores)
        if beside is not None:
            producer["scores"] = _read_scores(beside, collection, gather)
        gather.settle()
        if ranks:
            _check_ranks(path, form, ranked, gather, query_ids)
        present = np.flatnonzero(gather.counts)
        if not len(present):
            left = f": {numbering.summary()}" if any(numbering.left_out.values()) else ""
            raise IrdistillError(
                f"{path} gives no run; it holds no row that {collection.id!r} has{left}."
            )
        producer |= {"unknown": numbering.left_out, "repeated": gather.repeated}
        settings = {"unknown": unknown, "duplicates": duplicates, "ranks": ranks}
        identity = RunIdentity("imported", producer, collection.describe(), None, settings)
        part = int(np.clip(PART_ROWS * len(present) // int(gather.counts.sum()), 64, 8192))
        lists = (
            _list(found, query_ids[found.query], corpus.ids_at(found.docs), ranks)
            for found in gather
        )
        with RunWriter(
            folder,
            identity,
            [query_ids[i] for i in present.tolist()],
            part,
            overwrite=overwrite,
            fingerprints=collection.query_fingerprints,
        ) as writer:
            _write(writer, lists)
            run = writer.finish()
    _tell(path, run, numbering, gather)
    if ranked and not ranks:
        _warn_of_ranks(path, run, gather, query_ids)
    return run


def _read(
    path: Path,
    form: Format,
    collection: Collection,
    numbering: Numbering,
    gather: Gather,
    columns: str | Sequence[str] | None,
) -> tuple[dict[str, Any], bool]:
    """What the manifest says of the file, and whether its rows have ranks."""
    ranked = False
    with ScoreFile(path, columns) as source:
        for rows in form.read(source, collection):
            ranked = rows.ranks is not None
            gather.add(numbering.rows(rows, source))
        return {
            "format": form.name,
            "file": path.name,
            "bytes": source.bytes,
            "sha256": source.sha256(),
            **source.notes,
        }, ranked


def _check_ranks(
    path: Path, form: Format, ranked: bool, gather: Gather, query_ids: list[str]
) -> None:
    """Refuse ranks that do not order every list."""
    if not ranked:
        raise IrdistillError(
            f"{path}: ranks were asked for, and this file of the format {form.name} has no column"
            " of ranks."
        )
    if gather.rank_faults.repeated is not None:
        query, rank = gather.rank_faults.repeated
        raise IrdistillError(
            f"{path}: ranks were asked for, and two documents of query {query_ids[query]!r} have"
            f" the rank {rank}; ranks must differ within a query. Without --ranks the scores"
            " decide."
        )


def _warn_of_ranks(path: Path, run: Run, gather: Gather, query_ids: list[str]) -> None:
    faults = gather.rank_faults
    for line in faults.warnings(len(run), query_ids[faults.example]):
        logger.warning("%s: %s", path, line)


def _scores_of(path: Path, form: Format, scores: str | Path | None) -> Path | None:
    if scores is not None and not form.beside:
        raise IrdistillError(
            f"a second file of scores was given, and files of the format {form.name} hold their"
            " own."
        )
    if scores is not None:
        return Path(scores)
    return beside(path) if form.beside and beside(path).is_file() else None


def beside(path: Path) -> Path:
    """Where the scores of hard negatives lie unless said: ``x.jsonl.gz`` has
    ``x-scores.pkl.gz``.
    """
    return path.with_name(path.name.split(".jsonl")[0] + "-scores.pkl.gz")


def _read_scores(path: Path, collection: Collection, gather: Gather) -> dict[str, Any]:
    # pairs that no list names are not kept, so what is unknown in here was reported already or does
    # not matter
    numbering = Numbering(collection, "skip")
    with ScoreFile(path) as source:
        for rows in FORMATS["st-pickle"].read(source, collection):
            found = numbering.rows(rows, source)
            found["rank"] = -1
            gather.add(found)
        return {"file": path.name, "bytes": source.bytes, "sha256": source.sha256()}


def _list(found: Gathered, query_id: str, doc_ids: list[str], ranks: bool) -> RankedList:
    scores = found.scores
    if ranks:
        scores = np.arange(len(scores), 0, -1, dtype=np.float32)
    return RankedList(query_id, doc_ids, scores)


def _write(writer: RunWriter, lists: Iterator[RankedList]) -> None:
    size = writer.manifest.part_queries
    left = dict(writer.pending())
    for number in writer.manifest.part_numbers():
        count = min(size, len(writer.query_ids) - number * size)
        part = [next(lists) for _ in range(count)]
        if number in left:
            writer.write_part(number, part)


def _tell(path: Path, run: Run, numbering: Numbering, gather: Gather) -> None:
    if any(numbering.left_out.values()):
        logger.warning("%s: rows left out: %s", path, numbering.summary())
    if gather.repeated:
        logger.info(
            "%s: %d rows came again with the same pair and are one row each", path, gather.repeated
        )
    nulls = run.manifest.nulls
    if nulls:
        by_rank = gather.rank_faults.repeated is None and nulls == run.num_rows
        hint = (
            "; they keep their order, and --ranks gives them scores by their ranks"
            if by_rank
            else ""
        )
        logger.warning("%s: %d of %d rows have no score (null)%s", path, nulls, run.num_rows, hint)


def export_run(
    run: str | Path | Run,
    file: str | Path,
    format: str | None = None,
    collection: Collection | None = None,
    *,
    scores: str | Path | None = None,
    tag: str = "irdistill",
    keep_empty: bool = False,
) -> Exported:
    """Write a run as a score file, whole or not at all; compressed where the name ends in .gz,
    .zst, .bz2 or .xz.

    Args:
        format: a name of ``FORMATS``; None where the file's name says it (else ``trec``).
        collection: for formats that take judgments or texts from it.
        scores: where the scores of ``st-jsonl`` go; beside the file unless said.
        tag: the last column of a TREC run.
        keep_empty: in formats with positives and negatives, also write queries that have only one
            of the two, with an empty list; the trainers that read these formats stop at them, so
            they are left out and counted otherwise.

    Raises:
        IrdistillError: the format needs a collection, cannot express an id, or cannot be told from
            the name; or the run is of another collection.
    """
    path = Path(file)
    form = format_of(format, path, reading=False)
    if form.needs_collection and collection is None:
        raise IrdistillError(
            f"the format {form.name} takes judgments or texts from the collection; give"
            " --collection."
        )
    if keep_empty and not form.two_sided:
        raise IrdistillError(
            f"queries with an empty list were asked for, and the format {form.name} has no lists of"
            " positives; leave --keep-empty out."
        )
    opened, options = open_run(run, collection), WriteOptions(tag, keep_empty)
    if form.beside:
        write_scores(
            opened, Path(scores) if scores is not None else beside(path), collection, options
        )
    elif scores is not None:
        raise IrdistillError(
            f"a second file for scores was given, and files of the format {form.name} hold their"
            " own."
        )
    rows = form.write(opened, path, collection, options)
    left_out = opened.num_rows - rows
    if left_out:
        logger.warning(
            "%s: %d of %d rows are left out, which %s cannot express",
            path,
            left_out,
            opened.num_rows,
            form.name,
        )
    if options.one_sided:
        hint = "; --keep-empty writes them, with an empty list" if form.two_sided else ""
        logger.warning(
            "%s: %d of %d queries are left out, which have no document that is judged relevant, or"
            " no other one%s",
            path,
            options.one_sided,
            len(opened),
            hint,
        )
    return Exported(rows, left_out, options.one_sided)
