"""Encoding a corpus on a Ray cluster: shards go to workers, this process writes them, each in its
turn.
"""

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
from irdistill.students.base import Student


class EncodingJob:
    """Corpus and encoder, loaded in a worker; a task is a range of documents."""

    corpus: Corpus
    encoder: Student

    def __init__(
        self,
        collection: Collection,
        model: str,
        settings: Mapping[str, Any],
        precision: Precision,
        storage: str,
        budget: int | None,
    ) -> None:
        self.source, self.model, self.settings = CollectionRef.of(collection), model, dict(settings)
        self.precision, self.storage, self.budget = precision, storage, budget

    def load(self) -> Mapping[str, Any]:
        """What decides the vectors."""
        self.corpus = self.source.open().corpus
        self.encoder = load_student(self.model, **self.settings)
        return document_identity(self.corpus, self.encoder, self.precision, self.storage)

    def do(self, given: tuple[int, int]) -> Mapping[str, np.ndarray]:
        """Encode the documents from one number up to another."""
        return encode_rows(self.corpus, self.encoder, *given, self.precision, self.budget)


@dataclass(frozen=True)
class RayEncoding:
    """Encode on Ray.

    Attributes:
        collection: whose corpus is encoded; every machine opens it by its name.
        model: as every machine finds it.
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
        """The arrays of each range of documents, in order; the workers live until the last.

        Args:
            identity: ``document_identity`` in this process, which that of every worker must equal.

        Raises:
            MissingExtraError: Ray is not installed.
            IrdistillError: there is no such cluster, a worker cannot load corpus or model, finds
                other ones, or a shard fails again and again.
        """
        job = EncodingJob(self.collection, self.model, self.settings, precision, storage, budget)
        with self.cluster.pool(job, "what is encoded", identity) as pool:
            tasks = (
                Task(number, (start, end), f"the shard of the documents {start} to {end - 1}")
                for number, (start, end) in enumerate(ranges)
            )
            yield from pool.run_in_order(tasks)
