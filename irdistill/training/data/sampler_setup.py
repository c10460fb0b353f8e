"""What draws the lists of a training, made of its options: samplers of the queries to learn from
and of those held out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from irdistill.modeling.model_files import model_revision
from irdistill.training.data.clusters import query_clusters
from irdistill.training.data.difficulty import difficulties
from irdistill.training.data.list_sampler import Lists, ListSampler
from irdistill.training.data.query_order import Clustered, Curriculum, QueryOrder, pacing
from irdistill.training.options import TrainOptions
from irdistill.training.validation import split_queries

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.base import Student


def make_samplers(
    runs: Sequence[Lists],
    relevant: Mapping[str, Mapping[int, int]],
    query_ids: Sequence[str],
    options: TrainOptions,
    *,
    needs_teacher: bool,
    needs_labels: bool,
    world: int = 1,
) -> tuple[ListSampler, ListSampler | None]:
    """The sampler to train on, and the one of the held-out queries where the training may stop
    early.

    Args:
        world: how many processes train together; a step's lists are those of all of them.

    Raises:
        IrdistillError: as `ListSampler`, or there is one query and one is to be held out.
    """
    mixed = options.mix != "none"

    def sampler(chosen: Sequence[str]) -> ListSampler:
        return ListSampler(
            runs,
            relevant,
            batch_size=options.batch_size * world,
            list_size=options.list_size,
            seed=options.seed,
            sources=options.sources,
            positives=options.positives,
            max_positives=options.max_positives,
            scored=needs_teacher,
            unscored_positives=needs_labels,
            query_ids=chosen,
            flagged=options.flagged,
            margin_bins=options.margin_bins,
            teacher_weights=None if mixed else options.teacher_weights,
            gate=None if mixed else options.gate,
        )

    every = sampler(query_ids)
    if not options.early_stop:
        return every, None
    trained, held = split_queries(every.query_ids, options.held_out, options.seed)
    return sampler(trained), sampler(held)


def in_steps(options: TrainOptions, sampler: ListSampler) -> TrainOptions:
    """The options with the steps that the epochs are, where these were given."""
    if not options.epochs:
        return options
    size = sampler.batch_size
    return replace(options, steps=max(1, -int(-options.epochs * len(sampler.query_ids) // size)))


def order_of(
    sampler: ListSampler,
    collection: Collection,
    student: Student,
    folder: Path,
    options: TrainOptions,
) -> QueryOrder:
    """Which queries a step takes: those of a curriculum, of a cluster, or any.

    Raises:
        IrdistillError: the queries that are to be clustered are too few.
    """
    size = sampler.batch_size
    if options.curriculum != "none":
        share = pacing(options.pacing, options.pacing_start, options.in_steps(options.pacing_end))
        return Curriculum(
            difficulties(sampler.teacher_scores(), options.curriculum), share, size, options.seed
        )
    if options.clusters:
        from irdistill.students.build import load_dense
        from irdistill.students.dense_student import DenseStudent

        encoder = load_dense(options.cluster_model) if options.cluster_model else student
        assert isinstance(encoder, DenseStudent)  # as check_order saw
        texts = [collection.queries[query_id].text for query_id in sampler.query_ids]
        clusters = query_clusters(
            folder, encoder, sampler.query_ids, texts, options.clusters, options.seed
        )
        return Clustered(clusters, size, options.seed)
    return sampler.order


def cluster_identity(options: TrainOptions) -> dict[str, str]:
    """What pins the model that clusters the queries, where one is named."""
    return {"cluster_model": model_revision(options.cluster_model)} if options.cluster_model else {}
