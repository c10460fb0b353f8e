"""Folders in BEIR layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv`` (or
``.jsonl``), each compressed or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irdistill.collections.collection import Collection, Query, Turn
from irdistill.collections.compiling import open_or_compile
from irdistill.collections.corpus import FORMAT
from irdistill.collections.document_table import Document
from irdistill.collections.judgment_checks import (
    check_judgments,
    drop_line_numbers,
    judged_collection,
    read_stats,
)
from irdistill.collections.judgments import judgment_files, numbered_judgments, other_judgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.collections.text_files import SUFFIXES
from irdistill.collections.text_lines import json_objects, numbered_lines, read_id, read_text_field
from irdistill.errors import IrdistillError
from irdistill.storage.files import digest


def load_beir(
    id: str, folder: Path, split: str | None, cache: Path, need: bool = True
) -> Collection:
    """Load a folder.

    Args:
        split: which file of ``qrels``; None means ``test``, or all queries where there are no qrels
            at all.
        need: whether there must be queries; if not, a folder with documents alone is a collection
            without queries.

    Raises:
        IrdistillError: a file is missing, a line is broken, a query is empty, an id has two texts,
            or judgments name documents or queries that are not there and no ``stats.json`` says
            that this is so.
    """
    corpus_file = _jsonl(folder, "corpus")
    queries_file = _jsonl(folder, "queries") if need or split or _has(folder, "queries") else None
    corpus = open_or_compile(
        lambda: read_documents(corpus_file), cache / "corpora" / _key(corpus_file), corpus_file.name
    )
    if not len(corpus):
        raise IrdistillError(
            f"{corpus_file} holds no document; was it cut off while it was fetched?"
        )
    report = LoadReport(documents=len(corpus))
    report.add_stored(corpus.findings)
    if queries_file is None:
        return Collection(id, corpus, {}, Qrels({}), report)
    queries = read_queries(queries_file, report)
    qrels_file = _qrels_file(folder, split)
    if qrels_file is None:
        report.queries = len(queries)
        return Collection(id, corpus, queries, Qrels({}), report)
    judgments = numbered_judgments(qrels_file, report)
    judgments = check_judgments(judgments, corpus, queries, qrels_file, read_stats(folder), report)
    return judged_collection(
        id, corpus, queries, drop_line_numbers(judgments), report, queries_file.name
    )


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a ``corpus.jsonl[.gz]``: ``_id``, ``title`` (optional) and ``text``."""
    for number, entry in json_objects(numbered_lines(path), path):
        doc_id = read_id(entry, path, number)
        title, text = (read_text_field(entry, name, path, number) for name in ("title", "text"))
        yield Document(doc_id, title, text, number)


def read_queries(path: Path, report: LoadReport) -> dict[str, Query]:
    """Queries of a ``queries.jsonl[.gz]``: ``_id``, ``text``, and perhaps ``history``, ``rewrite``
    and ``excluded_ids``.
    """
    queries: dict[str, Query] = {}
    lines: dict[str, int] = {}
    for number, entry in json_objects(numbered_lines(path), path):
        query = _query(entry, path, number)
        known = queries.setdefault(query.id, query)
        if known != query:
            raise IrdistillError(
                f"{path} has the query id {query.id!r} twice with different contents, in lines"
                f" {lines[query.id]} and {number}. Judgments could mean either; give one another id"
                " or remove it."
            )
        if query.id in lines:
            place = f"{path.name} line {number} ({query.id}, first in line {lines[query.id]})"
            report.add("duplicate queries", place)
        lines.setdefault(query.id, number)
    return queries


def _key(path: Path) -> str:
    """The cache key of a file: any change of it, its size or its times gives another."""
    state = path.stat()
    times = [state.st_mtime_ns, state.st_ctime_ns]
    return digest([FORMAT, str(path.resolve()), state.st_size, *times, state.st_ino])


def queries_needed(collection: str) -> str:
    """What to do about a collection without queries, as sentences."""
    return (
        'Queries are needed here: write them into queries.jsonl, one line a query ({"_id": "q1",'
        f' "text": "…"}}), or make some out of the documents: irdistill generate {collection} --out'
        " NEW. Only generate, specialise, pretrain and search --query need none."
    )


def _has(folder: Path, name: str) -> bool:
    return any(
        (folder / f"{name}{ending}").is_file()
        for ending in (".jsonl", *(f".jsonl{suffix}" for suffix in SUFFIXES))
    )


def _jsonl(folder: Path, name: str) -> Path:
    paths = [
        path for suffix in ("", *SUFFIXES) if (path := folder / f"{name}.jsonl{suffix}").is_file()
    ]
    if len(paths) > 1:
        raise IrdistillError(
            f"{folder} has {' and '.join(path.name for path in paths)}, and either could be meant."
            " Keep one of them there."
        )
    if paths:
        return paths[0]
    if name == "queries":
        raise IrdistillError(
            f"{folder} has no queries.jsonl and no queries.jsonl.gz. {queries_needed(str(folder))}"
        )
    raise IrdistillError(
        f"{folder} has no {name}.jsonl and no {name}.jsonl.gz. A collection folder holds"
        " corpus.jsonl (one line a document: _id, title, text), queries.jsonl (each may end in"
        " .gz) and qrels/SPLIT.tsv, as BEIR lays them out; or conversations under the names their"
        " publishers gave them (docs/conversations.md)."
    )


def _qrels_file(folder: Path, split: str | None) -> Path | None:
    splits = judgment_files(folder / "qrels")
    if (split or "test") in splits:
        return splits[split or "test"]
    unread = other_judgments(folder)
    if split is None and not splits and not unread:
        return None
    hint = (
        f" {', '.join(unread)} {'is' if len(unread) == 1 else 'are'} not read; judgments are"
        " expected as qrels/SPLIT.tsv or .jsonl, each may end in .gz."
        if unread
        else ""
    )
    choose = f" Choose one as {folder}#{min(splits)}." if splits else ""
    raise IrdistillError(
        f"there is no {folder / 'qrels' / (split or 'test')}.tsv. Splits in that folder: "
        f"{', '.join(sorted(splits)) or 'none'}.{choose}{hint}"
    )


def _query(entry: dict[str, Any], path: Path, number: int) -> Query:
    query_id = read_id(entry, path, number)
    text = read_text_field(entry, "text", path, number)
    if not text.strip():
        raise IrdistillError(
            f"line {number} of {path} has an empty query ({query_id!r}); write its text or"
            " remove it."
        )
    turns = entry.get("history") or []
    well_formed = isinstance(turns, list) and all(
        isinstance(turn, dict) and {"role", "text"} <= turn.keys() for turn in turns
    )
    if not well_formed:
        raise IrdistillError(
            f'line {number} of {path} is broken: "history" should be a list of {{"role": ...,'
            f' "text": ...}}, got {str(turns)[:80]!r}.'
        )
    history = tuple(
        Turn(
            read_text_field(turn, "role", path, number), read_text_field(turn, "text", path, number)
        )
        for turn in turns
    )
    excluded = entry.get("excluded_ids") or []
    if not isinstance(excluded, list) or not all(isinstance(doc_id, str) for doc_id in excluded):
        raise IrdistillError(
            f'line {number} of {path} is broken: "excluded_ids" should be a list of document ids,'
            f" got {str(excluded)[:80]!r}."
        )
    return Query(
        query_id,
        text,
        history,
        read_text_field(entry, "rewrite", path, number) or None,
        tuple(excluded),
    )
