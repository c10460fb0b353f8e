"""One function that loads any collection by its id."""

from __future__ import annotations

import logging
from pathlib import Path

from irdistill.collections.beir import load_beir, queries_needed
from irdistill.collections.collection import Collection
from irdistill.collections.conversations import LAYOUTS, layout_of, load_conversations
from irdistill.collections.corpus import Corpus
from irdistill.collections.derived import is_derived, load_derived
from irdistill.collections.slices import slice_queries, split_folder, split_slice
from irdistill.errors import IrdistillError
from irdistill.storage.files import cache_folder, make_folder

_log = logging.getLogger(__name__)


def load_collection(
    id: str | Path, *, cache: Path | None = None, queries: bool = True
) -> Collection:
    """Load a collection, compiling its corpus on first use.

    Args:
        id: ``pydocs/train|dev|test|howto``; a folder in BEIR layout, ``FOLDER#SPLIT`` for a split
            other than ``test``; a folder of conversations as QReCC, TopiOCQA, MTRAG, TREC CAsT or
            iKAT publish them, also with ``#SPLIT``; a folder made out of another collection
            (rewritten or generated queries); or any id of ir_datasets (``beir/scifact/test``).
            ``[:300]`` or ``[80%:]`` at the end takes a share of the queries, see
            `irdistill.collections.slices`.
        cache: where compiled corpora go; the user's cache folder unless said.
        queries: whether the collection must have queries. Without, a folder needs no
            ``queries.jsonl``, and an id of ir_datasets may be one with documents alone; queries
            that are there are loaded all the same.

    Raises:
        IrdistillError: there is no such collection, it has no queries, or it has a fault that would
            corrupt a result.
    """
    name = str(id)
    where = make_folder(cache) if cache is not None else cache_folder()
    collection = _load(name, where, queries)
    for line in collection.report.lines(without=("unjudged queries",))[1:]:
        _log.info("%s: %s", name, line)
    if queries:
        require_queries(collection)
    return collection


def require_queries(collection: Collection) -> None:
    """Refuse a collection without queries.

    Raises:
        IrdistillError: it has none.
    """
    if not collection.queries:
        raise IrdistillError(
            f"the collection {collection.id!r} has no queries. {queries_needed(collection.id)}"
        )


def _load(name: str, cache: Path, need: bool = True) -> Collection:
    base, part = split_slice(name)
    if part and not Path(name).expanduser().is_dir():
        whole = _load(base, cache, need)
        require_queries(whole)
        return slice_queries(whole, part)
    if name == "pydocs" or name.startswith("pydocs/"):
        from irdistill.collections.pydocs import load_pydocs

        return load_pydocs(name, cache)
    path, split = split_folder(name)
    folder = Path(path).expanduser()
    if is_derived(folder):
        return load_derived(name, folder, split or None, lambda source: _load(source, cache, False))
    meant_as_path = bool(split) or path.startswith((".", "/", "~"))
    if folder.is_dir():
        beir = any(folder.glob("corpus.jsonl*"))
        layout = None if beir else layout_of(folder)
        if layout is not None:
            return load_conversations(
                name, folder, layout, split or None, cache, lambda id: _corpus(id, cache)
            )
        if beir or meant_as_path or not _is_ir_dataset(name):
            return load_beir(name, folder, split or None, cache, need)
    if folder.is_file():
        raise IrdistillError(
            f"{folder} is a file, and a collection is a folder: it holds corpus.jsonl (one line a"
            " document: _id, title, text) and, where queries are needed, queries.jsonl and"
            " qrels/SPLIT.tsv."
        )
    if meant_as_path:
        raise IrdistillError(
            f"there is no folder {folder}. A collection is a folder in BEIR layout (FOLDER or"
            " FOLDER#SPLIT), one with conversations as"
            f" {', '.join(layout.name for layout in LAYOUTS)} publish them,"
            " pydocs/train|dev|test|howto, or an id of ir_datasets such as beir/scifact/test."
        )
    from irdistill.collections.ir_datasets_reader import load_ir_dataset

    return load_ir_dataset(name, cache, need)


def _is_ir_dataset(name: str) -> bool:
    import ir_datasets

    return name in ir_datasets.registry


def _corpus(name: str, cache: Path) -> Corpus:
    """The documents of a collection; an id of ir_datasets need not have queries."""
    folder = Path(split_folder(name)[0]).expanduser()
    if folder.is_dir() or name.startswith((".", "/", "~", "pydocs")):
        return _load(name, cache, False).corpus
    from irdistill.collections.ir_datasets_reader import ir_dataset_corpus

    return ir_dataset_corpus(name, cache)
