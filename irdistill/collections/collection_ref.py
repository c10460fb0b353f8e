"""A collection that is sent to another process or machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from irdistill.collections.collection import Collection
from irdistill.collections.collection_loader import load_collection


@dataclass(frozen=True)
class CollectionRef:
    """The id of a collection, or the collection itself if it exists only in memory."""

    source: Collection | str

    @classmethod
    def of(cls, collection: Collection) -> Self:
        """Make a reference."""
        return cls(collection if collection.corpus.folder is None else collection.id)

    def open(self) -> Collection:
        """Load the collection on the other side."""
        if isinstance(self.source, Collection):
            return self.source
        return load_collection(self.source, queries=False)
