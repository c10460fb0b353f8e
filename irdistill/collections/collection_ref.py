"""A collection that is sent to another process or machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from irdistill.collections.collection import Collection
from irdistill.collections.collection_loader import load_collection
from irdistill.collections.split_collections import PassageView, passage_view


@dataclass(frozen=True)
class CollectionRef:
    """The id of a collection, or the collection itself if it exists only in memory.

    Attributes:
        passages: whether the passages are the documents, see `passage_view`.
    """

    source: Collection | str
    passages: bool = False

    @classmethod
    def of(cls, collection: Collection) -> Self:
        """Make a reference."""
        if collection.corpus.folder is None:
            return cls(collection)
        return cls(collection.id, isinstance(collection, PassageView))

    def open(self) -> Collection:
        """Load the collection on the other side."""
        if isinstance(self.source, Collection):
            return self.source
        collection = load_collection(self.source, queries=False)
        return passage_view(collection) if self.passages else collection
