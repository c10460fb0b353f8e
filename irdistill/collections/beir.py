"""Folders in BEIR layout: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``.

Each file may be compressed, and judgments may be JSON lines.
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
from irdistill.collections.judgments import (
    judgment_files,
    numbered_judgments,
    unread_judgment_files,
)
from irdistill.collections.load_report import LoadReport
from irdistill.collections.passage_files import has_passages, open_passages
from irdistill.collections.qrels import Qrels
from irdistill.collections.text_files import SUFFIXES
from irdistill.collections.text_lines import (
    json_objects,
    numbered_lines,
    read_id,
    read_text_field,
)
from irdistill.errors import InputError, NotFoundError
from irdistill.storage.files import digest


def is_beir_folder(folder: Path) -> bool:
    """Whether a folder has files of BEIR layout, even if some are missing."""
    names = ("corpus.jsonl*", "queries.jsonl*", "qrels")
    return any(any(folder.glob(name)) for name in names)


def load_beir(
    id: str,
    folder: Path,
    split: str | None,
    cache: Path,
    need_queries: bool = True,
    passages: bool = True,
) -> Collection:
    """Load a folder in BEIR layout.

    Args:
        split: the file in ``qrels``; None means ``test``, or all queries if there are no qrels.
        need_queries: if False, a folder with only documents is a collection without queries.
        passages: whether to open the passages in the folder.
    """
    corpus_file = jsonl_file(folder, "corpus")
    if corpus_file is None:
        raise NotFoundError(
            f"{folder} has no corpus.jsonl and no corpus.jsonl.gz. A collection folder holds"
            " corpus.jsonl (one document per line: _id, title, text), queries.jsonl (each may end"
            " in .gz) and qrels/SPLIT.tsv, as BEIR does; or conversations under the names their"
            " publishers use (docs/conversations.md)."
        )
    queries_file = jsonl_file(folder, "queries")
    if queries_file is None and (need_queries or split):
        raise NotFoundError(
            f"{folder} has no queries.jsonl and no queries.jsonl.gz."
            f" {missing_queries_advice(str(folder))}"
        )
    corpus = open_or_compile(
        lambda: read_documents(corpus_file),
        cache / "corpora" / _cache_key(corpus_file),
        corpus_file.name,
    )
    if passages and has_passages(folder):
        corpus = corpus.with_passages(open_passages(folder, corpus, cache))
    if not len(corpus):
        raise InputError(f"{corpus_file} contains no documents; was its download interrupted?")
    report = LoadReport(documents=len(corpus))
    report.add_stored(corpus.problems)
    if queries_file is None:
        return Collection(id, corpus, {}, Qrels({}), report)
    queries = read_queries(queries_file, report)
    qrels_file = _qrels_file(folder, split)
    if qrels_file is None:
        report.queries = len(queries)
        return Collection(id, corpus, queries, Qrels({}), report)
    judgments = check_judgments(
        numbered_judgments(qrels_file, report),
        corpus,
        queries,
        qrels_file,
        read_stats(folder),
        report,
    )
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
    """Queries of a ``queries.jsonl[.gz]``: ``_id``, ``text``, and optionally ``history``,
    ``rewrite`` and ``excluded_ids``.
    """
    queries: dict[str, Query] = {}
    lines: dict[str, int] = {}
    for number, entry in json_objects(numbered_lines(path), path):
        query = _query(entry, path, number)
        if query.id not in queries:
            queries[query.id], lines[query.id] = query, number
            continue
        if queries[query.id] != query:
            raise InputError(
                f"{path} has the query id {query.id!r} twice with different contents, in lines"
                f" {lines[query.id]} and {number}. Judgments could mean either; rename or remove"
                " one."
            )
        place = f"{path.name} line {number} ({query.id}, first in line {lines[query.id]})"
        report.add("duplicate queries", place)
    return queries


def _cache_key(path: Path) -> str:
    """The cache key of a file; any change of its place, size or times changes it."""
    state = path.stat()
    times = [state.st_mtime_ns, state.st_ctime_ns]
    return digest([FORMAT, str(path.resolve()), state.st_size, *times, state.st_ino])


def missing_queries_advice(collection: str) -> str:
    """What to do about a collection without queries, as sentences."""
    return (
        'Queries are needed here. Write them into queries.jsonl, one per line ({"_id": "q1",'
        f' "text": "…"}}), or generate them from the documents: irdistill generate {collection}'
        " --out NEW. Verbs that need none: align, collect, generate, package, pretrain,"
        " search, specialise, static."
    )


def jsonl_file(folder: Path, name: str) -> Path | None:
    """``NAME.jsonl`` of a folder, which may be compressed; None if there is none."""
    paths = [
        path for suffix in ("", *SUFFIXES) if (path := folder / f"{name}.jsonl{suffix}").is_file()
    ]
    if len(paths) > 1:
        raise InputError(
            f"{folder} has {' and '.join(path.name for path in paths)}, and either could be meant."
            " Keep one of them."
        )
    return paths[0] if paths else None


def _qrels_file(folder: Path, split: str | None) -> Path | None:
    splits = judgment_files(folder / "qrels")
    if (split or "test") in splits:
        return splits[split or "test"]
    unread = unread_judgment_files(folder)
    if split is None and not splits and not unread:
        return None
    choose = f" Choose one: {folder}#{min(splits)}." if splits else ""
    hint = (
        f" Not read: {', '.join(unread)}. Judgments are expected as qrels/SPLIT.tsv or .jsonl; each"
        " may end in .gz."
        if unread
        else ""
    )
    raise NotFoundError(
        f"there is no {folder / 'qrels' / (split or 'test')}.tsv. Splits in that folder: "
        f"{', '.join(sorted(splits)) or 'none'}.{choose}{hint}"
    )


def _query(entry: dict[str, Any], path: Path, number: int) -> Query:
    query_id = read_id(entry, path, number)
    text = read_text_field(entry, "text", path, number)
    if not text.strip():
        raise InputError(
            f"line {number} of {path} has an empty query ({query_id!r}); add its text or remove it."
        )
    turns = entry.get("history") or []
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and {"role", "text"} <= turn.keys() for turn in turns
    ):
        raise InputError(
            f'line {number} of {path} is broken: "history" should be a list of {{"role": ...,'
            f' "text": ...}}, got {str(turns)[:80]!r}.'
        )
    history = tuple(
        Turn(*(read_text_field(turn, name, path, number) for name in ("role", "text")))
        for turn in turns
    )
    excluded = entry.get("excluded_ids") or []
    if not isinstance(excluded, list) or not all(isinstance(doc_id, str) for doc_id in excluded):
        raise InputError(
            f'line {number} of {path} is broken: "excluded_ids" should be a list of document ids,'
            f" got {str(excluded)[:80]!r}."
        )
    rewrite = read_text_field(entry, "rewrite", path, number) or None
    return Query(query_id, text, history, rewrite, tuple(excluded))
