"""What is wrong with the targets is said before the first step, not seen in a bad model after the
last.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from irdistill.errors import IrdistillError
from irdistill.losses import DACKL, KL, MSE, Loss, MarginMSE
from irdistill.runs.mixing import checked_weights
from irdistill.training.data.list_sampler import ListBatch
from irdistill.training.data.list_source import ListSource

if TYPE_CHECKING:
    from irdistill.students.base import Student
    from irdistill.training.options import TrainOptions

logger = logging.getLogger(__name__)
TEACHER_NEEDS = frozenset({"order", "score", "margin"})


def check_needs(loss: Loss, labelled_queries: int, scored_items: int) -> None:
    """Whether the data hold what the loss needs.

    Raises:
        IrdistillError: labels or teacher scores are missing.
    """
    if "label" in loss.needs and not labelled_queries:
        raise IrdistillError(
            f"the loss {loss} needs relevance labels, and the collection's qrels have none for the"
            " queries of this run. Use a split that has qrels, or a loss that needs only the"
            ' teacher: KL, MarginMSE(pairs="all"), InfoNCE(positive_by="teacher").'
        )
    if loss.needs & TEACHER_NEEDS and not scored_items:
        raise IrdistillError(
            f"the loss {loss} needs teacher scores, and the run holds only nulls. Score the"
            " candidates first with `irdistill score`."
        )


def check_student(loss: Loss, student: Student) -> None:
    """Whether the student gives the scores that the loss reads.

    Raises:
        IrdistillError: the loss reads each query's scores against the documents of the other lists,
            and the student would have to read every such pair.
    """
    for _, term in loss.terms:
        if term.uses_in_batch and "pair" in student.sides:
            raise IrdistillError(
                f"the loss {term} compares each query with the documents of the whole batch, and a"
                f" {student.kind} student "
                f'scores only the pairs of the lists. Write {term.name or "it"}(negatives="list")'
                " to use these alone, or "
                "choose another student."
            )


def check_penalties(options: TrainOptions, student: Student) -> None:
    """Whether penalties of sparse vectors go with the student.

    Raises:
        IrdistillError: they do not, or are for documents whose tower is frozen.
    """
    if options.has_penalties and student.kind != "sparse":
        raise IrdistillError(
            "weights of FLOPS, L1 or anti-zero, or active dimensions to aim at, were given for a"
            f" {student.kind} student; they are for a sparse one."
        )
    document_penalty = options.document_flops or options.document_l1 or options.document_active
    if document_penalty and not student.learns("document"):
        raise IrdistillError(
            "document_flops or document_l1, or document_active, was given, and the document tower"
            " is frozen; leave them out."
        )


def check_order(options: TrainOptions, loss: Loss, student: Student) -> None:
    """Whether a curriculum has teacher scores to go by, and clusters a model.

    Raises:
        IrdistillError: not so.
    """
    if options.curriculum != "none" and not loss.needs & TEACHER_NEEDS:
        logger.warning(
            "a curriculum goes by the teacher's scores, which the loss %s does not need; lists"
            " without come last",
            loss,
        )
    if options.clusters and not options.cluster_model and student.kind != "dense":
        raise IrdistillError(
            f"the queries are clustered by their vectors, and a {student.kind} student has not one"
            " of each; name a dense model, as"
            " cluster_model=sentence-transformers/all-MiniLM-L6-v2."
        )


def check_teachers(count: int, options: TrainOptions) -> None:
    """Whether weights or a gate fit the number of runs.

    Raises:
        IrdistillError: they do not.
    """
    if count == 1 and (
        options.mix != "none" or options.teacher_weights is not None or options.gate is not None
    ):
        raise IrdistillError(
            "one run was given, and a mix, teacher weights or a gate are for several; give more"
            " runs, or leave these out."
        )
    if options.mix != "none":
        options.mixing().for_teachers(count)
        return
    checked_weights(options.teacher_weights, count)
    if options.gate is not None and len(options.gate) != count:
        raise IrdistillError(
            f"the gate is for {len(options.gate)} teachers, and {count} runs were given."
        )


def check_head(rate: float | None, student: Student) -> None:
    """Whether the student has layers that a rate of their own is for.

    Raises:
        IrdistillError: it has none.
    """
    if rate is not None and not student.head:
        raise IrdistillError(
            f"head_learning_rate={rate} was given for a {student.kind} student, which has no head"
            " of its own."
        )


def check_dimensions(dims: Sequence[int], student: Student) -> None:
    """Whether vectors of the student can be cut to these dimensions; one that is left with
    untrained ones is warned of.

    Raises:
        IrdistillError: they cannot.
    """
    if not dims:
        return
    if student.kind != "dense":
        raise IrdistillError(
            f"matryoshka_dims were given for a {student.kind} student; they are for a dense one."
        )
    full: int = student.dimension
    if max(dims) > full:
        raise IrdistillError(
            f"matryoshka_dims has {max(dims)}, and the student's vectors have {full} dimensions."
        )
    if max(dims) < full:
        logger.warning(
            "the last %d of the %d dimensions are in no loss; search with %d or fewer, or add %d to"
            " matryoshka_dims",
            full - max(dims),
            full,
            max(dims),
            full,
        )


def check_teacher(
    loss: Loss, batches: Sequence[ListBatch], similarity: str, mix: str = "none"
) -> list[str]:
    """Look at the teacher scores of the first steps; return the warnings (which are logged as
    well).

    Args:
        mix: how the scores were mixed from several teachers; then they are no raw scores and may
            lie in [0, 1].

    Raises:
        IrdistillError: infinite scores, all scores the same, or margins that the student can never
            reach.
    """
    if not loss.needs & TEACHER_NEEDS:
        return []
    lists = [
        row[~np.isnan(row)] for batch in batches for teacher in batch.teacher for row in teacher
    ]
    lists = [row for row in lists if len(row) >= 2]
    warnings: list[str] = []
    if not lists:
        raise IrdistillError(
            "the teacher scored fewer than two documents in every list of the first steps."
        )
    scores = np.concatenate(lists)
    if np.isinf(scores).any():
        raise IrdistillError(
            f"{int(np.isinf(scores).sum())} of the first {len(scores)} teacher scores are infinite;"
            " the loss would be NaN. Write them as null (not scored), or score again."
        )
    spreads = np.array([float(row.max() - row.min()) for row in lists])
    if not spreads.any():
        raise IrdistillError(
            "the teacher gives all documents of a query the same score, so there is nothing to"
            " learn. Look at the run with `irdistill runs stats`; was it scored with a teacher, and"
            " at enough digits?"
        )
    ends = float(np.mean((scores < 1e-3) | (scores > 1 - 1e-3)))
    if mix == "none" and scores.min() >= 0 and scores.max() <= 1 and ends > 0.5:
        warnings.append(
            f"the teacher scores lie in [0, 1] and {ends:.0%} of them within 0.001 of the ends:"
            " they look like the output of a sigmoid, whose differences are lost. Use the"
            " teacher's raw logits."
        )
    for term in loss.basic_losses:
        if isinstance(term, KL | DACKL):
            warnings += _entropy(term, lists, spreads)
        if similarity == "cosine" and isinstance(term, MarginMSE | MSE):
            warnings += _reach(term, spreads, scores)
    for warning in warnings:
        logger.warning("%s", warning)
    return warnings


def check_scales(runs: Sequence[ListSource], lists: int = 256) -> list[str]:
    """Look at how far the scores of each of several runs spread within a list; a mean of raw scores
    adds them as they are.

    Returns:
        A warning (which is logged as well) where one spreads three times as far as another.
    """
    spreads = []
    for run in runs:
        held = (run.list(place)[1] for place in range(min(lists, len(run.query_ids))))
        found = [float(np.nanstd(scores)) for scores in held if (~np.isnan(scores)).sum() > 1]
        spreads.append(float(np.median(found)) if found else 0.0)
    if max(spreads) <= 3 * min(spreads):
        return []
    text = ", ".join(f"{spread:.3g}" for spread in spreads)
    warning = (
        f"the scores of the runs spread by {text} within a list (standard deviation), and the mix"
        " is the mean of raw scores, so the widest decides. Mix with zscore, minmax or rrf."
    )
    logger.warning("%s", warning)
    return [warning]


def _entropy(loss: KL | DACKL, lists: Sequence[np.ndarray], spreads: np.ndarray) -> list[str]:
    """Near one-hot targets turn KL into a contrastive loss on the teacher's first."""
    shares = []
    for row in lists:
        logits = (row.astype(np.float64) - row.max()) / loss.teacher_tau
        p = np.exp(logits) / np.exp(logits).sum()
        shares.append(float(-(p * np.log(np.maximum(p, 1e-300))).sum() / math.log(len(row))))
    mean = float(np.mean(shares))
    logger.info(
        "teacher entropy at teacher_tau=%g: %.3f of the most possible", loss.teacher_tau, mean
    )
    tau = float(f"{np.median(spreads) / 4:.2g}")
    if mean < 0.05 and tau > loss.teacher_tau:
        return [
            f"at teacher_tau={loss.teacher_tau:g} the teacher's distributions are almost one-hot "
            f"(entropy {mean:.1%} of the most possible), so {loss} learns only its first choice. "
            f"Try teacher_tau={tau:g}."
        ]
    if mean > 0.999:
        return [
            f"at teacher_tau={loss.teacher_tau:g} the teacher's distributions are almost uniform "
            f"(entropy {mean:.2%} of the most possible), so {loss} hardly learns an order. "
            f"Try teacher_tau={tau:g}."
        ]
    return []


def _reach(loss: MarginMSE | MSE, spreads: np.ndarray, scores: np.ndarray) -> list[str]:
    """A cosine ends at 1 and a margin of cosines at 2."""
    margin = isinstance(loss, MarginMSE)
    typical = float(np.median(spreads if margin else np.abs(scores)))
    limit = loss.scale * (2 if margin else 1)
    what = "margins within a list" if margin else "scores"
    if typical <= limit:
        return []
    scale = float(f"{typical:.2g}")
    message = (
        f"the teacher's {what} are typically {typical:.3g}, and a cosine student with"
        f" scale={loss.scale:g} reaches at most {limit:g}. Write {loss.name}(scale={scale:g})."
    )
    if typical > 2 * limit:
        raise IrdistillError(message)
    return [message]
