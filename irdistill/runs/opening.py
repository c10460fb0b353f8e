"""Opening a run, and checking that it belongs to a collection."""

from __future__ import annotations

from pathlib import Path

from irdistill.collections import Collection
from irdistill.collections.collection import collection_mismatch
from irdistill.errors import NotFoundError, WrongCollectionError
from irdistill.runs.run import Run
from irdistill.runs.store import StoredRun
from irdistill.runs.subsets import RunSubset, has_queries
from irdistill.runs.trec import read_trec


def open_run(path: str | Path | Run, collection: Collection | None = None) -> Run:
    """Open a run folder or a TREC run file (compressed files too).

    Args:
        path: a folder, a TREC run file, or an opened run.
        collection: if given, the run must belong to this collection: same corpus, same queries. A
            run that has more queries is accepted if it has all queries of the collection with the
            same texts; the other queries are left out.

    Raises:
        NotFoundError: there is no such file or folder.
        InputError, DamagedError: as `StoredRun.open` and `read_trec`.
        WrongCollectionError: the run belongs to another collection (the message shows both
            fingerprints); or a TREC file names documents that the collection does not have, or
            none of its queries.
    """
    if isinstance(path, Run):
        run = path
    elif Path(path).is_file():
        return read_trec(Path(path), collection)
    elif Path(path).is_dir():
        run = StoredRun.open(path)
    else:
        raise NotFoundError(f"{str(path)!r} does not exist; give a run folder or a TREC run file.")
    if collection is None:
        return run
    check_collection(run, collection)
    if collection_mismatch(run.identity.collection, collection.describe()) is not None:
        return subset_for(run, collection)
    return run


def subset_for(run: Run, collection: Collection) -> Run:
    """A run of this collection, without the queries that the collection does not have."""
    if len(run) <= len(collection.queries) and all(
        query_id in collection.queries for query_id in run.query_ids
    ):
        return run
    return RunSubset(run, list(collection.queries), collection.describe())


def check_collection(run: Run, collection: Collection) -> None:
    """Check that a run has the corpus and the queries of a collection; it may have more queries."""
    theirs, ours = run.identity.collection, collection.describe()
    part = collection_mismatch(theirs, ours)
    if part is None or (part == "queries" and has_queries(run, collection.query_fingerprints)):
        return
    raise WrongCollectionError(
        f"{run} was made for the collection {theirs.get('id')!r} and is used with"
        f" {collection.id!r}: the fingerprints of the {part} differ ({theirs.get(part)} there,"
        f" {ours[part]} here){_other_queries(run, collection) if part == 'queries' else ''}."
        " Use the collection that the run was made for, or create the run again."
    )


def _other_queries(run: Run, collection: Collection) -> str:
    """How many of the collection's queries are missing from the run or have another text in it."""
    known = run.query_fingerprints
    missing = [query_id for query_id in collection.queries if query_id not in known]
    changed = [
        query_id
        for query_id, value in collection.query_fingerprints.items()
        if known.get(query_id, value) != value
    ]
    parts = [
        f"{len(ids)} of {len(collection.queries)} queries {verb}, {ids[0]!r} first"
        for ids, verb in ((missing, "are not in the run"), (changed, "have another text there"))
        if ids and known
    ]
    return f": {'; '.join(parts)}" if parts else ""
