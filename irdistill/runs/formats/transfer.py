"""Importing a score file as a run, and exporting a run as a score file."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import InputError, OptionError, WrongCollectionError
from irdistill.runs.formats.dicts import read_scores, write_scores
from irdistill.runs.formats.gather import Gather
from irdistill.runs.formats.numbering import Numbering
from irdistill.runs.formats.registry import Format, format_to_read, format_to_write
from irdistill.runs.formats.rows import WriteOptions
from irdistill.runs.label_injection import refuse_labels
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.opening import open_run
from irdistill.runs.ranked_lists import RankedList
from irdistill.runs.run import Run
from irdistill.runs.run_ownership import check_out
from irdistill.runs.score_file import ScoreFile
from irdistill.runs.writer import RunWriter
from irdistill.storage.files import make_folder

logger = logging.getLogger(__name__)
MEMORY = 1 << 29
PART_ROWS = 1 << 17


class Exported(NamedTuple):
    """What an export wrote.

    Attributes:
        rows: number of rows that the file expresses.
        left_out: number of rows that it does not.
        one_sided: queries that were left out because they have no relevant document, or no other.
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
    """Import a score file as a run; its queries come in the collection's order.

    The file is read once, in pieces. What does not fit into ``memory`` waits in temporary files
    beside ``out``. Nothing is written to ``out`` before the whole file was read without an error.

    The options are those of the verb ``runs import``, but ``memory`` is in bytes.
    """
    path, folder = Path(file), Path(out)
    form = format_to_read(format, path, columns)
    if ranks and not form.ranked:
        raise OptionError(f"ranks were asked for and files of the format {form.name} have none.")
    check_out(folder, overwrite)
    if columns is not None and not form.table:
        raise OptionError(
            f"--columns names the columns of a table, and files of the format {form.name} have"
            " fixed ones; leave it out."
        )
    make_folder(folder.parent)
    numbering = Numbering(collection, unknown)
    query_ids, corpus = list(collection.queries), collection.corpus

    def name(query: int, doc: int) -> str:
        return f"{path}: the pair of query {query_ids[query]!r} and document {corpus.id(doc)!r}"

    with Gather(len(query_ids), folder.parent, name, memory, duplicates) as gather:
        producer, ranked = _read(ScoreFile(path, columns), form, collection, numbering, gather)
        second = _second_file(path, form, scores)
        if second is not None and (scores is not None or second.is_file()):
            producer["scores"] = _read_scores(second, collection, gather)
        gather.settle()
        if ranks:
            _check_ranks(path, form, ranked, gather, query_ids)
        present = np.flatnonzero(gather.counts)
        if not len(present):
            left_out = f": {numbering.summary()}" if any(numbering.left_out.values()) else ""
            raise WrongCollectionError(
                f"{path} gives no run; it holds no row that {collection.id!r} has{left_out}."
            )
        producer |= {"unknown": numbering.left_out, "repeated": gather.repeated}
        settings = {"unknown": unknown, "duplicates": duplicates, "ranks": ranks}
        lists = (
            RankedList(
                query_ids[row.query],
                corpus.ids_at(row.docs),
                np.arange(len(row.docs), 0, -1, dtype=np.float32) if ranks else row.scores,
            )
            for row in gather
        )
        with RunWriter(
            folder,
            RunIdentity("imported", producer, collection.describe(), None, settings),
            [query_ids[number] for number in present.tolist()],
            int(np.clip(PART_ROWS * len(present) // int(gather.counts.sum()), 64, 8192)),
            overwrite=overwrite,
            fingerprints=collection.query_fingerprints,
        ) as writer:
            _write(writer, lists)
            run = writer.finish()
    _log(path, run, numbering, gather)
    if ranked and not ranks:
        faults = gather.rank_faults
        for line in faults.warnings(len(run), query_ids[faults.example]):
            logger.warning("%s: %s", path, line)
    return run


def _read(
    file: ScoreFile, form: Format, collection: Collection, numbering: Numbering, gather: Gather
) -> tuple[dict[str, Any], bool]:
    """Read a file; returns what the manifest says about it, and whether its rows have ranks."""
    ranked = False
    with file as source:
        for rows in form.read(source, collection):
            ranked = rows.ranks is not None
            gather.add(numbering.rows(rows, source))
        return {"format": form.name, **_described(source), **source.notes}, ranked


def _read_scores(path: Path, collection: Collection, gather: Gather) -> dict[str, Any]:
    # Pairs that no list names are dropped, so unknown ids were reported already or do not matter.
    numbering = Numbering(collection, "skip")
    with ScoreFile(path) as source:
        for rows in read_scores(source, collection):
            numbers = numbering.rows(rows, source)
            numbers["rank"] = -1
            gather.add(numbers)
        return _described(source)


def _described(source: ScoreFile) -> dict[str, Any]:
    return {"file": source.path.name, "bytes": source.bytes, "sha256": source.sha256()}


def _check_ranks(
    path: Path, form: Format, ranked: bool, gather: Gather, query_ids: list[str]
) -> None:
    """Check that the ranks order every list."""
    if not ranked:
        raise OptionError(
            f"{path}: ranks were asked for, and this file of the format {form.name} has no column"
            " of ranks."
        )
    if gather.rank_faults.repeated is not None:
        query, rank = gather.rank_faults.repeated
        raise InputError(
            f"{path}: ranks were asked for, and two documents of query {query_ids[query]!r} have"
            f" the rank {rank}; ranks must differ within a query. Without --ranks the scores"
            " decide."
        )


def _second_file(path: Path, form: Format, scores: str | Path | None) -> Path | None:
    """The file of scores: by default ``x-scores.pkl.gz`` beside ``x.jsonl.gz``."""
    if form.second_file:
        default = path.with_name(path.name.split(".jsonl")[0] + "-scores.pkl.gz")
        return Path(scores) if scores is not None else default
    if scores is not None:
        raise OptionError(
            f"a second file of scores was given, and files of the format {form.name} hold the"
            " scores themselves."
        )
    return None


def _write(writer: RunWriter, lists: Iterator[RankedList]) -> None:
    size = writer.manifest.part_queries
    pending = dict(writer.pending())
    for number in writer.manifest.part_numbers():
        count = min(size, len(writer.query_ids) - number * size)
        part = [next(lists) for _ in range(count)]
        if number in pending:
            writer.write_part(number, part)


def _log(path: Path, run: Run, numbering: Numbering, gather: Gather) -> None:
    if any(numbering.left_out.values()):
        logger.warning("%s: rows left out: %s", path, numbering.summary())
    if gather.repeated:
        logger.info(
            "%s: %d rows repeat a pair with the same score; each pair is one row",
            path,
            gather.repeated,
        )
    nulls = run.num_unscored
    if nulls:
        by_rank = gather.rank_faults.repeated is None and nulls == run.num_rows
        hint = "; they keep their order, and --ranks gives them scores by their ranks"
        logger.warning(
            "%s: %d of %d rows have no score (null)%s",
            path,
            nulls,
            run.num_rows,
            hint if by_rank else "",
        )


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
    """Write a run as a score file, whole or not at all.

    The file is compressed if its name ends in .gz, .zst, .bz2 or .xz.

    The options are those of the verb ``runs export``. Trainers that read formats with positives and
    negatives stop at queries that lack one of them, so by default these are left out and counted.
    """
    path = Path(file)
    form = format_to_write(format, path)
    if form.needs_collection and collection is None:
        raise OptionError(
            f"the format {form.name} needs judgments or texts of the collection; give --collection."
        )
    if keep_empty and not form.two_sided:
        raise OptionError(
            f"the format {form.name} has no lists of positives that could be empty; leave"
            " --keep-empty out."
        )
    opened, options = open_run(run, collection), WriteOptions(tag, keep_empty)
    refuse_labels(opened, "exported")
    second = _second_file(path, form, scores)
    if second is not None:
        write_scores(opened, second, collection, options)
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
