"""Parts of a collection id: folder, split, and a slice of the queries (``scifact#train[80%:]``)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import xxhash

from irdistill.collections.collection import Collection
from irdistill.collections.qrels import Qrels
from irdistill.errors import InputError

_SLICE = re.compile(r"(.+)\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\]")


def split_slice(name: str) -> tuple[str, str]:
    """The id without its slice, and the slice with its brackets (or an empty string).

    Examples:
        >>> split_slice("scifact#train[80%:]")
        ('scifact#train', '[80%:]')
    """
    match = _SLICE.fullmatch(name)
    return (match[1], name[len(match[1]) :]) if match else (name, "")


def split_folder(name: str) -> tuple[str, str]:
    """The folder of an id without a slice, and its split (or an empty string).

    Folder names may contain ``#``: what follows the last one is a split only if there is no folder
    with the whole name.
    """
    folder, split = split_id(name)
    if not split or not Path(name).expanduser().is_dir():
        return folder, split
    if Path(folder).expanduser().is_dir():
        raise InputError(
            f"{name!r} is a folder and could be the split {split!r} of the folder {folder!r}. Write"
            f" {name}/ for the former, or rename it."
        )
    return name, ""


def split_id(name: str) -> tuple[str, str]:
    """As `split_folder`, without looking at the disk.

    Examples:
        >>> split_id("sets/scifact#train")
        ('sets/scifact', 'train')
    """
    folder, mark, split = name.rpartition("#")
    return (folder, split) if mark and "/" not in split else (name, "")


def slice_queries(collection: Collection, part: str) -> Collection:
    """A slice of the queries, in the order of a hash of their ids.

    The order does not depend on the file or the machine, so ``[:50%]`` and ``[50%:]`` are two
    random halves without a common query.

    Args:
        part: ``[start:end]``; each is a number of queries, a percentage, or empty.
    """
    match = _SLICE.fullmatch(collection.id + part)
    count = len(collection.queries)
    if match is None:
        raise InputError(f"the slice {part!r} cannot be read; write [:300], [80%:] or [100:200].")
    start, end = (
        default if number is None else int(number) * count // 100 if percent else int(number)
        for number, percent, default in ((match[2], match[3], 0), (match[4], match[5], count))
    )
    order = sorted(
        collection.queries, key=lambda query: (xxhash.xxh3_64_intdigest(query.encode()), query)
    )
    chosen = set(order[start:end])
    if not chosen:
        raise InputError(
            f"{collection.id}{part} contains none of the {count} queries of {collection.id}; use"
            " another slice."
        )
    queries = {key: query for key, query in collection.queries.items() if key in chosen}
    qrels = Qrels({key: grades for key, grades in collection.qrels.items() if key in chosen})
    return replace(collection, id=collection.id + part, queries=queries, qrels=qrels)
