"""Candidate students ranked before training, by how near their scores are to the teacher's.

The idea is that of DisWOT (Dong, Li and Wei, CVPR 2023, arXiv:2303.15678): a network whose
similarities between samples are near to the teacher's before training learns more from it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from irdistill.collections import Collection
from irdistill.console.progress_bars import progress
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.reporting.findings import Finding, Table, plain
from irdistill.evaluation.reporting.rendering import Displayed
from irdistill.runs import Run
from irdistill.runs.named_passages import list_texts
from irdistill.storage.files import digest
from irdistill.students.build import build_student
from irdistill.students.student_base import Student
from irdistill.students.tower_model import TextKind

_BATCH = 64
_TIMED = 30
_HEADER = ("candidate", "distance", "correlation", "query layers", "query parameters", "ms a query")


@dataclass(frozen=True)
class RankedStudent:
    """A candidate, how near its untrained scores are to the teacher's, and what it costs.

    Attributes:
        distance: see `gram_distance`; the order of the candidates.
        correlation: mean over queries of Pearson's correlation of its scores with the teacher's.
        query_layers, query_parameters: layers and parameters that a query goes through.
        query_ms: median milliseconds that encoding one query takes on one thread.
    """

    candidate: str
    distance: float
    correlation: float
    query_layers: int
    query_parameters: int
    query_ms: float


@dataclass(frozen=True, repr=False)
class StudentRanking(Displayed):
    """Candidate students, the nearest to the teacher first.

    Attributes:
        queries, documents: number of lists, and of documents in each.
    """

    queries: int
    documents: int
    students: tuple[RankedStudent, ...]

    def findings(self) -> list[Finding]:
        """The table."""
        text = [
            f"Untrained students against the teacher, on {self.queries} queries with"
            f" {self.documents} documents each. Distance: between the matrices of similarities of"
            " lists, and of ranks (0: as the teacher). Correlation: mean of the lists."
        ]
        rows = [
            [
                student.candidate,
                f"{student.distance:.4f}",
                f"{student.correlation:.4f}",
                str(student.query_layers),
                f"{student.query_parameters:,}",
                f"{student.query_ms:.2f}",
            ]
            for student in self.students
        ]
        return [Finding("students", "Students", text, [Table(_HEADER, rows)])]

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision."""
        return plain(self)


def gram_distance(student: np.ndarray, teacher: np.ndarray) -> float:
    """How far two matrices of scores (Q, N) are from each other, whatever their scales.

    Row q has the scores of the query's documents, in the teacher's order. Each row is centered and
    scaled to length 1, F. The similarities of lists F F' (Q, Q) and of ranks F' F (N, N) are
    compared as in similarity-preserving distillation (arXiv:1907.09682): rows of length 1, then
    the mean of the squared distances of rows. The result is the sum of the two, from 0 to 8.

    Examples:
        >>> scores = np.array([[3.0, 2.0, 1.0], [9.0, 1.0, 0.0]])
        >>> gram_distance(5 * scores + 1, scores)
        0.0
        >>> round(gram_distance(scores[:, ::-1], scores), 4)
        1.2125
    """
    one, two = _standardized(student), _standardized(teacher)
    return _row_distance(one @ one.T, two @ two.T) + _row_distance(one.T @ one, two.T @ two)


def list_correlation(student: np.ndarray, teacher: np.ndarray) -> float:
    """Mean over the rows of Pearson's correlation of two matrices of scores (Q, N)."""
    return float((_standardized(student) * _standardized(teacher)).sum(axis=1).mean())


def _standardized(scores: np.ndarray) -> np.ndarray:
    return _unit_rows(scores - scores.mean(axis=1, keepdims=True))


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 1e-12, lengths, 1)


def _row_distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(((_unit_rows(one) - _unit_rows(two)) ** 2).sum(axis=1).mean())


@dataclass(frozen=True)
class _ComparedLists:
    """The lists that all candidates score.

    Attributes:
        queries, documents: texts; documents are all different.
        index: (Q, N) place of each list's documents, in the teacher's order.
        teacher: (Q, N) the teacher's scores.
    """

    queries: list[str]
    documents: list[str]
    index: torch.Tensor
    teacher: np.ndarray


def rank_students(
    collection: Collection,
    scores: Run,
    kind: str,
    backbone: str,
    candidates: Mapping[str, Mapping[str, Any]],
    queries: int = 32,
    documents: int = 7,
    seed: int = 42,
) -> StudentRanking:
    """Rank candidate students by `gram_distance` to the teacher's scores, before any training.

    Args:
        scores: a teacher's run; each list gives documents at equal distances of rank, from its
            first to its last. Lists with fewer scored documents are left out.
        kind: kind of the students, which must encode queries and documents.
        candidates: name -> options of the student, fields of `StudentOptions`.
        queries: most lists, drawn at random.
        documents: documents of each list.

    Raises:
        OptionError: there are no candidates, or an option does not fit.
        InputError: no list has enough scored documents.
    """
    if not candidates:
        raise OptionError("no candidates were given; give at least one, with options of train.")
    lists = _draw_lists(collection, scores, queries, documents, seed)
    encoded: dict[str, Any] = {}
    ranked = []
    with progress(len(candidates), "students", "rank") as bar:
        for name, options in candidates.items():
            student = build_student(kind, backbone, seed=seed, **options)
            student.model.eval()
            ranked.append(_measure(name, student, lists, encoded))
            bar.update(1)
    ranked.sort(key=lambda student: student.distance)
    return StudentRanking(len(lists.queries), documents, tuple(ranked))


def _draw_lists(
    collection: Collection, scores: Run, queries: int, documents: int, seed: int
) -> _ComparedLists:
    rows, texts, index = [], dict[str, int](), []
    chosen: list[str] = []
    order = np.random.default_rng(seed).permutation(len(scores.query_ids))
    for place in order.tolist():
        ranked = scores[scores.query_ids[place]]
        scored = np.flatnonzero(~np.isnan(ranked.scores))
        if len(scored) < documents:
            continue
        taken = ranked.take(scored[np.linspace(0, len(scored) - 1, documents).astype(int)].tolist())
        index.append(
            [texts.setdefault(text, len(texts)) for text in list_texts(collection.corpus, taken)]
        )
        rows.append(taken.scores)
        chosen.append(collection.queries[ranked.query_id].text)
        if len(chosen) == queries:
            break
    if not chosen:
        raise InputError(
            f"no query of {scores} has {documents} scored documents; give a smaller number of"
            " documents."
        )
    return _ComparedLists(chosen, list(texts), torch.tensor(index), np.array(rows, np.float64))


def _measure(
    name: str, student: Student, lists: _ComparedLists, encoded: dict[str, Any]
) -> RankedStudent:
    """The figures of a candidate.

    Args:
        encoded: documents by document tower, as candidates often share theirs.
    """
    tower = digest(student.tower_identity("document"))
    if tower not in encoded:
        encoded[tower] = _encode(student, lists.documents, "document")
    encoded_queries = _encode(student, lists.queries, "query")
    index = lists.index.to(student.device)
    values, _ = student.scores(encoded_queries, encoded[tower], index, every=False)
    matrix = values.double().cpu().numpy()
    size = student.size()
    return RankedStudent(
        name,
        gram_distance(matrix, lists.teacher),
        list_correlation(matrix, lists.teacher),
        size["query_layers"],
        size["query_parameters"],
        _query_ms(student, lists.queries),
    )


@torch.no_grad()
def _encode(student: Student, texts: Sequence[str], kind: TextKind) -> Any:
    """The encoded texts in their order, as `Student.join` returns them."""
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    batches = [by_length[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
    parts = [
        student.embed(student.tokenize([texts[place] for place in batch], kind), kind)
        for batch in batches
    ]
    return student.join(parts, torch.tensor(np.argsort(by_length), device=student.device))


def _query_ms(student: Student, queries: Sequence[str]) -> float:
    """Median milliseconds that encoding a query takes on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        seconds = []
        for query in queries[:_TIMED]:
            began = time.perf_counter()
            _encode(student, [query], "query")
            seconds.append(time.perf_counter() - began)
        return 1000 * float(np.median(seconds))
    finally:
        torch.set_num_threads(threads)
