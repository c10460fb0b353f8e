"""Encoding a corpus on a Ray cluster: shards go to workers, this process writes them in order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from irdistill.collections import Collection, Corpus
from irdistill.collections.collection_ref import CollectionRef
from irdistill.distributed.ray_cluster import RayCluster
from irdistill.distributed.ray_pool import Task
from irdistill.modeling.hardware import Precision
from irdistill.search.vectors.vector_store import encode_rows, store_identity
from irdistill.students import load_student
from irdistill.students.student_base import Student
from irdistill.students.tower_model import TextKind


@dataclass
class EncodingJob:
    """Corpus and encoder, loaded in a worker; a task is a range of documents.

    Attributes:
        kind: the tower that encodes them.
    """

    source: CollectionRef
    model: str
    settings: Mapping[str, Any]
    precision: Precision
    storage: str
    budget: int | None
    kind: TextKind = "document"
    corpus: Corpus | None = None
    encoder: Student | None = None

    def load(self) -> Mapping[str, Any]:
        """Load corpus and encoder; returns the identity of the vectors."""
        self.corpus = self.source.open().corpus
        self.encoder = load_student(self.model, **self.settings)
        return store_identity(self.corpus, self.encoder, self.precision, self.storage, self.kind)

    def do(self, value: tuple[int, int]) -> Mapping[str, np.ndarray]:
        """Encode a range of documents, given by its start and its end."""
        assert self.corpus is not None and self.encoder is not None
        return encode_rows(
            self.corpus, self.encoder, *value, self.precision, self.budget, kind=self.kind
        )


@dataclass(frozen=True)
class RayEncoding:
    """Encodes on Ray.

    Attributes:
        cluster: where workers run.
        collection: the collection whose corpus is encoded; every machine opens it by its name, or
            by the folder of its compiled corpus, if a reference is given.
        model: name or path of the model on every machine.
        settings: more arguments of ``load_student``.
        kind: the tower that encodes the texts.
    """

    cluster: RayCluster
    collection: Collection | CollectionRef
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: TextKind = "document"

    def shards(
        self,
        identity: Mapping[str, Any],
        precision: Precision,
        storage: str,
        budget: int | None,
        ranges: Iterable[tuple[int, int]],
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """The arrays of each range of documents, in order.

        Args:
            identity: ``store_identity`` in this process; that of every worker must be equal.
            ranges: start and end of each range.
        """
        source = self.collection
        if not isinstance(source, CollectionRef):
            source = CollectionRef.of(source)
        job = EncodingJob(source, self.model, self.settings, precision, storage, budget, self.kind)
        with self.cluster.pool(job, "what is encoded", identity) as pool:
            tasks = (
                Task((start, end), f"the shard of the documents {start} to {end - 1}")
                for start, end in ranges
            )
            yield from pool.run(tasks, ordered=True)
