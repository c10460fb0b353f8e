"""Training lists, drawn from compiled runs: the same for a given seed and step, wherever and
whenever.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.runs import Gate
from irdistill.runs.flags import DOUBTFUL, SUSPECTED
from irdistill.training.data.mixed_run import aligned_rows
from irdistill.training.data.query_order import QueryOrder, Shuffled
from irdistill.training.data.sources import draw, draw_by_margin, parse_sources, within


class Lists(Protocol):
    """What is needed of a compiled run; one that has flags gives their codes by ``flags(i)``."""

    @property
    def query_ids(self) -> Sequence[str]: ...

    @property
    def index(self) -> Mapping[str, int]: ...

    def list(self, i: int) -> tuple[np.ndarray, np.ndarray]: ...


class ListBatch(NamedTuple):
    """The lists of one step, padded to the longest of them.

    Attributes:
        queries: (B,) index into the sampler's query ids.
        rows: (B, N) document row numbers, -1 on padding.
        teacher: (T, B, N) float32 scores of T runs, NaN where there is none.
        labels: (B, N) float32 graded relevance, 0 where not judged.
        weights: (T, B) float32 a gate's weights of the runs; None without a gate.
    """

    queries: np.ndarray
    rows: np.ndarray
    teacher: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None


class ListSampler:
    """Draws B queries and a list of at most N documents for each, as a pure function of (seed,
    step).

    Every epoch goes through all usable queries in a new order, unless ``order`` is set to another.
    A document is a candidate when the first run holds it and, if ``scored``, at least one run (of a
    weight above 0) has a score for it. Relevant documents stand first; if ``unscored_positives``
    also those that no run has scored or holds at all.

    Args:
        runs: compiled runs; the first gives candidates and ranks, all give scores.
        relevant: for each query id the judged documents: row number → grade.
        flagged: ``mask``, ``drop`` or ``keep``, see `irdistill.training.TrainOptions`; flags of all
            runs count.
        margin_bins: draw from so many ranges of the first run's score, see `draw_by_margin`; 0
            draws by rank.
        teacher_weights: (T,) weights of the runs for the losses; ``gate`` multiplies them, query by
            query.

    Attributes:
        order: says which queries a step takes.
        mined: documents that the student ranks high; at most ``mined_take`` of each list are drawn
            from them. Those that no run holds have the score of ``mined_scores``, a run of further
            documents, or none.
        documents, flagged_documents: of the usable lists; the latter are masked or dropped.

    Raises:
        IrdistillError: no query has two usable documents.
    """

    def __init__(
        self,
        runs: Sequence[Lists],
        relevant: Mapping[str, Mapping[int, int]],
        *,
        batch_size: int,
        list_size: int,
        seed: int,
        sources: str = "all",
        positives: bool = True,
        max_positives: int = 1,
        scored: bool = True,
        unscored_positives: bool = False,
        query_ids: Sequence[str] | None = None,
        flagged: str = "keep",
        margin_bins: int = 0,
        teacher_weights: Sequence[float] | None = None,
        gate: Gate | None = None,
    ) -> None:
        self.runs, self.relevant = list(runs), relevant
        self.batch_size, self.list_size, self.seed = batch_size, list_size, seed
        self.sources = parse_sources(sources)
        self.positives, self.max_positives = positives, max_positives
        self.scored, self.unscored_positives = scored, unscored_positives
        self.flagged, self.gate, self.margin_bins = flagged, gate, margin_bins
        self.mined: Lists | None = None
        self.mined_scores: Lists | None = None
        self.mined_take = 0
        self.teacher_weights = (
            None if teacher_weights is None else np.array(teacher_weights, dtype=np.float32)
        )
        self.documents = self.flagged_documents = 0
        wanted = None if query_ids is None else set(query_ids)
        given = [qid for qid in self.runs[0].query_ids if wanted is None or qid in wanted]
        self.query_ids = [qid for qid in given if self._usable(qid)]
        if not self.query_ids:
            raise IrdistillError(
                f"none of the {len(given)} queries has two documents to learn from. The scores must"
                " hold at least two scored documents for a query (see `irdistill runs stats`)."
            )
        self.unusable = len(given) - len(self.query_ids)
        self.order: QueryOrder = Shuffled(len(self.query_ids), batch_size, seed)

    def _usable(self, query_id: str) -> bool:
        rows, _, labels, dropped = self._candidates(query_id)
        known = set(rows.tolist())
        extra = sum(
            row not in known for row, grade in self.relevant.get(query_id, {}).items() if grade > 0
        )
        usable = len(rows) + (extra if self.unscored_positives else 0) >= 2
        if usable:
            suspected = np.isin(rows[labels <= 0], self._suspected(query_id))
            self.documents += len(rows) + dropped
            self.flagged_documents += dropped + int(suspected.sum())
        return usable

    def _flags(self, query_id: str, least: int) -> np.ndarray:
        """Rows (k,) int64 of the documents that any run flags with this code or a higher one, each
        once.
        """
        found = [np.empty(0, np.int64)]
        for run in self.runs:
            codes = getattr(run, "flags", None)
            if codes is not None and query_id in run.index:
                place = run.index[query_id]
                found.append(np.asarray(run.list(place)[0], np.int64)[codes(place) >= least])
        return np.unique(np.concatenate(found))

    def _suspected(self, query_id: str) -> np.ndarray:
        return self._flags(query_id, SUSPECTED) if self.flagged == "mask" else np.empty(0, np.int64)

    def suspected(self, query: int) -> np.ndarray:
        """Rows (k,) int64 that are no negatives of the query with this index, because a run
        suspects them.
        """
        return self._suspected(self.query_ids[query])

    def _candidates(self, query_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """(usable rows by rank, their (T, n) scores, their labels, how many were dropped for their
        flag).
        """
        rows, first = self.runs[0].list(self.runs[0].index[query_id])
        rows = np.asarray(rows, dtype=np.int64)
        scores = np.full((len(self.runs), len(rows)), np.nan, dtype=np.float32)
        scores[0] = first
        for number, run in enumerate(self.runs[1:], start=1):
            if query_id in run.index:
                other = (np.asarray(part).tolist() for part in run.list(run.index[query_id]))
                found = dict(zip(*other, strict=True))
                scores[number] = [found.get(row, np.nan) for row in rows.tolist()]
        heard = scores if self.teacher_weights is None else scores[self.teacher_weights > 0]
        keep = ~np.isnan(heard).all(axis=0) if self.scored else np.ones(len(rows), dtype=bool)
        judged = self.relevant.get(query_id, {})
        labels = np.array([judged.get(row, 0) for row in rows.tolist()], dtype=np.float32)
        dropped = 0
        if self.flagged == "drop":
            doubtful = np.isin(rows, self._flags(query_id, DOUBTFUL)) & (labels <= 0)
            dropped = int((keep & doubtful).sum())
            keep &= ~doubtful
        return rows[keep], scores[:, keep], labels[keep], dropped

    def teacher_scores(self) -> Iterator[np.ndarray]:
        """The scores (T, n) of the usable documents of each query, in the order of
        ``query_ids``.
        """
        return (self._candidates(query_id)[1] for query_id in self.query_ids)

    def _weights(self, query_id: str, scores: np.ndarray) -> np.ndarray:
        """(T,) the gate's weights, from the whole lists; 0 for a run with fewer than two of the
        drawn (T, n) scores.
        """
        assert self.gate is not None
        rows, parts = aligned_rows(
            [run.list(run.index[query_id]) if query_id in run.index else None for run in self.runs]
        )
        weights = self.gate.weights(parts, len(rows)).astype(np.float32)
        if self.teacher_weights is not None:
            weights = weights * self.teacher_weights
        heard = weights * ((~np.isnan(scores)).sum(axis=1) > 1)
        return heard if heard.any() else np.ones_like(weights)

    def _with_mined(
        self, query_id: str, rows: np.ndarray, scores: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The candidates with the mined documents behind them that no run holds, and the places of
        all that are mined.
        """
        if self.mined is None or query_id not in self.mined.index:
            return rows, scores, labels, np.empty(0, np.int64)
        found = np.asarray(self.mined.list(self.mined.index[query_id])[0], np.int64)
        relevant = [row for row, grade in self.relevant.get(query_id, {}).items() if grade > 0]
        dropped = (
            self._flags(query_id, DOUBTFUL) if self.flagged == "drop" else np.empty(0, np.int64)
        )
        found = found[~np.isin(found, relevant) & ~np.isin(found, dropped)]
        new = found[~np.isin(found, rows)]
        given = np.full((len(self.runs), len(new)), np.nan, dtype=np.float32)
        extra = self.mined_scores
        if extra is not None and query_id in extra.index:
            known = dict(
                zip(
                    *(np.asarray(part).tolist() for part in extra.list(extra.index[query_id])),
                    strict=True,
                )
            )
            given[0] = [known.get(row, np.nan) for row in new.tolist()]
        rows = np.concatenate([rows, new])
        return (
            rows,
            np.concatenate([scores, given], axis=1),
            np.append(labels, np.zeros(len(new), np.float32)),
            np.flatnonzero(np.isin(rows, found)),
        )

    def draw_list(self, epoch: int, query: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One list: rows (n,), scores (T, n), labels (n,), with n at most ``list_size``."""
        query_id = self.query_ids[query]
        random = np.random.default_rng([self.seed, 1, epoch, query])
        rows, scores, labels, _ = self._candidates(query_id)
        items = np.arange(len(rows))
        rows, scores, labels, mined = self._with_mined(query_id, rows, scores, labels)
        chosen = np.empty(0, dtype=np.int64)
        extra_rows = np.empty(0, dtype=np.int64)
        extra_labels = np.empty(0, dtype=np.float32)
        if self.positives:
            chosen = np.flatnonzero(labels > 0)
            known = set(rows.tolist())
            judged = self.relevant.get(query_id, {}) if self.unscored_positives else {}
            unscored = sorted(
                row for row, grade in judged.items() if grade > 0 and row not in known
            )
            total = len(chosen) + len(unscored)
            if total > self.max_positives:
                kept = random.choice(total, self.max_positives, replace=False)
                unscored = [
                    unscored[i] for i in sorted((kept[kept >= len(chosen)] - len(chosen)).tolist())
                ]
                chosen = chosen[np.sort(kept[kept < len(chosen)])]
            extra_rows = np.array(unscored, dtype=np.int64)
            extra_labels = np.array([judged[row] for row in unscored], dtype=np.float32)
            items = items[labels[items] <= 0]
        want = max(0, self.list_size - len(chosen) - len(extra_rows))
        if len(mined):
            mined = np.sort(
                random.choice(mined, min(want, self.mined_take, len(mined)), replace=False)
            )
            items = items[~np.isin(items, mined)]
        if self.margin_bins:
            reached = items[within(self.sources, len(items))]
            drawn = draw_by_margin(scores[0], reached, want - len(mined), self.margin_bins, random)
        else:
            drawn = draw(self.sources, items, want - len(mined), random)
        picked = np.concatenate([chosen, mined, drawn]).astype(np.int64)
        blank = np.full((len(self.runs), len(extra_rows)), np.nan, dtype=np.float32)
        return (
            np.concatenate([extra_rows, rows[picked]])[: self.list_size],
            np.concatenate([blank, scores[:, picked]], axis=1)[:, : self.list_size],
            np.concatenate([extra_labels, labels[picked]])[: self.list_size],
        )

    def __call__(self, step: int) -> ListBatch:
        """The lists of a step (from 0)."""
        chosen = self.order(step)
        drawn = [self.draw_list(epoch, query) for epoch, query in chosen]
        longest = max(1, max(len(rows) for rows, _, _ in drawn))
        size = len(drawn)
        batch = ListBatch(
            queries=np.array([query for _, query in chosen], dtype=np.int64),
            rows=np.full((size, longest), -1, dtype=np.int64),
            teacher=np.full((len(self.runs), size, longest), np.nan, dtype=np.float32),
            labels=np.zeros((size, longest), dtype=np.float32),
        )
        for i, (rows, scores, labels) in enumerate(drawn):
            batch.rows[i, : len(rows)] = rows
            batch.teacher[:, i, : len(rows)] = scores
            batch.labels[i, : len(rows)] = labels
        if self.gate is None:
            return batch
        found = [
            self._weights(self.query_ids[query], scores)
            for (_, query), (_, scores, _) in zip(chosen, drawn, strict=True)
        ]
        return batch._replace(weights=np.stack(found, axis=1))
