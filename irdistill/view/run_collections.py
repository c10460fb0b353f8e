"""The collections that runs were made for: located, checked and kept open."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock

from irdistill.collections import Collection, load_collection
from irdistill.collections.slices import split_id, split_slice
from irdistill.errors import InputError, IrdistillError, NotFoundError
from irdistill.runs import Run
from irdistill.runs.opening import check_collection

_LEVELS = 2
"""Folders above a viewed folder in which a relative id is tried as well: an id is relative to where
the run was made, and the page may be opened from elsewhere.
"""


class RunCollections:
    """Opens the collection of a run, once.

    Args:
        folders: the viewed folders.
        collections: ids that are tried before that of the run's manifest.

    Examples:
        >>> RunCollections([]).load("pydocs/test").queries["1"].text  # doctest: +SKIP
    """

    def __init__(self, folders: Sequence[Path], collections: Sequence[str] = ()) -> None:
        self._folders, self._chosen = tuple(folders), tuple(collections)
        self._lock = Lock()
        self._locks: dict[str, Lock] = {}
        self._loaded: dict[str, Collection] = {}

    def collection_of(self, run: Run) -> Collection:
        """The collection of a run, which has its corpus and its queries.

        Raises:
            InputError: the run does not name a collection.
            NotFoundError: there is no collection of that name.
            WrongCollectionError: it has another corpus or other queries than the run.
        """
        name = run.identity.collection.get("id")
        ids = [*self._chosen, *(self._places(str(name)) if name else ())]
        if not ids:
            raise InputError(
                "the run does not name its collection; start irdistill view with --collection."
            )
        problems: list[IrdistillError] = []
        for place in dict.fromkeys(ids):
            try:
                collection = self.load(place)
                check_collection(run, collection)
            except IrdistillError as error:
                problems.append(error)
            else:
                return collection
        for problem in problems:
            if not isinstance(problem, NotFoundError):
                raise problem
        raise NotFoundError(
            f"the collection {name!r} of the run is not there. Start irdistill view from the folder"
            " where the run was made, or give the collection with --collection."
        )

    def find(self, name: str) -> Collection:
        """The collection that a manifest or the option names.

        Raises:
            NotFoundError: there is none in the viewed folders, or next to them.
        """
        for place in self._places(name):
            with suppress(NotFoundError):
                return self.load(place)
        raise NotFoundError(
            f"the collection {name!r} is not there. Start irdistill view from the folder where it"
            " was used, or give it with --collection."
        )

    def load(self, id: str) -> Collection:
        """Load a collection, or return the one that is open."""
        with self._lock:
            lock = self._locks.setdefault(id, Lock())
        with lock:
            if id not in self._loaded:
                self._loaded[id] = load_collection(id, queries=False)
            return self._loaded[id]

    def _places(self, id: str) -> Iterator[str]:
        """An id, and the folders that it can mean where it is a relative path."""
        yield id
        path = Path(split_id(split_slice(id)[0])[0])
        if path.is_absolute() or id.startswith("~"):
            return
        for folder in self._folders:
            whole = folder.resolve()
            for base in (whole, *whole.parents[:_LEVELS]):
                if (base / path).exists():
                    yield str(base / id)
