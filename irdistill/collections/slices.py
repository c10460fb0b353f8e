"""The parts of a collection's id: a folder and its split, and a share of the queries
(``scifact#train[80%:]``).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import xxhash

from irdistill.collections.collection import Collection
from irdistill.collections.qrels import Qrels
from irdistill.errors import IrdistillError

_SLICE = re.compile(r"(.+)\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\]")


def split_slice(name: str) -> tuple[str, str]:
    """The name of the whole collection, and the slice with its brackets or an empty text."""
    found = _SLICE.fullmatch(name)
    return (found[1], name[len(found[1]) :]) if found else (name, "")


def split_folder(name: str) -> tuple[str, str]:
    """The folder of an id without a slice, and its split or an empty text: ``sets/scifact#train``
    is ``sets/scifact``, ``train``.

    Names of folders may have ``#`` in them: what follows the last one is a split only where no
    folder has the whole name.

    Raises:
        IrdistillError: there is a folder of the whole name, and one of the name before the ``#``.
    """
    folder, split = split_id(name)
    if not split or not Path(name).expanduser().is_dir():
        return folder, split
    if Path(folder).expanduser().is_dir():
        raise IrdistillError(
            f"{name!r} is a folder and could be the split {split!r} of the folder {folder!r}; write"
            f" {name}/ for the former, or rename it."
        )
    return name, ""


def split_id(name: str) -> tuple[str, str]:
    """As `split_folder`, by the text alone."""
    folder, mark, split = name.rpartition("#")
    return (folder, split) if mark and "/" not in split else (name, "")


def slice_queries(whole: Collection, part: str) -> Collection:
    """The queries from one place to another in an order by the hash of their ids, which no file's
    order changes.

    So the first and the rest are two random halves without a query in common, the same on every
    machine.

    Args:
        part: ``[start:end]``, each a number of queries or a percentage, either left out.

    Raises:
        IrdistillError: no query lies within.
    """
    found = _SLICE.fullmatch(whole.id + part)
    count = len(whole.queries)
    if found is None:
        raise IrdistillError(
            f"the slice {part!r} cannot be read; write [:300], [80%:] or [100:200]."
        )
    start, end = (
        default if number is None else int(number) * count // 100 if percent else int(number)
        for number, percent, default in ((found[2], found[3], 0), (found[4], found[5], count))
    )
    order = sorted(
        whole.queries, key=lambda query: (xxhash.xxh3_64_intdigest(query.encode()), query)
    )
    chosen = set(order[start:end])
    if not chosen:
        raise IrdistillError(
            f"{whole.id}{part} holds none of the {count} queries of {whole.id}; give another slice."
        )
    queries = {key: query for key, query in whole.queries.items() if key in chosen}
    qrels = Qrels({key: judged for key, judged in whole.qrels.items() if key in chosen})
    return replace(whole, id=whole.id + part, queries=queries, qrels=qrels)
