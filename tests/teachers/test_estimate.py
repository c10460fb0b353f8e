"""Cost estimates, against teachers with known costs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Collection
from irdistill.runs import MemoryRun, RankedList, RunIdentity, write_run
from irdistill.teachers import (
    BM25Teacher,
    EstimateOptions,
    ScoreOptions,
    TeacherScores,
    TextPair,
    estimate_cost,
    score,
)
from irdistill.teachers.cost_estimate import CostEstimate, EstimatedValue, scale_up
from irdistill.teachers.protocol import PartialOrder

DOCS = {f"d{n:03}": f"text {n} " + "word " * (n % 7) for n in range(300)}
QUERIES = {f"q{n:03}": f"question {n}" for n in range(200)}


def collection() -> Collection:
    return Collection.from_dicts("small", DOCS, QUERIES, {})


def candidates(data: Collection) -> MemoryRun:
    """Even queries have 10 documents, odd ones 30: 4000 pairs."""
    names = list(DOCS)
    lists = [
        RankedList(
            query,
            [names[(place * 7 + n) % 300] for n in range(30 if place % 2 else 10)],
            np.arange(30 if place % 2 else 10, 0, -1, dtype=np.float32),
        )
        for place, query in enumerate(QUERIES)
    ]
    return MemoryRun(RunIdentity("first-stage", {"model": "made up"}, data.describe()), lists)


class Priced:
    """Each pair takes 100 tokens and costs 0.002; a pair of a document of number 0 modulo 10 has no
    score.
    """

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "priced"}

    def __init__(self) -> None:
        self.queries: set[str] = set()
        self.most = 0

    def score(self, pairs: Sequence[TextPair]) -> TeacherScores:
        part = {pair.query.id for pair in pairs}
        self.queries |= part
        self.most = max(self.most, len(part))
        values = np.array(
            [np.nan if pair.row % 10 == 0 else pair.row for pair in pairs], np.float32
        )
        flags = ["refused" if np.isnan(value) else None for value in values.tolist()]
        return TeacherScores(
            values, flags, {"tokens": 100.0 * len(pairs), "cost": 0.002 * len(pairs)}
        )


class Lister:
    """Each list takes 3 requests, whatever its length; lists of 30 documents cost 0.04, those of 10
    cost 0.02.
    """

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "lister"}

    def rank(self, lists: Sequence[Sequence[TextPair]]) -> list[PartialOrder]:
        return [
            PartialOrder(
                list(range(len(part))),
                [None] * len(part),
                usage={"requests": 3, "cost": 0.04 if len(part) == 30 else 0.02},
            )
            for part in lists
        ]


def test_constant_costs_are_estimated_exactly() -> None:
    data = collection()
    teacher = Priced()
    estimated = estimate_cost(
        data, candidates(data), teacher, estimate=EstimateOptions(sample=0.05, hourly_price=3.0)
    )
    assert (estimated.queries, estimated.sampled, estimated.pairs) == (200, 10, 4000)
    assert len(teacher.queries) == 10 and teacher.most == 1
    assert estimated.figures["tokens"] == pytest.approx((400_000, 400_000, 400_000))
    assert estimated.figures["cost"] == pytest.approx((8.0, 8.0, 8.0))
    unscored = estimated.figures["unscored"]
    assert (
        unscored.low is not None
        and unscored.high is not None
        and unscored.low <= 400 <= unscored.high
    )
    hours = estimated.figures["hours"]
    assert hours.value > 0 and estimated.figures["machine_cost"].value == pytest.approx(
        3 * hours.value
    )
    assert estimated.to_json()["cost"]["value"] == pytest.approx(8.0)
    shown = estimated.lines()
    assert (
        shown["sample"] == "10 of 200 queries"
        and shown["pairs"] == "4,000"
        and shown["tokens"] == "400,000"
    )
    assert shown["loading"] == "0.0 seconds more, once per worker"


def test_k_limits_the_pairs_and_the_seed_determines_the_sample() -> None:
    data = collection()
    one, same, other = Priced(), Priced(), Priced()
    assert (
        estimate_cost(data, candidates(data), one, ScoreOptions(k=20)).pairs == 100 * 10 + 100 * 20
    )
    estimate_cost(data, candidates(data), same)
    estimate_cost(data, candidates(data), other, estimate=EstimateOptions(seed=1))
    assert one.queries == same.queries != other.queries and len(one.queries) == 5


def test_lists_are_the_unit_of_a_listwise_teacher() -> None:
    data = collection()
    estimated = estimate_cost(
        data, candidates(data), Lister(), estimate=EstimateOptions(sample=0.5)
    )
    assert estimated.figures["requests"] == pytest.approx((600, 600, 600))
    cost = estimated.figures["cost"]
    assert cost.low is not None and cost.high is not None and cost.low < cost.value < cost.high
    assert cost.low <= 6.0 <= cost.high and cost.value == pytest.approx(6.0, rel=0.1)
    whole = estimate_cost(
        data, candidates(data), Lister(), estimate=EstimateOptions(sample=1.0)
    ).figures["cost"]
    assert whole == pytest.approx((6.0, 6.0, 6.0))


def test_the_interval_by_hand() -> None:
    # ratio 2 a unit; residuals -1, 1, 0, so s^2 = 1; t(0.975, 2) = 4.302653; error sqrt(1/3)/2 a
    # unit
    estimated = scale_up(np.array([2.0, 2.0, 2.0]), np.array([3.0, 5.0, 4.0]), 100, 0.0)
    reach = 4.302652729911275 * np.sqrt(1 / 3) / 2 * 100
    assert estimated == pytest.approx((200.0, 200.0 - reach, 200.0 + reach))
    quarter = scale_up(np.array([2.0, 2.0, 2.0]), np.array([3.0, 5.0, 4.0]), 100, 0.75)
    assert quarter == pytest.approx((200.0, 200.0 - reach / 2, 200.0 + reach / 2))
    assert scale_up(np.array([4.0]), np.array([2.0]), 10, 0.1) == EstimatedValue(5.0)
    assert scale_up(np.array([0.0]), np.array([0.0]), 10, 0.1) == EstimatedValue(0.0)


@pytest.mark.parametrize(
    ("hours", "shown"),
    [
        (1234.56, "1,234.6 hours  (1,000.0 hours to 1,500.0 hours)"),
        (0.5, "30.0 minutes"),
        (0.01, "36 seconds"),
    ],
)
def test_hours_are_shown_in_a_unit_that_fits(hours: float, shown: str) -> None:
    figure = EstimatedValue(hours, 1000.0, 1500.0) if hours > 1 else EstimatedValue(hours)
    assert CostEstimate(200, 10, 4000, 0.0, {"hours": figure}).lines()["time"] == shown


def test_bytes_are_those_of_the_run(tmp_path: Path) -> None:
    data = collection()
    estimated = estimate_cost(
        data, candidates(data), BM25Teacher(data.corpus), estimate=EstimateOptions(sample=0.2)
    )
    score(data, candidates(data), BM25Teacher(data.corpus), tmp_path / "run")
    size = sum(path.stat().st_size for path in (tmp_path / "run").iterdir())
    assert estimated.figures["bytes"].value == pytest.approx(size, rel=0.15)
    assert "cost" not in estimated.figures


def test_a_run_on_disk_and_a_wrong_share(tmp_path: Path) -> None:
    data = collection()
    first_stage = candidates(data)
    write_run(tmp_path / "given", first_stage.identity, list(first_stage), part_queries=16)
    before = sorted(tmp_path.rglob("*"))
    assert estimate_cost(data, tmp_path / "given", Priced(), ScoreOptions(k=20)).pairs == 3000
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(IrdistillError, match="sample is 0"):
        estimate_cost(data, first_stage, Priced(), estimate=EstimateOptions(sample=0.0))
