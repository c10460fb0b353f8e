"""The teacher's representations while a student trains: found, checked, and looked up batch by
batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.losses import BatchRepresentations, FittingSample, Loss
from irdistill.losses.representations import padded_tokens
from irdistill.runs import Run
from irdistill.runs.stored_representations import Representations
from irdistill.students.base import Student
from irdistill.training.data.list_sampler import ListBatch, Lists

logger = logging.getLogger(__name__)

#: Which kind of store holds what a loss reads, what makes it, and which student it is for.
_SOURCES = {
    "queries": ("vectors", "a dense retriever", "dense"),
    "documents": ("vectors", "a dense retriever", "dense"),
    "pairs": ("pairs", "a cross-encoder", "cross-encoder"),
    "query_tokens": ("tokens", "a late-interaction retriever", "late-interaction"),
    "document_tokens": ("tokens", "a late-interaction retriever", "late-interaction"),
}
#: So many pairs are what a loss is fitted to before the first step.
_SAMPLE = 8192


def check_states(loss: Loss, student: Student) -> None:
    """Whether the student gives the representations that the loss reads.

    Raises:
        IrdistillError: it does not.
    """
    for term in loss.basic_losses:
        for name in sorted(term.representations - student.representation_names):
            raise IrdistillError(
                f"the loss {term} reads representations that a {student.kind} student does not give"
                f" ({name}); it is for a {_SOURCES[name][2]} student."
            )


def find_representations(
    loss: Loss, runs: Sequence[Run], given: str | Path | None, collection: Collection
) -> Representations | None:
    """Open what the loss reads: of the run that was named, else of the first of the runs that has
    any.

    Returns:
        None where the loss reads none.

    Raises:
        IrdistillError: there are none, or they are of another collection or another kind.
    """
    if not loss.representations:
        if given is not None:
            raise IrdistillError(
                f"representations were given, and the loss {loss} reads none; leave them out."
            )
        return None
    kind, maker, _ = _SOURCES[min(loss.representations)]
    command = (
        f"irdistill score {collection.id} --candidates {runs[0].path or 'RUN'} --teacher TEACHER"
        f" --out NEW --representations float16, with {maker} as TEACHER; then train with"
        " --representations NEW"
    )
    if given is None:
        own = [
            run.path
            for run in runs
            if run.path is not None and (run.path / "representations").is_dir()
        ]
        if not own:
            raise IrdistillError(
                f"the loss {loss} needs the teacher's representations, and no run has them. Make"
                f" them: {command}."
            )
        given = own[0]
    held = Representations(given)
    held.check_collection(collection)
    if held.kind != kind:
        raise IrdistillError(
            f"the representations in {held.folder} are {held.kind}, and the loss {loss} needs"
            f" {kind}. Make them: {command}."
        )
    return held


class TeacherStates:
    """Looks up the representations of a batch, a text or pair at a time.

    Args:
        names: which fields of `BatchRepresentations` to fill.
        query_ids: of the sampler, by the numbers in its lists.
    """

    def __init__(
        self, held: Representations, names: frozenset[str], query_ids: Sequence[str]
    ) -> None:
        self.held, self.names, self.query_ids = held, names, query_ids
        self.dimension = held.dimension

    def __call__(self, lists: ListBatch, unique: np.ndarray) -> BatchRepresentations:
        """Of B lists and their U unique documents; NaN, or no token, where the teacher has none."""
        asked = [self.query_ids[number] for number in lists.queries.tolist()]
        made: dict[str, Callable[[], object]] = {
            "queries": lambda: self._vectors([self.held.query(query_id) for query_id in asked]),
            "documents": lambda: self._vectors(self.held.documents(unique)),
            "pairs": lambda: torch.stack(
                [
                    self._vectors(self.held.pairs(query_id, rows))
                    for query_id, rows in zip(asked, lists.rows, strict=True)
                ]
            ),
            "query_tokens": lambda: padded_tokens(
                self._tokens([self.held.query(query_id) for query_id in asked])
            ),
            "document_tokens": lambda: padded_tokens(self._tokens(self.held.documents(unique))),
        }
        return BatchRepresentations(**{name: made[name]() for name in self.names})  # type: ignore[arg-type]

    def _vectors(self, found: Sequence[np.ndarray]) -> torch.Tensor:
        """(n, D) float32 of items with one vector or none."""
        table = np.full((len(found), self.dimension), np.nan, np.float32)
        for place, vectors in enumerate(found):
            if len(vectors):
                table[place] = vectors[0]
        return torch.from_numpy(table)

    def _tokens(self, found: Sequence[np.ndarray]) -> list[torch.Tensor]:
        return [
            (
                torch.from_numpy(np.asarray(vectors, np.float32))
                if len(vectors)
                else torch.zeros(0, self.dimension)
            )
            for vectors in found
        ]

    def sample(self, scores: Lists) -> FittingSample:
        """Scored pairs of queries spread evenly over the training set, with the teacher's
        classifier.

        Raises:
            IrdistillError: no pair has both a score and a state.
        """
        states, values = [], []
        count = 0
        for number in np.random.default_rng(0).permutation(len(self.query_ids)).tolist():
            rows, own = scores.list(scores.index[self.query_ids[number]])
            found = self._vectors(
                self.held.pairs(self.query_ids[number], np.asarray(rows, np.int64))
            )
            given = torch.from_numpy(np.asarray(own, np.float32).copy())
            there = ~found.isnan().any(dim=1) & ~given.isnan()
            states.append(found[there])
            values.append(given[there])
            count += int(there.sum())
            if count >= _SAMPLE:
                break
        if not count or self.held.classifier is None:
            raise IrdistillError(
                "no pair of these runs has both a score and a representation in"
                f" {self.held.folder}."
            )
        return FittingSample(
            torch.cat(states), torch.cat(values), torch.from_numpy(self.held.classifier)
        )

    def check(self, batches: Sequence[ListBatch]) -> None:
        """Whether the first lists have representations.

        Raises:
            IrdistillError: none has.
        """
        there = total = 0
        for lists in batches:
            states = self(lists, np.unique(lists.rows[lists.rows >= 0]))
            for name in self.names:
                value = getattr(states, name)
                present = (
                    value.mask.any(dim=1) if name.endswith("tokens") else ~value.isnan().any(dim=-1)
                )
                there += int(present.sum())
                total += int((lists.rows >= 0).sum()) if name == "pairs" else present.numel()
        if not there:
            raise IrdistillError(
                f"{self.held.folder} holds no representation of any text of the first"
                f" {len(batches)} steps; it was made for other candidates. Score these candidates"
                " with --representations."
            )
        if there < total:
            logger.info(
                "%d of %d texts or pairs of the first steps have no representation and teach"
                " nothing by it",
                total - there,
                total,
            )
