"""The teacher's representations: opened, checked, and looked up batch by batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from irdistill.collections import Collection
from irdistill.errors import InputError, NotFoundError, OptionError
from irdistill.losses import BatchRepresentations, FittingSample, Loss
from irdistill.losses.embedding import TowerSide
from irdistill.losses.representations import SpanVectors, TokenVectors, padded_tokens
from irdistill.runs import Run
from irdistill.runs.stored_representations import Representations
from irdistill.students.student_base import Student
from irdistill.training.data.list_sampler import ListBatch
from irdistill.training.data.list_source import ListSource
from irdistill.training.data.span_pooling import SpanPooling

logger = logging.getLogger(__name__)

#: For each field of `BatchRepresentations`: the kind of store, the teacher that makes it, and the
#: student it is for.
_STORES = {
    "queries": ("vectors", "a dense retriever", "dense"),
    "documents": ("vectors", "a dense retriever", "dense"),
    "pairs": ("pairs", "a cross-encoder", "cross-encoder"),
    "query_tokens": ("tokens", "a late-interaction retriever", "late-interaction"),
    "document_tokens": ("tokens", "a late-interaction retriever", "late-interaction"),
    "query_spans": ("tokens", "a late-interaction retriever", "late-interaction"),
    "document_spans": ("tokens", "a late-interaction retriever", "late-interaction"),
}
_SAMPLE = 8192
"""Pairs that a loss is fitted to before the first step."""


def check_representations(loss: Loss, student: Student) -> None:
    """Check that the student gives the representations that the loss reads.

    Raises:
        OptionError: it does not.
    """
    for term in loss.basic_losses:
        for name in sorted(term.representations - student.representation_names):
            raise OptionError(
                f"the loss {term} reads representations that a {student.kind} student does not give"
                f" ({name}); it is for a {_STORES[name][2]} student."
            )


def compared_fields(loss: Loss) -> frozenset[str]:
    """The fields of `BatchRepresentations` that a loss reads of the teacher."""
    return frozenset(
        name
        for term in loss.basic_losses
        if "representation" in term.needs
        for name in term.representations
    )


def find_representations(
    loss: Loss, runs: Sequence[Run], run: str | Path | None, collection: Collection
) -> Representations | None:
    """Open the representations that the loss reads.

    Args:
        run: the run that has them; by default the first of ``runs`` that has any.

    Returns:
        None if the loss reads none of the teacher.

    Raises:
        OptionError: a run is given, and the loss reads none.
        NotFoundError: no run has any.
        InputError: they are of another collection or another kind.
    """
    fields = compared_fields(loss)
    if not fields:
        if run is not None and "in_batch" not in loss.needs:
            raise OptionError(
                f"representations were given, and the loss {loss} reads none; leave them out."
            )
        return None
    kind, teacher, _ = _STORES[min(fields)]
    command = (
        f"irdistill score {collection.id} --candidates {runs[0].path or 'RUN'} --teacher TEACHER"
        f" --out NEW --representations float16, with {teacher} as TEACHER; then train with"
        " --representations NEW"
    )
    if run is None:
        paths = [run.path for run in runs if run.path is not None]
        run = next((path for path in paths if (path / "representations").is_dir()), None)
    if run is None:
        raise NotFoundError(
            f"the loss {loss} needs the teacher's representations, and no run has them. Make them:"
            f" {command}."
        )
    stored = Representations(run)
    stored.check_collection(collection)
    if stored.kind != kind:
        raise InputError(
            f"the representations in {stored.folder} are {stored.kind}, and the loss {loss} needs"
            f" {kind}. Make them: {command}."
        )
    return stored


class TeacherRepresentations:
    """Looks up the representations of a batch.

    Args:
        stored: the open store.
        names: which fields of `BatchRepresentations` to fill.
        query_ids: of the sampler, by the numbers in its lists.
        spans: pools tokens, for ``query_spans`` and ``document_spans``.
    """

    def __init__(
        self,
        stored: Representations,
        names: frozenset[str],
        query_ids: Sequence[str],
        spans: SpanPooling | None = None,
    ) -> None:
        self.stored, self.names, self.query_ids = stored, names, query_ids
        self.spans = spans
        self.dimension = stored.dimension

    def __call__(self, lists: ListBatch, unique: np.ndarray) -> BatchRepresentations:
        """For B lists and their U unique documents; NaN, or no token, where the teacher has
        none.
        """
        query_ids = [self.query_ids[number] for number in lists.queries.tolist()]
        stored = self.stored
        make: dict[str, Callable[[], object]] = {
            "queries": lambda: self._vectors([stored.query(query_id) for query_id in query_ids]),
            "documents": lambda: self._vectors(stored.documents(unique)),
            "pairs": lambda: torch.stack(
                [
                    self._vectors(stored.pairs(query_id, rows))
                    for query_id, rows in zip(query_ids, lists.rows, strict=True)
                ]
            ),
            "query_tokens": lambda: padded_tokens(
                self._tokens([stored.query(query_id) for query_id in query_ids])
            ),
            "document_tokens": lambda: padded_tokens(self._tokens(stored.documents(unique))),
            "query_spans": lambda: self._spans(
                "query",
                lists.queries.tolist(),
                [stored.query(query_id) for query_id in query_ids],
                [stored.query_offsets(query_id) for query_id in query_ids],
            ),
            "document_spans": lambda: self._spans(
                "document",
                unique.tolist(),
                stored.documents(unique),
                stored.document_offsets(unique),
            ),
        }
        return BatchRepresentations(**{name: make[name]() for name in self.names})  # type: ignore[arg-type]

    def _vectors(self, items: Sequence[np.ndarray]) -> torch.Tensor:
        """(n, D) float32 of items with one vector or none."""
        table = np.full((len(items), self.dimension), np.nan, np.float32)
        for place, vectors in enumerate(items):
            if len(vectors):
                table[place] = vectors[0]
        return torch.from_numpy(table)

    def _spans(
        self,
        side: TowerSide,
        numbers: Sequence[int],
        vectors: Sequence[np.ndarray],
        offsets: Sequence[np.ndarray],
    ) -> SpanVectors:
        assert self.spans is not None
        places = [np.asarray(each).reshape(-1, 2) for each in offsets]
        return self.spans(side, numbers, self._tokens(vectors), places)

    def _tokens(self, items: Sequence[np.ndarray]) -> list[torch.Tensor]:
        return [
            torch.from_numpy(np.array(vectors, np.float32).reshape(-1, self.dimension))
            for vectors in items
        ]

    def sample(self, scores: ListSource) -> FittingSample:
        """Scored pairs of queries spread evenly over the training set, with the teacher's
        classifier.

        Raises:
            InputError: no pair has both a score and a representation.
        """
        states, values = [], []
        count = 0
        for number in np.random.default_rng(0).permutation(len(self.query_ids)).tolist():
            rows, listed = scores.list(scores.index[self.query_ids[number]])
            vectors = self._vectors(
                self.stored.pairs(self.query_ids[number], np.asarray(rows, np.int64))
            )
            scored = torch.from_numpy(np.asarray(listed, np.float32).copy())
            both = ~vectors.isnan().any(dim=1) & ~scored.isnan()
            states.append(vectors[both])
            values.append(scored[both])
            count += int(both.sum())
            if count >= _SAMPLE:
                break
        if not count or self.stored.classifier is None:
            raise InputError(
                "no pair of these runs has both a score and a representation in"
                f" {self.stored.folder}."
            )
        classifier = torch.from_numpy(self.stored.classifier)
        return FittingSample(torch.cat(states), torch.cat(values), classifier)

    def check(self, batches: Sequence[ListBatch]) -> None:
        """Check that the lists of the first steps have representations.

        Raises:
            InputError: none has.
        """
        known = total = 0
        for lists in batches:
            values = self(lists, np.unique(lists.rows[lists.rows >= 0]))
            for name in self.names:
                value = getattr(values, name)
                present = (
                    value.mask.any(dim=1)
                    if isinstance(value, TokenVectors | SpanVectors)
                    else ~value.isnan().any(dim=-1)
                )
                known += int(present.sum())
                total += int((lists.rows >= 0).sum()) if name == "pairs" else present.numel()
        if not known:
            raise InputError(
                f"{self.stored.folder} has no representation of any text of the first"
                f" {len(batches)} steps; it was made for other candidates. Score these candidates"
                " with --representations." + self._about_spans()
            )
        if known < total:
            logger.info(
                "%d of %d texts or pairs of the first steps have no representation and are left"
                " out of that loss",
                total - known,
                total,
            )

    def _about_spans(self) -> str:
        """Why no text has a span."""
        if self.spans is None or not any(name.endswith("spans") for name in self.names):
            return ""
        return (
            " Or it has no places of the tokens, which runs of earlier versions, teachers with slow"
            " tokenizers and teachers that pool tokens do not have."
        )
