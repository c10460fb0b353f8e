"""Temperatures and scales at which teacher and student are equally sharp before training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from irdistill.collections import Collection
from irdistill.collections.split_collections import passage_view
from irdistill.errors import InputError
from irdistill.evaluation.auditing.query_sample import Grades, Lists, ScoredList

SHARP, FLAT, MIDDLE = 0.1, 0.9, 0.5
"""teacher_tau stays 1 while the teacher's entropy, as a share of the maximum, is between SHARP and
FLAT; otherwise it is set so that the entropy is MIDDLE.
"""
USUAL_TAU = 0.05
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Temperatures that are shown, as factors of the one that fits."""
LISTS, DOCUMENTS = 100, 100
"""The student scores at most LISTS lists of DOCUMENTS documents each, drawn at random."""


@dataclass(frozen=True)
class StudentScores:
    """The scores of a student before training.

    Attributes:
        similarity: ``cosine``, ``dot``, ``maxsim``, ``meanmaxsim``, or ``logit`` of a model that
            reads pairs.
        lists: query id -> the documents it scored, best first.
    """

    name: str
    similarity: str
    lists: Lists


@dataclass(frozen=True)
class Sharpness:
    """What is left of a teacher's scores at one temperature: softmax(scores / tau).

    Attributes:
        entropy: mean entropy, as a share of the maximum.
        documents: mean number of documents that share the weight: exp(entropy).
        best: mean weight of the best document.
    """

    tau: float
    entropy: float
    documents: float
    best: float


@dataclass(frozen=True)
class Matching:
    """How sharp a teacher is on training lists, and the student's temperature and scale to fit it.

    Attributes:
        lists, list_size: number of training lists drawn, and most documents in each.
        entropy_at_one: mean entropy of softmax(scores), as a share of the maximum.
        teacher_tau: the temperature chosen (see SHARP); None where every list is all ties.
        entropy: entropy at that temperature.
        tau: divides the student's scores; None without a student, or where no temperature fits.
        student_entropy: entropy of softmax(student / tau); close to ``entropy``.
        scale: multiplies the student's scores so that its median absolute margin is the teacher's.
        teacher_margin, student_margin: those medians.
        unreachable: share of the teacher's margins above 2, the largest of two cosines; None for a
            student that does not compare by cosine.
        unreachable_scaled: the same with the student's margins times ``scale``.
        sharpness: the teacher's distributions at 1, ``teacher_tau``, and temperatures around it.
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
    sharpness: tuple[Sharpness, ...] = ()


def score_with_student(
    collection: Collection,
    lists: Mapping[str, Lists],
    model: str,
    seed: int,
    kind: str | None = None,
    trust_remote_code: bool = False,
) -> StudentScores:
    """Score a sample of the teachers' pairs with an untrained student.

    Args:
        lists: teacher -> query id -> list.
        model: a model of any kind; a plain encoder is a dense student.
    """
    random = np.random.default_rng(seed)
    documents: dict[str, set[str]] = {}
    for teacher_lists in lists.values():
        for query, ranked in teacher_lists.items():
            documents.setdefault(query, set()).update(ranked.doc_ids)
    queries = [query for query, docs in documents.items() if len(docs) >= 2]
    if not queries:
        raise InputError(
            "no query has two scored documents, so there is nothing to compare the student with."
        )
    if len(queries) > LISTS:
        places = sorted(random.choice(len(queries), LISTS, replace=False).tolist())
        queries = [queries[place] for place in places]
    drawn = {}
    for query in queries:
        docs = sorted(documents[query])
        if len(docs) > DOCUMENTS:
            docs = [docs[place] for place in random.choice(len(docs), DOCUMENTS, replace=False)]
        drawn[query] = docs
    similarity, values = _student_values(collection, drawn, model, kind, trust_remote_code)
    result = {}
    for query, scores in values.items():
        order = np.argsort(-scores, kind="stable")
        docs = [drawn[query][place] for place in order.tolist()]
        result[query] = ScoredList(query, docs, scores[order])
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
    from irdistill.students.model_kinds import describe_model
    from irdistill.teachers import TextPair, load_teacher, score_pairs
    from irdistill.teachers.teacher_kinds import kind_of

    if collection.corpus.passages is not None:
        return _passage_values(collection, drawn, model, kind, trust_remote_code)
    doc_ids = sorted({doc for docs in drawn.values() for doc in docs})
    rows = collection.corpus.rows(doc_ids)
    texts = dict(zip(doc_ids, collection.corpus.texts(rows), strict=True))
    if kind == "dense" or (
        kind is None
        and kind_of(model) == "retriever"
        and describe_model(model).retriever_type == "dense"
    ):
        student = DenseStudent.load(model, trust_remote_code=trust_remote_code)
        cosine = student.similarity == "cosine"
        encoded = student.encode(list(texts.values()), "document", normalize=cosine)
        vectors = dict(zip(doc_ids, encoded, strict=True))
        queries = [collection.queries[query].text for query in drawn]
        query_vectors = student.encode(queries, "query", normalize=cosine)
        return student.similarity, {
            query: (np.stack([vectors[doc] for doc in docs]) @ vector).astype(np.float64)
            for (query, docs), vector in zip(drawn.items(), query_vectors, strict=True)
        }
    # other kinds score pairs as a teacher does, which encodes only their texts
    trusted: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    teacher: Any = load_teacher(model, collection.corpus, kind=kind, **trusted)
    numbers = dict(zip(doc_ids, rows.tolist(), strict=True))
    pairs = [
        TextPair(collection.queries[query], numbers[doc], texts[doc])
        for query, docs in drawn.items()
        for doc in docs
    ]
    scores = score_pairs(teacher, pairs)[0].values.astype(np.float64)
    ends = np.cumsum([len(docs) for docs in drawn.values()])
    similarity = str(teacher.identity.get("similarity", "logit"))
    return similarity, dict(zip(drawn, np.split(scores, ends[:-1]), strict=True))


def _passage_values(
    collection: Collection,
    drawn: Mapping[str, Sequence[str]],
    model: str,
    kind: str | None,
    trust_remote_code: bool,
) -> tuple[str, dict[str, np.ndarray]]:
    """As `_student_values`, for documents that are split: the scores of their best passages."""
    passages = collection.corpus.passages
    assert passages is not None
    rows = {query: collection.corpus.rows(docs) for query, docs in drawn.items()}
    read = {query: passages.corpus.ids_at(passages.all_of(some)) for query, some in rows.items()}
    similarity, values = _student_values(
        passage_view(collection), read, model, kind, trust_remote_code
    )
    return similarity, {
        query: np.maximum.reduceat(
            values[query], np.cumsum(passages.counts(some)) - passages.counts(some)
        )
        for query, some in rows.items()
    }


def match_temperatures(
    lists: Lists,
    student: StudentScores | None,
    qrels: Grades,
    list_size: int,
    seed: int,
    relevant_from: int = 1,
) -> Matching:
    """Solve for the temperatures and the scale on lists such as training draws.

    A list has ``list_size`` documents of the teacher's: one of grade ``relevant_from`` or above if
    there is any, the others at random. With a student, only documents that both scored count.
    """
    teacher, other = _training_lists(lists, student, qrels, list_size, seed, relevant_from)
    if not teacher:
        return Matching(0, list_size, None, None, None)
    at_one = entropy(teacher, 1.0)
    tau = 1.0 if at_one is None or SHARP <= at_one <= FLAT else solve(teacher, MIDDLE)
    teacher_tau = rounded(tau) if tau is not None and at_one is not None else None
    reached = entropy(teacher, teacher_tau) if teacher_tau is not None else None
    sharpness = measure_sharpness(teacher, teacher_tau)
    if student is None:
        return Matching(len(teacher), list_size, at_one, teacher_tau, reached, sharpness=sharpness)
    student_tau = solve(other, reached) if reached is not None else None
    fitted = rounded(student_tau) if student_tau is not None else None
    margins, student_margins = _margins(teacher), _margins(other)
    median, student_median = float(np.median(margins)), float(np.median(student_margins))
    scale = rounded(median / student_median) if median > 0 and student_median > 0 else None
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
        median,
        student_median,
        float(np.mean(margins > 2)) if cosine else None,
        float(np.mean(margins > 2 * scale)) if cosine and scale is not None else None,
        sharpness,
    )


def _training_lists(
    lists: Lists,
    student: StudentScores | None,
    qrels: Grades,
    list_size: int,
    seed: int,
    relevant_from: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The teacher's scores of each list, and the student's, which is empty without a student."""
    random = np.random.default_rng(seed)
    teacher, other = [], []
    for query, ranked in lists.items():
        student_scores: Mapping[str, float] = {}
        if student is not None:
            if query not in student.lists:
                continue
            student_scores = student.lists[query].to_dict()
            ranked = ranked.only(student_scores)
        if len(ranked.doc_ids) < 2:
            continue
        relevant = np.flatnonzero(ranked.relevant(qrels.get(query, {}), relevant_from))
        first = random.choice(relevant, 1) if len(relevant) else np.empty(0, np.int64)
        rest = np.setdiff1d(np.arange(len(ranked.doc_ids)), relevant)
        if not len(rest):
            continue
        rest = random.choice(rest, min(len(rest), list_size - len(first)), replace=False)
        places = np.concatenate([first, rest]).astype(np.int64)
        if len(places) < 2:
            continue
        teacher.append(ranked.scores[places])
        if student is not None:
            docs = [ranked.doc_ids[place] for place in places.tolist()]
            other.append(np.array([student_scores[doc] for doc in docs]))
    return teacher, other


def entropy(lists: Sequence[np.ndarray], tau: float) -> float | None:
    """Mean entropy of softmax(scores / tau), as a share of the log of each list's length.

    None if all lists are all ties.
    """
    if all(np.ptp(scores) == 0 for scores in lists):
        return None
    shares = []
    for scores in lists:
        logits = (scores - scores.max()) / tau
        weights = np.exp(logits)
        total = weights.sum()
        value = math.log(total) - float((weights * logits).sum() / total)
        shares.append(value / math.log(len(scores)))
    return float(np.mean(shares))


def measure_sharpness(
    lists: Sequence[np.ndarray], teacher_tau: float | None
) -> tuple[Sharpness, ...]:
    """The distributions at temperature 1, and at ``teacher_tau`` times each of FACTORS.

    Examples:
        >>> [row.documents for row in measure_sharpness([np.array([1.0, 1.0, -1e9])], None)]
        [2.0]
    """
    rows = []
    for tau in sorted({1.0, *(rounded((teacher_tau or 1.0) * factor) for factor in FACTORS)}):
        share = entropy(lists, tau)
        if share is None or (teacher_tau is None and tau != 1):
            continue
        weights = [np.exp((scores - scores.max()) / tau) for scores in lists]
        weights = [row / row.sum() for row in weights]
        effective = [math.exp(-float((row * np.log(row + (row == 0))).sum())) for row in weights]
        best = [float(row.max()) for row in weights]
        rows.append(Sharpness(tau, share, float(np.mean(effective)), float(np.mean(best))))
    return tuple(rows)


def solve(lists: Sequence[np.ndarray], target: float) -> float | None:
    """The temperature at which the mean entropy, which grows with it, is ``target``.

    Returns:
        None if ties at the top keep the entropy above the target at any temperature, or if all
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
    """The value to two significant digits."""
    return float(f"{value:.2g}")


def _margins(lists: Sequence[np.ndarray]) -> np.ndarray:
    """Absolute differences of every two scores of a list."""
    return np.concatenate(
        [
            np.abs(scores[:, None] - scores[None, :])[np.triu_indices(len(scores), 1)]
            for scores in lists
        ]
    )
