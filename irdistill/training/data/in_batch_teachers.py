"""In-batch teacher scores: retrievers score every query against every document of a batch.

Nothing is encoded. A dense or late-interaction teacher compares the vectors that ``score
--representations`` stored, and BM25 reads its index.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from irdistill.collections import Collection
from irdistill.errors import InputError, OptionError
from irdistill.losses import Loss
from irdistill.runs import Run
from irdistill.runs.stored_representations import FOLDER, Representations
from irdistill.search import BM25
from irdistill.storage.files import digest
from irdistill.training.data.list_sampler import ListBatch, ListSampler
from irdistill.training.data.mixed_run import MixedRun

logger = logging.getLogger(__name__)
_TOKENS = 4096
"""Document tokens that are compared with all query tokens at a time."""


class InBatchTeacher(Protocol):
    """A retriever that scores queries against documents without a forward pass.

    Attributes:
        name: for messages.
        fingerprint: changes with any score.
    """

    name: str
    fingerprint: str

    def scores(self, query_ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """(B, U) float32 scores of documents by row; NaN where unknown."""
        ...


class StoredVectorTeacher:
    """Dot products of stored vectors, which are those of the teacher's scores: of length 1 if it
    compares cosines.
    """

    def __init__(self, stored: Representations) -> None:
        self.stored, self.name = stored, str(stored.folder)
        self.fingerprint, self.dimension = stored.fingerprint, stored.dimension

    def scores(self, query_ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """As `InBatchTeacher.scores`; NaN for texts without a vector."""
        queries = self._table([self.stored.query(query_id) for query_id in query_ids])
        scores: np.ndarray = queries @ self._table(self.stored.documents(rows)).T
        return scores

    def _table(self, items: Sequence[np.ndarray]) -> np.ndarray:
        """(n, D) float32; NaN for an item without a vector."""
        table = np.full((len(items), self.dimension), np.nan, np.float32)
        for row, vectors in zip(table, items, strict=True):
            if len(vectors):
                row[:] = vectors[0]
        return table


class StoredTokenTeacher:
    """MaxSim of stored token vectors, or its mean over the query's tokens.

    A batch of B queries and U documents takes B * U * (query tokens) * (document tokens) products.
    """

    def __init__(self, stored: Representations) -> None:
        self.stored, self.name = stored, str(stored.folder)
        self.fingerprint = stored.fingerprint
        self.mean = "mean" in str(stored.plan.producer.get("similarity", "")).lower()

    def scores(self, query_ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """As `InBatchTeacher.scores`; NaN for texts without a token."""
        queries = [self.stored.query(query_id) for query_id in query_ids]
        documents = self.stored.documents(rows)
        scores = np.full((len(queries), len(documents)), np.nan, np.float32)
        lengths = np.array([len(vectors) for vectors in queries])
        asking = np.flatnonzero(lengths)
        if not len(asking):
            return scores
        tokens = np.concatenate([queries[place] for place in asking]).astype(np.float32)
        starts = np.cumsum(lengths[asking]) - lengths[asking]
        sizes = np.array([len(vectors) for vectors in documents])
        for places in _chunks(sizes):
            joined = np.concatenate([documents[place] for place in places]).astype(np.float32)
            firsts = np.cumsum(sizes[places]) - sizes[places]
            nearest = np.maximum.reduceat(joined @ tokens.T, firsts, axis=0)
            scores[np.ix_(asking, places)] = np.add.reduceat(nearest, starts, axis=1).T
        return scores / np.maximum(lengths, 1)[:, None] if self.mean else scores


def _chunks(lengths: np.ndarray) -> list[np.ndarray]:
    """Places of the texts with tokens, in chunks of about ``_TOKENS`` tokens."""
    places = np.flatnonzero(lengths)
    numbers = np.cumsum(lengths[places]) // _TOKENS
    return np.split(places, np.flatnonzero(np.diff(numbers)) + 1) if len(places) else []


class BM25InBatchTeacher:
    """BM25 of each query and document, from the index of the corpus."""

    def __init__(self, collection: Collection, producer: dict[str, Any]) -> None:
        """Open or build the index.

        Raises:
            InputError: the run has the scores of another version of BM25.
        """
        self.collection, self.name = collection, "BM25"
        self.index = BM25(collection.corpus, producer["k1"], producer["b"])
        identity = self.index.identity()
        if different := [key for key in identity if producer.get(key) != identity[key]]:
            raise InputError(
                "the BM25 scores of the run were made with another"
                f" {', '.join(different)} than those of this version; score the candidates again."
            )
        self.fingerprint = digest(identity)

    def scores(self, query_ids: Sequence[str], rows: np.ndarray) -> np.ndarray:
        """As `InBatchTeacher.scores`; 0.0 without a common term."""
        texts = [self.collection.queries[query_id].text for query_id in query_ids]
        return np.stack([self.index.score(text, rows) for text in texts])


@dataclass(frozen=True)
class InBatchTeachers:
    """The teachers whose in-batch scores a loss reads.

    Attributes:
        teachers: one, or one for each run with scores.
        mixed: the teachers' scores are mixed as those of the runs are.
    """

    teachers: tuple[InBatchTeacher, ...]
    mixed: bool = False

    @property
    def fingerprints(self) -> list[str]:
        """For the identity of a training."""
        return [teacher.fingerprint for teacher in self.teachers]

    def of_lists(self, sampler: ListSampler) -> InBatchScores:
        """The scores for the lists of a sampler."""
        return InBatchScores(self, sampler)


@dataclass
class InBatchScores:
    """Looks up the in-batch teacher scores of a batch.

    Attributes:
        source: the teachers.
        sampler: draws the lists; with mixed teachers, from a `MixedRun`.
    """

    source: InBatchTeachers
    sampler: ListSampler = field(repr=False)

    def __call__(self, lists: ListBatch, unique: np.ndarray) -> torch.Tensor:
        """(B, U) float32 scores of B queries against U documents by row, or (T, B, U) of T
        teachers; NaN where unknown.
        """
        query_ids = [self.sampler.query_ids[number] for number in lists.queries.tolist()]
        scores = np.stack([teacher.scores(query_ids, unique) for teacher in self.source.teachers])
        if self.source.mixed:
            run = self.sampler.runs[0]
            assert isinstance(run, MixedRun)
            pairs = zip(query_ids, scores.transpose(1, 0, 2), strict=True)
            scores = np.stack([run.further(run.index[query_id], raw) for query_id, raw in pairs])
        elif len(scores) == 1:
            scores = scores[0]
        return torch.from_numpy(np.ascontiguousarray(scores, dtype=np.float32))

    def check(self, batches: Sequence[ListBatch]) -> list[np.ndarray]:
        """Check that the queries and documents of the first steps have scores.

        Returns:
            The scores (B, U) of each teacher and step.

        Raises:
            InputError: no query has two.
        """
        steps = [self(lists, np.unique(lists.rows[lists.rows >= 0])).numpy() for lists in batches]
        tables = [table for step in steps for table in (step if step.ndim == 3 else step[None])]
        counts = np.concatenate([(~np.isnan(table)).sum(axis=1) for table in tables])
        names = " and ".join(teacher.name for teacher in self.source.teachers)
        if counts.max(initial=0) < 2:
            raise InputError(
                f"{names} has vectors for no query and two documents of the first {len(batches)}"
                " steps; it was made for other candidates. Score these candidates with"
                " --representations float16."
            )
        missing = 1 - counts.sum() / sum(table.size for table in tables)
        if missing:
            logger.log(
                logging.WARNING if missing > 0.5 else logging.INFO,
                "%.1f%% of the in-batch teacher scores of the first %d steps are unknown, because"
                " %s has no vector of the text; they are left out of the loss",
                100 * missing,
                len(batches),
                names,
            )
        return tables


def open_in_batch_teachers(
    loss: Loss,
    runs: Sequence[Run],
    run: str | Path | None,
    collection: Collection,
    mix: str = "none",
) -> InBatchTeachers | None:
    """Open what the in-batch teacher scores of a loss are computed from.

    Args:
        runs: the runs with teacher scores.
        run: a run that stores the vectors of a retriever, instead of the ``runs``.
        mix: how the scores of the runs are mixed.

    Returns:
        None if the loss reads none.

    Raises:
        OptionError: the mix reads ranks.
        InputError: a run is not that of a retriever, or stores no vectors.
    """
    if "in_batch" not in loss.needs:
        return None
    if run is not None:
        return InBatchTeachers((_of_stored(Representations(run), loss, collection),))
    if mix == "rrf":
        raise OptionError(
            f"the loss {loss} needs in-batch teacher scores, and mix=rrf mixes ranks, which"
            " documents of other lists do not have. Use mix=zscore."
        )
    return InBatchTeachers(
        tuple(_of_run(scores, loss, collection) for scores in runs), mixed=mix != "none"
    )


def _of_run(run: Run, loss: Loss, collection: Collection) -> InBatchTeacher:
    if run.path is not None and (run.path / FOLDER).is_dir():
        return _of_stored(Representations(run.path), loss, collection)
    producer, kind = run.identity.producer, run.identity.kind
    if producer.get("model") == "bm25":
        return BM25InBatchTeacher(collection, producer)
    start = (
        f"the loss {loss} needs a retriever's scores of every query against every document of the"
        f" batch, and the run {run.path or 'in memory'}"
    )
    command = (
        f"irdistill score {collection.id} --candidates {run.path or 'RUN'} --teacher RETRIEVER"
        " --out NEW --representations float16"
    )
    if kind == "fused":
        raise InputError(
            f"{start} is fused from several. Train on the runs that it was fused from, as --scores"
            " RUN RUN --mix zscore, each of BM25 or with stored vectors; or name one with stored"
            f" vectors, as --representations NEW. Make one: {command}."
        )
    if producer.get("kind") == "retriever" and producer.get("type") != "sparse":
        raise InputError(f"{start} stores no vectors. Make them: {command}.")
    raise InputError(
        f"{start} is of a teacher without vectors of single texts. Only BM25 and dense and"
        " late-interaction retrievers have in-batch scores. Let one of these guide the training, as"
        f" --representations NEW. Make it: {command}."
    )


def _of_stored(stored: Representations, loss: Loss, collection: Collection) -> InBatchTeacher:
    stored.check_collection(collection)
    if stored.kind == "pairs":
        raise InputError(
            f"the representations in {stored.folder} are of pairs, which only a reader of pairs"
            f" has, and the loss {loss} needs a retriever's. Score the candidates with a dense or"
            " late-interaction retriever and --representations float16."
        )
    return StoredVectorTeacher(stored) if stored.kind == "vectors" else StoredTokenTeacher(stored)
