"""How much of `specialise` fits into its time, measured once and recorded.

Queries are planned before anything runs. Training steps are planned after the term vectors, from
the time that is left and the measured time of a step, so that nothing before them can make the
command late. A resumed job reads the recorded numbers and ends with the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.errors import OptionError
from irdistill.queries.query_kinds import split_sentences
from irdistill.recipes.specialise_options import SpecialiseOptions
from irdistill.search.vectors.vector_store import has_corpus_vectors
from irdistill.students import DenseStudent
from irdistill.students.build import load_dense
from irdistill.students.towers import one_tower

_MEASURED = 96
_HELD_OUT, _SCALING = 200, 256
"""Queries that are held out, and queries that set the scale of the words."""
_LEAST_TRAINING_QUERIES = 200
_ENCODINGS, _DOCUMENTS = 8.0, 1250
"""Candidates and scores of a query take about as long as encoding it 8 times, and once more for
each 1,250 documents that are searched.
"""
_LIST_SHARE = 0.3
"""Share of the time for the candidates and teacher scores of training queries."""
_SAFETY = 0.75
"""Share of the remaining time that training is planned for: other programs may slow the machine."""
_FEW_STEPS, _MOST_STEPS, _EPOCHS = 20, 300, 12
"""Fewer steps than 20 are not worth their evaluation; the gain is reached after 50 to 300."""
_FIGURES_SECONDS = 10.0


@dataclass(frozen=True)
class TimeBudget:
    """What is planned before anything runs.

    Attributes:
        passages: source passages of queries; None for all.
        sentences: queries of the kind sentence per passage.
        held_out: share of the passages whose queries are held out.
        passages_per_second, queries_per_second: measured speed of the model's encoder.
        seconds: time that the measurement took.
    """

    passages: int | None
    sentences: int
    held_out: float
    passages_per_second: float
    queries_per_second: float
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainingBudget:
    """What is planned after the term vectors.

    Attributes:
        steps: steps of each training; 0 if the time that is left is too short.
        seconds_used: time used before.
        start_seconds, step_seconds: measured time of a training's start and of one step.
        seconds_reserved: estimated time of the evaluation of what is trained.
    """

    steps: int
    seconds_used: float = 0.0
    start_seconds: float = 0.0
    step_seconds: float = 0.0
    seconds_reserved: float = 0.0


def measure_budget(collection: Collection, model: str, options: SpecialiseOptions) -> TimeBudget:
    """Measure the model on some passages and sentences, and plan the number of queries.

    Raises:
        OptionError: encoding the passages takes more than the time.
        ModelError: the model cannot be loaded or has two towers.
    """
    began = time.perf_counter()
    corpus = reading_corpus(collection.corpus)
    student = load_dense(model, options.kind, trust_remote_code=options.trust_remote_code)
    one_tower(student.model, f"the model {model!r}")
    draw = np.random.default_rng(options.seed)
    texts = corpus.texts(np.sort(draw.permutation(len(corpus))[:_MEASURED]))
    queries = [split[0] for split in map(split_sentences, texts) if split] or texts
    rates = [_rate(student, texts, "document"), _rate(student, queries, "query")]
    seconds = options.minutes * 60
    encoding = 0.0 if has_corpus_vectors(corpus, student) else len(corpus) / rates[0]
    left = seconds - encoding
    if left < 0.2 * seconds:
        raise OptionError(
            f"encoding the {len(corpus)} passages of {collection.id!r} alone takes about"
            f" {encoding / 60:.0f} of {options.minutes:g} minutes on this machine;"
            " give more time (--time), or a smaller model."
        )
    learned = _SCALING
    if options.trainings:
        affordable = int(_LIST_SHARE * left / _query_seconds(len(corpus), rates[1]))
        learned = max(_LEAST_TRAINING_QUERIES, min(affordable, options.batch_size * _MOST_STEPS))
    total = learned + _HELD_OUT
    per_passage = 4 if total > 3 * len(corpus) else 2
    kinds = options.query_kinds
    each = per_passage * ("sentence" in kinds) + sum(kind != "sentence" for kind in kinds)
    passages = math.ceil(total / each)
    expected = min(passages, len(corpus)) * each
    return TimeBudget(
        passages if passages < len(corpus) else None,
        per_passage,
        round(min(0.5, _HELD_OUT / expected), 4),
        rates[0],
        rates[1],
        time.perf_counter() - began,
    )


def _rate(student: DenseStudent, texts: list[str], side: Literal["query", "document"]) -> float:
    student.encode(texts[:8], side, show_progress=False)  # the first call is slow
    began = time.perf_counter()
    student.encode(texts, side, show_progress=False)
    return len(texts) / (time.perf_counter() - began)


def _query_seconds(documents: int, queries_per_second: float) -> float:
    """Estimated time of the candidates and the teacher's scores of one query."""
    return (_ENCODINGS + documents / _DOCUMENTS) / queries_per_second


def plan_training(
    options: SpecialiseOptions,
    seconds: Mapping[str, float],
    measured: float,
    queries: int,
    train_for: Callable[[int], None],
) -> TrainingBudget:
    """Plan the steps of training from the time that is left.

    Args:
        seconds: time of each stage so far.
        measured: time of the first measurement.
        queries: number of training queries.
        train_for: trains for a number of steps, to be timed.
    """
    used = measured + sum(seconds.values())
    models = 2 * options.refined + 2 * options.control
    evaluation = sum(value for name, value in seconds.items() if name.startswith("terms-"))
    reserved = models * evaluation + _FIGURES_SECONDS
    began = time.perf_counter()
    train_for(1)  # fills caches, such as the vectors of probes, that later trainings use
    warm = time.perf_counter()
    train_for(1)
    start = time.perf_counter() - warm
    train_for(5)
    ended = time.perf_counter()
    piloted = ended - began
    step = max((ended - warm - 2 * start) / 4, 1e-3)
    left = options.minutes * 60 - used - piloted - reserved - options.trainings * start
    steps = int(_SAFETY * left / (options.trainings * step))
    steps = min(steps, _MOST_STEPS, math.ceil(_EPOCHS * queries / options.batch_size))
    if steps < _FEW_STEPS:
        steps = 0
    return TrainingBudget(steps, used + piloted, start, step, reserved)
