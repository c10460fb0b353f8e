"""The queries that a student is measured on during training: collections, or a share held out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from irdistill.errors import InputError, OptionError
from irdistill.evaluation.measure_names import parse_measures
from irdistill.runs import Run, open_run
from irdistill.runs.label_injection import refuse_labels
from irdistill.search.vectors.vector_store import STORES
from irdistill.training.validation_options import LOSS, ValidationOptions

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.students.student_base import Student

logger = logging.getLogger(__name__)

SAMPLED_DOCUMENTS = 2000
"""Documents of a validation whose document tower is trained, by default."""


@dataclass(frozen=True)
class ValidationData:
    """What a student is measured on during training.

    Attributes:
        share: of the judged training queries, held out; 0 if there are collections.
        collections: with judgments; their corpora may differ from that of the training.
        candidates: for each collection the run whose documents are reranked; empty for BM25.
        measures: names of measures; the first decides.
    """

    share: float
    collections: tuple[Collection, ...]
    candidates: tuple[Run, ...]
    measures: tuple[str, ...]

    @classmethod
    def read(
        cls,
        validate: float | Collection | Sequence[Collection] | None,
        candidates: Sequence[Run | str | Path],
        options: ValidationOptions,
        student: Student,
    ) -> ValidationData | None:
        """The checked data; None without a validation.

        Raises:
            OptionError: an option needs a validation or does not fit it, or a measure is unknown.
            InputError: a collection has no judgments.
            WrongCollectionError: candidates belong to another collection.
        """
        if validate is None:
            if options.early_stop or candidates:
                name = "early_stop" if options.early_stop else "validate_candidates"
                raise OptionError(
                    f"{name} was given without validate, which says what is measured; add"
                    " validate=pydocs/dev (a collection), or validate=0.1 (a share of the training"
                    " queries)."
                )
            return None
        measures = _measures(options.validate_measures)
        if isinstance(validate, int | float):
            if not 0 < validate < 1:
                raise OptionError(
                    f"validate is {validate}; expected a share between 0 and 1, or collections."
                )
            if candidates:
                raise OptionError(
                    "validate_candidates is for collections; held-out queries have the lists of the"
                    " training's scores. Leave it out."
                )
            return cls(float(validate), (), (), measures)
        collections = tuple(validate) if isinstance(validate, Sequence) else (validate,)
        if LOSS in measures:
            raise OptionError(
                f"validate_measures has {LOSS}, which needs the lists of held-out training queries,"
                " and validate names collections; give a share, as validate=0.1, or leave it out."
            )
        check_collections(collections, "validate")
        opened = _open_candidates(candidates, collections, options, student)
        return cls(0.0, collections, opened, measures)

    def identity(self, options: ValidationOptions) -> dict[str, Any]:
        """What decides the figures, as JSON values."""
        return {
            "share": self.share,
            "collections": [
                collection.describe() | {"qrels": collection.qrels.fingerprint}
                for collection in self.collections
            ],
            "candidates": [run.fingerprint for run in self.candidates],
            **options.validation_settings(),
        }

    @property
    def retrieval_measures(self) -> tuple[str, ...]:
        """The measures of ranked documents."""
        return tuple(name for name in self.measures if name != LOSS)

    def split(
        self,
        query_ids: Sequence[str],
        relevant: Mapping[str, Mapping[int, int]],
        most: int,
        seed: int,
    ) -> tuple[list[str], list[str]]:
        """The queries to train on and the held-out ones; all and none without a share.

        Args:
            query_ids: the queries with lists to learn from.
            relevant: query -> document row -> grade.
            most: most queries to hold out; 0 is no limit.

        Raises:
            InputError: there are not two queries to choose from.
        """
        if not self.share:
            return list(query_ids), []
        pool = list(query_ids)
        if self.retrieval_measures:
            pool = [query for query in pool if max(relevant.get(query, {}).values(), default=0) > 0]
        return split_queries(query_ids, pool, self.share, most, seed)


def split_queries(
    query_ids: Sequence[str], pool: Sequence[str], share: float, most: int, seed: int
) -> tuple[list[str], list[str]]:
    """The queries to train on and the held-out ones, at least one of each, in their order.

    Args:
        pool: the queries that may be held out.
        share: of the pool.
        most: most queries to hold out; 0 is no limit.

    Raises:
        InputError: the pool is empty, or there is only one query.

    Examples:
        >>> trained, held_out = split_queries(list("abcde"), list("abcd"), 0.5, 0, seed=42)
        >>> len(trained), len(held_out), "e" in trained
        (3, 2, True)
    """
    if not pool or len(query_ids) < 2:
        raise InputError(
            f"no share of the training queries can be held out: {len(query_ids)} queries have"
            f" lists, and {len(pool)} of them can be measured (measures other than {LOSS} need a"
            " relevant document). Give validate a collection with judgments, or leave it out."
        )
    count = min(len(query_ids) - 1, max(1, round(share * len(pool))))
    count = min(count, most or count)
    places = np.random.default_rng([seed, 3]).permutation(len(pool))[:count]
    held_out = {pool[place] for place in places.tolist()}
    return (
        [query_id for query_id in query_ids if query_id not in held_out],
        [query_id for query_id in query_ids if query_id in held_out],
    )


def judged_queries(collection: Collection) -> list[str]:
    """The queries of a collection that have judgments."""
    return [query_id for query_id in collection.qrels if query_id in collection.queries]


def sample_queries(query_ids: Sequence[str], most: int, seed: int) -> list[str]:
    """At most ``most`` random queries in their order; all if it is 0."""
    if not most or most >= len(query_ids):
        return list(query_ids)
    places = np.random.default_rng([seed, 4]).permutation(len(query_ids))[:most]
    return [query_ids[place] for place in np.sort(places).tolist()]


def documents_to_search(options: ValidationOptions, student: Student) -> int:
    """Number of documents that a validation searches; 0 for all."""
    if options.validate_documents is not None:
        return options.validate_documents
    return SAMPLED_DOCUMENTS if student.learns("document") else 0


def can_search(student: Student) -> bool:
    """Whether a student has vectors to search with; others rerank."""
    return student.kind in STORES


def warn_of_training_queries(training: Collection, validation: Collection) -> None:
    """Warn if a validation has queries that are trained on."""
    texts = {query.text for query in training.queries.values()}
    known = sum(query.text in texts for query in validation.queries.values())
    if known:
        logger.warning(
            "%d of the %d validation queries of %s are also training queries, so its figures are"
            " too high; validate with other queries, or with a share as validate=0.1",
            known,
            len(validation.queries),
            validation.id,
        )


def _measures(measures: str) -> tuple[str, ...]:
    names = measures.split()
    ranked = " ".join(name for name in names if name != LOSS)
    parsed = iter([str(measure) for measure in parse_measures(ranked)] if ranked else [])
    if names.count(LOSS) > 1 or not names:
        raise OptionError(
            f"validate_measures is {measures!r}; at least one measure was expected, without"
            " duplicates, such as 'nDCG@10 R@100'."
        )
    if LOSS not in names:
        return tuple(parsed)
    return (LOSS, *parsed) if names[0] == LOSS else (*parsed, LOSS)


def check_collections(collections: Sequence[Collection], option: str) -> None:
    """Check that collections have judgments and are different.

    Args:
        option: the option that names them, for the messages.

    Raises:
        OptionError: there is none, or one is given twice.
        InputError: one has no relevant documents.
    """
    ids = [collection.id for collection in collections]
    if not ids or len(set(ids)) < len(ids):
        raise OptionError(
            f"{option} names the collections {', '.join(ids) or 'none'}; expected at least one,"
            " each once."
        )
    for collection in collections:
        grades = (grade for judged in collection.qrels.values() for grade in judged.values())
        if max(grades, default=0) <= 0:
            raise InputError(
                f"the collection {collection.id!r} has no relevant documents in its judgments, so"
                f" nothing can be measured on it; give {option} a collection with judgments."
            )


def _open_candidates(
    candidates: Sequence[Run | str | Path],
    collections: Sequence[Collection],
    options: ValidationOptions,
    student: Student,
) -> tuple[Run, ...]:
    if not candidates:
        return ()
    if can_search(student) and not documents_to_search(options, student):
        raise OptionError(
            f"validate_candidates was given, but a {student.kind} student searches all documents in"
            " this validation; leave it out."
        )
    if len(candidates) != len(collections):
        raise OptionError(
            f"validate has {len(collections)} collections and validate_candidates"
            f" {len(candidates)} runs; give one run for each collection, in the same order."
        )
    pairs = zip(candidates, collections, strict=True)
    opened = tuple(open_run(run, collection) for run, collection in pairs)
    for run in opened:
        refuse_labels(run, "used to validate")
    return opened
