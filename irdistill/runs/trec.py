"""TREC run files: ``query Q0 document rank score tag``."""

from __future__ import annotations

import gzip
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import IO

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.files import atomic_path, file_sha256
from irdistill.runs.lists import RankedList
from irdistill.runs.manifest import RunIdentity
from irdistill.runs.store import MemoryRun, Run, open_run
from irdistill.runs.writer import write_run

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
    """Bring a TREC run file into the store; its queries come in the collection's order.

    Raises:
        IrdistillError: as ``read_trec`` and ``RunWriter``.
    """
    run = read_trec(Path(file), collection)
    return write_run(out, run.identity, (run[query_id] for query_id in collection.queries if query_id in run), overwrite)


def export_trec(run: str | Path | Run, file: str | Path, tag: str = "irdistill") -> int:
    """Write a run as a TREC run file (gzip where the name ends so); what has no score is left out.

    Scores have the fewest digits that give the same float32 back.

    Returns:
        The number of lines.

    Raises:
        IrdistillError: an id or the tag is empty or holds white space, which the format cannot express.
    """
    opened = open_run(run)
    path = Path(file)
    if len(tag.split()) != 1:
        raise IrdistillError(f"the tag {tag!r} is empty or has white space; give one word.")
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        raw = stack.enter_context(open(stack.enter_context(atomic_path(path)), "wb"))
        # mtime 0: the same run gives the same bytes
        packed = gzip.GzipFile(path.stem, "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else nullcontext(raw)
        with packed as stream:
            for found in opened:
                rows = zip(found.doc_ids, found.scores, strict=True)
                lines = []
                for rank, (doc_id, score) in enumerate(((d, s) for d, s in rows if s == s), 1):
                    for name in (found.query_id, doc_id):
                        if len(name.split()) != 1:
                            raise IrdistillError(
                                f"the id {name!r} is empty or has white space, which TREC run files cannot express."
                            )
                    lines.append(f"{found.query_id} Q0 {doc_id} {rank} {score!s} {tag}\n")
                stream.write("".join(lines).encode())
                count += len(lines)
    return count
