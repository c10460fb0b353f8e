"""Scoring on a Ray cluster: parts go to workers, this process writes the run."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from irdistill.collections import Collection
from irdistill.collections.collection_ref import CollectionRef
from irdistill.distributed.ray_cluster import RayCluster
from irdistill.distributed.ray_pool import Pool, Task
from irdistill.errors import IrdistillError, OptionError
from irdistill.runs import RankedList
from irdistill.storage.files import differences
from irdistill.teachers.function_teacher import LoadedTeacher
from irdistill.teachers.part_scoring import ProgressCallback, score_part
from irdistill.teachers.protocol import BatchTeacher, ListwiseTeacher, Teacher
from irdistill.teachers.scoring_engine import ScoredPart
from irdistill.teachers.teacher_card import card_of
from irdistill.teachers.teacher_loading import TeacherSpec


class ScoringJob:
    """Collection and teacher, loaded in a worker; a task is the lists of a part."""

    collection: Collection
    teacher: LoadedTeacher

    def __init__(self, collection: Collection, spec: TeacherSpec) -> None:
        self.source, self.described, self.spec = (
            CollectionRef.of(collection),
            collection.describe(),
            spec,
        )

    def load(self) -> Mapping[str, Any]:
        """The teacher's identity.

        Raises:
            IrdistillError: the collection is another one here, or the teacher cannot be loaded.
        """
        self.collection = self.source.open()
        other = differences(self.described, self.collection.describe())
        if other:
            raise IrdistillError(
                f"the collection {self.described['id']!r} is another one on {socket.gethostname()}:"
                f" {'; '.join(other)}. Give all machines the same files."
            )
        self.teacher = self.spec.load(self.collection.corpus)
        return self.teacher.identity

    def do(self, given: Sequence[RankedList]) -> tuple[list[RankedList], dict[str, float]]:
        """Score a part."""
        return score_part(self.collection, given, self.teacher)


@dataclass(frozen=True)
class RayEngine(RayCluster):
    """Score on Ray."""

    @contextmanager
    def start(self, collection: Collection, teacher: TeacherSpec) -> Iterator[RayScorer]:
        """Start the workers, and wait until the first has its teacher.

        Raises:
            MissingExtraError: Ray is not installed.
            IrdistillError: there is no such cluster, or a worker cannot load collection or teacher.
        """
        if isinstance(teacher.teacher, Teacher | BatchTeacher | ListwiseTeacher):
            raise OptionError(
                f"the teacher {teacher.name} is an object, and Ray's workers load teachers"
                " themselves. Give the name of a card or a model, or a function."
            )
        if (
            isinstance(teacher.teacher, str)
            and card_of(teacher.teacher, teacher.kind, teacher.settings.get("revision")).backend
            == "openai"
        ):
            raise IrdistillError(
                f"the teacher {teacher.name!r} is behind a server, whose answers and budget one"
                " process keeps. Leave --engine ray out and say --parallel for more requests at a"
                " time."
            )
        with self.pool(ScoringJob(collection, teacher), "the teacher") as pool:
            yield RayScorer(pool)


@dataclass(frozen=True)
class RayScorer:
    """Scores parts on the workers of a pool."""

    pool: Pool

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's."""
        return self.pool.identity or {}

    def score(
        self, parts: Iterable[tuple[int, Sequence[RankedList]]], progress: ProgressCallback
    ) -> Iterator[ScoredPart]:
        """Score parts on whichever worker is free."""
        tasks = (
            Task(
                number,
                lists,
                f"part {number} (queries {lists[0].query_id!r} to {lists[-1].query_id!r})",
            )
            for number, lists in parts
        )
        for task, result in self.pool.run(tasks):
            progress(sum(len(own.doc_ids) for own in task.given))
            yield ScoredPart(task.number, *result)
