"""Compiled runs read as one fused run, without writing it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irdistill.collections import Corpus
from irdistill.runs import CompiledRun, Mixing
from irdistill.runs.gate import Part
from irdistill.runs.ranked_lists import rank_order

_RowsScores = tuple[np.ndarray, np.ndarray]
"""Rows and scores of a list, both (n,)."""


def aligned_rows(
    lists: Sequence[_RowsScores | None],
) -> tuple[np.ndarray, list[Part | None]]:
    """Align several lists of one query.

    Returns:
        The rows (n,) of all lists, each once, in order of appearance; and for each list its places
        among them and its scores.
    """
    present = [np.asarray(rows_scores[0], np.int64) for rows_scores in lists if rows_scores]
    joined = np.concatenate(present) if present else np.empty(0, np.int64)
    _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.argsort(order)[inverse]
    parts: list[Part | None] = []
    start = 0
    for rows_scores in lists:
        if rows_scores is None:
            parts.append(None)
            continue
        stop = start + len(rows_scores[0])
        parts.append((places[start:stop], np.asarray(rows_scores[1])))
        start = stop
    return joined[first[order]], parts


class MixedRun:
    """Lists in the rank order of the fused run: its documents, float32 scores and nulls.

    The whole list of a query is mixed, so that a document's score does not depend on the other
    documents that are drawn. The last list is cached.

    Args:
        runs: compiled runs of one corpus.
        mixing: the rule that combines them.
    """

    def __init__(self, runs: Sequence[CompiledRun], mixing: Mixing, corpus: Corpus) -> None:
        self.runs, self.corpus = list(runs), corpus
        self.mixing = mixing.for_teachers(len(self.runs))
        self.query_ids = list(
            dict.fromkeys(query_id for run in self.runs for query_id in run.query_ids)
        )
        self.index = {query_id: place for place, query_id in enumerate(self.query_ids)}
        self._last: tuple[int, tuple[np.ndarray, np.ndarray, np.ndarray]] | None = None

    def list(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 and scores float32 of one list, both (n,)."""
        rows, scores, _ = self._mixed(i)
        return rows, scores

    def flags(self, i: int) -> np.ndarray:
        """Codes uint8 of one list's flags, (n,): the highest of the runs, 0 without a score."""
        return self._mixed(i)[2]

    def further(self, i: int, scores: np.ndarray) -> np.ndarray:
        """Mixed scores (m,) float32 of m documents for one query, from the runs' scores (T, m)."""
        rows, parts = aligned_rows([lists for _, lists in self._lists(i)])
        return self.mixing.mix_further(parts, len(rows), scores)

    def _lists(self, i: int) -> Sequence[tuple[np.ndarray, _RowsScores | None]]:
        """For each run: the flags of its list of a query, and the list; none if it has none."""
        numbers = [run.index.get(self.query_ids[i]) for run in self.runs]
        return [
            (np.empty(0, np.uint8), None)
            if number is None
            else (run.flags(number), run.list(number))
            for run, number in zip(self.runs, numbers, strict=True)
        ]

    def _mixed(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if self._last is not None and self._last[0] == i:
            return self._last[1]
        lists = self._lists(i)
        rows, parts = aligned_rows([rows_scores for _, rows_scores in lists])
        scores = self.mixing.mix(parts, len(rows)).scores
        codes = np.zeros(len(rows), np.uint8)
        for (flags, _), part in zip(lists, parts, strict=True):
            if part is not None:
                codes[part[0]] = np.maximum(codes[part[0]], flags)
        codes[np.isnan(scores)] = 0
        order = rank_order(_DocumentIds(self.corpus, rows), scores)
        mixed = rows, scores, codes
        if order is not None:
            mixed = rows[order], scores[order], codes[order]
        self._last = i, mixed
        return mixed


class _DocumentIds(Sequence[str]):
    """Document ids by place, read only to order ties."""

    def __init__(self, corpus: Corpus, rows: np.ndarray) -> None:
        self.corpus, self.rows = corpus, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        return self.corpus.id(int(self.rows[place]))
