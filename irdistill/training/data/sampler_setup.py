"""The samplers of a training, made from its options: queries to learn from, and held-out ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.modeling.model_revisions import model_revision
from irdistill.training.data.clusters import query_clusters
from irdistill.training.data.difficulty import difficulties
from irdistill.training.data.list_counts import ListCounts, count_lists
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import Judgments, ListSource, SamplerOptions
from irdistill.training.data.query_order import Clustered, Curriculum, QueryOrder, pacing
from irdistill.training.options import TrainOptions
from irdistill.training.validation_data import ValidationData

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.runs import CompiledRun
    from irdistill.students.student_base import Student

_LAYOUT = 1
"""Raised when the cached counts change."""


def judgments_by_row(collection: Collection) -> Judgments:
    """The judged documents of the corpus by row number."""
    pairs = [
        (query_id, doc_id, grade)
        for query_id, judged in collection.qrels.items()
        for doc_id, grade in judged.items()
    ]
    rows = collection.corpus.find([doc_id for _, doc_id, _ in pairs]).tolist()
    judgments: dict[str, dict[int, int]] = {query_id: {} for query_id in collection.qrels}
    for (query_id, _, grade), row in zip(pairs, rows, strict=True):
        if row >= 0:
            judgments[query_id][row] = grade
    return judgments


def sampler_options(
    options: TrainOptions, needs_teacher: bool, needs_labels: bool, processes: int = 1
) -> SamplerOptions:
    """How lists are drawn in a training.

    Args:
        needs_teacher: whether the loss needs a teacher score of each document.
        needs_labels: whether the loss reads relevance labels.
        processes: number of processes that train together; a step has the lists of all.
    """
    mixed = options.mix != "none"
    return SamplerOptions(
        batch_size=options.batch_size * processes,
        list_size=options.list_size,
        seed=options.seed,
        sources=options.sources,
        positives=options.positives,
        max_positives=options.max_positives,
        scored=needs_teacher or options.only_scored,
        unscored_positives=needs_labels and not options.only_scored,
        flagged=options.flagged,
        margin_bins=options.margin_bins,
        teacher_weights=None if mixed else options.teacher_weights,
        gate=None if mixed else options.gate,
    )


def make_samplers(
    runs: Sequence[ListSource],
    relevant: Judgments,
    query_ids: Sequence[str],
    drawing: SamplerOptions,
    options: TrainOptions,
    validation: ValidationData | None = None,
    counts: ListCounts | None = None,
    siblings: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[ListSampler, ListSampler | None]:
    """The sampler to train on, and that of the held-out queries if a share is held out.

    Args:
        validation: what is measured during training, if anything.
        counts: see `cached_counts`; computed if None.
        siblings: see `ListSampler`.

    Raises:
        InputError: no query has two usable documents, or there is no query to hold out.
    """
    every = ListSampler(runs, relevant, drawing, query_ids, counts, siblings)
    if validation is None or not validation.share:
        return every, None
    trained, held_out = validation.split(
        every.query_ids, relevant, options.validate_queries, options.seed
    )
    return (
        ListSampler(runs, relevant, drawing, trained, every.counts, siblings),
        ListSampler(runs, relevant, drawing, held_out, every.counts, siblings),
    )


def cached_counts(
    runs: Sequence[ListSource],
    relevant: Judgments,
    drawing: SamplerOptions,
    cache: CompiledRun,
    identity: Mapping[str, Any],
) -> ListCounts:
    """`count_lists`, cached with a compiled run for the next start and for other processes.

    Args:
        identity: what decides the runs and the judgments.
    """
    key = {
        **identity,
        "layout": _LAYOUT,
        "scored": drawing.scored,
        "unscored_positives": drawing.unscored_positives,
        "flagged": drawing.flagged,
        "active": drawing.active(len(runs)),
    }
    names = ("usable", "documents", "flagged")

    def build(folder: Path) -> None:
        counts = count_lists(runs, relevant, drawing)
        for name in names:
            np.save(folder / f"{name}.npy", getattr(counts, name))

    arrays = cache.derived_arrays("list_counts", key, build)
    return ListCounts(*(np.asarray(arrays[name]) for name in names))


def epochs_to_steps(options: TrainOptions, sampler: ListSampler) -> TrainOptions:
    """The options with ``steps`` computed from ``epochs``, if these are given."""
    if not options.epochs:
        return options
    lists = options.epochs * len(sampler.query_ids)
    return replace(options, steps=max(1, -int(-lists // sampler.options.batch_size)))


def query_order(
    sampler: ListSampler,
    collection: Collection,
    student: Student,
    folder: Path,
    options: TrainOptions,
) -> QueryOrder:
    """The queries of each step: by a curriculum, by clusters, or shuffled.

    Raises:
        InputError: there are fewer queries than clusters.
    """
    size = sampler.options.batch_size
    if options.curriculum != "none":
        share = pacing(options.pacing, options.pacing_start, options.in_steps(options.pacing_end))
        difficulty = difficulties(sampler.teacher_scores(), options.curriculum)
        return Curriculum(difficulty, share, size, options.seed)
    if options.clusters:
        from irdistill.students.build import load_dense
        from irdistill.students.dense_student import DenseStudent

        encoder = load_dense(options.cluster_model) if options.cluster_model else student
        assert isinstance(encoder, DenseStudent)  # see check_student
        texts = [collection.queries[query_id].text for query_id in sampler.query_ids]
        clusters = query_clusters(
            folder, encoder, sampler.query_ids, texts, options.clusters, options.seed
        )
        return Clustered(clusters, size, options.seed)
    return sampler.order


def cluster_identity(options: TrainOptions) -> dict[str, str]:
    """The revision of the model that clusters the queries, if one is given."""
    return {"cluster_model": model_revision(options.cluster_model)} if options.cluster_model else {}
