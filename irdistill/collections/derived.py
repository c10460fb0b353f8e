"""Collections with the corpus of another collection and new queries.

A folder holds ``derived.json`` (the id of the corpus, and how the queries were made),
``queries.jsonl`` and ``qrels/SPLIT.tsv``. The last two are in BEIR layout. The corpus is not
copied: the rewrites of 200 questions over 25M passages are a small file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.collections.beir import read_queries
from irdistill.collections.collection import Collection, Query
from irdistill.collections.judgment_checks import drop_line_numbers
from irdistill.collections.judgments import judgment_files, numbered_judgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.passage_files import has_passages
from irdistill.collections.qrels import Qrels
from irdistill.collections.slices import split_folder
from irdistill.errors import (
    DamagedError,
    InputError,
    NotFoundError,
    SettingsDifferError,
    WrongCollectionError,
)
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

_Judgments = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Split -> query id -> document id -> grade."""


def is_derived(folder: Path) -> bool:
    """Whether a folder holds a derived collection."""
    return (folder / DERIVED).is_file()


def write_derived(
    folder: str | Path,
    source: Collection,
    queries: Iterable[Query],
    judgments: _Judgments,
    made_by: Mapping[str, Any],
    *,
    same_questions: bool,
) -> Path:
    """Write new queries over the corpus of a collection.

    Args:
        source: a collection that `load_collection` can load by its id.
        judgments: split -> query id -> document id -> grade; those of other queries are omitted.
        made_by: how the queries were made; the identity in ``derived.json``.
        same_questions: whether the queries are rewrites: they have ids of ``source`` and ask the
            same. Runs of the one collection can then be used with the other, so the teacher may
            read one wording and the student another.

    Returns:
        The folder. `load_collection` opens it as ``FOLDER`` or ``FOLDER#SPLIT``.
    """
    written = list(queries)
    check_stored_passages(source)
    _check_queries(written, folder, source, same_questions)
    identity = _new_identity(source, made_by, same_questions)
    splits = {
        split: judged
        for split, judged in judgments.items()
        if any(judged.get(query.id) for query in written)
    }
    names = [QUERIES, *(f"qrels/{split}.tsv" for split in splits)]
    out = Path(folder)
    check_derived_folder(out, names)
    make_folder(out)
    with lock_folder(out):
        if is_derived(out):
            stored = read_json_object(out / DERIVED)
            lines = differences(
                {key: stored[key] for key in stored if key not in ("complete", "files")}, identity
            )
            if lines:
                raise SettingsDifferError(
                    f"{out} holds a collection that was made in another way"
                    f" ({'; '.join(lines[:4])}). Choose another folder, or delete this one."
                )
        check_derived_folder(out, names)
        write_json(out / DERIVED, identity | {"complete": False, "files": names})
        _write_files(out, written, splits)
        write_json(out / DERIVED, identity | {"complete": True, "files": names})
    return out


def check_stored_passages(source: Collection) -> None:
    """Check, before any work, that the passages of a collection come with its folder.

    Raises:
        InputError: the documents were split in Python, not in their folder.
    """
    if source.corpus.passages is None:
        return
    folder = Path(split_folder(_corpus_id(source))[0])
    if not has_passages(folder):
        raise InputError(
            f"the documents of {source.id!r} are split into passages that are not in its folder, so"
            " a collection with new queries would lose them. Split the documents in a folder:"
            " collect with --passage-tokens, or split_into_passages with out."
        )


def _check_queries(
    queries: Sequence[Query], folder: str | Path, source: Collection, same_questions: bool
) -> None:
    if not queries:
        raise InputError(
            f"no query was made from {source.id!r}; there is nothing to write to {folder}."
        )
    for query in queries:
        if not query.text.strip():
            raise InputError(
                f"the query {query.id!r} made for {folder} is empty; add its text or omit it."
            )
        if same_questions and query.id not in source.queries:
            raise InputError(f"the query {query.id!r} made for {folder} is not in {source.id!r}.")


def _new_identity(
    source: Collection, made_by: Mapping[str, Any], same_questions: bool
) -> dict[str, Any]:
    description = source.describe()
    origin = description.get("origin", description["queries"]) if same_questions else ""
    identity = {
        "format": FORMAT,
        "corpus": _corpus_id(source),
        "corpus_fingerprint": description["corpus"],
        "source": {"id": source.id, "queries": description["queries"]},
        "origin": origin,
        "made_by": dict(made_by),
    }
    if source.corpus.passages is not None:
        identity["passages"] = source.corpus.passages.fingerprint
    return dict(json.loads(json.dumps(identity)))


def _write_files(out: Path, queries: Sequence[Query], judgments: _Judgments) -> None:
    make_folder(out / "qrels")
    with atomic_path(out / QUERIES) as temporary, open(temporary, "w", encoding="utf-8") as stream:
        for query in queries:
            stream.write(json.dumps(query_entry(query), ensure_ascii=False) + "\n")
    for split, judged in judgments.items():
        lines = [
            f"{query.id}\t{doc_id}\t{grade}\n"
            for query in queries
            for doc_id, grade in judged.get(query.id, {}).items()
        ]
        write_text(out / "qrels" / f"{split}.tsv", "query-id\tcorpus-id\tscore\n" + "".join(lines))


def derived_files(folder: Path) -> FileTest:
    """A test whether a file of a folder is part of the derived collection in it."""
    if not is_manifest(folder / DERIVED, ("corpus", "made_by")):
        return no_file
    names = read_json(folder / DERIVED).get("files")
    if names is None:  # written by an earlier version
        return lambda name: (
            name in (DERIVED, QUERIES) or (name.startswith("qrels/") and name.endswith(".tsv"))
        )
    return lambda name: name == DERIVED or name in names


def check_derived_folder(folder: str | Path, names: Sequence[str] = ()) -> None:
    """Check, before any work, that a collection can be written to a folder.

    Args:
        names: the files that will be written, as far as they are known.
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
    """Load a derived collection.

    Args:
        split: the file in ``qrels``; None means the only one, or all queries if there are no
            judgments.
        load: loads the collection with the corpus.
    """
    identity = _read_identity(folder)
    if identity.get("complete") is False:
        raise InputError(
            f"the collection in {folder} is not finished; run the command that writes it again."
        )
    corpus = load(identity["corpus"]).corpus
    if corpus.fingerprint != identity["corpus_fingerprint"]:
        raise WrongCollectionError(
            f"{folder} was made for a corpus with the fingerprint"
            f" {identity['corpus_fingerprint']}, and {identity['corpus']!r} now has"
            f" {corpus.fingerprint}: its documents have changed. Make the collection again."
        )
    passages = None if corpus.passages is None else corpus.passages.fingerprint
    if identity.get("passages", passages) != passages:
        raise WrongCollectionError(
            f"{folder} was made from passages with the fingerprint {identity['passages']}, and the"
            f" documents of {identity['corpus']!r} are now"
            f" {'read whole' if passages is None else f'split into others ({passages})'}. Make the"
            " collection again, or split the documents as they were."
        )
    report = LoadReport(documents=len(corpus))
    queries = read_queries(folder / QUERIES, report)
    files = judgment_files(folder / "qrels")
    chosen = split or ("test" if "test" in files or len(files) != 1 else next(iter(files)))
    if chosen not in files and (files or split):
        raise NotFoundError(
            f"{id!r} names no split of {folder}. Its splits:"
            f" {', '.join(sorted(files)) or 'none'}. Write {folder}#SPLIT."
        )
    if not files:
        report.queries = len(queries)
        return Collection(id, corpus, queries, Qrels({}), report, identity["origin"])
    judgments = drop_line_numbers(numbered_judgments(files[chosen], report))
    for query_id, documents in judgments.items():
        for doc_id, row in zip(documents, corpus.find(list(documents)), strict=True):
            if row < 0:
                place = f"{chosen}.tsv (query {query_id}, document {doc_id})"
                report.add("judgments without document", place)
    judged = {query_id: query for query_id, query in queries.items() if query_id in judgments}
    qrels = Qrels({query_id: judgments[query_id] for query_id in judged})
    report.queries, report.judgments = len(judged), qrels.judgments
    return Collection(id, corpus, judged, qrels, report, identity["origin"])


def _read_identity(folder: Path) -> dict[str, Any]:
    """The content of ``derived.json``."""
    path = folder / DERIVED
    identity = read_json_object(path)
    if identity.get("format") != FORMAT:
        raise InputError(
            f"{path} has the format {identity.get('format')!r:.80}, and {FORMAT} was expected. Make"
            " the collection again."
        )
    for name in ("corpus", "corpus_fingerprint", "origin"):
        if not isinstance(identity.get(name), str):
            damage = f"is damaged: {name} is {identity.get(name)!r:.80}"
            raise DamagedError(path, damage, "Make the collection again.")
    return identity


def _corpus_id(source: Collection) -> str:
    """An id by which the corpus can be loaded from any working directory."""
    path, split = split_folder(source.id)
    folder = Path(path).expanduser()
    if folder.is_dir() and is_derived(folder):
        return str(_read_identity(folder)["corpus"])
    if folder.exists():
        return str(folder.resolve()) + (f"#{split}" if split else "")
    return source.id


def query_entry(query: Query) -> dict[str, Any]:
    """A query as an object of ``queries.jsonl``."""
    entry: dict[str, Any] = {"_id": query.id, "text": query.text}
    if query.history:
        entry["history"] = [{"role": turn.role, "text": turn.text} for turn in query.history]
    if query.excluded:
        entry["excluded_ids"] = list(query.excluded)
    return entry | ({"rewrite": query.rewrite} if query.rewrite else {})
