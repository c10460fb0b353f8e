"""Temperatures and scales under which a teacher and a student are equally sharp before training
starts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.evaluation.auditing.sample import Scored

SHARP, FLAT, MIDDLE = 0.1, 0.9, 0.5
"""Between SHARP and FLAT of the most possible entropy a teacher's own distribution (teacher_tau =
1) is kept; outside the temperature is set so that it is MIDDLE.
"""
USUAL_TAU = 0.05
LISTS, DEPTH = 100, 100
"""The student scores so many lists at most, and of each so many documents, drawn at random."""


@dataclass(frozen=True)
class StudentScores:
    """What a student gives before training.

    Attributes:
        lists: query id -> the documents it scored, best first.
        similarity: ``cosine``, ``dot``, ``maxsim``, ``meanmaxsim``, or ``logit`` of one that reads
            pairs.
    """

    name: str
    similarity: str
    lists: Mapping[str, Scored]


@dataclass(frozen=True)
class Matching:
    """How sharp a teacher is over training lists, and the student's temperature and scale that fit
    it.

    Attributes:
        lists, list_size: training lists drawn, and documents in each at most.
        entropy_at_one: mean entropy of softmax(scores) in shares of the most possible, log of the
            list's length.
        teacher_tau: the temperature chosen (see SHARP); entropy: under it. None where every list is
            all ties.
        student_entropy: of softmax(student / tau); the same as ``entropy`` where ``tau`` was found.
        tau: divides the student's scores; None without a student, or where no temperature fits.
        scale: multiplies the student's scores so that its median absolute margin is the teacher's.
        teacher_margin, student_margin: those medians.
        unreachable: share of the teacher's margins that are larger than any two cosines' (2), at
            scale 1; None for a student that does not compare by cosine.
        unreachable_scaled: the same at ``scale``.
    """

    lists: int
    list_size: int
    entropy_at_one: float | None
    teacher_tau: float | None
    entropy: float | None
    student: str | None = None
    similarity: str | None = None
    tau: float | None = None
    student_entropy: float | None = None
    scale: float | None = None
    teacher_margin: float | None = None
    student_margin: float | None = None
    unreachable: float | None = None
    unreachable_scaled: float | None = None


def student_scores(
    collection: Collection,
    lists: Mapping[str, Mapping[str, Scored]],
    model: str,
    seed: int,
    kind: str | None = None,
    trust_remote_code: bool = False,
) -> StudentScores:
    """Score a sample of the teachers' pairs with an untrained student; only their documents are
    encoded.

    Args:
        lists: teacher -> query id -> list; a query's documents are those of all teachers.
        model: of any kind; a plain encoder is a dense student.
        kind: how it is read; detected from its files where None.

    Raises:
        IrdistillError: the model cannot be loaded, or the teachers scored nothing.
    """
    random = np.random.default_rng(seed)
    documents: dict[str, list[str]] = {}
    for own in lists.values():
        for query, found in own.items():
            documents.setdefault(query, []).extend(found.doc_ids)
    queries = [query for query, docs in documents.items() if len(set(docs)) >= 2]
    if not queries:
        raise IrdistillError(
            "no query has two scored documents, so there is nothing to compare the student with."
        )
    if len(queries) > LISTS:
        queries = [
            queries[place]
            for place in sorted(random.choice(len(queries), LISTS, replace=False).tolist())
        ]
    drawn = {}
    for query in queries:
        docs = sorted(set(documents[query]))
        drawn[query] = (
            docs
            if len(docs) <= DEPTH
            else [docs[place] for place in random.choice(len(docs), DEPTH, replace=False)]
        )
    similarity, values = _student_values(collection, drawn, model, kind, trust_remote_code)
    result = {}
    for query, scores in values.items():
        order = np.argsort(-scores, kind="stable")
        result[query] = Scored(
            query, [drawn[query][place] for place in order.tolist()], scores[order]
        )
    return StudentScores(str(model), similarity, result)


def _student_values(
    collection: Collection,
    drawn: Mapping[str, Sequence[str]],
    model: str,
    kind: str | None,
    trust_remote_code: bool,
) -> tuple[str, dict[str, np.ndarray]]:
    """The student's similarity, and its float64 scores of the documents drawn for each query."""
    from irdistill.students import DenseStudent
    from irdistill.students.model_kinds import retriever_type
    from irdistill.teachers import TextPair, load_teacher, score_pairs
    from irdistill.teachers.teacher_kinds import kind_of

    wanted = sorted({doc for docs in drawn.values() for doc in docs})
    rows = collection.corpus.rows(wanted)
    texts = dict(zip(wanted, collection.corpus.texts(rows), strict=True))
    if kind == "dense" or (
        kind is None and kind_of(model) == "retriever" and retriever_type(model) == "dense"
    ):
        student = DenseStudent.load(model, trust_remote_code=trust_remote_code)
        cosine = student.similarity == "cosine"
        vectors = dict(
            zip(
                wanted,
                student.encode(list(texts.values()), "document", normalize=cosine),
                strict=True,
            )
        )
        asked = student.encode(
            [collection.queries[query].text for query in drawn], "query", normalize=cosine
        )
        return student.similarity, {
            query: (np.stack([vectors[doc] for doc in docs]) @ vector).astype(np.float64)
            for (query, docs), vector in zip(drawn.items(), asked, strict=True)
        }
    # any other scores pairs as a teacher of its kind does, which encodes no more than their texts
    trusted: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    teacher: Any = load_teacher(model, collection.corpus, kind=kind, **trusted)
    numbers = dict(zip(wanted, rows.tolist(), strict=True))
    pairs = [
        TextPair(collection.queries[query], numbers[doc], texts[doc])
        for query, docs in drawn.items()
        for doc in docs
    ]
    found = score_pairs(teacher, pairs)[0].values.astype(np.float64)
    ends = np.cumsum([len(docs) for docs in drawn.values()])
    return str(teacher.identity.get("similarity", "logit")), dict(
        zip(drawn, np.split(found, ends[:-1]), strict=True)
    )


def match(
    lists: Mapping[str, Scored],
    student: StudentScores | None,
    qrels: Mapping[str, Mapping[str, int]],
    list_size: int,
    seed: int,
    relevant_from: int = 1,
) -> Matching:
    """Solve for the temperatures and the scale on lists such as training draws.

    A list is ``list_size`` documents of the teacher's, one of them of grade ``relevant_from`` or
    above where any is, the others at random. With a student, only documents that both scored take
    part.
    """
    teacher, other = _training_lists(lists, student, qrels, list_size, seed, relevant_from)
    if not teacher:
        return Matching(0, list_size, None, None, None)
    at_one = entropy(teacher, 1.0)
    tau = 1.0 if at_one is None or SHARP <= at_one <= FLAT else solve(teacher, MIDDLE)
    teacher_tau = rounded(tau) if tau is not None and at_one is not None else None
    reached = entropy(teacher, teacher_tau) if teacher_tau is not None else None
    if student is None:
        return Matching(len(teacher), list_size, at_one, teacher_tau, reached)
    own_tau = solve(other, reached) if reached is not None else None
    fitted = rounded(own_tau) if own_tau is not None else None
    ours, theirs = _gaps(teacher), _gaps(other)
    middle, student_middle = float(np.median(ours)), float(np.median(theirs))
    scale = rounded(middle / student_middle) if middle > 0 and student_middle > 0 else None
    cosine = student.similarity == "cosine"
    return Matching(
        len(teacher),
        list_size,
        at_one,
        teacher_tau,
        reached,
        student.name,
        student.similarity,
        fitted,
        entropy(other, fitted) if fitted is not None else None,
        scale,
        middle,
        student_middle,
        float(np.mean(ours > 2)) if cosine else None,
        float(np.mean(ours > 2 * scale)) if cosine and scale is not None else None,
    )


def _training_lists(
    lists: Mapping[str, Scored],
    student: StudentScores | None,
    qrels: Mapping[str, Mapping[str, int]],
    list_size: int,
    seed: int,
    relevant_from: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    random = np.random.default_rng(seed)
    teacher, other = [], []
    for query, found in lists.items():
        given = (
            student.lists[query].to_dict()
            if student is not None and query in student.lists
            else None
        )
        if student is not None and given is None:
            continue
        own = found.only(given) if given is not None else found
        if len(own.doc_ids) < 2:
            continue
        grades = qrels.get(query, {})
        relevant = np.flatnonzero([grades.get(doc, 0) >= relevant_from for doc in own.doc_ids])
        first = random.choice(relevant, 1) if len(relevant) else np.empty(0, np.int64)
        rest = np.setdiff1d(np.arange(len(own.doc_ids)), relevant)
        if not len(rest):
            continue
        rest = random.choice(rest, min(len(rest), list_size - len(first)), replace=False)
        places = np.concatenate([first, rest]).astype(np.int64)
        if len(places) < 2:
            continue
        teacher.append(own.scores[places])
        if given is not None:
            other.append(np.array([given[own.doc_ids[place]] for place in places.tolist()]))
    return teacher, other


def entropy(lists: Sequence[np.ndarray], tau: float) -> float | None:
    """Mean entropy of softmax(scores / tau), each list's in shares of the log of its length; None
    where all are all ties.
    """
    if all(np.ptp(scores) == 0 for scores in lists):
        return None
    shares = []
    for scores in lists:
        logits = (scores - scores.max()) / tau
        weights = np.exp(logits)
        total = weights.sum()
        shares.append(
            (math.log(total) - float((weights * logits).sum() / total)) / math.log(len(scores))
        )
    return float(np.mean(shares))


def solve(lists: Sequence[np.ndarray], target: float) -> float | None:
    """The temperature at which the mean entropy is ``target``; it grows with the temperature, so
    there is at most one.

    Returns:
        None where ties at the top keep the entropy above the target at any temperature, or all
        lists are all ties.
    """
    from scipy.optimize import brentq

    width = float(np.median([np.ptp(scores) for scores in lists if np.ptp(scores) > 0] or [0.0]))
    if width == 0:
        return None

    def excess(power: float) -> float:
        return (entropy(lists, width * math.exp(power)) or 0.0) - target

    low, high = -14.0, 14.0
    if excess(low) > 0 or excess(high) < 0:
        return None
    return width * math.exp(float(brentq(excess, low, high, xtol=1e-9)))


def rounded(value: float) -> float:
    """To two digits, as people write it."""
    return float(f"{value:.2g}")


def _gaps(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Absolute differences of every two scores of a list."""
    return np.concatenate(
        [
            np.abs(scores[:, None] - scores[None, :])[np.triu_indices(len(scores), 1)]
            for scores in lists
        ]
    )
