"""Scoring that also keeps what the scores are made of: pooled states of pairs, or vectors of
queries and documents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from irdistill.collections import Collection
from irdistill.console.progress import progress
from irdistill.errors import IrdistillError
from irdistill.modeling.truncation import Truncation, snapshot
from irdistill.runs import RankedList, Run, check_out
from irdistill.runs.stored_representations import Item, Plan, RepresentationWriter, Storage
from irdistill.storage.files import digest
from irdistill.storage.locking import lock_folder
from irdistill.teachers.protocol import BatchTeacher, TextPair
from irdistill.teachers.scoring_engine import (
    Done,
    ScoredPart,
    first,
    open_candidates,
    score,
    score_part,
)
from irdistill.teachers.teacher_spec import TeacherSpec


@runtime_checkable
class PooledStateTeacher(BatchTeacher, Protocol):
    """A teacher of pairs whose scores are a linear function, ``logits``, of pooled states,
    ``features``.
    """

    head: tuple[np.ndarray, np.ndarray] | None

    def features(self, tokens: Any, rows: np.ndarray) -> np.ndarray: ...

    def logits(self, features: np.ndarray) -> np.ndarray: ...


@runtime_checkable
class TextVectorTeacher(Protocol):
    """A retriever that gives vectors (v, D) of texts; ``states`` says of what sort: ``vectors`` or
    ``tokens``.
    """

    states: str

    def query_states(self, texts: Sequence[str]) -> list[np.ndarray]: ...

    def document_states(self, rows: Sequence[int], texts: Sequence[str]) -> list[np.ndarray]: ...


class PairRecorder:
    """Scores as the teacher does, in the same batches, and keeps the pooled state of each pair it
    was last given.
    """

    def __init__(self, teacher: PooledStateTeacher) -> None:
        self.teacher = teacher
        self.pairs: Sequence[TextPair] = ()
        self.found = np.empty((0, 0), np.float32)

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's."""
        return self.teacher.identity

    @property
    def token_budget(self) -> int:
        """The teacher's."""
        return self.teacher.token_budget

    @property
    def truncation(self) -> dict[str, Truncation]:
        """The teacher's."""
        return snapshot(self.teacher)

    def tokenize(self, pairs: Sequence[TextPair]) -> tuple[Any, np.ndarray]:
        """As the teacher does."""
        self.pairs, self.found = pairs, np.empty((0, 0), np.float32)
        return self.teacher.tokenize(pairs)

    def forward(self, tokens: Any, rows: np.ndarray) -> np.ndarray:
        """The teacher's scores."""
        features = self.teacher.features(tokens, rows)
        if not len(self.found):
            self.found = np.full((len(self.pairs), features.shape[1]), np.nan, np.float32)
        self.found[rows] = features
        return self.teacher.logits(features)


@dataclass
class Recording:
    """An engine that scores in this process, and writes the representations of a part before its
    scores.

    Attributes:
        out: the run's folder.
        candidates, depth, part_queries: as ``score`` is given them.
        storage: the type of the numbers.
    """

    out: Path
    candidates: Run
    depth: int | None
    part_queries: int
    storage: Storage
    writer: RepresentationWriter | None = None
    teacher: Any = None
    _first_part: dict[int, int] = field(default_factory=dict)

    @contextmanager
    def start(self, collection: Collection, teacher: TeacherSpec) -> Iterator[Recording]:
        """Load the teacher.

        Raises:
            IrdistillError: it has no representations.
        """
        built: Any = teacher.build(collection.corpus)
        if isinstance(built, PooledStateTeacher):
            if built.head is None:
                raise IrdistillError(
                    f"the teacher {teacher.teacher!r} has no linear layer at its end, and so no"
                    " pooled state."
                )
        elif not isinstance(built, TextVectorTeacher):
            raise IrdistillError(
                f"the teacher {teacher.teacher!r} has no representations; cross-encoders, dense and"
                " late-interaction retrievers have. Leave out --representations."
            )
        self.collection, self.teacher = collection, built
        yield self

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's."""
        found: Mapping[str, Any] = self.teacher.identity
        return found

    def score(
        self, parts: Iterable[tuple[int, Sequence[RankedList]]], done: Done
    ) -> Iterator[ScoredPart]:
        """Score parts in their order; for who holds the run's folder."""
        for number, lists in parts:
            scored, usage = self.record(number, lists, done)
            yield ScoredPart(number, scored, usage)

    def record(
        self, number: int, lists: Sequence[RankedList], done: Done
    ) -> tuple[list[RankedList], dict[str, float]]:
        """Score one part and write its representations, if they are not there."""
        writer = self._open()
        if not isinstance(self.teacher, PooledStateTeacher):
            found = score_part(self.collection, lists, self.teacher, done)
            if number not in writer:
                writer.write(number, len(lists), self._texts(number, lists))
            return found
        recorder = PairRecorder(self.teacher)
        found = score_part(self.collection, lists, recorder, done)
        if number not in writer:
            writer.write(number, len(lists), self._pairs(number, lists, recorder))
        return found

    def _open(self) -> RepresentationWriter:
        if self.writer is None:
            pairs = isinstance(self.teacher, PooledStateTeacher)
            plan = Plan(
                "pairs" if pairs else self.teacher.states,
                self.storage,
                dict(self.identity),
                self.collection.describe(),
                self.candidates.fingerprint,
                {"depth": self.depth},
                digest(self.candidates.query_ids),
                self.part_queries,
            )
            self.writer = RepresentationWriter(
                self.out, plan, self.teacher.head[0] if pairs else None
            )
        return self.writer

    def _pairs(
        self, number: int, lists: Sequence[RankedList], recorder: PairRecorder
    ) -> list[Item]:
        """Of each pair that was scored; queries of the same text share them."""
        known = {
            (pair.query.text, pair.query.history, pair.row): state
            for pair, state in zip(recorder.pairs, recorder.found, strict=True)
        }
        items = []
        for place, found in enumerate(lists, number * self.part_queries):
            query = self.collection.queries[found.query_id]
            for row in self.collection.corpus.rows(found.doc_ids).tolist():
                state = known.get((query.text, query.history, row))
                if state is not None and np.isfinite(state).all():
                    items.append(Item(place, row, state[None]))
        return items

    def _texts(self, number: int, lists: Sequence[RankedList]) -> list[Item]:
        """Of the part's queries, and of the documents that no earlier part has; empty documents
        have none.
        """
        queries = self.teacher.query_states(
            [self.collection.queries[found.query_id].text for found in lists]
        )
        corpus = self.collection.corpus
        rows = sorted(
            {
                row
                for found in lists
                for row in corpus.rows(found.doc_ids).tolist()
                if self._earliest(row) == number
            }
        )
        texts = dict(zip(rows, corpus.texts(np.array(rows, np.int64)), strict=True))
        rows = [row for row in rows if texts[row].strip()]
        documents = self.teacher.document_states(rows, [texts[row] for row in rows]) if rows else []
        items = [
            Item(place, -1, state)
            for place, state in enumerate(queries, number * self.part_queries)
        ] + [Item(-1, row, state) for row, state in zip(rows, documents, strict=True)]
        return [
            item for item in items if np.asarray(item.vectors).any()
        ]  # texts without tokens have none

    def _earliest(self, row: int) -> int:
        """The first part whose lists hold a document; all lists are read once for it."""
        if not self._first_part:
            for place, found in enumerate(self.candidates):
                for own in self.collection.corpus.rows(first(found, self.depth).doc_ids).tolist():
                    self._first_part.setdefault(own, place // self.part_queries)
        return self._first_part[row]

    def complete(self) -> None:
        """Record what the run's parts were scored without, as those of an earlier call, and
        finish.
        """
        with lock_folder(self.out):
            writer = self._open()
            ids, size = self.candidates.query_ids, self.part_queries
            left = [number for number in range(-(-len(ids) // size)) if number not in writer]
            with progress(len(left), "parts", "represent") as bar:
                for number in left:
                    own = ids[number * size : (number + 1) * size]
                    self.record(
                        number,
                        [first(self.candidates[query_id], self.depth) for query_id in own],
                        lambda count: None,
                    )
                    bar.update()
            writer.finish()


def score_with_representations(
    collection: Collection,
    candidates: Run | str | Path,
    teacher: TeacherSpec,
    out: str | Path,
    depth: int | None = None,
    part_queries: int = 64,
    overwrite: bool = False,
    storage: Storage = "float16",
) -> Run:
    """``score``, and beside the run what its teacher made of the pairs, or of the queries and
    documents.

    The run is the same as without; representations of a finished run are added by scoring its pairs
    again. A stopped job goes on and ends with the same bytes. Sizes: D numbers a pair of a
    cross-encoder; D a query and document of a dense retriever, or a token of a late-interaction
    one, each document once a run.

    Raises:
        IrdistillError: as ``score``; or the teacher has none, or they do not fit ``storage``.
    """
    given = open_candidates(collection, candidates, depth)
    check_out(out, overwrite, [given])
    engine = Recording(Path(out), given, depth, part_queries, storage)
    run = score(collection, given, teacher, out, depth, None, part_queries, overwrite, engine)
    engine.complete()
    return run
