"""Scoring one part of a run in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import ModelError
from irdistill.modeling.batching import TokenBudget, run_batches
from irdistill.modeling.truncation import Truncation, changes, snapshot
from irdistill.runs import RankedList
from irdistill.teachers.function_teacher import LoadedTeacher
from irdistill.teachers.protocol import (
    NO_TOKENS,
    TOO_LONG,
    BatchTeacher,
    ListwiseTeacher,
    PartialOrder,
    Teacher,
    TeacherScores,
    TextPair,
)

#: Called with the number of rows that were finished.
ProgressCallback = Callable[[int], Any]

logger = logging.getLogger(__name__)

EMPTY, EMPTY_QUERY = "empty text", "empty query"
#: Index of the flag of an empty document and of an empty query, counted from the end.
_EMPTY, _EMPTY_QUERY = -1, -2


def ignore_progress(count: int) -> None:
    """A progress callback that does nothing."""


def top_k(ranked: RankedList, k: int | None) -> RankedList:
    """The first k documents of a list; the list itself if k is None."""
    if k is None:
        return ranked
    passages = None if ranked.passages is None else ranked.passages[:k]
    return RankedList(ranked.query_id, ranked.doc_ids[:k], ranked.scores[:k], None, passages)


def score_part(
    collection: Collection,
    lists: Sequence[RankedList],
    teacher: LoadedTeacher,
    progress: ProgressCallback = ignore_progress,
) -> tuple[list[RankedList], dict[str, float]]:
    """Score one part: each unique pair once, or each list as a whole for a listwise teacher.

    Empty documents and queries are not passed to the teacher. Nothing is kept from one part to
    the next, not even a halved token budget: batches decide the last digits of a score, and a part
    must give the same bytes whatever was scored before it.

    Returns:
        The lists with the teacher's scores, in the order of ``lists``, and the usage.
    """
    pairs = _pairs(collection, lists)
    if isinstance(teacher, ListwiseTeacher):
        return _rank_lists(lists, pairs, teacher, progress)
    unique: list[TextPair] = []
    index: dict[tuple[Any, ...], int] = {}
    places: list[list[int]] = []
    for list_pairs in pairs:
        line = []
        for pair in list_pairs:
            if not pair.text.strip() or not pair.query.text.strip():
                line.append(_EMPTY_QUERY if pair.text.strip() else _EMPTY)
                continue
            place = index.setdefault((pair.query.text, pair.query.history, pair.row), len(unique))
            if place == len(unique):
                unique.append(pair)
            line.append(place)
        places.append(line)
    before = snapshot(teacher)
    scores, tokens = score_pairs(teacher, unique, progress=progress)
    _check_scores(scores, unique, collection.corpus.id)
    values = np.append(scores.values, np.full(2, np.nan, np.float32))
    flags = [*(scores.flags or [None] * len(unique)), EMPTY_QUERY, EMPTY]
    scored = [
        RankedList(
            ranked.query_id,
            ranked.doc_ids,
            values[line] if line else np.empty(0, np.float32),
            [flags[place] for place in line],
        )
        for ranked, line in zip(lists, places, strict=True)
    ]
    usage: dict[str, float] = {
        "pairs": len(unique),
        **({"tokens": tokens} if tokens else {}),
        **scores.usage,
        **_truncation_usage(changes(snapshot(teacher), before)),
    }
    return scored, usage


def _pairs(collection: Collection, lists: Sequence[RankedList]) -> list[list[TextPair]]:
    corpus = collection.corpus
    rows = [corpus.rows(ranked.doc_ids) for ranked in lists]
    unique = np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int64)
    texts = dict(zip(unique.tolist(), corpus.texts(unique), strict=True))
    return [
        [
            TextPair(collection.queries[ranked.query_id], row, texts[row])
            for row in list_rows.tolist()
        ]
        for ranked, list_rows in zip(lists, rows, strict=True)
    ]


def _truncation_usage(counts: Mapping[str, Truncation]) -> dict[str, float]:
    """The truncation of a part's texts as usage.

    The numbers of pairs and of their tokens are part of the usage already, so only the counts of
    cut texts are added for kinds other than documents.
    """
    usage: dict[str, float] = {}
    for kind, count in counts.items():
        if kind == "document" and count.read:
            usage |= count.usage(kind)
        elif count.cut:
            cut = count.usage(kind).items()
            usage |= {key: value for key, value in cut if key.endswith("_cut")}
    return usage


def _rank_lists(
    lists: Sequence[RankedList],
    pairs: Sequence[Sequence[TextPair]],
    teacher: ListwiseTeacher,
    progress: ProgressCallback,
) -> tuple[list[RankedList], dict[str, float]]:
    """Score lists by a listwise teacher, without their empty documents."""
    readable = [
        [
            place
            for place, pair in enumerate(list_pairs)
            if pair.text.strip() and pair.query.text.strip()
        ]
        for list_pairs in pairs
    ]
    numbers = [number for number, places in enumerate(readable) if places]
    ranked_lists = teacher.rank(
        [[pairs[number][place] for place in readable[number]] for number in numbers]
    )
    orders = dict(zip(numbers, ranked_lists, strict=True))
    scored: list[RankedList] = []
    usage: dict[str, float] = {"pairs": sum(map(len, readable))}
    for number, (ranked, places) in enumerate(zip(lists, readable, strict=True)):
        values = np.full(len(ranked.doc_ids), np.nan, dtype=np.float32)
        flags: list[str | None] = [
            EMPTY_QUERY if pair.text.strip() else EMPTY for pair in pairs[number]
        ]
        if places:
            order = orders[number]
            values[places] = _order_values(order, ranked.query_id, len(places))
            for place, flag in zip(places, order.flags, strict=True):
                flags[place] = flag
            for key, value in order.usage.items():
                usage[key] = usage.get(key, 0) + value
        scored.append(RankedList(ranked.query_id, ranked.doc_ids, values, flags))
        progress(len(ranked.doc_ids))
    return scored, usage


def _order_values(order: PartialOrder, query_id: str, count: int) -> np.ndarray:
    """(count,) float32: the scores of the order, or ``count`` for its first document, ``count`` - 1
    for the next, and so on.
    """
    ranked = set(order.order)
    if (
        len(ranked) != len(order.order)
        or not ranked <= set(range(count))
        or len(order.flags) != count
    ):
        raise ModelError(
            f"the teacher's order of query {query_id!r} is not an order of {count} documents:"
            f" {order.order[:20]}."
        )
    if any(order.flags[place] is None for place in set(range(count)) - ranked):
        raise ModelError(
            f"the teacher left documents of query {query_id!r} out of its order without a flag."
        )
    if order.values is not None:
        return np.asarray(order.values, dtype=np.float32)
    values = np.full(count, np.nan, dtype=np.float32)
    values[order.order] = count - np.arange(len(order.order), dtype=np.float32)
    return values


def score_pairs(
    teacher: Teacher | BatchTeacher,
    pairs: Sequence[TextPair],
    budget: TokenBudget | None = None,
    progress: ProgressCallback = ignore_progress,
) -> tuple[TeacherScores, int]:
    """Score pairs in memory.

    Args:
        budget: token budget that keeps a halving for later calls; the teacher's if None.
        progress: called with the number of pairs that were finished.

    Returns:
        The scores in the order of the pairs, and the number of tokens read, without padding (0 for
        a teacher without tokens).
    """
    if not isinstance(teacher, BatchTeacher):
        scores = teacher.score(pairs) if pairs else TeacherScores(np.empty(0, np.float32))
        progress(len(pairs))
        return scores, 0
    values = np.full(len(pairs), np.nan, dtype=np.float32)
    if not pairs:
        return TeacherScores(values), 0
    tokens, lengths = teacher.tokenize(pairs)
    readable = np.flatnonzero(lengths > 0)

    def forward(places: np.ndarray) -> None:
        rows = readable[places]
        values[rows] = teacher.forward(tokens, rows)
        progress(len(rows))

    run_batches(lengths[readable], budget or TokenBudget(teacher.token_budget), forward)
    total = int(lengths[readable].sum())
    if len(readable) == len(pairs):
        return TeacherScores(values), total
    flags = [
        None if length > 0 else NO_TOKENS if length == 0 else TOO_LONG
        for length in lengths.tolist()
    ]
    progress(len(pairs) - len(readable))
    logger.warning(
        "%d of %d pairs have no score: %s",
        len(pairs) - len(readable),
        len(pairs),
        "; ".join(sorted({flag for flag in flags if flag})),
    )
    return TeacherScores(values, flags), total


def _check_scores(
    scores: TeacherScores, pairs: Sequence[TextPair], doc_id: Callable[[int], str]
) -> None:
    """Raise if a score without a flag is not a finite number."""
    if scores.values.shape != (len(pairs),):
        raise ModelError(
            f"the teacher returned scores of shape {scores.values.shape} for {len(pairs)} pairs;"
            f" expected ({len(pairs)},)."
        )
    flags = scores.flags or [None] * len(pairs)
    for place in np.flatnonzero(~np.isfinite(scores.values)).tolist():
        if flags[place] is None or np.isinf(scores.values[place]):
            raise ModelError(
                f"the teacher's score of query {pairs[place].query.id!r} and document"
                f" {doc_id(pairs[place].row)!r} is {scores.values[place]}; expected a finite"
                " number. The usual cause is an overflow in half precision: try --precision"
                " float32. Finished parts are kept."
            )
