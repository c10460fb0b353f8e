"""The verb *split*: the queries of a collection in folds for cross-validation; a conversation is
never cut in two.
"""

from __future__ import annotations

from pathlib import Path

from irdistill.collections import Collection, Query, load_collection
from irdistill.collections.derived import write_derived
from irdistill.errors import IrdistillError
from irdistill.queries.query_kinds import normalize_query
from irdistill.storage.files import digest


def conversation(query: Query) -> str:
    """What the questions of one conversation have in common: its first turn.

    Conversations that begin with the same words count as one, so that none is ever cut in two.
    """
    return normalize_query(query.history[0].text if query.history else query.text)


def split(collection: Collection, out: str | Path, folds: int = 5, seed: int = 42) -> Collection:
    """Write the queries as they are, with their turns, and judgments in splits ``0-train``,
    ``0-test``, ``1-train`` …

    Conversations go to the fold with the fewest questions so far, the largest conversations first,
    equal ones in an order drawn by ``seed``. The split ``I-test`` is the fold I, ``I-train`` all
    others. Runs of the whole collection serve the folds.

    Returns:
        The collection ``OUT#0-train``.

    Raises:
        IrdistillError: fewer than two folds, fewer conversations than folds, or ``out`` holds
            another collection.
    """
    groups: dict[str, list[str]] = {}
    for query in collection.queries.values():
        groups.setdefault(conversation(query), []).append(query.id)
    if not 2 <= folds <= len(groups):
        raise IrdistillError(
            f"{collection.id!r} has {len(groups)} conversations, which cannot be split into {folds}"
            f" folds; give 2 to {len(groups)}."
        )
    filled: list[list[str]] = [[] for _ in range(folds)]
    for group in sorted(groups, key=lambda key: (-len(groups[key]), digest([seed, key]))):
        min(filled, key=len).extend(groups[group])
    judgments = {}
    for number, fold in enumerate(filled):
        inside = set(fold)
        judgments[f"{number}-test"] = {
            query: collection.qrels[query] for query in collection.qrels if query in inside
        }
        judgments[f"{number}-train"] = {
            query: collection.qrels[query] for query in collection.qrels if query not in inside
        }
    made_by = {
        "verb": "split",
        "folds": folds,
        "seed": seed,
        "conversations": len(groups),
        "sizes": [len(fold) for fold in filled],
    }
    write_derived(
        out, collection, collection.queries.values(), judgments, made_by, same_questions=True
    )
    return load_collection(f"{out}#0-train")
