"""Agreement of judges: by hand, and as scikit-learn computes kappa."""

from __future__ import annotations

import numpy as np
import pytest

from irdistill.collections.judging import JudgeRecords, Judgment
from irdistill.evaluation.judging import compare_judges
from irdistill.evaluation.judging.judge_agreement import cohen_kappa


def records(**grades: dict[str, int | None]) -> JudgeRecords:
    return JudgeRecords(
        {"id": "pets"},
        {
            judge: {
                ("q", doc): Judgment(
                    "q",
                    doc,
                    "skipped" if grade is None else "judged",
                    grade,
                    judge,
                    f"2026-01-0{number}",
                )
                for number, (doc, grade) in enumerate(pairs.items(), 1)
            }
            for judge, pairs in grades.items()
        },
    )


def test_two_judges_by_hand() -> None:
    """In common: a, b, c, d. Relevant: anna a, b, c; ben a, b. Chance agreement is 3/4 * 2/4 +
    1/4 * 2/4 = 1/2, so kappa is (3/4 - 1/2) / (1 - 1/2) = 1/2. Distances of the grades are 0, 2, 1,
    0, their mean is 3/4; by chance it is (2+1+3+3 + 0+1+1+1 + 0+1+1+1 + 1+0+2+2) / 16 = 20/16.
    """
    compared = compare_judges(
        records(
            anna={"a": 3, "b": 1, "c": 1, "d": 0, "e": None, "f": 1},
            ben={"a": 3, "b": 3, "c": 0, "d": 0, "e": 1},
        )
    )
    anna, ben = compared.judges
    assert (anna.judged, anna.relevant, anna.skipped) == (5, 4, 1)
    assert (anna.first, anna.last, ben.judged) == ("2026-01-01", "2026-01-06", 5)
    [pair] = compared.agreements
    assert (pair.common, pair.agreed, pair.share, pair.kappa) == (4, 3, 0.75, 0.5)
    distances = [abs(x - y) for x in (3, 1, 1, 0) for y in (3, 3, 0, 0)]
    assert pair.same == 2 and pair.weighted_kappa == 1 - 0.75 / (sum(distances) / 16)
    assert [(it.doc_id, it.left, it.right) for it in pair.differing] == [("b", 1, 3), ("c", 1, 0)]
    text = compared.to_markdown()
    assert "anna and ben agree on 3 of 4 pairs (75.0%); Cohen's kappa is 0.500." in text
    assert "| anna and ben |         4 | 75.0% | 0.500 |          2 |" in text
    assert "| q     |        b |    1 |   3 |" in text


@pytest.mark.parametrize("seed", range(3))
def test_kappa_equals_scikit_learn(seed: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    random = np.random.default_rng(seed)
    first, second = random.integers(0, 4, 60), random.integers(0, 4, 60)
    levels = [0, 1, 2, 3]
    weighted = metrics.cohen_kappa_score(first, second, labels=levels, weights="linear")
    assert cohen_kappa(first, second) == pytest.approx(weighted, abs=1e-12)
    binary = metrics.cohen_kappa_score(first > 0, second > 0)
    assert cohen_kappa(first > 0, second > 0) == pytest.approx(binary, abs=1e-12)


def test_what_is_not_defined() -> None:
    [one_answer] = compare_judges(records(a={"x": 1, "y": 1}, b={"x": 1, "y": 1})).agreements
    assert (one_answer.share, one_answer.kappa) == (1.0, None)
    nothing = compare_judges(records(a={"x": 1}, b={"y": 1}))
    assert (nothing.agreements[0].common, nothing.agreements[0].share) == (0, None)
    assert "have no judged pair in common" in nothing.headline
    alone = compare_judges(records(a={"x": 1}))
    assert alone.agreements == () and "needs a second judge" in alone.to_markdown()
