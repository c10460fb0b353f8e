"""A collection whose documents are the passages of another one."""

from __future__ import annotations

from irdistill.collections.collection import Collection
from irdistill.collections.qrels import Qrels
from irdistill.errors import InputError


class PassageView(Collection):
    """A collection whose documents are passages: what models read of a collection that is split."""


def passage_view(collection: Collection) -> PassageView:
    """The passages of a collection as its documents, with the queries and without judgments.

    Raises:
        InputError: the documents are not split.
    """
    passages = collection.corpus.passages
    if passages is None:
        raise InputError(
            f"the documents of {collection.id!r} are not split into passages. Split them: collect"
            " with --passage-tokens, or split_into_passages."
        )
    return PassageView(
        collection.id,
        passages.corpus,
        collection.queries,
        Qrels({}),
        collection.report,
        collection.origin,
    )


def without_passages(collection: Collection) -> Collection:
    """The same collection with its documents whole."""
    return Collection(
        collection.id,
        collection.corpus.with_passages(None),
        collection.queries,
        collection.qrels,
        collection.report,
        collection.origin,
    )
