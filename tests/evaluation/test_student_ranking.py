"""Ranking of untrained students: the distance by hand, and the teacher itself comes first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

import irdistill as ird
from irdistill.collections import Collection
from irdistill.errors import InputError, OptionError
from irdistill.evaluation.student_ranking import gram_distance, list_correlation
from irdistill.runs import Run, as_run
from irdistill.students import DenseStudent
from tests.students.tiny import tiny_backbone

WORDS = ["the", "cat", "sat", "a", "big", "dog", "bird", "in", "air", "flow", "heat", "wave"]


def collection() -> Collection:
    draw = np.random.default_rng(0)

    def texts(letter: str, count: int) -> dict[str, str]:
        return {f"{letter}{n}": " ".join(draw.choice(WORDS, 5)) for n in range(count)}

    return Collection.from_dicts("demo", texts("d", 20), texts("q", 12), {})


def teacher_run(model: DenseStudent, demo: Collection, unscored: int = 0) -> Run:
    """The scores of a model, the last documents of each query without one."""
    documents = model.encode(demo.corpus.texts(range(20)), normalize=True)
    run = {}
    for query in demo.queries.values():
        values = documents @ model.encode([query.text], "query", normalize=True)[0]
        values[20 - unscored :] = np.nan
        run[query.id] = {f"d{n}": float(values[n]) for n in range(20)}
    return as_run(run, demo)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_backbone(tmp_path_factory.mktemp("bert")))


def test_distance_by_hand() -> None:
    # F of the teacher: (1, 0, -1) / sqrt(2) twice; of the student the second row is (-1, 2, -1) / sqrt(6)
    teacher = np.array([[3.0, 2.0, 1.0], [9.0, 8.0, 7.0]])
    student = np.array([[3.0, 2.0, 1.0], [1.0, 4.0, 1.0]])
    lists = 2 - 2 / np.sqrt(2)  # rows (1, 0) and (0, 1) against (1, 1) / sqrt(2)
    # ranks: student F'F = [[4, -2, -2], [-2, 4, -2], [-2, -2, 4]] / 6, teacher F'F = [[1, 0, -1], 0, [-1, 0, 1]]
    outer = 2 - 2 * (4 + 2) / (np.sqrt(24) * np.sqrt(2))
    ranks = (outer + 1 + outer) / 3  # the middle row of the teacher is 0
    assert gram_distance(student, teacher) == pytest.approx(lists + ranks)


def test_scales_and_offsets_of_lists_change_nothing() -> None:
    draw = np.random.default_rng(0)
    student, teacher = draw.normal(size=(6, 5)), draw.normal(size=(6, 5))
    scaled = student * draw.uniform(1, 9, (6, 1)) + draw.normal(size=(6, 1))
    assert gram_distance(scaled, teacher) == pytest.approx(gram_distance(student, teacher))
    assert gram_distance(scaled, student) == pytest.approx(0, abs=1e-12)
    assert list_correlation(scaled, teacher) == pytest.approx(
        np.mean([pearsonr(*rows).statistic for rows in zip(student, teacher, strict=True)])
    )
    assert list_correlation(np.ones((6, 5)), teacher) == 0


def test_the_teacher_comes_first(bert: str) -> None:
    demo = collection()
    run = teacher_run(DenseStudent(bert), demo)
    candidates = {
        "first": {"query_layers": [0]},
        "all": {"freeze_documents": True},
        "cut documents": {"layers": 1},
    }
    threads = torch.get_num_threads()
    ranking = ird.rank_students(demo, run, candidates, backbone=bert, queries=10, documents=6)
    assert torch.get_num_threads() == threads
    assert (ranking.queries, ranking.documents) == (10, 6)
    best, *others = ranking.students
    assert best.candidate == "all" and {other.candidate for other in others} == {
        "first",
        "cut documents",
    }
    assert best.distance == pytest.approx(0, abs=1e-4)
    assert best.correlation == pytest.approx(1, abs=1e-4)
    assert 0 < others[0].distance <= others[1].distance
    assert all(other.correlation < 1 for other in others)
    layers = {student.candidate: student.query_layers for student in ranking.students}
    assert layers["all"] > 1 == layers["first"] == layers["cut documents"]
    assert all(student.query_ms > 0 for student in ranking.students)
    rows = ranking.to_markdown().splitlines()
    assert [cell.strip() for cell in rows[-3].split("|")[1:4]] == ["all", "0.0000", "1.0000"]


@pytest.mark.parametrize("kind", ["sparse", "late-interaction"])
def test_other_kinds(bert: str, kind: str) -> None:
    demo = collection()
    run = teacher_run(DenseStudent(bert), demo)
    ranking = ird.rank_students(
        demo, run, {"one": {"layers": 1}}, backbone=bert, student=kind, queries=4, documents=5
    )
    assert -1 <= ranking.students[0].correlation <= 1


def test_lists_have_scored_documents_only(bert: str) -> None:
    demo = collection()
    run = teacher_run(DenseStudent(bert), demo, unscored=4)
    rank = {"backbone": bert, "candidates": {"all": {"freeze_documents": True}}}
    ranking = ird.rank_students(demo, run, documents=16, **rank)
    assert (ranking.queries, ranking.documents) == (12, 16)
    assert ranking.students[0].correlation == pytest.approx(1, abs=1e-4)
    with pytest.raises(InputError, match=r"no query of .* has 17 scored documents"):
        ird.rank_students(demo, run, documents=17, **rank)


def test_wrong_candidates(bert: str) -> None:
    demo = collection()
    run = teacher_run(DenseStudent(bert), demo)
    with pytest.raises(OptionError, match="no candidates"):
        ird.rank_students(demo, run, {}, backbone=bert)
    with pytest.raises(OptionError, match="layer"):
        ird.rank_students(demo, run, {"a": {"layer": 1}}, backbone=bert)
