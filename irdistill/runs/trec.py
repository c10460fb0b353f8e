"""TREC run files read into memory: ``query Q0 document rank score tag``."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.files import file_sha256
from irdistill.runs.lists import RankedList
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.store import MemoryRun, Run

logger = logging.getLogger(__name__)


def _lines(path: Path) -> Iterator[str]:
    stream: IO[str]
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as stream:
            yield from stream
    except (EOFError, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise IrdistillError(f"{path} cannot be read as text ({error}); it is truncated or damaged.") from error


def read_trec(path: Path, collection: Collection | None = None) -> MemoryRun:
    """Read a TREC run into memory. Scores decide the order, as in trec_eval; the rank column is not used.

    Args:
        collection: if given, queries that it lacks are left out (with a warning), and documents must be its own.

    Raises:
        IrdistillError: a line has not six columns, a score is not a finite number, a document comes twice for a
            query, the file is empty, or it does not fit the collection.
    """
    found: dict[str, dict[str, float]] = {}
    strange: dict[str, int] = {}
    tag = ""
    for number, line in enumerate(_lines(path), 1):
        fields = line.split()
        if not fields:
            continue
        if len(fields) != 6:
            raise IrdistillError(
                f"{path}, line {number}: {len(fields)} columns, and six were expected "
                f"(query Q0 document rank score tag): {line.strip()[:80]!r}."
            )
        query_id, _, doc_id, _, text, tag = fields
        try:
            score = float(text)
        except ValueError:
            score = math.nan
        if not math.isfinite(score):
            raise IrdistillError(f"{path}, line {number}: the score {text!r} is not a finite number.")
        if collection is not None:
            if query_id not in collection.queries:
                strange[query_id] = number
                continue
            if not collection.corpus.has(doc_id):
                raise IrdistillError(
                    f"{path}, line {number}: the document {doc_id!r} is not in the corpus of {collection.id!r}; the run "
                    "belongs to another collection."
                )
        documents = found.setdefault(query_id, {})
        if doc_id in documents:
            raise IrdistillError(f"{path}, line {number}: the document {doc_id!r} comes twice for query {query_id!r}.")
        documents[doc_id] = score
    if not found:
        reason = f"none of its {len(strange)} queries is in {collection.id!r}" if strange and collection else "it holds no line"
        raise IrdistillError(f"{path} gives no run: {reason}.")
    if strange and collection is not None:
        logger.warning("%s: %d queries are not in %s and were left out (first: %s, line %d)", path, len(strange),
                       collection.id, *next(iter(strange.items())))
    identity = RunIdentity(
        "imported", {"format": "trec", "file": path.name, "sha256": file_sha256(path), "tag": tag},
        collection.describe() if collection is not None else {},
    )
    lists = (
        RankedList(query_id, list(documents), np.array(list(documents.values()), np.float32), None)
        for query_id, documents in found.items()
    )
    return MemoryRun(identity, lists)


def import_trec(file: str | Path, collection: Collection, out: str | Path, overwrite: bool = False) -> Run:
    """Bring a TREC run file into the store, as ``import_run`` with the format ``trec``."""
    from irdistill.runs.formats import import_run

    return import_run(file, collection, out, "trec", overwrite=overwrite)


def export_trec(run: str | Path | Run, file: str | Path, tag: str = "irdistill") -> int:
    """Write a run as a TREC run file, as ``export_run`` with the format ``trec``; gives the number of lines."""
    from irdistill.runs.formats import export_run

    return export_run(run, file, "trec", tag=tag).rows
