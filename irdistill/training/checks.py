"""Checks of options, student, loss and teacher scores before the first step."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from irdistill.errors import InputError, OptionError
from irdistill.losses import TEACHER_NEEDS, Loss
from irdistill.runs.mixing import checked_weights
from irdistill.training.data.list_sampler import ListBatch
from irdistill.training.data.list_source import ListSource

if TYPE_CHECKING:
    from irdistill.students.student_base import Student
    from irdistill.training.options import TrainOptions

logger = logging.getLogger(__name__)


def check_student(options: TrainOptions, loss: Loss, student: Student) -> None:
    """Check that the options and the loss are for this kind of student.

    Raises:
        OptionError: they are not.
    """
    for problem in _student_problems(options, loss, student):
        raise OptionError(problem)
    if options.curriculum != "none" and not loss.needs & TEACHER_NEEDS:
        logger.warning(
            "a curriculum uses teacher scores, which the loss %s does not need; lists without"
            " scores come last",
            loss,
        )
    dims = options.matryoshka_dims
    if dims and max(dims) < student.dimension:
        logger.warning(
            "the last %d of the %d dimensions are in no loss; search with %d or fewer, or add %d to"
            " matryoshka_dims",
            student.dimension - max(dims),
            student.dimension,
            max(dims),
            student.dimension,
        )


def _student_problems(options: TrainOptions, loss: Loss, student: Student) -> Iterator[str]:
    kind, dims = student.kind, options.matryoshka_dims
    for _, term in loss.terms:
        if term.uses_in_batch and "pair" in student.sides:
            yield (
                f"the loss {term} compares each query with the documents of the whole batch, and a"
                f" {kind} student scores only the pairs of the lists. Write"
                f' {term.name or "it"}(negatives="list") to use these alone, or choose another'
                " student."
            )
    if options.has_penalties and kind != "sparse":
        yield (
            "weights of FLOPS, L1 or anti-zero, or targets of active dimensions, were given for a"
            f" {kind} student; they are for a sparse student."
        )
    document_penalty = options.document_flops or options.document_l1 or options.document_active
    if document_penalty and not student.learns("document"):
        yield (
            "document_flops, document_l1 or document_active was given, and the document tower is"
            " frozen; leave them out."
        )
    if options.idf_start and not (kind == "sparse" and student.head):
        yield (
            "idf_start was given for a student without query weights; it is for a sparse student"
            " with inference_free."
        )
    if options.clusters and not options.cluster_model and kind != "dense":
        yield (
            f"queries are clustered by one vector each, which a {kind} student does not have; name"
            " a dense model, such as cluster_model=sentence-transformers/all-MiniLM-L6-v2."
        )
    if options.head_learning_rate is not None and not student.head:
        yield (
            f"head_learning_rate={options.head_learning_rate} was given for a {kind} student, which"
            " has no head; leave it out."
        )
    if options.codes is not None and kind != "dense":
        yield (
            f"quantize={options.quantize} was given for a {kind} student; it is for a dense"
            " student."
        )
    if dims and kind != "dense":
        yield f"matryoshka_dims were given for a {kind} student; they are for a dense student."
    elif dims and max(dims) > student.dimension:
        yield (
            f"matryoshka_dims has {max(dims)}, and the student's vectors have {student.dimension}"
            " dimensions."
        )


def check_teachers(count: int, options: TrainOptions) -> None:
    """Check that weights and gate are for this number of runs.

    Raises:
        OptionError: they are not.
    """
    several = options.teacher_weights is not None or options.gate is not None
    if count == 1 and (options.mix != "none" or several):
        raise OptionError(
            "one run was given, and mix, teacher_weights and gate are for several; give more runs,"
            " or leave these out."
        )
    if options.mix != "none":
        options.mixing().for_teachers(count)
        return
    checked_weights(options.teacher_weights, count)
    if options.gate is not None and len(options.gate) != count:
        raise OptionError(
            f"the gate is for {len(options.gate)} teachers, and {count} runs were given."
        )


def check_needs(loss: Loss, labeled_queries: int, scored_items: int) -> None:
    """Check that the data have what the loss needs.

    Raises:
        InputError: labels or teacher scores are missing.
    """
    if "label" in loss.needs and not labeled_queries:
        raise InputError(
            f"the loss {loss} needs relevance labels, and the collection's qrels have none for the"
            " queries of this run. Use a split that has qrels, or a loss that needs only the"
            ' teacher: KL, MarginMSE(pairs="all"), InfoNCE(positive_by="teacher").'
        )
    if loss.needs & TEACHER_NEEDS and not scored_items:
        raise InputError(
            f"the loss {loss} needs teacher scores, and the run has none. Score the candidates"
            " first with `irdistill score`."
        )


def check_teacher(
    loss: Loss,
    batches: Sequence[ListBatch],
    similarity: str,
    mix: str = "none",
    in_batch: Sequence[np.ndarray] = (),
) -> list[str]:
    """Check the teacher scores of the first steps; returns warnings, which are also logged.

    Args:
        mix: how the scores of several teachers were mixed; mixed scores may be in [0, 1].
        in_batch: in-batch teacher scores (B, U), for losses that read them.

    Raises:
        InputError: scores are infinite or all the same, or the student can never reach their
            margins.
    """
    warnings: list[str] = []
    listed: list[np.ndarray] = []
    if loss.needs & TEACHER_NEEDS:
        listed = _scored(row for batch in batches for teacher in batch.teacher for row in teacher)
        warnings += _list_warnings(listed, mix)
    everything = _scored(row for table in in_batch for row in table)
    for term in loss.basic_losses:
        lists = everything if "in_batch" in term.needs else listed
        if not lists:
            continue
        spreads = _spreads(lists)
        if term.compares == "distributions":
            warnings += _entropy_warnings(term, lists, spreads)
        if similarity == "cosine" and term.compares in ("scores", "margins"):
            warnings += _scale_warnings(term, spreads, np.concatenate(lists))
    for warning in warnings:
        logger.warning("%s", warning)
    return warnings


def _scored(lists: Iterable[np.ndarray]) -> list[np.ndarray]:
    """The scores of the lists with at least two."""
    scored = (row[~np.isnan(row)] for row in lists)
    return [row for row in scored if len(row) >= 2]


def _spreads(lists: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([float(row.max() - row.min()) for row in lists])


def _list_warnings(lists: Sequence[np.ndarray], mix: str) -> list[str]:
    """Check the scores of the lists of the runs."""
    if not lists:
        raise InputError(
            "the teacher scored fewer than two documents in every list of the first steps."
        )
    scores = np.concatenate(lists)
    if np.isinf(scores).any():
        raise InputError(
            f"{int(np.isinf(scores).sum())} of the first {len(scores)} teacher scores are infinite;"
            " the loss would be NaN. Write them as null (not scored), or score again."
        )
    if not _spreads(lists).any():
        raise InputError(
            "the teacher gives all documents of a query the same score, so there is nothing to"
            " learn. Look at the run with `irdistill runs stats`: was it scored with a teacher, and"
            " with enough digits?"
        )
    ends = float(np.mean((scores < 1e-3) | (scores > 1 - 1e-3)))
    if mix == "none" and scores.min() >= 0 and scores.max() <= 1 and ends > 0.5:
        return [
            f"the teacher scores are in [0, 1], and {ends:.0%} of them within 0.001 of the ends:"
            " they look like the output of a sigmoid, which loses their differences. Use the"
            " teacher's raw logits."
        ]
    return []


def check_scales(runs: Sequence[ListSource], lists: int = 256) -> list[str]:
    """Compare the spread of the scores of several runs, which a mean of raw scores depends on.

    Returns:
        A warning, which is also logged, if one run spreads three times as far as another.
    """
    spreads = []
    for run in runs:
        scores = [run.list(place)[1] for place in range(min(lists, len(run.query_ids)))]
        deviations = [float(np.nanstd(row)) for row in scores if (~np.isnan(row)).sum() > 1]
        spreads.append(float(np.median(deviations)) if deviations else 0.0)
    if max(spreads) <= 3 * min(spreads):
        return []
    text = ", ".join(f"{spread:.3g}" for spread in spreads)
    warning = (
        f"the scores of the runs spread by {text} within a list (standard deviation), and the mix"
        " is the mean of raw scores, so the widest decides. Mix with zscore, minmax or rrf."
    )
    logger.warning("%s", warning)
    return [warning]


def _entropy_warnings(loss: Loss, lists: Sequence[np.ndarray], spreads: np.ndarray) -> list[str]:
    """Near one-hot targets turn KL into a contrastive loss on the teacher's first document."""
    teacher_tau = float(getattr(loss, "teacher_tau", 1.0))
    shares = []
    for row in lists:
        logits = (row.astype(np.float64) - row.max()) / teacher_tau
        p = np.exp(logits) / np.exp(logits).sum()
        shares.append(float(-(p * np.log(np.maximum(p, 1e-300))).sum() / math.log(len(row))))
    mean = float(np.mean(shares))
    logger.info("teacher entropy at teacher_tau=%g: %.3f of the maximum", teacher_tau, mean)
    tau = float(f"{np.median(spreads) / 4:.2g}")
    if mean < 0.05 and tau > teacher_tau:
        problem = (
            f"almost one-hot (entropy {mean:.1%} of the maximum), so {loss} learns only its first"
            " choice"
        )
    elif mean > 0.99 and tau < teacher_tau:
        problem = (
            f"almost uniform (entropy {mean:.2%} of the maximum), so {loss} hardly learns an order"
        )
    else:
        return []
    return [
        f"at teacher_tau={teacher_tau:g} the teacher's distributions are {problem}. Try"
        f" teacher_tau={tau:g}."
    ]


def _scale_warnings(loss: Loss, spreads: np.ndarray, scores: np.ndarray) -> list[str]:
    """A cosine is at most 1, and a margin of cosines at most 2."""
    margin = loss.compares == "margins"
    factor = float(getattr(loss, "scale", 1.0))
    typical = float(np.median(spreads if margin else np.abs(scores)))
    limit = factor * (2 if margin else 1)
    what = "margins within a list" if margin else "scores"
    if typical <= limit:
        return []
    scale = float(f"{typical:.2g}")
    advice = (
        f"Write {loss.name}(scale={scale:g})."
        if hasattr(loss, "scale")
        else "Use a loss with a parameter scale, such as MarginMSE."
    )
    message = (
        f"the teacher's {what} are typically {typical:.3g}, and a cosine student with"
        f" scale={factor:g} reaches at most {limit:g}. {advice}"
    )
    if typical > 2 * limit:
        raise InputError(message)
    return [message]


def check_lists(
    loss: Loss,
    first: Sequence[ListBatch],
    student: Student,
    options: TrainOptions,
    in_batch: Sequence[np.ndarray] = (),
) -> list[str]:
    """Check the lists of the first steps, and their ``in_batch`` scores; returns warnings."""
    check_needs(
        loss,
        sum(int((batch.labels > 0).any(axis=1).sum()) for batch in first),
        sum(int((~np.isnan(batch.teacher)).sum()) for batch in first),
    )
    return check_teacher(loss, first, student.similarity, options.mix, in_batch)
