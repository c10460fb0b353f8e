"""How many documents each query has to learn from, counted with array operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from irdistill.runs.flags import DOUBTFUL, SUSPECTED
from irdistill.training.data.list_source import Judgments, ListSource, SamplerOptions

_BLOCK = 1024
"""Lists that are counted at once. It bounds the memory: 100 MB at 1,000 documents per list."""
_ROW_BITS = 32


@dataclass(frozen=True)
class ListCounts:
    """Counts for the Q lists of the first run.

    Attributes:
        usable: (Q,) bool, whether there are at least two documents to learn from.
        documents: (Q,) int32 documents, including those dropped for their flag.
        flagged: (Q,) int32 documents that are dropped for their flag, or masked as negatives.
    """

    usable: np.ndarray
    documents: np.ndarray
    flagged: np.ndarray


def count_lists(
    runs: Sequence[ListSource],
    relevant: Judgments,
    options: SamplerOptions,
) -> ListCounts:
    """Count the documents of each query that `ListSampler` may draw.

    Args:
        relevant: for each query id the judged documents: row number -> grade.
    """
    size = len(runs[0].query_ids)
    usable = np.zeros(size, dtype=bool)
    documents, flagged = np.zeros(size, np.int32), np.zeros(size, np.int32)
    for start in range(0, size, _BLOCK):
        block = slice(start, min(start + _BLOCK, size))
        usable[block], documents[block], flagged[block] = _count_block(
            runs, relevant, options, runs[0].query_ids[block]
        )
    return ListCounts(usable, documents, flagged)


class _Entries(NamedTuple):
    """All documents of some lists: keys made of list number and row, scores, and flag codes."""

    keys: np.ndarray
    scores: np.ndarray
    codes: np.ndarray


def _count_block(
    runs: Sequence[ListSource],
    relevant: Judgments,
    options: SamplerOptions,
    query_ids: Sequence[str],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    first, *others = [_entries(run, query_ids, options.flagged != "keep") for run in runs]
    is_active = options.active(len(runs))
    positives = np.array(
        [
            (number << _ROW_BITS) | row
            for number, query_id in enumerate(query_ids)
            for row, grade in relevant.get(query_id, {}).items()
            if grade > 0
        ],
        np.int64,
    )

    def per_list(keys: np.ndarray) -> np.ndarray:
        return np.bincount(keys >> _ROW_BITS, minlength=len(query_ids))

    def is_flagged(least: int) -> np.ndarray:
        flagged = first.codes >= least
        for entries in others:
            flagged |= _contains(entries.keys[entries.codes >= least], first.keys)
        return flagged & ~is_relevant

    is_relevant = _contains(positives, first.keys)
    keep = np.full(len(first.keys), not options.scored)
    if options.scored:
        keep |= ~np.isnan(first.scores) & is_active[0]
        for entries, active in zip(others, is_active[1:], strict=True):
            if active and not keep.all():
                keep |= _contains(entries.keys[~np.isnan(entries.scores)], first.keys)
    dropped = suspected = np.zeros(len(query_ids), np.int64)
    if options.flagged == "drop":
        doubtful = is_flagged(DOUBTFUL)
        dropped = per_list(first.keys[keep & doubtful])
        keep &= ~doubtful
    elif options.flagged == "mask":
        suspected = per_list(first.keys[keep & is_flagged(SUSPECTED)])
    kept = per_list(first.keys[keep])
    usable = kept
    if options.unscored_positives:  # those that are not among the documents come in addition
        usable = kept + per_list(positives) - per_list(first.keys[keep & is_relevant])
    return usable >= 2, kept + dropped, dropped + suspected


def _contains(members: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n,) bool, which of the keys are members."""
    if not len(members):
        return np.zeros(len(keys), dtype=bool)
    members = np.sort(members)
    places = np.minimum(np.searchsorted(members, keys), len(members) - 1)
    return members[places] == keys


def _entries(run: ListSource, query_ids: Sequence[str], with_codes: bool) -> _Entries:
    """What a run has for some queries; lists that are neighbors on disk are read at once."""
    numbers = [number for number, query_id in enumerate(query_ids) if query_id in run.index]
    places = np.array([run.index[query_ids[number]] for number in numbers], np.int64)
    offsets = getattr(run, "offsets", None)
    codes = None
    if offsets is not None and len(places) and (np.diff(places) == 1).all():
        start, stop = int(offsets[places[0]]), int(offsets[places[-1] + 1])
        rows, scores = run.rows[start:stop], run.scores[start:stop]  # type: ignore[attr-defined]
        sizes = np.diff(offsets[places[0] : places[-1] + 2])
        codes = run.codes[start:stop] if with_codes else None  # type: ignore[attr-defined]
    else:
        flags = getattr(run, "flags", None) if with_codes else None
        lists = [
            (*run.list(place), flags(place) if flags is not None else None)
            for place in places.tolist()
        ]
        sizes = np.array([len(rows) for rows, _, _ in lists], np.int64)
        rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _, _ in lists)])
        scores = np.concatenate([np.empty(0, np.float32), *(scores for _, scores, _ in lists)])
        if flags is not None:
            codes = np.concatenate([np.empty(0, np.uint8), *(codes for _, _, codes in lists)])
    keys = np.repeat(np.array(numbers, np.int64), sizes) << _ROW_BITS | np.asarray(rows, np.int64)
    return _Entries(keys, scores, np.zeros(len(keys), np.uint8) if codes is None else codes)
