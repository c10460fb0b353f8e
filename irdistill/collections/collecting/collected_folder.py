"""Write a collected folder: ``corpus.jsonl``, queries, judgments and the manifest."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.collections.collecting.collect_options import CollectOptions
from irdistill.collections.collecting.collect_report import CollectReport
from irdistill.collections.collecting.document_sources import (
    CollectionSource,
    DocumentSource,
    LoadCollection,
    open_sources,
)
from irdistill.collections.collecting.document_writer import DocumentWriter
from irdistill.collections.collection import Query
from irdistill.collections.derived import query_entry
from irdistill.collections.passage_files import PASSAGE_FILES, PASSAGES
from irdistill.errors import DamagedError, InputError, NotFoundError, OptionError, OutputExistsError
from irdistill.storage.build_cache import open_or_build
from irdistill.storage.checksums import REBUILT, WHOLE_BYTES
from irdistill.storage.files import (
    differences,
    digest,
    file_sha256,
    fsync_file,
    make_folder,
    read_json_object,
    staging_path,
    write_json,
)
from irdistill.storage.locking import LOCK, lock_folder
from irdistill.storage.ownership import (
    FileTest,
    is_manifest,
    list_files,
    move_into_place,
    no_file,
    refuse_foreign_files,
)

MANIFEST = "collection.json"
_FORMAT, _VERSION = "irdistill-collection", 1
_log = logging.getLogger(__name__)


def collect_sources(
    sources: Sequence[str],
    out: Path,
    options: CollectOptions,
    load: LoadCollection,
    passages: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Collect sources into a folder; see `irdistill.collect`.

    A folder that holds the same sources with the same settings is kept.

    Args:
        load: loads a collection by its id.
        passages: how the caller will split the documents, a part of the settings. Until then the
            folder has an empty table of passages, so that it cannot be opened unsplit.
        overwrite: replace a folder that was collected from others.

    Raises:
        OutputExistsError: ``out`` holds something else.
    """
    _refuse_inside(out, sources)
    opened = open_sources(sources, options, load)
    identity = _identity(opened, options, passages)
    ours = collected_files(out)
    refuse_foreign_files(out, ours, "a collection")
    if ours is not no_file:
        stored = read_json_object(out / MANIFEST)
        if stored["identity"] == identity and _is_complete(out, stored):
            _log.info("%s holds these documents already.", out)
            return out
        if not overwrite:
            changes = "; ".join(differences(stored["identity"], identity)[:4])
            raise OutputExistsError(
                f"{out} holds a collection of other sources or settings ({changes}). Choose"
                " another --out, or replace it with --overwrite."
            )
    make_folder(out.parent)
    staged = make_folder(staging_path(out))
    try:
        with lock_folder(staged):
            _remove_all_but(staged, LOCK)
            _build(staged, opened, options, identity)
            if passages is not None:
                (staged / PASSAGES).touch()
            (staged / LOCK).unlink()
            _release(out)
            move_into_place(staged, out, ours)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return out


def collect_into_cache(
    sources: Sequence[str], options: CollectOptions, load: LoadCollection, cache: Path
) -> Path:
    """The folder in the cache with the documents of sources; collected on first use.

    Files that change make another folder: ids, sizes and times of files count.
    """
    opened = open_sources(sources, options, load)
    identity = _identity(opened, options)
    places = [str(Path(source).expanduser().absolute()) for source in sources]
    folder = cache / "collected" / digest([identity, places])
    shown = " ".join(sources)

    def build(aside: Path) -> None:
        _build(aside, opened, options, identity)
        manifest = read_json_object(aside / MANIFEST)
        skipped = sum(manifest["skipped"]["counts"].values())
        _log.info(
            "%s: %d documents were collected into the cache%s; %s lists what was read.",
            shown,
            manifest["documents"],
            f" ({skipped} files skipped)" if skipped else "",
            folder / MANIFEST,
        )

    return open_or_build(folder, build, _checked)


def _identity(
    opened: Sequence[DocumentSource],
    options: CollectOptions,
    passages: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What decides the documents: the sources with digests of their states, and the settings."""
    return {
        "sources": {source.source: digest(source.state()) for source in opened},
        "settings": options.to_json() | ({"passages": dict(passages)} if passages else {}),
    }


def collected_files(folder: Path) -> FileTest:
    """A test whether a file of a folder is part of the collection that was collected into it."""
    if not is_manifest(folder / MANIFEST, ("identity", "files"), format=_FORMAT):
        return no_file
    names = {MANIFEST, *read_json_object(folder / MANIFEST)["files"], *PASSAGE_FILES}
    return lambda name: name in names


def _is_complete(folder: Path, manifest: Mapping[str, Any]) -> bool:
    return all((folder / name).is_file() for name in manifest["files"])


def _checked(folder: Path) -> Path:
    """A folder of the cache, after its files were compared with the manifest.

    Files larger than 64 MiB are compared by their sizes.

    Raises:
        NotFoundError: it does not exist.
        DamagedError: a file differs.
    """
    for name, entry in read_json_object(folder / MANIFEST)["files"].items():
        path = folder / name
        size = path.stat().st_size if path.is_file() else -1
        if size != entry["bytes"] or (size <= WHOLE_BYTES and file_sha256(path) != entry["sha256"]):
            raise DamagedError(path, "is damaged", REBUILT)
    return folder


def _refuse_inside(out: Path, sources: Sequence[str]) -> None:
    """Refuse an output in a source: the next call would read it."""
    target = out.expanduser().absolute().resolve()
    for source in sources:
        path = Path(source).expanduser().absolute().resolve()
        if path.is_dir() and (path == target or path in target.parents):
            raise OptionError(
                f"--out {out} lies in the source {source}, whose files are read. Choose a folder"
                " outside of it."
            )


def _release(out: Path) -> None:
    """Remove the lock file of an existing folder, unless another process writes there."""
    if out.is_dir():
        with lock_folder(out):
            (out / LOCK).unlink()


def _remove_all_but(folder: Path, kept: str) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != kept:
            path.unlink()


def _build(
    folder: Path,
    opened: Sequence[DocumentSource],
    options: CollectOptions,
    identity: Mapping[str, Any],
) -> None:
    """Fill a folder."""
    report = CollectReport()
    documents = DocumentWriter(folder).write(
        (
            (
                source.documents(report),
                not (source.has_ids or options.keep_duplicates),
                source.titled,
            )
            for source in opened
        ),
        report,
    )
    names = ", ".join(source.source for source in opened)
    if not documents:
        reasons = ", ".join(f"{count} {kind}" for kind, count in report.skipped.most_common())
        raise NotFoundError(
            f"{names}: no document could be read{f' ({reasons})' if reasons else ''}."
            + (f" The first: {_first_skipped(report)}." if report.skipped_files else "")
        )
    counts = _write_queries(folder, [it for it in opened if isinstance(it, CollectionSource)])
    files = [name for name in list_files(folder) if name != MANIFEST]
    for name in files:
        fsync_file(folder / name)
    write_json(
        folder / MANIFEST,
        {
            "format": _FORMAT,
            "version": _VERSION,
            "documents": documents,
            **counts,
            **report.to_json(),
            "identity": identity,
            "files": {
                name: {
                    "bytes": (folder / name).stat().st_size,
                    "sha256": file_sha256(folder / name),
                }
                for name in files
            },
        },
    )


def _first_skipped(report: CollectReport) -> str:
    first = report.skipped_files[0]
    return f"{first['file']}, {first['reason']}"


def _write_queries(folder: Path, sources: Sequence[CollectionSource]) -> dict[str, Any]:
    """Write the queries and judgments of collections; return their counts."""
    queries: dict[str, Query] = {}
    judgments: dict[str, list[str]] = {}
    for source in sources:
        _add_queries(queries, source)
        for split, collection in source.collections.items():
            lines = judgments.setdefault(split, [])
            for query_id, grades in collection.qrels.items():
                lines += [f"{query_id}\t{doc_id}\t{grade}\n" for doc_id, grade in grades.items()]
    if queries:
        with open(folder / "queries.jsonl", "w", encoding="utf-8", newline="\n") as stream:
            for query in queries.values():
                stream.write(json.dumps(query_entry(query), ensure_ascii=False) + "\n")
    judgments = {split: lines for split, lines in judgments.items() if lines}
    for split, lines in judgments.items():
        path = make_folder(folder / "qrels") / f"{split}.tsv"
        with open(path, "w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(["query-id\tcorpus-id\tscore\n", *lines])
    return {
        "queries": len(queries),
        "judgments": {split: len(lines) for split, lines in judgments.items()},
    }


def _add_queries(queries: dict[str, Query], source: CollectionSource) -> None:
    for query in source.queries:
        if queries.setdefault(query.id, query) != query:
            raise InputError(
                f"the query id {query.id!r} of {source.source} occurs in another source with"
                " different contents. Collect the sources separately."
            )
