"""Scoring on a Ray cluster: parts go to workers, this process writes the run."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from irdistill.collections import Collection
from irdistill.collections.collection_ref import CollectionRef
from irdistill.distributed.ray_cluster import RayCluster
from irdistill.distributed.ray_pool import Task, WorkerPool
from irdistill.errors import OptionError, WrongCollectionError
from irdistill.storage.files import differences
from irdistill.teachers.function_teacher import FunctionTeacher, LoadedTeacher, as_teacher
from irdistill.teachers.part_scoring import ProgressCallback, score_part
from irdistill.teachers.scoring_engine import NumberedPart, ScoredPart
from irdistill.teachers.teacher_card import HOSTED_KINDS, card_of
from irdistill.teachers.teacher_loading import TeacherSpec


class PartScoringJob:
    """Collection and teacher, loaded in a worker; a task is the lists of a part."""

    collection: Collection
    teacher: LoadedTeacher

    def __init__(self, collection: Collection, spec: TeacherSpec) -> None:
        self.source, self.spec = CollectionRef.of(collection), spec
        self.description = collection.describe()

    def load(self) -> Mapping[str, Any]:
        """Load collection and teacher; returns the teacher's identity."""
        self.collection = self.source.open()
        lines = differences(self.description, self.collection.describe())
        if lines:
            raise WrongCollectionError(
                f"the collection {self.description['id']!r} differs on {socket.gethostname()}:"
                f" {'; '.join(lines)}. Copy the same files to all machines."
            )
        self.teacher = self.spec.load(self.collection.corpus)
        return self.teacher.identity

    def do(self, value: NumberedPart) -> ScoredPart:
        """Score a part."""
        number, lists = value
        return ScoredPart(number, *score_part(self.collection, lists, self.teacher))


@dataclass(frozen=True)
class RayEngine(RayCluster):
    """Scores on Ray."""

    @contextmanager
    def start(self, collection: Collection, teacher: TeacherSpec) -> Iterator[RayScorer]:
        """Start workers; returns when the first has loaded the teacher."""
        spec = _sendable(teacher)
        with self.pool(PartScoringJob(collection, spec), "the teacher") as pool:
            yield RayScorer(pool)


def _sendable(spec: TeacherSpec) -> TeacherSpec:
    """What workers can load. The identity of a function is derived here, where its source is."""
    if not isinstance(spec.teacher, str):
        loaded = as_teacher(spec.teacher, spec.settings)
        if not isinstance(loaded, FunctionTeacher):
            raise OptionError(
                f"the teacher {spec.name} is an object, and Ray's workers load teachers themselves."
                " Give the name of a card or a model, or a function."
            )
        return replace(spec, teacher=loaded, settings={})
    card = card_of(spec.teacher, spec.kind, spec.settings.get("revision"))
    if card.backend == "openai" or card.kind in HOSTED_KINDS:
        raise OptionError(
            f"the teacher {spec.name!r} is behind a server, and one process keeps its answers and"
            " its budget. Leave out --engine ray, and raise --parallel instead."
        )
    return spec


@dataclass(frozen=True)
class RayScorer:
    """Scores parts on the workers of a pool."""

    pool: WorkerPool

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's identity."""
        return self.pool.identity or {}

    def score(
        self, parts: Iterable[NumberedPart], progress: ProgressCallback
    ) -> Iterator[ScoredPart]:
        """Score parts, each on the next free worker."""
        for part in self.pool.run(map(_task, parts)):
            progress(sum(len(ranked.doc_ids) for ranked in part.lists))
            yield part


def _task(part: NumberedPart) -> Task:
    number, lists = part
    return Task(part, f"part {number} (queries {lists[0].query_id!r} to {lists[-1].query_id!r})")
