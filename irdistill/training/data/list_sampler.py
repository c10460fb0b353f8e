"""Training lists drawn from compiled runs: a pure function of (seed, step)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from irdistill.errors import InputError
from irdistill.runs import Gate
from irdistill.runs.flags import DOUBTFUL, SUSPECTED
from irdistill.training.data.list_counts import ListCounts, count_lists
from irdistill.training.data.list_source import Judgments, ListSource, SamplerOptions
from irdistill.training.data.mixed_run import aligned_rows
from irdistill.training.data.query_order import QueryOrder, Shuffled
from irdistill.training.data.sources import draw, draw_by_margin, parse_sources, within

_NO_ROWS = np.empty(0, np.int64)


class ListBatch(NamedTuple):
    """The lists of one step, padded to the longest of them.

    Attributes:
        queries: (B,) numbers of queries in the sampler's ``query_ids``.
        rows: (B, N) document row numbers, -1 on padding.
        teacher: (T, B, N) float32 scores of T runs, NaN where there is none.
        labels: (B, N) float32 graded relevance, 0 where not judged.
        weights: (T,) or, with a gate, (T, B) float32 weights of the runs; None if all are equal.
        not_negatives: for each query the rows (k,) of documents that are judged relevant, or
            suspected to be.
    """

    queries: np.ndarray
    rows: np.ndarray
    teacher: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    not_negatives: Sequence[np.ndarray] = ()

    def split(self, count: int) -> list[ListBatch]:
        """The lists in ``count`` parts of nearly equal size, in order."""
        if count == 1:
            return [self]
        weights = self.weights
        return [
            ListBatch(
                self.queries[part],
                self.rows[part],
                self.teacher[:, part],
                self.labels[part],
                weights if weights is None or weights.ndim == 1 else weights[:, part],
                [self.not_negatives[i] for i in part],
            )
            for part in np.array_split(np.arange(len(self.queries)), count)
        ]


class _Documents(NamedTuple):
    """Documents to draw from: rows (n,), scores (T, n) and labels (n,), best first."""

    rows: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class ListSampler:
    """Draws B queries and a list of at most N documents for each, as a function of (seed, step).

    Every epoch goes through all usable queries in a new order, unless ``order`` is set. Documents
    come from the first run. Judged relevant documents stand first.

    Args:
        runs: compiled runs; the first gives documents and ranks, all give scores.
        query_ids: queries to draw; all of the first run by default.
        counts: what `count_lists` gives for these runs; computed if None.
        siblings: all rows of the documents of some rows, if documents have several: rows of
            passages. No row of a relevant document is a negative.

    Attributes:
        query_ids: the queries with at least two documents to learn from.
        unusable: number of queries with fewer.
        order: gives the queries of a step.
        mined: documents that the student ranks high; at most ``mined_take`` of each list are drawn
            from them. Those that no run contains have the score of ``mined_scores``, or none.
        documents, flagged_documents: of the usable lists; the latter are masked or dropped.

    Raises:
        InputError: no query has two usable documents.
    """

    def __init__(
        self,
        runs: Sequence[ListSource],
        relevant: Judgments,
        options: SamplerOptions,
        query_ids: Sequence[str] | None = None,
        counts: ListCounts | None = None,
        siblings: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.siblings = siblings
        self.runs, self.relevant, self.options = list(runs), relevant, options
        self.sources = parse_sources(options.sources)
        self.mined: ListSource | None = None
        self.mined_scores: ListSource | None = None
        self.mined_take = 0
        self.counts = count_lists(self.runs, relevant, options) if counts is None else counts
        chosen = np.ones(len(self.counts.usable), dtype=bool)
        if query_ids is not None:
            selected = set(query_ids)
            chosen[:] = [query_id in selected for query_id in self.runs[0].query_ids]
        places = np.flatnonzero(chosen & self.counts.usable)
        if not len(places):
            raise InputError(
                f"none of the {int(chosen.sum())} queries has two documents to learn from. The"
                " scores must contain at least two scored documents for a query (see `irdistill"
                " runs stats`)."
            )
        self.query_ids = [self.runs[0].query_ids[place] for place in places.tolist()]
        self.unusable = int(chosen.sum()) - len(places)
        self.documents = int(self.counts.documents[places].sum())
        self.flagged_documents = int(self.counts.flagged[places].sum())
        self.order: QueryOrder = Shuffled(len(places), options.batch_size, options.seed)

    def __call__(self, step: int) -> ListBatch:
        """The lists of a step (from 0)."""
        chosen = self.order(step)
        lists = [self.draw_list(epoch, query) for epoch, query in chosen]
        shape = len(lists), max(1, max(len(rows) for rows, _, _ in lists))
        batch = ListBatch(
            queries=np.array([query for _, query in chosen], dtype=np.int64),
            rows=np.full(shape, -1, dtype=np.int64),
            teacher=np.full((len(self.runs), *shape), np.nan, dtype=np.float32),
            labels=np.zeros(shape, dtype=np.float32),
            weights=self._weights(chosen, lists),
            not_negatives=[self._not_negatives(query) for _, query in chosen],
        )
        for i, (rows, scores, labels) in enumerate(lists):
            batch.rows[i, : len(rows)] = rows
            batch.teacher[:, i, : len(rows)] = scores
            batch.labels[i, : len(rows)] = labels
        return batch

    def draw_list(self, epoch: int, query: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One list: rows (n,), scores (T, n), labels (n,), with n at most ``list_size``."""
        options, query_id = self.options, self.query_ids[query]
        random = np.random.default_rng([options.seed, 1, epoch, query])
        ranked = self._ranked(query_id)
        items = np.arange(len(ranked.rows))
        documents, mined = self._with_mined(query_id, ranked)
        rows, scores, labels = documents
        positives, extra = _NO_ROWS, _NO_ROWS
        if options.positives:
            positives, extra = self._draw_positives(query_id, documents, random)
            items = items[labels[items] <= 0]
        size = max(0, options.list_size - len(positives) - len(extra))
        if len(mined):
            mined = random.choice(mined, min(size, self.mined_take, len(mined)), replace=False)
            mined = np.sort(mined)
            items = items[~np.isin(items, mined)]
        if options.margin_bins:
            reached = items[within(self.sources, len(items))]
            others = draw_by_margin(
                scores[0], reached, size - len(mined), options.margin_bins, random
            )
        else:
            others = draw(self.sources, items, size - len(mined), random)
        picked = np.concatenate([positives, mined, others]).astype(np.int64)
        grades = self.relevant.get(query_id, {})
        unscored = np.full((len(self.runs), len(extra)), np.nan, dtype=np.float32)
        return (
            np.concatenate([extra, rows[picked]])[: options.list_size],
            np.concatenate([unscored, scores[:, picked]], axis=1)[:, : options.list_size],
            np.concatenate(
                [np.array([grades[row] for row in extra.tolist()], np.float32), labels[picked]]
            )[: options.list_size],
        )

    def teacher_scores(self) -> Iterator[np.ndarray]:
        """The scores (T, n) of the documents of each query, in the order of ``query_ids``."""
        return (self._ranked(query_id).scores for query_id in self.query_ids)

    def suspected(self, query: int) -> np.ndarray:
        """Rows (k,) that are not used as negatives because a run suspects them to be relevant."""
        masked = self.options.flagged == "mask"
        return self._flagged(self.query_ids[query], SUSPECTED) if masked else _NO_ROWS

    def _ranked(self, query_id: str) -> _Documents:
        """The documents of the first run that may be drawn."""
        options = self.options
        rows, first = self.runs[0].list(self.runs[0].index[query_id])
        rows = np.asarray(rows, dtype=np.int64)
        scores = np.full((len(self.runs), len(rows)), np.nan, dtype=np.float32)
        scores[0] = first
        for number, run in enumerate(self.runs[1:], start=1):
            if query_id in run.index:
                scores[number] = lookup(rows, *run.list(run.index[query_id]), np.nan)
        judged = self.relevant.get(query_id, {})
        labels = lookup(rows, list(judged), list(judged.values()), 0.0)
        keep: np.ndarray = np.ones(len(rows), dtype=bool)
        if options.scored:
            weights = options.teacher_weights
            active = scores if weights is None else scores[np.asarray(weights) > 0]
            keep = np.asarray(~np.isnan(active).all(axis=0))
        if options.flagged == "drop":
            dropped = np.isin(rows, self._flagged(query_id, DOUBTFUL)) & (labels <= 0)
            keep = keep & ~dropped
        return _Documents(rows[keep], scores[:, keep], labels[keep])

    def _with_mined(self, query_id: str, ranked: _Documents) -> tuple[_Documents, np.ndarray]:
        """The ranked documents, then the mined ones that no run contains; places of all mined."""
        if self.mined is None or query_id not in self.mined.index:
            return ranked, _NO_ROWS
        mined = np.asarray(self.mined.list(self.mined.index[query_id])[0], np.int64)
        mined = mined[~np.isin(mined, self._all_rows(self._relevant(query_id)))]
        if self.options.flagged == "drop":
            mined = mined[~np.isin(mined, self._flagged(query_id, DOUBTFUL))]
        new = mined[~np.isin(mined, ranked.rows)]
        scores = np.full((len(self.runs), len(new)), np.nan, dtype=np.float32)
        extra = self.mined_scores
        if extra is not None and query_id in extra.index:
            scores[0] = lookup(new, *extra.list(extra.index[query_id]), np.nan)
        rows = np.concatenate([ranked.rows, new])
        documents = _Documents(
            rows,
            np.concatenate([ranked.scores, scores], axis=1),
            np.append(ranked.labels, np.zeros(len(new), np.float32)),
        )
        return documents, np.flatnonzero(np.isin(rows, mined))

    def _draw_positives(
        self, query_id: str, documents: _Documents, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places of the relevant documents of a list, and rows of those that no run contains."""
        places = np.flatnonzero(documents.labels > 0)
        extra = _NO_ROWS
        if self.options.unscored_positives:
            extra = np.setdiff1d(self._relevant(query_id), documents.rows)
        total = len(places) + len(extra)
        if total > self.options.max_positives:
            kept = random.choice(total, self.options.max_positives, replace=False)
            extra = extra[np.sort(kept[kept >= len(places)] - len(places))]
            places = places[np.sort(kept[kept < len(places)])]
        return places, extra

    def _relevant(self, query_id: str) -> np.ndarray:
        judged = self.relevant.get(query_id, {})
        return np.array([row for row, grade in judged.items() if grade > 0], np.int64)

    def _not_negatives(self, query: int) -> np.ndarray:
        rows = np.union1d(self._relevant(self.query_ids[query]), self.suspected(query))
        return self._all_rows(rows)

    def _all_rows(self, rows: np.ndarray) -> np.ndarray:
        """All rows of the documents of some rows."""
        return rows if self.siblings is None or not len(rows) else self.siblings(rows)

    def _flagged(self, query_id: str, least: int) -> np.ndarray:
        """Rows (k,) of the documents that any run flags with this code or a higher one."""
        rows = [_NO_ROWS]
        for run in self.runs:
            codes = getattr(run, "flags", None)
            if codes is not None and query_id in run.index:
                place = run.index[query_id]
                rows.append(np.asarray(run.list(place)[0], np.int64)[codes(place) >= least])
        return np.unique(np.concatenate(rows))

    def _weights(
        self,
        chosen: Sequence[tuple[int, int]],
        lists: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    ) -> np.ndarray | None:
        weights = self.options.teacher_weights
        if self.options.gate is None:
            return None if weights is None else np.array(weights, dtype=np.float32)
        columns = [
            self._gated(self.options.gate, self.query_ids[query], scores)
            for (_, query), (_, scores, _) in zip(chosen, lists, strict=True)
        ]
        return np.stack(columns, axis=1)

    def _gated(self, gate: Gate, query_id: str, scores: np.ndarray) -> np.ndarray:
        """(T,) the gate's weights for the whole lists of a query.

        A run with fewer than two of the drawn (T, n) scores has weight 0.
        """
        rows, parts = aligned_rows(
            [run.list(run.index[query_id]) if query_id in run.index else None for run in self.runs]
        )
        weights = gate.weights(parts, len(rows)).astype(np.float32)
        if self.options.teacher_weights is not None:
            weights = weights * np.array(self.options.teacher_weights, dtype=np.float32)
        active = weights * ((~np.isnan(scores)).sum(axis=1) > 1)
        return active if active.any() else np.ones_like(weights)


def lookup(
    rows: np.ndarray,
    keys: np.ndarray | Sequence[int],
    values: np.ndarray | Sequence[float],
    missing: float,
) -> np.ndarray:
    """(n,) float32 the value of each row, by its key; ``missing`` for rows without one."""
    keys = np.asarray(keys, np.int64)
    answer = np.full(len(rows), missing, dtype=np.float32)
    if len(keys):
        order = np.argsort(keys, kind="stable")
        places = order[np.minimum(np.searchsorted(keys, rows, sorter=order), len(keys) - 1)]
        known = keys[places] == rows
        answer[known] = np.asarray(values, np.float32)[places[known]]
    return answer
