"""Reading every byte of a run and saying what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.runs import parquet
from irdistill.runs.compiled_run import COMPILED
from irdistill.runs.manifest import QUERIES, Manifest, PartEntry
from irdistill.runs.ranked_lists import boundaries, column_scores, from_table, rank_order
from irdistill.runs.stored_representations import verify_representations
from irdistill.storage.checksums import check_folders
from irdistill.storage.files import digest, file_sha256


def verify(path: str | Path) -> list[str]:
    """Check a run wholly: checksums, counts, order, ranks, nulls. A shard can be checked too.

    Returns:
        One line a problem, with the file it is in; none for a run that is well.
    """
    folder = Path(path)
    try:
        manifest = Manifest.read(folder)
        query_ids = parquet.read_ids(folder / QUERIES)
    except IrdistillError as error:
        return [str(error)]
    problems = []
    if not manifest.complete:
        problems.append(
            f"{folder} is not finished; start the command that writes it again, it continues"
        )
    if digest(query_ids) != manifest.queries_digest:
        problems.append(f"{folder / QUERIES} does not hold the queries that the manifest says")
    if manifest.complete and [part.number for part in manifest.parts] != manifest.own_parts():
        problems.append(
            f"the manifest lists {len(manifest.parts)} parts; {len(manifest.own_parts())} were"
            " expected"
        )
    with progress(len(manifest.parts), "parts", "verify") as bar:
        for entry in manifest.parts:
            problems += [
                f"{folder / entry.name}: {line}" for line in _part(folder, entry, query_ids)
            ]
            bar.update()
    return problems + verify_representations(folder) + check_folders(folder / COMPILED).damaged


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
        table = parquet.read(path)
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
    ids = query_ids[entry.first : entry.first + entry.queries]
    present = table.column("query_id").take(boundaries(table)[:-1]).to_pylist()
    if present != [query_id for query_id in ids if query_id in set(present)]:
        problems.append("does not hold its queries in order")
        return problems
    ranks = table.column("rank").to_numpy()
    at = 0
    for found in from_table(table, ids):
        size = len(found.doc_ids)
        if not np.array_equal(ranks[at : at + size], np.arange(1, size + 1)):
            problems.append(f"the ranks of query {found.query_id!r} are not 1 to {size}")
        if rank_order(found.doc_ids, found.scores) is not None:
            problems.append(
                f"the list of query {found.query_id!r} is not in order of score, then document id"
            )
        if len(set(found.doc_ids)) != size:
            problems.append(f"the list of query {found.query_id!r} has a document twice")
        at += size
    return problems
