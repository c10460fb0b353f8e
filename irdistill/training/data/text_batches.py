"""Batches of raw texts with the vectors that the teacher has for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from irdistill.collections import Corpus
from irdistill.losses import BatchRepresentations
from irdistill.losses.embedding import TowerSide
from irdistill.search.vectors.vector_store import VectorStore
from irdistill.students.student_base import Student
from irdistill.training.data.collate import CachedTokenizer, TokenRows, TrainBatch
from irdistill.training.processes import Processes

_WINDOW = 64
"""Batches whose texts are sorted by length together. With MiniLM and 26,771 sentences of pydocs, 64
a step, 53% of the tokens of a batch are padding, and 74% if texts are drawn at random.
"""


class LengthOrder:
    """The texts of a step: all texts once per epoch, texts of similar lengths together.

    The texts of an epoch are shuffled and cut into windows of 64 steps. The texts of a window are
    sorted by characters and cut into batches, whose order is shuffled. A text is repeated if the
    texts do not fill the last batch of an epoch.

    Args:
        size: texts per step.
    """

    def __init__(self, corpus: Corpus, size: int, seed: int) -> None:
        self.corpus, self.size, self.seed = corpus, size, seed
        self.steps = -(-len(corpus) // size)
        self._epoch: tuple[int, np.ndarray] | None = None
        self._window: tuple[int, int, np.ndarray] | None = None

    def __call__(self, step: int) -> np.ndarray:
        """(size,) rows of a step; a pure function of the step."""
        epoch, place = divmod(step, self.steps)
        number, place = divmod(place, _WINDOW)
        if self._window is None or self._window[:2] != (epoch, number):
            self._window = epoch, number, self._sorted(epoch, number)
        return self._window[2][place]

    def _sorted(self, epoch: int, number: int) -> np.ndarray:
        """(steps, size) rows of a window."""
        if self._epoch is None or self._epoch[0] != epoch:
            shuffled = np.random.default_rng([self.seed, 0, epoch]).permutation(len(self.corpus))
            self._epoch = epoch, np.resize(shuffled, (self.steps, self.size))
        rows = self._epoch[1][number * _WINDOW : (number + 1) * _WINDOW]
        flat = rows.reshape(-1)
        lengths = np.array([len(text) for text in self.corpus.texts(flat)])
        batches = flat[np.argsort(lengths, kind="stable")].reshape(rows.shape)
        return np.random.default_rng([self.seed, 1, epoch, number]).permutation(batches)


class TextCollator:
    """Makes the batches of a step: lists of no documents, with the teacher's vectors.

    Args:
        stores: the teacher's vectors of all texts, by the sides of the student that learn.
        order: the texts of each step.
    """

    def __init__(
        self,
        corpus: Corpus,
        student: Student,
        stores: Mapping[TowerSide, VectorStore],
        order: LengthOrder,
        processes: Processes | None = None,
    ) -> None:
        self.order, self.stores = order, stores

        def texts(rows: Sequence[int]) -> list[str]:
            return corpus.texts(np.asarray(rows, dtype=np.int64))

        self._tokenizers = {
            side: CachedTokenizer(student, side, texts, processes=processes) for side in stores
        }

    def __call__(self, step: int) -> TrainBatch:
        """The texts of a step as one batch."""
        return self._batch(self.order(step))

    def micro_batches(self, step: int, count: int) -> list[TrainBatch]:
        """The texts of a step in ``count`` batches."""
        return [self._batch(rows) for rows in np.array_split(self.order(step), count)]

    def _batch(self, rows: np.ndarray) -> TrainBatch:
        tokens = {side: tokenize(rows.tolist()) for side, tokenize in self._tokenizers.items()}
        teacher = {side: known_or_nan(store, rows) for side, store in self.stores.items()}
        no_list = torch.empty((len(rows), 0))
        return TrainBatch(
            queries=tokens.get("query", TokenRows([])),
            documents=tokens.get("document", TokenRows([])),
            index=no_list.long(),
            mask=no_list.bool(),
            teacher=no_list[None],
            labels=no_list,
            positives=no_list.bool(),
            representations=BatchRepresentations(
                queries=teacher.get("query"), documents=teacher.get("document")
            ),
        )


def known_or_nan(store: VectorStore, rows: np.ndarray) -> torch.Tensor:
    """(n, D) float32 vectors of some texts; NaN for a text without one."""
    vectors = store.take(rows).values
    absent = np.isin(rows, store.absent_rows)
    if absent.any():
        vectors[torch.from_numpy(absent)] = torch.nan
    return vectors
