"""A collection on its way to another process or machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from irdistill.collections.collection import Collection
from irdistill.collections.collection_loader import load_collection


@dataclass(frozen=True)
class CollectionRef:
    """What is sent: the name, by which each machine opens the files it has, or all of a collection
    that lies in memory.
    """

    held: Collection | str

    @classmethod
    def of(cls, collection: Collection) -> Self:
        """Make it ready."""
        return cls(collection if collection.corpus.folder is None else collection.id)

    def open(self) -> Collection:
        """The collection, at the other end.

        Raises:
            IrdistillError: it cannot be loaded there.
        """
        return (
            load_collection(self.held, queries=False) if isinstance(self.held, str) else self.held
        )
