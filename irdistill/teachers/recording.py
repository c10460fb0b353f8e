"""Scoring that also stores the vectors from which the scores are made: one per pair of a
cross-encoder, or those of the queries and documents of a retriever.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from irdistill.collections import Collection
from irdistill.console.progress_bars import progress
from irdistill.errors import ModelError
from irdistill.modeling.truncation import Truncation, snapshot
from irdistill.runs import RankedList, Run
from irdistill.runs.stored_representations import Item, RepresentationPlan, RepresentationWriter
from irdistill.storage.files import digest
from irdistill.storage.locking import lock_folder
from irdistill.teachers.part_scoring import (
    ProgressCallback,
    ignore_progress,
    score_part,
    top_k,
)
from irdistill.teachers.passage_reading import PassageCandidates, PassageReading
from irdistill.teachers.protocol import BatchTeacher, TextPair
from irdistill.teachers.score_options import ScoreOptions
from irdistill.teachers.scoring_engine import NumberedPart, ScoredPart
from irdistill.teachers.teacher_loading import TeacherSpec


@runtime_checkable
class PooledStateTeacher(BatchTeacher, Protocol):
    """A teacher of pairs whose scores (``logits``) are a linear function of pooled states
    (``features``).
    """

    head: tuple[np.ndarray, np.ndarray] | None

    def features(self, tokens: Any, rows: np.ndarray) -> np.ndarray:
        """(len(rows), D) float32 pooled states of the pairs ``rows``."""
        ...

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n,) float32 scores of pooled states (n, D)."""
        ...


@runtime_checkable
class TextVectorTeacher(Protocol):
    """A retriever that gives vectors (v, D) of texts.

    Attributes:
        states: ``vectors`` (one per text) or ``tokens`` (one per token).
    """

    states: str

    def query_states(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The vectors of queries."""
        ...

    def document_states(self, rows: Sequence[int], texts: Sequence[str]) -> list[np.ndarray]:
        """The vectors of documents."""
        ...


class PairRecorder:
    """Scores as a teacher does, in the same batches, and keeps the pooled states of the pairs.

    Attributes:
        pairs: the pairs of the last call of ``tokenize``.
        states: (n, D) their pooled states; NaN for pairs that were not scored.
    """

    def __init__(self, teacher: PooledStateTeacher) -> None:
        self.teacher = teacher
        self.identity, self.token_budget = teacher.identity, teacher.token_budget
        self.pairs: Sequence[TextPair] = ()
        self.states = np.empty((0, 0), np.float32)

    @property
    def truncation(self) -> dict[str, Truncation]:
        """What the teacher did not read."""
        return snapshot(self.teacher)

    def tokenize(self, pairs: Sequence[TextPair]) -> tuple[Any, np.ndarray]:
        """Tokenize as the teacher does."""
        self.pairs, self.states = pairs, np.empty((0, 0), np.float32)
        return self.teacher.tokenize(pairs)

    def forward(self, tokens: Any, rows: np.ndarray) -> np.ndarray:
        """The teacher's scores."""
        features = self.teacher.features(tokens, rows)
        if not len(self.states):
            self.states = np.full((len(self.pairs), features.shape[1]), np.nan, np.float32)
        self.states[rows] = features
        return self.teacher.logits(features)


class RecordingEngine:
    """Scores in this process, and writes the representations of each part before its scores.

    Args:
        out: folder of the run.
        documents: the collection of the candidates. If its documents are split, the vectors are
            those of the passages that the teacher reads.
        candidates: the run whose documents are scored.
        options: ``k``, ``part_queries`` and ``representations`` are used.
    """

    collection: Collection
    teacher: Any  # a PooledStateTeacher or a TextVectorTeacher

    def __init__(
        self, out: Path, documents: Collection, candidates: Run, options: ScoreOptions
    ) -> None:
        self.out, self.documents = out, documents
        self.candidates, self.options = candidates, options

    @contextmanager
    def start(self, collection: Collection, teacher: TeacherSpec) -> Iterator[RecordingEngine]:
        """Load the teacher."""
        loaded = teacher.load(collection.corpus)
        if not isinstance(loaded, PooledStateTeacher | TextVectorTeacher):
            raise ModelError(
                f"the teacher {teacher.name!r} has no representations; cross-encoders and dense and"
                " late-interaction retrievers have. Leave out --representations."
            )
        if isinstance(loaded, PooledStateTeacher) and loaded.head is None:
            raise ModelError(
                f"the teacher {teacher.name!r} does not end in a linear layer, and so has no pooled"
                " state. Leave out --representations."
            )
        self.collection, self.teacher = collection, loaded
        self.identity = dict(loaded.identity)
        if self.documents.corpus.passages is not None:
            reading = PassageReading.of(
                self.documents, self.candidates, self.options, self.identity
            )
            self.candidates = PassageCandidates(self.candidates, reading, self.options.k)
            self.options = replace(self.options, k=None)
        yield self

    def score(
        self, parts: Iterable[NumberedPart], progress: ProgressCallback
    ) -> Iterator[ScoredPart]:
        """Score parts in their order; the caller must hold the lock of the run's folder."""
        for number, lists in parts:
            yield self._record(number, lists, progress)

    def _record(
        self, number: int, lists: Sequence[RankedList], progress: ProgressCallback
    ) -> ScoredPart:
        """Score one part, and write its representations if they are missing."""
        writer, teacher = self._writer, self.teacher
        items: Iterator[Item]
        if isinstance(teacher, PooledStateTeacher):
            recorder = PairRecorder(teacher)
            scored = score_part(self.collection, lists, recorder, progress)
            items = self._pair_items(number, lists, recorder)
        else:
            scored = score_part(self.collection, lists, teacher, progress)
            items = self._text_items(number, lists, teacher)
        if number not in writer:
            writer.write(number, len(lists), list(items))
        return ScoredPart(number, *scored)

    @cached_property
    def _writer(self) -> RepresentationWriter:
        head = self.teacher.head if isinstance(self.teacher, PooledStateTeacher) else None
        plan = RepresentationPlan(
            "pairs" if isinstance(self.teacher, PooledStateTeacher) else self.teacher.states,
            self.options.representations or "float16",
            self.identity,
            self.collection.describe(),
            self.candidates.fingerprint,
            {"k": self.options.k},
            digest(self.candidates.query_ids),
            self.options.part_queries,
        )
        return RepresentationWriter(self.out, plan, head[0] if head else None)

    def _pair_items(
        self, number: int, lists: Sequence[RankedList], recorder: PairRecorder
    ) -> Iterator[Item]:
        """The states of all scored pairs; queries with the same text share them."""
        known = {
            (pair.query.text, pair.query.history, pair.row): state
            for pair, state in zip(recorder.pairs, recorder.states, strict=True)
        }
        for place, ranked in enumerate(lists, number * self.options.part_queries):
            query = self.collection.queries[ranked.query_id]
            for row in self.collection.corpus.rows(ranked.doc_ids).tolist():
                state = known.get((query.text, query.history, row))
                if state is not None and np.isfinite(state).all():
                    yield Item(place, row, state[None])

    def _text_items(
        self, number: int, lists: Sequence[RankedList], teacher: TextVectorTeacher
    ) -> Iterator[Item]:
        """The vectors of the part's queries, and of the documents that are in no earlier part;
        texts without tokens have none.
        """
        corpus = self.collection.corpus
        texts = [self.collection.queries[ranked.query_id].text for ranked in lists]
        states = _with_offsets(teacher, texts, "query", teacher.query_states(texts))
        for place, (state, offsets) in enumerate(states, number * self.options.part_queries):
            if np.any(state):
                yield Item(place, -1, state, offsets)
        rows = {row for ranked in lists for row in corpus.rows(ranked.doc_ids).tolist()}
        new = sorted(row for row in rows if self._first_part[row] == number)
        texts = corpus.texts(np.array(new, np.int64))
        readable = {row: text for row, text in zip(new, texts, strict=True) if text.strip()}
        if readable:
            texts = list(readable.values())
            vectors = teacher.document_states(list(readable), texts)
            states = _with_offsets(teacher, texts, "document", vectors)
            for row, (state, offsets) in zip(readable, states, strict=True):
                if np.any(state):
                    yield Item(-1, row, state, offsets)

    @cached_property
    def _first_part(self) -> dict[int, int]:
        """The first part whose lists contain a document, by row."""
        first: dict[int, int] = {}
        for place, ranked in enumerate(self.candidates):
            doc_ids = top_k(ranked, self.options.k).doc_ids
            for row in self.collection.corpus.rows(doc_ids).tolist():
                first.setdefault(row, place // self.options.part_queries)
        return first

    def complete(self) -> None:
        """Record the parts that an earlier call scored without representations, and finish."""
        with lock_folder(self.out):
            query_ids, size = self.candidates.query_ids, self.options.part_queries
            parts = range(-(-len(query_ids) // size))
            missing = [number for number in parts if number not in self._writer]
            with progress(len(missing), "parts", "represent") as bar:
                for number in missing:
                    part = query_ids[number * size : (number + 1) * size]
                    lists = [top_k(self.candidates[query_id], self.options.k) for query_id in part]
                    self._record(number, lists, ignore_progress)
                    bar.update()
            self._writer.finish()


def _with_offsets(
    teacher: TextVectorTeacher,
    texts: Sequence[str],
    kind: Literal["query", "document"],
    states: Sequence[np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Vectors of texts, and where their tokens are in the texts if the teacher says so."""
    find: Any = getattr(teacher, "token_offsets", None)
    offsets = find(texts, kind) if find is not None else None
    yield from zip(states, offsets or [None] * len(states), strict=True)
