"""MultiValueCommand compiled runs read as the one that `fuse` would make of them, without
writing it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irdistill.collections import Corpus
from irdistill.runs import CompiledRun, Mixing
from irdistill.runs.gate import Part
from irdistill.runs.ranked_lists import rank_order


def aligned_rows(
    lists: Sequence[tuple[np.ndarray, np.ndarray] | None],
) -> tuple[np.ndarray, list[Part | None]]:
    """The rows of several lists of a query, each once, in the order they come; and the lists by
    their places.
    """
    held = [np.asarray(found[0], np.int64) for found in lists if found is not None]
    joined = np.concatenate(held) if held else np.empty(0, np.int64)
    _, first, inverse = np.unique(joined, return_index=True, return_inverse=True)
    order = np.argsort(first)
    places = np.argsort(order)[inverse]
    parts: list[Part | None] = []
    at = 0
    for found in lists:
        if found is None:
            parts.append(None)
            continue
        parts.append((places[at : at + len(found[0])], np.asarray(found[1])))
        at += len(found[0])
    return joined[first[order]], parts


class MixedRun:
    """Lists in the rank order of the fused run: its documents, its float32 scores, its nulls.

    The whole list of a query is mixed whatever part of it is drawn, so that a document's score does
    not depend on what was drawn beside it. The last list is remembered.

    Args:
        runs: compiled runs of one corpus.
        mixing: the rule, made for this number of teachers.
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
        """Codes uint8 of one list's flags, (n,): the heaviest of the runs', where there is a
        score.
        """
        return self._mixed(i)[2]

    def _mixed(self, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        last = self._last
        if last is not None and last[0] == i:
            return last[1]
        held = [(run, run.index.get(self.query_ids[i])) for run in self.runs]
        rows, parts = aligned_rows(
            [run.list(place) if place is not None else None for run, place in held]
        )
        scores = self.mixing.mix(parts, len(rows)).scores
        codes = np.zeros(len(rows), np.uint8)
        for (run, place), part in zip(held, parts, strict=True):
            if place is not None and part is not None:
                codes[part[0]] = np.maximum(codes[part[0]], run.flags(place))
        codes[np.isnan(scores)] = 0
        order = rank_order(_DocumentIds(self.corpus, rows), scores)
        found = (
            (rows, scores, codes) if order is None else (rows[order], scores[order], codes[order])
        )
        self._last = i, found
        return found


class _DocumentIds(Sequence[str]):
    """Document ids by place, looked up only where a tie asks for them."""

    def __init__(self, corpus: Corpus, rows: np.ndarray) -> None:
        self.corpus, self.rows = corpus, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> str:  # type: ignore[override]
        return self.corpus.id(int(self.rows[place]))
