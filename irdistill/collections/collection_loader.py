"""Load any collection by its id."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from irdistill.collections.beir import is_beir_folder, load_beir, missing_queries_advice
from irdistill.collections.collecting.collect_options import CollectOptions
from irdistill.collections.collecting.collected_folder import collect_into_cache, collect_sources
from irdistill.collections.collecting.document_sources import check_listing
from irdistill.collections.collecting.file_kinds import TABLES, is_table
from irdistill.collections.collecting.folder_files import list_folder
from irdistill.collections.collecting.hub_dataset import is_hub_name
from irdistill.collections.collection import Collection
from irdistill.collections.conversations import LAYOUTS, layout_of, load_conversations
from irdistill.collections.corpus import Corpus
from irdistill.collections.derived import is_derived, load_derived
from irdistill.collections.judgments import judgment_files
from irdistill.collections.slices import slice_queries, split_folder, split_slice
from irdistill.errors import InputError, NotFoundError
from irdistill.storage.files import cache_folder, make_folder

_log = logging.getLogger(__name__)


def load_collection(
    id: str | Path, *, cache: Path | None = None, queries: bool = True, passages: bool = True
) -> Collection:
    """Load a collection. Its corpus is compiled on first use.

    Args:
        id: one of

            - ``pydocs/train|dev|test|howto``, the collection built on your machine
            - a folder in BEIR layout: ``FOLDER``, or ``FOLDER#SPLIT`` for a split other than
              ``test``
            - a folder with conversations as QReCC, TopiOCQA, MTRAG, TREC CAsT or iKAT publish
              them, also with ``#SPLIT``
            - a folder that irdistill made (rewritten or generated queries)
            - an id of ir_datasets (``beir/scifact/test``)
            - documents: a folder of files, a table (``articles.csv``) or a dataset of Hugging Face
              (``hf:OWNER/NAME``), which are collected into the cache; see `irdistill.collect`

            A slice at the end, ``[:300]`` or ``[80%:]``, selects a part of the queries.
        cache: folder for compiled corpora (default: the cache folder of the user).
        queries: whether the collection must have queries. If False, a folder needs no
            ``queries.jsonl``, and an id of ir_datasets may have only documents. Existing queries
            are loaded anyway.
        passages: whether to open the passages in a folder. If False, its documents are whole.

    Raises:
        NotFoundError: there is no such collection.
        InputError: the collection has no queries, or an error that would corrupt results.

    Examples:
        >>> collection = load_collection("path/to/scifact")  # doctest: +SKIP
        >>> collection.queries["1"].text, collection.qrels["1"]  # doctest: +SKIP
    """
    name = str(id)
    corpora = make_folder(cache) if cache is not None else cache_folder()
    collection = _load(name, corpora, queries, passages)
    for line in collection.report.lines(without=("unjudged queries",))[1:]:
        _log.info("%s: %s", name, line)
    if queries:
        require_queries(collection)
    return collection


def collect(
    sources: Sequence[str],
    out: Path | None,
    options: CollectOptions,
    passages: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Collection:
    """Collect documents into a collection; see `irdistill.collect`.

    Args:
        out: the folder; None means the cache.
        passages: how the caller will split the documents, as plain values. The folder cannot be
            opened until they are split, and the documents that are returned are whole.
    """
    cache = cache_folder()

    def load(id: str) -> Collection:
        return _load(id, cache, False)

    if out is None:
        folder = collect_into_cache(sources, options, load, cache)
    else:
        folder = collect_sources(sources, out, options, load, passages, overwrite)
    splits = sorted(judgment_files(folder / "qrels"))
    split = f"#{splits[0]}" if splits and "test" not in splits else ""
    return load_collection(f"{folder}{split}", queries=False, passages=passages is None)


def require_queries(collection: Collection) -> None:
    """Check that a collection has queries."""
    if not collection.queries:
        raise InputError(
            f"the collection {collection.id!r} has no queries."
            f" {missing_queries_advice(collection.id)}"
        )


def _load(name: str, cache: Path, need_queries: bool = True, passages: bool = True) -> Collection:
    base, part = split_slice(name)
    if part and not Path(name).expanduser().is_dir():
        whole = _load(base, cache, need_queries, passages)
        require_queries(whole)
        return slice_queries(whole, part)
    if name == "pydocs" or name.startswith("pydocs/"):
        from irdistill.collections.pydocs import load_pydocs

        return load_pydocs(name, cache)
    if is_hub_name(name):
        return _load_documents(name, cache)
    path, split = split_folder(name)
    folder = Path(path).expanduser()
    if folder.is_dir():
        collection = _load_folder(name, folder, split, cache, need_queries, passages)
        if collection is not None:
            return collection
    if folder.is_file() and not split and is_table(folder.name):
        return _load_documents(name, cache)
    if folder.is_file():
        raise InputError(
            f"{folder} is a file, and a collection is a folder of documents, a folder with"
            " corpus.jsonl (one document per line: _id, title, text) and, if queries are needed,"
            f" queries.jsonl and qrels/SPLIT.tsv, or a table ({', '.join(TABLES)}). To make a"
            f" collection of single files: irdistill collect {folder} --out NEW."
        )
    if _looks_like_path(path, split):
        raise NotFoundError(
            f"there is no folder {folder}. A collection is a folder in BEIR layout (FOLDER or"
            " FOLDER#SPLIT), a folder with conversations as"
            f" {', '.join(layout.name for layout in LAYOUTS)} publish them, a folder of documents,"
            " pydocs/train|dev|test|howto, or an id of ir_datasets such as beir/scifact/test."
        )
    from irdistill.collections.ir_datasets_reader import load_ir_dataset

    return load_ir_dataset(name, cache, need_queries)


def _load_folder(
    name: str, folder: Path, split: str, cache: Path, need_queries: bool, passages: bool
) -> Collection | None:
    """The collection in a folder; None if the name is that of a collection of ir_datasets."""
    if is_derived(folder):
        return load_derived(name, folder, split or None, lambda source: _load(source, cache, False))
    is_beir = any(folder.glob("corpus.jsonl*"))
    layout = None if is_beir else layout_of(folder)
    if layout is not None:
        return load_conversations(
            name, folder, layout, split or None, cache, lambda id: _load_corpus(id, cache)
        )
    if not is_beir and not _looks_like_path(name, split):
        import ir_datasets

        if name in ir_datasets.registry:
            _refuse_two_readings(name, folder)
            return None
    if not split and not is_beir_folder(folder):
        documents = list_folder(folder, CollectOptions())
        if documents.files or documents.tables:
            check_listing(name, documents)
            return _load_documents(name, cache)
    return load_beir(name, folder, split or None, cache, need_queries, passages)


def _refuse_two_readings(name: str, folder: Path) -> None:
    """Refuse a folder of documents with the name of a collection of ir_datasets."""
    documents = list_folder(folder, CollectOptions())
    if documents.files or documents.tables:
        raise InputError(
            f"{name} is a folder of documents, and a collection of ir_datasets. Write ./{name} for"
            " the folder, or rename it."
        )


def _load_documents(name: str, cache: Path) -> Collection:
    """The documents of a source without queries, collected into the cache."""
    options = CollectOptions()
    folder = collect_into_cache([name], options, lambda id: _load(id, cache, False), cache)
    return load_beir(name, folder, None, cache, need_queries=False)


def _looks_like_path(name: str, split: str = "") -> bool:
    return bool(split) or name.startswith((".", "/", "~"))


def _load_corpus(name: str, cache: Path) -> Corpus:
    """The documents of a collection; an id of ir_datasets need not have queries."""
    folder = Path(split_folder(name)[0]).expanduser()
    if folder.is_dir() or _looks_like_path(name) or name.startswith("pydocs"):
        return _load(name, cache, False).corpus
    from irdistill.collections.ir_datasets_reader import ir_dataset_corpus

    return ir_dataset_corpus(name, cache)
