"""The validation of a training, made from its data and options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from irdistill.runs import Run
from irdistill.search.retrieve_options import CodeOptions, Index
from irdistill.storage.files import staging_path
from irdistill.training.data.list_sampler import ListSampler
from irdistill.training.data.list_source import ListSource
from irdistill.training.options import TrainOptions
from irdistill.training.validation import Validation
from irdistill.training.validation_data import (
    ValidationData,
    can_search,
    documents_to_search,
    judged_queries,
    sample_queries,
    warn_of_training_queries,
)
from irdistill.training.validation_sets import (
    HeldOutLists,
    MeasuredQueries,
    RerankedSet,
    SearchedSet,
    ValidationSet,
    candidate_rows,
    sampled_corpus,
)

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.student_base import Student

HELD_OUT = "held out"
"""The name of the held-out share of the training queries."""


def make_validation(
    data: ValidationData,
    options: TrainOptions,
    collection: Collection,
    student: Student,
    held_out: ListSampler | None,
    lists: HeldOutLists | None,
    folder: Path,
    work: str | Path | None,
) -> Validation:
    """Sample the queries and the documents, and find candidates.

    Args:
        collection: that is trained on.
        held_out: of the held-out queries, if a share is held out.
        lists: held-out lists, if their loss is measured.
        folder: of the training.
        work: folder of indexes and of stored vectors; the cache folder by default.
    """
    sets: list[ValidationSet] = []
    for number, (queries, source) in enumerate(_queries(data, options, collection, held_out)):
        scratch = staging_path(folder / f"validation-{number}")
        sets.append(measured_set(queries, source, options, student, scratch, work))
    return Validation(
        sets,
        lists,
        data.measures,
        folder / "checkpoints",
        options,
        options.batch_size * texts_per_list(student, options.list_size),
    )


def measured_set(
    queries: MeasuredQueries,
    source: Run | ListSource | None,
    options: TrainOptions,
    student: Student,
    scratch: Path,
    work: str | Path | None,
) -> ValidationSet:
    """What is searched, or reranked by a student that cannot search.

    Args:
        source: the run of the candidates; None for BM25.
        scratch: folder of the vectors of one validation.
    """
    documents = documents_to_search(options, student)
    index: Index | CodeOptions = "flat"
    if options.codes is not None:
        index = CodeOptions(vectors=options.codes)
    if can_search(student) and not 0 < documents < len(queries.corpus):
        return SearchedSet(queries, student, queries.corpus, work, scratch, index)
    candidates = candidate_rows(queries, options.validate_depth, source, work)
    if not can_search(student):
        return RerankedSet(queries, student, candidates)
    corpus = sampled_corpus(queries, candidates, documents, options.seed)
    return SearchedSet(queries, student, corpus, work, scratch, index)


def texts_per_list(student: Student, list_size: int) -> int:
    """Number of texts, or of pairs, that a student encodes for a list."""
    if "pair" in student.sides:
        return list_size
    return 1 + list_size if student.learns("document") else 1


def _queries(
    data: ValidationData,
    options: TrainOptions,
    collection: Collection,
    held_out: ListSampler | None,
) -> Iterator[tuple[MeasuredQueries, Run | ListSource | None]]:
    """The queries of each set, and the run of their candidates; None for BM25."""
    measures = data.retrieval_measures
    if held_out is not None and measures:
        queries = MeasuredQueries.of(HELD_OUT, collection, held_out.query_ids, measures)
        yield queries, held_out.runs[0]
    for number, measured in enumerate(data.collections):
        warn_of_training_queries(collection, measured)
        query_ids = sample_queries(judged_queries(measured), options.validate_queries, options.seed)
        yield (
            MeasuredQueries.of(measured.id, measured, query_ids, measures),
            data.candidates[number] if data.candidates else None,
        )
