"""A collection that is sent to another process or machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from irdistill.collections.collection import Collection
from irdistill.collections.collection_loader import load_collection
from irdistill.collections.qrels import Qrels


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


def passage_source(collection: Collection) -> CollectionRef:
    """A reference to the passages of a collection, as the folder of their compiled corpus."""
    assert collection.corpus.passages is not None
    passages = collection.corpus.passages.corpus
    return CollectionRef(replace(collection, corpus=passages, queries={}, qrels=Qrels({})))
