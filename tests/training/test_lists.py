"""Lists are a pure function of seed and step, and hold what they should."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from irdistill.errors import IrdistillError
from irdistill.training.data.list_sampler import ListBatch, ListSampler
from irdistill.training.data.list_source import SamplerOptions
from irdistill.training.data.sources import RankRange, draw, parse_sources
from tests.training.support import NAN, ListsInMemory


def many(queries: int = 7, depth: int = 30) -> ListsInMemory:
    return ListsInMemory(
        {f"q{i}": [(100 * i + j, float(depth - j)) for j in range(depth)] for i in range(queries)}
    )


def same(one: ListBatch, other: ListBatch) -> bool:
    return one.weights is other.weights and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        for a, b in zip(one[:4], other[:4], strict=True)
    )


def test_a_step_is_the_same_whenever_and_wherever_it_is_drawn() -> None:
    first = ListSampler([many()], {}, SamplerOptions(batch_size=3, list_size=5, seed=1))
    walked = [first(step) for step in range(12)]
    again = ListSampler([many()], {}, SamplerOptions(batch_size=3, list_size=5, seed=1))
    assert same(again(11), walked[11])  # no replay of the steps before
    assert same(again(2), walked[2])
    other = ListSampler([many()], {}, SamplerOptions(batch_size=3, list_size=5, seed=2))
    assert not all(same(other(step), walked[step]) for step in range(12))


def test_an_epoch_has_every_query_once() -> None:
    sampler = ListSampler([many(7)], {}, SamplerOptions(batch_size=7, list_size=3, seed=1))
    for step in range(3):
        assert sorted(sampler(step).queries.tolist()) == list(range(7))
    assert sampler(0).queries.tolist() != sampler(1).queries.tolist()


def test_positives_stand_first_and_nulls_stay_out() -> None:
    run = ListsInMemory(
        {
            "a": [(1, 5.0), (2, 4.0), (3, 3.0), (4, NAN)],
            "b": [(7, 1.0), (8, NAN)],
            "c": [(5, 2.0), (6, 1.0)],
        }
    )
    sampler = ListSampler(
        [run], {"a": {3: 2, 9: 1}, "c": {5: 0}}, SamplerOptions(batch_size=2, list_size=3, seed=1)
    )
    assert sampler.query_ids == ["a", "c"] and sampler.unusable == 1
    batch = sampler(0)
    a, c = (batch.queries.tolist().index(i) for i in (0, 1))
    assert batch.rows[a].tolist() == [3, 1, 2]
    assert batch.labels[a].tolist() == [2, 0, 0]
    assert batch.teacher[0, a].tolist() == [3, 5, 4]
    assert batch.rows[c].tolist() == [5, 6, -1]
    assert np.isnan(batch.teacher[0, c, 2]) and batch.labels[c].tolist() == [0, 0, 0]


def test_positives_that_no_run_has_come_in_for_a_loss_on_labels() -> None:
    run = ListsInMemory({"a": [(1, 5.0), (2, 4.0)]})
    sampler = ListSampler(
        [run],
        {"a": {9: 1}},
        SamplerOptions(batch_size=1, list_size=3, seed=1, unscored_positives=True),
    )
    batch = sampler(0)
    assert batch.rows[0].tolist() == [9, 1, 2] and batch.labels[0].tolist() == [1, 0, 0]
    assert np.isnan(batch.teacher[0, 0, 0])


def test_several_runs_are_joined_by_document() -> None:
    first = ListsInMemory({"a": [(1, 5.0), (2, 4.0), (3, NAN)]})
    second = ListsInMemory({"a": [(3, 9.0), (1, 8.0)]})
    batch = ListSampler([first, second], {}, SamplerOptions(batch_size=1, list_size=5, seed=1))(0)
    assert batch.rows[0].tolist() == [1, 2, 3]
    assert np.array_equal(batch.teacher[:, 0], [[5, 4, NAN], [8, NAN, 9]], equal_nan=True)


def test_ranks_are_drawn_from_their_ranges_evenly() -> None:
    options = SamplerOptions(batch_size=1, list_size=4, seed=1, sources="1-3:1,11-20")
    sampler = ListSampler([many(1)], {}, options)
    seen: Counter[int] = Counter()
    for step in range(400):
        rows = sampler(step).rows[0].tolist()
        assert len(rows) == 4 and rows[0] < 3 and all(10 <= row < 20 for row in rows[1:])
        seen.update(rows)
    assert all(90 < seen[row] < 180 for row in range(3))  # 133 expected
    assert all(85 < seen[row] < 155 for row in range(10, 20))  # 120 expected


def test_sources_are_read() -> None:
    assert parse_sources("all") == (RankRange(1, 2**31, 0, False),)
    assert parse_sources("top:3, 11-100") == (
        RankRange(1, 2**31, 3, True),
        RankRange(11, 100, 0, False),
    )
    ranked = np.arange(50)
    assert draw(parse_sources("top"), ranked, 4, np.random.default_rng(0)).tolist() == [0, 1, 2, 3]
    assert (
        len(draw(parse_sources("1-2,5-9"), ranked, 6, np.random.default_rng(0))) == 5
    )  # 2 of 3 and 3 of 3
    for wrong in ("", "5-1", "0-3", "best", "1-5:0", "1-5,,2-3"):
        with pytest.raises(IrdistillError, match="cannot be read"):
            parse_sources(wrong)


def test_nothing_usable_is_said() -> None:
    with pytest.raises(IrdistillError, match="none of the 1 queries"):
        ListSampler(
            [ListsInMemory({"a": [(1, 2.0), (2, NAN)]})],
            {},
            SamplerOptions(batch_size=1, list_size=3, seed=1),
        )
