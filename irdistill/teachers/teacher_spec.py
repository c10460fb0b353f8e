"""How to make a teacher, in a form that travels to other processes; the model itself never does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from irdistill.collections import Corpus
from irdistill.teachers.protocol import BatchTeacher, ListwiseTeacher, Teacher
from irdistill.teachers.teacher_loading import load_teacher


@dataclass(frozen=True)
class TeacherSpec:
    """What ``load_teacher`` is to be called with, wherever the teacher is wanted.

    Attributes:
        teacher: a card's name or path, ``bm25``, or a model (folder, ``package:`` path, hub id).
        kind: for a model without a card.
        work: where vectors and indexes are kept; the cache folder of each machine where None.
        responses: the file in which the answers of a model behind a server are kept.
        settings: override the card's; None leaves it as it is.
    """

    teacher: str
    kind: str | None = None
    work: Path | None = None
    responses: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def build(self, corpus: Corpus) -> Teacher | BatchTeacher | ListwiseTeacher:
        """Make the teacher.

        Raises:
            IrdistillError: as ``load_teacher``.
        """
        return load_teacher(
            self.teacher,
            corpus,
            kind=self.kind,
            work=self.work,
            responses=self.responses,
            **self.settings,
        )
