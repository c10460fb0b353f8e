"""Reading every byte of a run, and reporting what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from irdistill.console.progress_bars import progress
from irdistill.errors import IrdistillError
from irdistill.runs.compiled_run import compiled_folder
from irdistill.runs.manifest import QUERIES, Manifest, PartEntry
from irdistill.runs.part_files import read_part, read_query_ids
from irdistill.runs.ranked_lists import boundaries, column_scores, from_table, rank_order
from irdistill.runs.stored_representations import verify_representations
from irdistill.storage.checksums import check_folders
from irdistill.storage.files import digest, file_sha256


def verify(path: str | Path) -> list[str]:
    """Check a run completely: checksums, counts, order, ranks, nulls. It may be a shard.

    The representations beside the run and its compiled arrays in the cache are checked too.

    Returns:
        One line per problem, with the file it is in; empty for an intact run.
    """
    folder = Path(path)
    try:
        manifest = Manifest.read(folder)
        query_ids = read_query_ids(folder / QUERIES)
    except IrdistillError as error:
        return [str(error)]
    problems = []
    if not manifest.complete:
        problems.append(f"{folder} is not finished; run the command that writes it again to resume")
    if digest(query_ids) != manifest.queries_digest:
        problems.append(f"{folder / QUERIES} does not hold the queries that the manifest says")
    expected = manifest.part_numbers()
    if manifest.complete and [part.number for part in manifest.parts] != expected:
        problems.append(
            f"the manifest lists {len(manifest.parts)} parts; {len(expected)} were expected"
        )
    with progress(len(manifest.parts), "parts", "verify") as bar:
        for entry in manifest.parts:
            problems += [
                f"{folder / entry.name}: {line}" for line in _part(folder, entry, query_ids)
            ]
            bar.update()
    problems += verify_representations(folder)
    for compiled in sorted(compiled_folder().glob(f"{manifest.fingerprint}-*")):
        problems += check_folders(compiled).damaged
    return problems


def _part(folder: Path, entry: PartEntry, query_ids: list[str]) -> list[str]:
    path = folder / entry.name
    if not path.is_file():
        return ["is missing"]
    if path.stat().st_size != entry.bytes:
        return [
            f"is truncated or damaged: {path.stat().st_size} bytes, the manifest says {entry.bytes}"
        ]
    checksum = file_sha256(path)
    if checksum != entry.sha256:
        return [f"is damaged: its SHA-256 is {checksum}, the manifest says {entry.sha256}"]
    try:
        table = read_part(path)
    except IrdistillError as error:
        return [str(error)]
    problems = []
    scores = column_scores(table)
    null = table.column("score").is_null().to_numpy()
    if table.num_rows != entry.rows or int(null.sum()) != entry.nulls:
        problems.append(
            f"has {table.num_rows} rows, {int(null.sum())} of them null; {entry.rows} and"
            f" {entry.nulls} were expected"
        )
    if not np.isfinite(scores[~null]).all():
        problems.append("has a score that is NaN or infinite")
    flagged = table.column("flag").is_valid().to_numpy()
    if (null & ~flagged).any():
        problems.append(f"has {int((null & ~flagged).sum())} null scores without a flag")
    query_ids = query_ids[entry.first : entry.first + entry.queries]
    present = table.column("query_id").take(boundaries(table)[:-1]).to_pylist()
    if present != [query_id for query_id in query_ids if query_id in set(present)]:
        return [*problems, "does not hold its queries in order"]
    return problems + _lists(table, query_ids)


def _lists(table: pa.Table, query_ids: list[str]) -> list[str]:
    """Problems of the lists of a part: ranks, order, repeated documents."""
    problems = []
    ranks = table.column("rank").to_numpy()
    start = 0
    for ranked in from_table(table, query_ids):
        size = len(ranked.doc_ids)
        if not np.array_equal(ranks[start : start + size], np.arange(1, size + 1)):
            problems.append(f"the ranks of query {ranked.query_id!r} are not 1 to {size}")
        if rank_order(ranked.doc_ids, ranked.scores) is not None:
            problems.append(
                f"the list of query {ranked.query_id!r} is not in order of score, then document id"
            )
        if len(set(ranked.doc_ids)) != size:
            problems.append(f"the list of query {ranked.query_id!r} has a document twice")
        start += size
    return problems
