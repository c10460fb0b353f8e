"""Collections made out of others: the same corpus, and queries of their own, in a folder that names
the corpus.

A folder holds ``derived.json`` (whose corpus it is and how the queries were made),
``queries.jsonl`` and ``qrels/SPLIT.tsv``, the last two in BEIR layout. The corpus stays where it
is: a rewrite of 200 questions over 25M passages is a small file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.collections.beir import read_queries
from irdistill.collections.collection import Collection, Query
from irdistill.collections.conversations import layout_of
from irdistill.collections.judgments import judgment_files, numbered_judgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.qrels import Qrels
from irdistill.collections.slices import split_folder
from irdistill.errors import IrdistillError
from irdistill.storage.files import (
    atomic_path,
    differences,
    make_folder,
    read_json,
    read_json_object,
    write_json,
    write_text,
)
from irdistill.storage.locking import lock_folder
from irdistill.storage.ownership import FileTest, is_manifest, no_file, refuse_foreign_files

FORMAT = 1
DERIVED, QUERIES = "derived.json", "queries.jsonl"


def is_derived(folder: Path) -> bool:
    """Whether a folder holds such a collection."""
    return (folder / DERIVED).is_file()


def write_derived(
    folder: str | Path,
    source: Collection,
    queries: Iterable[Query],
    judgments: Mapping[str, Mapping[str, Mapping[str, int]]],
    made_by: Mapping[str, Any],
    *,
    same_questions: bool,
) -> Path:
    """Write queries of one's own over the corpus of a collection.

    Args:
        source: a collection that `load_collection` finds again by its id.
        judgments: split -> query id -> document id -> grade; of queries that are not written they
            are left out.
        made_by: how the queries were made; kept in ``derived.json`` as the identity.
        same_questions: the queries have the ids of ``source`` and ask the same in other words (a
            rewrite, a conversation laid out as one text). Runs of the one then serve the other: the
            teacher may read one wording, the student another.

    Returns:
        The folder; `load_collection` opens it, as ``FOLDER`` or ``FOLDER#SPLIT``.

    Raises:
        IrdistillError: there is no query, a query is empty, an id is not among those of ``source``
            though the questions should be the same, or the folder holds something made in another
            way.
    """
    asked = list(queries)
    if not asked:
        raise IrdistillError(
            f"no query was made out of {source.id!r}; there is nothing to write to {folder}."
        )
    for query in asked:
        if not query.text.strip():
            raise IrdistillError(
                f"the query {query.id!r} made for {folder} is empty; leave it out or give it a"
                " text."
            )
        if same_questions and query.id not in source.queries:
            raise IrdistillError(
                f"the query {query.id!r} made for {folder} is none of {source.id!r}."
            )
    described = source.describe()
    origin = described.get("origin", described["queries"]) if same_questions else ""
    identity = {
        "format": FORMAT,
        "corpus": _findable(source),
        "corpus_fingerprint": described["corpus"],
        "source": {"id": source.id, "queries": described["queries"]},
        "origin": origin,
        "made_by": dict(made_by),
    }
    identity = json.loads(json.dumps(identity))
    splits = {
        split: judged
        for split, judged in judgments.items()
        if any(judged.get(query.id) for query in asked)
    }
    names = [QUERIES, *(f"qrels/{split}.tsv" for split in splits)]
    out = Path(folder)
    check_derived_folder(out, names)
    make_folder(out)
    with lock_folder(out):
        changes = (
            differences(_identity(read_json_object(out / DERIVED)), identity)
            if is_derived(out)
            else []
        )
        if changes:
            raise IrdistillError(
                f"{out} holds a collection that was made in another way ({'; '.join(changes[:4])});"
                " choose another folder or delete it."
            )
        check_derived_folder(out, names)
        write_json(out / DERIVED, identity | {"complete": False, "files": names})
        make_folder(out / "qrels")
        with (
            atomic_path(out / QUERIES) as temporary,
            open(temporary, "w", encoding="utf-8") as stream,
        ):
            for query in asked:
                stream.write(json.dumps(_entry(query), ensure_ascii=False) + "\n")
        for split, judged in splits.items():
            lines = [
                f"{query.id}\t{doc_id}\t{grade}\n"
                for query in asked
                for doc_id, grade in judged.get(query.id, {}).items()
            ]
            write_text(
                out / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines)
            )
        write_json(out / DERIVED, identity | {"complete": True, "files": names})
    return out


def _identity(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the collection, of what ``derived.json`` holds."""
    return {key: value for key, value in stored.items() if key not in ("complete", "files")}


def derived_files(folder: Path) -> FileTest:
    """Whether a file of a folder is part of the derived collection in it."""
    if not is_manifest(folder / DERIVED, ("corpus", "made_by")):
        return no_file
    names = read_json(folder / DERIVED).get("files")
    if names is None:  # written by an earlier version
        return lambda name: (
            name in (DERIVED, QUERIES) or (name.startswith("qrels/") and name.endswith(".tsv"))
        )
    return lambda name: name == DERIVED or name in names


def check_derived_folder(folder: str | Path, names: Sequence[str] = ()) -> None:
    """Refuse, before any work, a folder that no collection can be written to.

    Args:
        names: the files that are to be written, as far as they are known.

    Raises:
        IrdistillError: it holds files of others.
    """
    out = Path(folder)
    ours = derived_files(out)
    refuse_foreign_files(
        out,
        ours if ours is no_file else lambda name: ours(name) or name not in names,
        "a collection",
    )


def load_derived(
    id: str, folder: Path, split: str | None, load: Callable[[str], Collection]
) -> Collection:
    """Open such a folder.

    Args:
        split: which ``qrels/SPLIT.tsv``; None means the only one, or all queries where there are no
            judgments.
        load: opens the collection whose corpus it is.

    Raises:
        IrdistillError: that corpus is not there or has changed, or as for folders in BEIR layout.
    """
    told = _read_identity(folder)
    if told.get("complete") is False:
        raise IrdistillError(
            f"the collection in {folder} is not finished; run the command that writes it again."
        )
    corpus = load(told["corpus"]).corpus
    if corpus.fingerprint != told["corpus_fingerprint"]:
        raise IrdistillError(
            f"{folder} was made for a corpus with the fingerprint {told['corpus_fingerprint']}, and"
            f" {told['corpus']!r} now has {corpus.fingerprint}: its documents have changed. Make"
            " the collection again."
        )
    report = LoadReport(documents=len(corpus))
    queries = read_queries(folder / QUERIES, report)
    files = judgment_files(folder / "qrels")
    splits = sorted(files)
    missing = split not in splits if split is not None else len(splits) > 1 and "test" not in splits
    if missing:
        raise IrdistillError(
            f"{id!r} names no split of {folder}; it has {', '.join(splits) or 'none'}: write"
            f" {folder}#SPLIT."
        )
    if not splits:
        report.queries = len(queries)
        return Collection(id, corpus, queries, Qrels({}), report, told["origin"])
    chosen = split or ("test" if "test" in splits else splits[0])
    judged = {
        query: {doc: grade for doc, (grade, _) in documents.items()}
        for query, documents in numbered_judgments(files[chosen], report).items()
    }
    for query_id, documents in judged.items():
        unknown = [
            doc for doc, row in zip(documents, corpus.find(list(documents)), strict=True) if row < 0
        ]
        for doc_id in unknown:
            report.add(
                "judgments without document", f"{chosen}.tsv (query {query_id}, document {doc_id})"
            )
    asked = {query_id: query for query_id, query in queries.items() if query_id in judged}
    qrels = Qrels({query_id: judged[query_id] for query_id in asked})
    report.queries, report.judgments = len(asked), qrels.judgments
    return Collection(id, corpus, asked, qrels, report, told["origin"])


def _read_identity(folder: Path) -> dict[str, Any]:
    """What ``derived.json`` says.

    Raises:
        IrdistillError: it is damaged or of another format.
    """
    identity = read_json_object(folder / DERIVED)
    if identity.get("format") != FORMAT:
        raise IrdistillError(
            f"{folder / DERIVED} has the format {identity.get('format')!r:.80} and {FORMAT} was"
            " expected; make it again."
        )
    for name in ("corpus", "corpus_fingerprint", "origin"):
        if not isinstance(identity.get(name), str):
            raise IrdistillError(
                f"{folder / DERIVED} is damaged: {name} is {identity.get(name)!r:.80}; make the"
                " collection again."
            )
    return identity


def _findable(source: Collection) -> str:
    """The id under which the corpus is found from anywhere."""
    path, split = split_folder(source.id)
    folder = Path(path).expanduser()
    if folder.is_dir() and is_derived(folder):
        return str(_read_identity(folder)["corpus"])
    if folder.is_dir() and (any(folder.glob("corpus.jsonl*")) or layout_of(folder)):
        return str(folder.resolve()) + (f"#{split}" if split else "")
    return source.id


def _entry(query: Query) -> dict[str, Any]:
    entry: dict[str, Any] = {"_id": query.id, "text": query.text}
    if query.history:
        entry["history"] = [{"role": turn.role, "text": turn.text} for turn in query.history]
    if query.excluded:
        entry["excluded_ids"] = list(query.excluded)
    return entry | ({"rewrite": query.rewrite} if query.rewrite else {})
