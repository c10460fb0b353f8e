"""Which queries a step takes, how hard they are, and which documents are drawn by margin: values by
hand, and properties.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill.errors import IrdistillError
from irdistill.training.data.difficulty import difficulties
from irdistill.training.data.query_order import Clustered, Curriculum, InOrder, Shuffled, pacing
from irdistill.training.data.sources import draw_by_margin, parse_sources, within
from irdistill.training.options import TrainOptions

NAN = float("nan")


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_an_epoch_takes_every_query_once_and_any_step_can_be_asked_for_alone(
    count: int, size: int, seed: int
) -> None:
    steps = (
        count * 2
    )  # two epochs of queries end in step 2 * count / size, and count * size covers that
    order = Shuffled(count, size, seed)
    taken = [query for step in range(steps) for query in order(step)]
    for epoch in range(len(taken) // count):
        epoch_queries = taken[epoch * count : (epoch + 1) * count]
        assert sorted(epoch_queries) == [(epoch, query) for query in range(count)]
    for step in (steps - 1, 0):
        assert Shuffled(count, size, seed)(step) == taken[step * size : (step + 1) * size]


def test_in_order_takes_each_query_once() -> None:
    order = InOrder(5, 2)
    assert [order(step) for step in range(order.steps)] == [
        [(0, 0), (0, 1)],
        [(0, 2), (0, 3)],
        [(0, 4)],
    ]


def test_a_gap_is_easy_when_it_is_large_and_an_entropy_when_it_is_small() -> None:
    lists = [
        np.array(row, dtype=np.float32)
        for row in ([[3, 1, 0]], [[9, NAN, 1]], [[2, 2, 0]], [[NAN, 4, NAN]])
    ]
    assert difficulties(lists, "gap").tolist() == [
        0.5,
        0,
        1,
        1,
    ]  # gaps 2, 8, 0; of the last nothing is known
    flat, peaked = np.array([[1.0, 1.0, 1.0, 1.1]]), np.array([[9.0, 0.0, 0.0, 0.0]])
    assert difficulties([flat, peaked], "entropy").tolist() == [1, 0]
    # a scale in front of all scores, or a list without end at the same height, changes nothing
    assert difficulties([100 * flat, 100 * peaked], "entropy").tolist() == [1, 0]


def test_several_teachers_are_heard_alike_whatever_their_scale() -> None:
    first, second = (
        np.array([[5.0, 0.0], [5.0, 1.0], [5.0, 2.0]]),
        np.array([[0.03, 0.0], [0.02, 0.0], [0.01, NAN]]),
    )
    lists = [np.stack(pair) for pair in zip(first, second, strict=True)]
    assert difficulties(lists, "gap").tolist() == [0, (0.5 + 1) / 2, 1]


def test_pacing_by_hand() -> None:
    linear, root = pacing("linear", 0.2, 10), pacing("root", 0.6, 10)
    assert [linear(step) for step in (0, 5, 10, 99)] == pytest.approx([0.2, 0.6, 1, 1])
    assert [root(step) for step in (0, 5, 10)] == pytest.approx([0.6, (0.36 + 0.32) ** 0.5, 1])
    assert pacing("linear", 0.2, 0)(0) == 1


def test_a_curriculum_draws_from_the_easiest_and_then_from_all() -> None:
    difficulty = np.array([0.9, 0.1, 0.5, 0.3, 0.7, 0.2, 0.8, 0.4, 0.6, 0.0])
    order = Curriculum(difficulty, pacing("linear", 0.3, 10), 3, seed=5)
    easiest = np.argsort(difficulty).tolist()
    for step in range(10):
        queries = [query for _, query in order(step)]
        count = int(np.ceil((0.3 + 0.07 * step) * 10 - 1e-9))
        assert len(set(queries)) == 3 and set(queries) <= set(easiest[:count]), step
        assert order(step) == Curriculum(difficulty, pacing("linear", 0.3, 10), 3, seed=5)(step)
    assert {query for _, query in order(0)} == set(easiest[:3])
    assert order(11) == Shuffled(10, 3, 5)(11)
    assert len({epoch for step in range(12) for epoch, _ in order(step)}) == 10 + len(
        {e for s in (10, 11) for e, _ in order(s)}
    )


@given(st.lists(st.integers(0, 4), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 3))
@settings(max_examples=80, deadline=None)
def test_steps_are_of_one_cluster_as_far_as_it_has_enough(
    clusters: list[int], size: int, seed: int
) -> None:
    order = Clustered(clusters, size, seed)
    steps = [order(step) for step in range(order.steps)]
    taken = Counter(query for step in steps for _, query in step)
    assert all(len(step) == size for step in steps)
    if len(clusters) >= size:
        assert max(taken.values()) == 1 and len(clusters) - sum(taken.values()) < size
    pure = Counter(
        clusters[step[0][1]] for step in steps if len({clusters[query] for _, query in step}) == 1
    )
    for cluster, size_of_cluster in Counter(clusters).items():
        assert pure[cluster] >= size_of_cluster // size
    assert Clustered(clusters, size, seed)(order.steps) == order(order.steps)


def test_what_has_no_place_in_an_epoch_is_not_always_the_same() -> None:
    order = Clustered([0] * 5 + [1] * 5 + [2] * 5, 4, seed=1)  # 12 of 15 have a place
    missing = [
        set(range(15)) - {query for step in range(3) for _, query in order(3 * epoch + step)}
        for epoch in range(12)
    ]
    assert len(set.union(*missing)) > 9


def test_margins_are_drawn_evenly() -> None:
    """A hundred documents of low scores, two high ones, three ranges: each range gives a third
    while it lasts.
    """
    scores = np.array([9.0, 5.0, *np.linspace(0, 1, 100)], dtype=np.float32)
    random = np.random.default_rng(0)
    counts = np.zeros(3)
    for _ in range(600):
        counts[
            {0: 0, 1: 1}.get(int(draw_by_margin(scores, np.arange(102), 1, 3, random)[0]), 2)
        ] += 1
    assert np.abs(counts / 600 - 1 / 3).max() < 0.06
    drawn = draw_by_margin(scores, np.arange(1, 102), 50, 3, random)
    assert (
        len(set(drawn.tolist())) == 50
        and 0 not in drawn
        and drawn.tolist() == sorted(drawn.tolist())
    )
    assert draw_by_margin(np.array([NAN, NAN, 2.0]), np.arange(3), 9, 4, random).tolist() == [
        0,
        1,
        2,
    ]
    assert draw_by_margin(scores, np.arange(0), 4, 3, random).tolist() == []


def test_sources_bound_what_bins_draw_from() -> None:
    assert within(parse_sources("2-3,5-9"), 6).tolist() == [1, 2, 4, 5]
    assert within(parse_sources("all"), 3).tolist() == [0, 1, 2]
    with pytest.raises(IrdistillError, match="margin_bins and sources with counts"):
        TrainOptions(margin_bins=4, sources="1-10:3,11-20")


def test_the_rate_by_hand() -> None:
    linear = TrainOptions(steps=10, warmup=2, floor=0.1)
    assert [linear.rate(step) for step in (0, 1, 2, 6, 10)] == pytest.approx(
        [0, 0.5, 1, 0.1 + 0.9 / 2, 0.1]
    )
    cosine = TrainOptions(steps=10, warmup=2, schedule="cosine")
    assert [cosine.rate(step) for step in (0, 1, 2, 4, 6, 10)] == pytest.approx(
        [0, 0.5, 1, 0.5 + 0.5**1.5, 0.5, 0]
    )
    constant = TrainOptions(steps=10, warmup=0.2, schedule="constant", floor=0.5)
    assert [constant.rate(step) for step in (0, 1, 2, 9)] == [0, 0.5, 1, 1]


def test_the_linear_rate_is_that_of_transformers() -> None:
    import torch
    from transformers import get_linear_schedule_with_warmup

    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = get_linear_schedule_with_warmup(optimiser, 3, 13)
    options = TrainOptions(steps=13, warmup=3)
    for step in range(13):
        assert options.rate(step) == theirs.get_last_lr()[0], step
        optimiser.step()
        theirs.step()


def test_what_is_off_is_no_part_of_the_identity() -> None:
    plain = TrainOptions().identity()
    assert {"steps", "learning_rate", "warmup", "sources"} <= plain.keys()
    assert not plain.keys() & {
        "curriculum",
        "pacing",
        "clusters",
        "mine_every",
        "early_stop",
        "validate_every",
        "schedule",
        "floor",
        "ramp",
        "query_l1",
        "epochs",
        "margin_bins",
        "grad_cache",
        "query_active",
    }
    assert TrainOptions(epochs=2).identity().keys() == plain.keys() - {"steps"} | {"epochs"}
    assert TrainOptions(grad_cache=True).identity() == plain
    assert (
        TrainOptions(curriculum="gap").identity().items()
        >= {
            "curriculum": "gap",
            "pacing_start": 0.2,
        }.items()
    )


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"curriculum": "hard"}, "curriculum is 'hard'; expected 'none', 'gap' or 'entropy'"),
        ({"pacing_start": 0}, "pacing_start is 0"),
        ({"curriculum": "gap", "clusters": 3}, "Use one of them"),
        ({"cluster_model": "x"}, "without clusters"),
        ({"mine_teacher": "x"}, "without mine_every"),
        ({"validate_every": -1}, "validate_every is -1"),
        ({"floor": 1.5}, "floor is 1.5; expected (at most|less than or equal to) 1"),
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"epochs": -1}, "epochs is -1"),
        ({"anti_zero": float("inf")}, "anti_zero is inf"),
        ({"query_active": -3}, "query_active is -3"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict[str, object], match: str) -> None:
    with pytest.raises(IrdistillError, match=match):
        TrainOptions(**changes)  # type: ignore[arg-type]
