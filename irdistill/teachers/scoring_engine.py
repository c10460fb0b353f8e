"""The scoring loop: parts of a run are scored by an engine and written in this process."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.split_collections import passage_view
from irdistill.console.progress_bars import progress
from irdistill.errors import WrongCollectionError
from irdistill.runs import RankedList, Run, RunIdentity, RunWriter, open_run
from irdistill.runs.label_injection import label_settings
from irdistill.runs.opening import subset_for
from irdistill.teachers.function_teacher import LoadedTeacher
from irdistill.teachers.part_scoring import ProgressCallback, score_part, top_k
from irdistill.teachers.passage_reading import PassageReading
from irdistill.teachers.score_options import ScoreOptions
from irdistill.teachers.scoring_reports import (
    report_agreement,
    report_truncation,
    report_unscored,
)
from irdistill.teachers.teacher_loading import TeacherSpec

logger = logging.getLogger(__name__)

#: Number of a part in the run, and its lists.
NumberedPart = tuple[int, Sequence[RankedList]]


class ScoredPart(NamedTuple):
    """A part's number, its lists with the teacher's scores, and what the teacher used for them."""

    number: int
    lists: list[RankedList]
    usage: dict[str, float]


class PartScorer(Protocol):
    """Scores parts, in this process or on workers."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's identity."""
        ...

    def score(
        self, parts: Iterable[NumberedPart], progress: ProgressCallback
    ) -> Iterator[ScoredPart]:
        """Score parts and return them in any order."""
        ...


class ScoringEngine(Protocol):
    """Where parts are scored."""

    def start(
        self, collection: Collection, teacher: TeacherSpec
    ) -> AbstractContextManager[PartScorer]:
        """Load the teacher where parts are scored."""
        ...


class LocalScorer:
    """Scores parts one after another in this process."""

    def __init__(self, collection: Collection, teacher: LoadedTeacher) -> None:
        self.collection, self.teacher = collection, teacher

    @property
    def identity(self) -> Mapping[str, Any]:
        """The teacher's identity."""
        return self.teacher.identity

    def score(
        self, parts: Iterable[NumberedPart], progress: ProgressCallback
    ) -> Iterator[ScoredPart]:
        """Score parts in their order."""
        for number, lists in parts:
            yield ScoredPart(number, *score_part(self.collection, lists, self.teacher, progress))


class LocalEngine:
    """Scores in this process."""

    def start(
        self, collection: Collection, teacher: TeacherSpec
    ) -> AbstractContextManager[LocalScorer]:
        """Load the teacher."""
        return nullcontext(LocalScorer(collection, teacher.load(collection.corpus)))


def open_candidates(collection: Collection, candidates: Run | str | Path) -> Run:
    """Open the run whose documents are scored."""
    run = subset_for(open_run(candidates, collection), collection)
    if not len(run):
        raise WrongCollectionError(
            f"the candidates have no query of {collection.id}. Use candidates of this collection."
        )
    return run


def score_run(
    collection: Collection,
    candidates: Run,
    teacher: TeacherSpec,
    out: str | Path,
    options: ScoreOptions,
    engine: ScoringEngine,
) -> Run:
    """Score the pending parts of a run with an engine and write them; see `scoring.score`."""
    split = collection.corpus.passages is not None
    with engine.start(passage_view(collection) if split else collection, teacher) as scorer:
        reading = None
        if split:
            reading = PassageReading.of(collection, candidates, options, scorer.identity)
        identity = RunIdentity(
            "teacher",
            dict(scorer.identity),
            collection.describe(),
            candidates.fingerprint,
            {"k": options.k}
            | ({} if reading is None else {"passages": reading.settings()})
            | label_settings([candidates]),
        )

        def documents(number: int) -> list[RankedList]:
            ids = writer.queries_of(number)
            return [top_k(candidates[query_id], options.k) for query_id in ids]

        def read(number: int) -> list[RankedList]:
            lists = documents(number)
            return lists if reading is None else list(map(reading.expand, lists))

        with RunWriter(
            out,
            identity,
            candidates.query_ids,
            options.part_queries,
            options.shard_numbers,
            options.overwrite,
            fingerprints=collection.query_fingerprints,
        ) as writer:
            pending = writer.pending()
            parts = ((number, read(number)) for number, _ in pending)
            queries = sum(len(query_ids) for _, query_ids in pending)
            rows_per_query = options.k or max(1, candidates.num_rows // len(candidates))
            if reading is not None:
                rows_per_query = reading.pairs(rows_per_query)
            warned = False
            with progress(queries * rows_per_query, "pairs", "score") as bar:
                for part in scorer.score(parts, bar.update):
                    if reading is not None:
                        pairs = zip(documents(part.number), part.lists, strict=True)
                        part = part._replace(lists=[reading.collapse(*pair) for pair in pairs])
                    writer.write_part(*part)
                    warned = warned or _warn_if_unscored(part)
            run = writer.finish()
    report_truncation(run, _model_name(identity.producer))
    report_agreement(run)
    report_unscored(run)
    return run


def _model_name(producer: Mapping[str, Any]) -> str:
    """The model of a teacher's identity, whose value may be an identity of its own."""
    model = producer.get("model", "the teacher")
    return _model_name(model) if isinstance(model, Mapping) else str(model)


def _warn_if_unscored(part: ScoredPart) -> bool:
    """Warn of a part without any score; returns whether it warned."""
    flags = Counter(flag for ranked in part.lists for flag in ranked.flags or ())
    if not flags or not all(np.isnan(ranked.scores).all() for ranked in part.lists):
        return False
    logger.warning(
        "WARNING: the teacher scored none of the %d documents of part %d (most frequent reason:"
        " %s). Stop the job unless you expect this.",
        sum(flags.values()),
        part.number,
        flags.most_common(1)[0][0],
    )
    return True
