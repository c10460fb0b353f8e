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
from irdistill.search.vectors.vector_store import document_identity, encode_rows
from irdistill.students import load_student
from irdistill.students.student_base import Student


@dataclass
class EncodingJob:
    """Corpus and encoder, loaded in a worker; a task is a range of documents."""

    source: CollectionRef
    model: str
    settings: Mapping[str, Any]
    precision: Precision
    storage: str
    budget: int | None
    corpus: Corpus | None = None
    encoder: Student | None = None

    def load(self) -> Mapping[str, Any]:
        """Load corpus and encoder; returns the identity of the vectors."""
        self.corpus = self.source.open().corpus
        self.encoder = load_student(self.model, **self.settings)
        return document_identity(self.corpus, self.encoder, self.precision, self.storage)

    def do(self, value: tuple[int, int]) -> Mapping[str, np.ndarray]:
        """Encode a range of documents, given by its start and its end."""
        assert self.corpus is not None and self.encoder is not None
        return encode_rows(self.corpus, self.encoder, *value, self.precision, self.budget)


@dataclass(frozen=True)
class RayEncoding:
    """Encodes on Ray.

    Attributes:
        cluster: where workers run.
        collection: the collection whose corpus is encoded; every machine opens it by its name.
        model: name or path of the model on every machine.
        settings: more arguments of ``load_student``.
    """

    cluster: RayCluster
    collection: Collection
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)

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
            identity: ``document_identity`` in this process; that of every worker must be equal.
            ranges: start and end of each range.
        """
        source = CollectionRef.of(self.collection)
        job = EncodingJob(source, self.model, self.settings, precision, storage, budget)
        with self.cluster.pool(job, "what is encoded", identity) as pool:
            tasks = (
                Task((start, end), f"the shard of the documents {start} to {end - 1}")
                for start, end in ranges
            )
            yield from pool.run(tasks, ordered=True)
