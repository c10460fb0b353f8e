"""Two systems query by query."""

from __future__ import annotations

import numpy as np
import pytest

from irdistill.collections import Collection, Query
from irdistill.collections.collection import Turn
from irdistill.errors import NotFoundError
from irdistill.evaluation import per_query
from irdistill.evaluation.query_comparison import Pair, QueryComparison
from irdistill.evaluation.query_differences import query_order, scatter_cells
from irdistill.runs import MemoryRun, RankedList, RunIdentity, as_run


def test_equal_points_are_one_cell() -> None:
    across, up = np.array([0.0, 1 / 3, 1.0, 1 / 3]), np.array([1.0, 0.5, 0.0, 0.5 + 1e-9])
    cells = scatter_cells(across, up)
    assert cells.counts.tolist() == [1, 2, 1] and cells.cell_of.tolist() == [0, 1, 2, 1]
    assert cells.width == 0 and (cells.low, cells.high) == (0.0, 1.0)


def test_many_points_become_a_grid() -> None:
    values = np.random.default_rng(0).random((2, 100_000))
    values[:, 0] = 1.0  # the end of both axes belongs to the last cell
    cells = scatter_cells(*values)
    assert len(cells.counts) == 1600 and cells.counts.sum() == 100_000
    assert cells.width == 1 / 40
    assert np.abs(cells.across[cells.cell_of] - values[0]).max() <= cells.width / 2 + 1e-9
    assert cells.up[cells.cell_of[0]] == pytest.approx(1 - 1 / 80)


def test_orders() -> None:
    across, up = np.array([0.5, 0.1 + 0.2, 1.0, 0.0]), np.array([0.6, 0.3, 0.0, 0.1])
    # query 0 and query 3 gain the same, up to rounding
    assert query_order(across, up, "difference").tolist() == [2, 0, 3, 1]
    assert query_order(across, up, "gains").tolist() == [0, 3, 1, 2]
    assert query_order(across, up, "losses").tolist() == [2, 1, 0, 3]
    assert query_order(across, up, "queries").tolist() == [0, 1, 2, 3]


@pytest.fixture
def compared() -> QueryComparison:
    queries = {
        "q1": Query("q1", "sleeping cats", (Turn("user", "tell of pets"),)),
        "q2": "a dog",
    }
    docs = {"d1": ("Pets", "the cat sleeps"), "d2": "dogs", "d3": "none"}
    collection = Collection.from_dicts(
        "set", docs, queries, {"q1": {"d1": 2, "d3": 1, "d2": 0}, "q2": {"d2": 1}}
    )
    identity = RunIdentity("imported", {}, collection.describe())
    scores = np.array([3.0, 2.0, np.nan], np.float32)
    flags = [None, "suspected", None]
    left = MemoryRun(identity, [RankedList("q1", ["d2", "d1", "d3"], scores, flags)])
    right = as_run({"q1": {"d1": 0.5}, "q2": {"d2": 1.0}})
    runs = {"left": left, "right": right}
    values = {name: per_query(collection.qrels, run, "RR@10") for name, run in runs.items()}
    return QueryComparison(values, collection, runs)


def test_rankings_of_a_query(compared: QueryComparison) -> None:
    query = compared.rankings("q1")
    assert query.text == "sleeping cats" and query.history == ["tell of pets"]
    assert query.lengths == [2, 1]  # d3 has no score
    assert query.judgments == [
        ("d1", 2, [2, 1]),
        ("d3", 1, [None, None]),
    ]
    second = query.lists[0][1]
    assert (second.score, second.grade, second.ranks, second.flag) == (
        "2.0000",
        2,
        [2, 1],
        "suspected",
    )
    document = query.documents[second.document]
    assert (document.id, document.title, document.text) == ("d1", "Pets", "the cat sleeps")
    assert [document.text[start:end] for start, end in document.spans] == ["cat", "sleeps"]
    assert compared.rankings("q2").lists[0] == []


def test_pages_of_rows(compared: QueryComparison) -> None:
    page = compared.page(Pair("left", "right", "RR@10"))
    assert page.total == 2
    assert page.rows[0] == ("q2", "a dog", "0.0000", "1.0000", "+1.0000")
    assert compared.page(Pair("right", "left", "RR@10")).rows[1].difference == "-0.5000"
    alone = compared.page(Pair("right", "right", "RR@10"), text="CATS").rows[0]
    assert (alone.left, alone.right, alone.difference) == ("", "", "1.0000")
    lowest = compared.page(Pair("left", "left", "RR@10"), "losses")
    assert [row.difference for row in lowest.rows] == ["0.0000", "0.5000"]
    assert compared.page(Pair("left", "right", "RR@10"), start=5).rows == []
    with pytest.raises(NotFoundError, match="no values of 'middle'"):
        compared.page(Pair("left", "middle", "RR@10"))
