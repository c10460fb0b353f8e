"""The verb *split*: split queries into folds; the queries of a conversation stay together."""

from __future__ import annotations

from pathlib import Path

from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import write_derived
from irdistill.errors import OptionError
from irdistill.queries.query_kinds import normalize_query
from irdistill.storage.files import digest


def conversation_key(query: Query) -> str:
    """First turn of the conversation of a query.

    Conversations with the same first turn count as one, so that none is split.

    Examples:
        >>> conversation_key(Query("q", "Merge two dicts"))
        'merge two dicts'
    """
    return normalize_query(query.history[0].text if query.history else query.text)


def split(
    collection: Collection,
    out: str | Path,
    folds: int = 5,
    seed: int = 42,
) -> Collection:
    """Write the queries with judgments in the splits ``0-train``, ``0-test``, ``1-train``, ….

    The largest conversations are assigned first, each to the fold with the fewest queries; ``seed``
    orders conversations of equal size. The split ``I-test`` is fold I, ``I-train`` all others. Runs
    of the whole collection serve the folds.

    Args:
        folds: number of folds, from 2 to the number of conversations.

    Returns:
        The collection ``OUT#0-train``.
    """
    conversations: dict[str, list[str]] = {}
    for query in collection.queries.values():
        conversations.setdefault(conversation_key(query), []).append(query.id)
    if not 2 <= folds <= len(conversations):
        raise OptionError(
            f"cannot split the {len(conversations)} conversations of {collection.id!r} into {folds}"
            f" folds; expected 2 to {len(conversations)}."
        )
    members: list[list[str]] = [[] for _ in range(folds)]
    order = sorted(conversations, key=lambda key: (-len(conversations[key]), digest([seed, key])))
    for key in order:
        min(members, key=len).extend(conversations[key])
    judgments = {}
    for number, fold in enumerate(map(set, members)):
        for name, in_split in (("test", True), ("train", False)):
            judgments[f"{number}-{name}"] = {
                query_id: grades
                for query_id, grades in collection.qrels.items()
                if (query_id in fold) == in_split
            }
    made_by = {
        "verb": "split",
        "folds": folds,
        "seed": seed,
        "conversations": len(conversations),
        "sizes": [len(fold) for fold in members],
    }
    queries = collection.queries.values()
    write_derived(out, collection, queries, judgments, made_by, same_questions=True)
    return load_collection(f"{out}#0-train")
