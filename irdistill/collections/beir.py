"""Folders in BEIR layout: ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]`` and ``qrels/SPLIT.tsv``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from irdistill.collections.batches import Document
from irdistill.collections.checking import checked, declared, judged_queries, without_lines
from irdistill.collections.compiling import cached_corpus
from irdistill.collections.corpus import FORMAT
from irdistill.collections.lines import id_of, json_objects, numbered_lines, text_of
from irdistill.collections.model import Collection, Qrels, Query, Turn
from irdistill.collections.report import LoadReport
from irdistill.errors import IrdistillError
from irdistill.files import digest


def load_beir(id: str, folder: Path, split: str | None, cache: Path, need: bool = True) -> Collection:
    """Load a folder.

    Args:
        split: which ``qrels/SPLIT.tsv``; None means ``test``, or all queries where there are no qrels at all.
        need: whether there must be queries; if not, a folder with documents alone is a collection without queries.

    Raises:
        IrdistillError: a file is missing, a line is broken, a query is empty, an id has two texts, or
            judgments name documents or queries that are not there and no ``stats.json`` says that this is so.
    """
    corpus_file = _jsonl(folder, "corpus")
    queries_file = _jsonl(folder, "queries") if need or split or _has(folder, "queries") else None
    corpus = cached_corpus(
        lambda: read_documents(corpus_file), cache / "corpora" / _key(corpus_file), corpus_file.name
    )
    report = LoadReport(documents=len(corpus))
    report.take(corpus.findings)
    if queries_file is None:
        return Collection(id, corpus, {}, Qrels({}), report)
    queries = read_queries(queries_file, report)
    qrels_file = _qrels_file(folder, split)
    if qrels_file is None:
        report.queries = len(queries)
        return Collection(id, corpus, queries, Qrels({}), report)
    judgments = read_qrels(qrels_file, report)
    judgments = checked(judgments, corpus, queries, qrels_file, declared(folder), report)
    return judged_queries(id, corpus, queries, without_lines(judgments), report, queries_file.name)


def read_documents(path: Path) -> Iterator[Document]:
    """Documents of a ``corpus.jsonl[.gz]``: ``_id``, ``title`` (optional) and ``text``."""
    for number, entry in json_objects(numbered_lines(path), path):
        doc_id = id_of(entry, path, number)
        title, text = (text_of(entry, name, path, number) for name in ("title", "text"))
        yield Document(doc_id, title, text, number)


def read_queries(path: Path, report: LoadReport) -> dict[str, Query]:
    """Queries of a ``queries.jsonl[.gz]``: ``_id``, ``text``, and perhaps ``history``, ``rewrite`` and ``excluded_ids``."""
    queries: dict[str, Query] = {}
    lines: dict[str, int] = {}
    for number, entry in json_objects(numbered_lines(path), path):
        query = _query(entry, path, number)
        known = queries.setdefault(query.id, query)
        if known != query:
            raise IrdistillError(
                f"{path} has the query id {query.id!r} twice with different contents, in lines "
                f"{lines[query.id]} and {number}. Judgments could mean either; give one another id or remove "
                "it."
            )
        if query.id in lines:
            place = f"{path.name} line {number} ({query.id}, first in line {lines[query.id]})"
            report.add("duplicate queries", place)
        lines.setdefault(query.id, number)
    return queries


def read_qrels(path: Path, report: LoadReport) -> dict[str, dict[str, tuple[int, int]]]:
    """Judgments of a tab-separated file with a header: query -> document -> (grade, line number)."""
    judgments: dict[str, dict[str, tuple[int, int]]] = {}
    for number, line in numbered_lines(path):
        fields = [value.strip() for value in line.rstrip("\r\n").split("\t")]
        try:
            query_id, doc_id, value = fields
            grade = int(value) if not value.endswith(".0") else int(value[:-2])
        except ValueError as error:
            if number == 1 and len(fields) == 3:
                continue
            raise IrdistillError(
                f"line {number} of {path} is not a judgment: {line.strip()[:80]!r}. Expected query id, "
                "document id and a whole number, separated by tabs, under one header line."
            ) from error
        if number == 1:
            report.add("qrels without header", f"{path.name} line 1 (read as a judgment)")
        known = judgments.setdefault(query_id, {}).setdefault(doc_id, (grade, number))
        if known[0] != grade:
            raise IrdistillError(
                f"{path} judges document {doc_id!r} for query {query_id!r} twice and differently: {known[0]} "
                "in "
                f"line {known[1]}, {grade} in line {number}. Keep one of them."
            )
        if known[1] != number:
            report.add("duplicate judgments", f"{path.name} line {number} (as line {known[1]})")
    return judgments


def _key(path: Path) -> str:
    """The cache key of a file: any change of it, its size or its times gives another."""
    state = path.stat()
    times = [state.st_mtime_ns, state.st_ctime_ns]
    return digest([FORMAT, str(path.resolve()), state.st_size, *times, state.st_ino])


def queries_needed(collection: str) -> str:
    """What to do about a collection without queries, as sentences."""
    return (
        'Queries are needed here: write them into queries.jsonl, one line a query ({"_id": "q1", "text": "…"}), or make some '
        f"out of the documents: irdistill generate {collection} --out NEW. Only generate, specialise, pretrain and search --query "
        "need none."
    )


def _has(folder: Path, name: str) -> bool:
    return any((folder / f"{name}{ending}").is_file() for ending in (".jsonl", ".jsonl.gz"))


def _jsonl(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"):
        if path.is_file():
            return path
    if name == "queries":
        raise IrdistillError(f"{folder} has no queries.jsonl and no queries.jsonl.gz. {queries_needed(str(folder))}")
    raise IrdistillError(
        f"{folder} has no {name}.jsonl and no {name}.jsonl.gz. "
        "A collection folder holds corpus.jsonl (one line a document: _id, title, text), queries.jsonl (each may end in "
        ".gz) and qrels/SPLIT.tsv, as BEIR lays them out; or conversations under the names "
        "their publishers gave them (docs/conversations.md)."
    )


def _qrels_file(folder: Path, split: str | None) -> Path | None:
    path = folder / "qrels" / f"{split or 'test'}.tsv"
    if path.is_file():
        return path
    splits = sorted(found.stem for found in (folder / "qrels").glob("*.tsv"))
    if split is None and not splits:
        return None
    raise IrdistillError(
        f"there is no {path}. Splits in that folder: {', '.join(splits) or 'none'}. "
        f"Choose one as {folder}#{splits[0] if splits else 'SPLIT'}."
    )


def _query(entry: dict[str, Any], path: Path, number: int) -> Query:
    query_id = id_of(entry, path, number)
    text = text_of(entry, "text", path, number)
    if not text.strip():
        raise IrdistillError(
            f"line {number} of {path} has an empty query ({query_id!r}); write its text or remove it."
        )
    turns = entry.get("history") or []
    well_formed = isinstance(turns, list) and all(
        isinstance(turn, dict) and {"role", "text"} <= turn.keys() for turn in turns
    )
    if not well_formed:
        raise IrdistillError(
            f'line {number} of {path} is broken: "history" should be a list of {{"role": ..., "text": ...}}, '
            f"got {str(turns)[:80]!r}."
        )
    history = tuple(
        Turn(text_of(turn, "role", path, number), text_of(turn, "text", path, number)) for turn in turns
    )
    excluded = entry.get("excluded_ids") or []
    if not isinstance(excluded, list) or not all(isinstance(doc_id, str) for doc_id in excluded):
        raise IrdistillError(
            f'line {number} of {path} is broken: "excluded_ids" should be a list of document ids, got {str(excluded)[:80]!r}.'
        )
    return Query(query_id, text, history, text_of(entry, "rewrite", path, number) or None, tuple(excluded))
