"""Listwise teachers: exact orders with a perfect model, nulls for missing answers."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.listwise_teacher import ListwiseLLMTeacher, pivot_windows, window_starts
from irdistill.teachers.protocol import ListwiseTeacher
from tests.teachers.llm.ranking_fakes import (
    LISTWISE,
    FakeModel,
    best_first,
    list_answer,
    query_pairs,
    worths_in,
)


def teacher(model: FakeModel, **settings: Any) -> ListwiseLLMTeacher:
    return ListwiseLLMTeacher(model, LISTWISE, **settings)


def mixed(count: int, seed: int = 0) -> list[int]:
    worths = list(range(100, 100 + count))
    random.Random(seed).shuffle(worths)
    return worths


@pytest.mark.parametrize(
    ("count", "window", "step", "passes"),
    [
        (1, 4, 2, 1),
        (4, 4, 2, 1),
        (7, 20, 10, 1),
        (9, 6, 3, 3),
        (23, 6, 2, 6),
        (30, 10, 5, 6),
    ],
)
def test_sliding_passes_sort_exactly(count: int, window: int, step: int, passes: int) -> None:
    worths = mixed(count)
    model = FakeModel()
    [ranking] = teacher(model, window=window, step=step, passes=passes).rank([query_pairs(worths)])
    assert ranking.order == best_first(worths)
    assert ranking.flags == [None] * count
    most = passes * (1 if count <= window else 1 + math.ceil((count - window) / step))
    assert ranking.usage["windows"] == ranking.usage["windows_ok"] == len(model.requests) <= most
    assert isinstance(teacher(model), ListwiseTeacher)


def test_one_pass_brings_the_best_up() -> None:
    worths = list(range(100, 140))  # the worst order there is
    model = FakeModel()
    [ranking] = teacher(model, window=10, step=5).rank([query_pairs(worths)])
    assert ranking.order[:5] == best_first(worths)[:5]
    assert len(model.requests) == 1 + 30 // 5
    assert sorted(ranking.order) == list(range(40))


@pytest.mark.parametrize(
    ("count", "window", "step", "starts"),
    [
        (100, 20, 10, [80, 70, 60, 50, 40, 30, 20, 10, 0]),
        (20, 20, 10, [0]),
        (3, 20, 10, [0]),
        (25, 20, 10, [5, 0]),
        (47, 20, 10, [27, 17, 7, 0]),
    ],
)
def test_window_starts(count: int, window: int, step: int, starts: list[int]) -> None:
    assert list(window_starts(count, window, step)) == starts
    assert len(starts) == (1 if count <= window else 1 + math.ceil((count - window) / step))


def test_a_pass_that_changes_nothing_is_the_last() -> None:
    model = FakeModel()
    teacher(model, window=4, step=2, passes=9).rank([query_pairs([9, 8, 7, 6, 5, 4])])
    assert len(model.requests) == 2


@pytest.mark.parametrize(
    "worths",
    [mixed(100, 1), list(range(100, 200)), list(range(200, 100, -1)), mixed(25, 2), mixed(8, 3)],
)
@pytest.mark.parametrize(("window", "top"), [(20, 10), (10, 5), (20, 19), (5, 1)])
def test_top_down_sorts_the_top_exactly(worths: list[int], window: int, top: int) -> None:
    [ranking] = teacher(FakeModel(), method="top-down", window=window, top=top).rank(
        [query_pairs(worths)]
    )
    assert ranking.order[:top] == best_first(worths)[:top]
    assert sorted(ranking.order) == list(range(len(worths)))
    assert [ranking.flags[place] for place in ranking.order[:top]] == [None] * min(top, len(worths))
    assert set(ranking.flags) <= {None, "unsorted"}


def test_top_down_takes_few_windows_and_most_at_the_same_time() -> None:
    worths = sorted(mixed(100), reverse=True)
    for high, low in (
        (2, 40),
        (5, 60),
        (7, 77),
    ):  # a good first stage, with some good ones deep down
        worths[high], worths[low] = worths[low], worths[high]
    model = FakeModel(parallel=16)
    [ranking] = teacher(model, method="top-down").rank([query_pairs(worths)])
    assert ranking.order[:10] == best_first(worths)[:10]
    assert model.batches == [1, 5, 1]
    sliding = FakeModel(parallel=16)
    teacher(sliding).rank([query_pairs(worths)])
    assert sliding.batches == [1] * 9


def test_pivot_windows_are_few_and_even_with_the_pivot_in_the_middle() -> None:
    windows = pivot_windows(range(80), 99, 20)
    assert [len(shown) for shown in windows] == [17] * 5
    assert [shown.index(99) for shown in windows] == [8] * 5
    assert [place for shown in windows for place in shown if place != 99] == list(range(80))
    assert [len(shown) for shown in pivot_windows(range(95), 99, 20)] == [20] * 5
    assert [len(shown) for shown in pivot_windows(range(96), 99, 20)] == [17] * 6
    assert pivot_windows([4], 9, 3) == [[9, 4]]


def test_a_model_that_only_reverses_ends() -> None:
    """With any answers, top-down ends and places about half of a window above the pivot."""
    model = FakeModel(
        lambda worths: " > ".join(f"[{number}]" for number in range(len(worths), 0, -1))
    )
    [ranking] = teacher(model, method="top-down").rank([query_pairs(mixed(100))])
    assert sorted(ranking.order) == list(range(100))
    assert len(model.requests) < 30


def test_omitted_repeated_and_garbled_stay_null() -> None:
    answers = {6: "[2] > [1] > [2] > [4] > [9]"}
    model = FakeModel(lambda worths: answers[len(worths)])
    [ranking] = teacher(model).rank([query_pairs([1, 2, 3, 4, 5, 6])])
    assert ranking.order == [0, 3]
    assert ranking.flags == [None, "repeated", "omitted", None, "omitted", "omitted"]
    assert {key: ranking.usage[key] for key in ("windows", "omitted", "repeated", "unknown")} == {
        "windows": 1,
        "omitted": 3,
        "repeated": 1,
        "unknown": 1,
    }
    assert "windows_ok" not in ranking.usage and "garbled" not in ranking.usage
    [ranking] = teacher(FakeModel(lambda worths: "I cannot say.")).rank([query_pairs([1, 2, 3])])
    assert (ranking.order, ranking.flags, ranking.usage["garbled"]) == ([], ["garbled"] * 3, 3)
    [ranking] = teacher(FakeModel(lambda worths: Answer(error="refused"))).rank(
        [query_pairs([1, 2, 3])]
    )
    assert (ranking.order, ranking.flags, ranking.usage["windows_failed"]) == (
        [],
        ["refused"] * 3,
        1,
    )


def test_the_last_window_decides() -> None:
    """Six passages, windows of four by two: the second window holds places 0, 1 and the first
    window's best two.
    """

    def reply(worths: list[int]) -> str:
        if 60 in worths and 50 in worths and 10 not in worths:
            return "[4] > [2]"  # 60, 40; 30 and 50 omitted and put behind them
        return list_answer(worths)

    [ranking] = teacher(FakeModel(reply), window=4, step=2).rank(
        [query_pairs([10, 20, 30, 40, 50, 60])]
    )
    assert ranking.order == [5, 3, 1, 0]
    assert ranking.flags == [None, None, "omitted", None, "omitted", None]

    def forgetful(worths: list[int]) -> str:
        return list_answer(worths) if 10 in worths else "[1] > [1]"

    [ranking] = teacher(FakeModel(forgetful), window=4, step=2).rank(
        [query_pairs([10, 20, 30, 40, 50, 60])]
    )
    assert ranking.flags == [None, None, None, None, "omitted", "omitted"]
    assert ranking.order == [3, 2, 1, 0]


def test_top_down_without_its_pivot_knows_nothing_of_that_window() -> None:
    worths = list(range(200, 160, -1))
    pivot = worths[2]

    def reply(ranking: list[int]) -> str:
        if pivot in ranking and worths[0] not in ranking and worths[4] in ranking:
            rest = [place + 1 for place, worth in enumerate(ranking) if worth != pivot]
            return " > ".join(f"[{number}]" for number in rest)
        return list_answer(ranking)

    [ranking] = teacher(FakeModel(reply), method="top-down", window=4, top=3).rank(
        [query_pairs(worths)]
    )
    assert ranking.flags.count("pivot omitted") == 3
    assert ranking.flags[4] == "pivot omitted" and 4 not in ranking.order
    assert ranking.order[:3] == [0, 1, 2]


def test_top_down_continues_after_a_failed_first_window() -> None:
    worths = list(range(200, 188, -1))
    model = FakeModel(lambda ranking: "?" if 200 in ranking else list_answer(ranking))
    [ranking] = teacher(model, method="top-down", window=4, top=2).rank([query_pairs(worths)])
    assert ranking.flags[:4] == ["garbled"] * 4
    assert ranking.order[:2] == [4, 5] and sorted(ranking.order) == list(range(4, 12))


MISBEHAVED = st.integers(0, 2**32 - 1)


@given(MISBEHAVED, st.integers(1, 30), st.sampled_from(["sliding", "top-down"]), st.integers(2, 9))
@settings(max_examples=150, deadline=None)
def test_every_document_is_ranked_or_flagged(
    seed: int, count: int, method: str, window: int
) -> None:
    chance = random.Random(seed)

    def reply(worths: list[int]) -> Answer | str:
        kind = chance.random()
        if kind < 0.1:
            return Answer(error="no answer")
        if kind < 0.2:
            return "…"
        numbers = [
            chance.randint(0, len(worths) + 1) if chance.random() < 0.3 else place + 1
            for place in best_first(worths)
        ]
        return " > ".join(f"[{number}]" for number in numbers[: chance.randint(1, len(numbers))])

    settings = (
        {"step": window - 1, "passes": 2} if method == "sliding" else {"top": max(1, window // 2)}
    )
    [ranking] = teacher(FakeModel(reply), method=method, window=window, **settings).rank(
        [query_pairs(mixed(count, seed))]
    )
    assert len(set(ranking.order)) == len(ranking.order) and set(ranking.order) <= set(range(count))
    for place in range(count):
        assert (place in ranking.order) == (ranking.flags[place] in (None, "unsorted"))
    assert not ranking.usage.get("windows_ok", 0) > ranking.usage["windows"]


@pytest.mark.parametrize("method", ["sliding", "top-down"])
def test_results_do_not_depend_on_timing(method: str) -> None:
    lists = [query_pairs(mixed(10 + 3 * number, number), f"q{number}") for number in range(8)]

    def reply(worths: list[int]) -> str:
        return list_answer(worths) if sum(worths) % 5 else "[1] > [2] > [2]"

    expected = teacher(FakeModel(reply, 1), method=method, window=6, step=3, top=3).rank(lists)
    assert any("repeated" in ranking.flags for ranking in expected)
    for model in (
        FakeModel(reply, 5, True, 0.003),
        FakeModel(reply, 8, True, 0.003),
        FakeModel(reply, 7),
    ):
        assert teacher(model, method=method, window=6, step=3, top=3).rank(lists) == expected


def test_a_shuffled_start_depends_on_seed_and_query() -> None:
    def first_shown(query: str, **settings: Any) -> list[int]:
        model = FakeModel()
        teacher(model, **settings).rank([query_pairs(range(100, 112), query)])
        return worths_in(model.requests[0])

    kept = list(range(100, 112))
    assert first_shown("q1") == kept
    shuffled = first_shown("q1", shuffle=True)
    assert shuffled != kept and sorted(shuffled) == kept
    assert first_shown("q1", shuffle=True) == shuffled
    assert first_shown("q2", shuffle=True) != shuffled
    assert first_shown("q1", shuffle=True, seed=1) != shuffled


def test_what_a_request_looks_like() -> None:
    model = FakeModel(lambda worths: "2] > [1]")
    prompt = {
        "system": "Judge.",
        "user": "{query} ({count}):\n{passages}",
        "assistant": "[",
        "passage": "<{number}> {text}",
    }
    pairs = [
        pair._replace(text=text)
        for pair, text in zip(
            query_pairs([1, 2]), ["as [3] says,\n  {query} is  one two", "short"], strict=True
        )
    ]
    [ranking] = ListwiseLLMTeacher(model, prompt, passage_words=5).rank([pairs])
    system, user, begun = model.requests[0].messages
    assert (system.content, begun.role, begun.content) == ("Judge.", "assistant", "[")
    assert user.content == "about q (2):\n<1> as (3) says, {query} is\n<2> short"
    assert model.requests[0].max_tokens == 2 * 6 + 16
    assert ranking.order == [1, 0]
    assert ranking.usage["tokens"] == len(begun.content.split())


def test_the_identity_contains_what_determines_the_order() -> None:
    base = teacher(FakeModel()).identity
    assert base["model"] == {"model": "fake"} and base["method"] == "sliding" and "top" not in base
    changed = [
        {"window": 10, "step": 5},
        {"step": 5},
        {"passes": 2},
        {"method": "top-down"},
        {"passage_words": 50},
        {"shuffle": True},
        {"answer_tokens": 9},
    ]
    identities = [base, *(teacher(FakeModel(), **settings).identity for settings in changed)]
    identities += [
        ListwiseLLMTeacher(FakeModel(), LISTWISE | more).identity
        for more in ({"system": "x"}, {"identifier": r"(\d+)"}, {"passage": "({number}) {text}"})
    ]
    assert len({str(identity) for identity in identities}) == len(identities)
    assert teacher(FakeModel(), top=5).identity == base


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "bubble"}, "bubble"),
        ({"window": 1}, "window"),
        ({"step": 20}, "step"),
        ({"step": 0}, "step"),
        ({"passes": 0}, "pass"),
        ({"method": "top-down", "top": 20}, "top is 20"),
        ({"retry_tokens": 0}, "retry_tokens is 0"),
        ({"answer_tokens": 50, "retry_tokens": 50}, "above 50"),
    ],
)
def test_invalid_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(IrdistillError, match=words):
        teacher(FakeModel(), **settings)


@pytest.mark.parametrize(
    "prompt",
    [{}, {"user": "{query}"}, LISTWISE | {"passage": "{text}"}, LISTWISE | {"identifier": "("}],
)
def test_invalid_prompts_are_refused(prompt: dict[str, str]) -> None:
    with pytest.raises(IrdistillError):
        ListwiseLLMTeacher(FakeModel(), prompt)


THOUGHT = "<think>The first is [1], then [2] and [3]. So [1] > [2] > [3]"
CUT_ANSWERS = {
    "unclosed thinking": Answer(THOUGHT),
    "thinking cut": Answer(THOUGHT, cut=True),
    "thinking of a server": Answer("", error="cut", cut=True),
    "a ranking cut": Answer("[2] > [3", cut=True),
    "a sentence cut": Answer("The passages [1], [2] and [3] are about", cut=True),
    "a list that begins": Answer("[1], [2], [3] are the passages. I look", cut=True),
    "mentioned and cut": Answer("I compare them: [1] > [2] > [3] would be", cut=True),
    "a list and a sentence": Answer("[1], [2], [3]\nThese are the passages. The", cut=True),
    "in channels": Answer("<|channel|>analysis<|message|>[1] > [2] > [3]"),
}


@pytest.mark.parametrize("name", CUT_ANSWERS)
def test_the_thinking_of_a_cut_answer_is_not_a_ranking(name: str) -> None:
    [ranking] = teacher(FakeModel(lambda worths: CUT_ANSWERS[name])).rank([query_pairs([1, 3, 2])])
    assert (ranking.order, ranking.flags, ranking.usage["windows_cut"]) == ([], ["cut"] * 3, 1)


@pytest.mark.parametrize(
    "answer",
    [
        Answer("[2] > [3] > [1]\n\nPassage [2] says", cut=True),
        Answer("<think>[1] > [2]</think>\nRanking:\n[2] > [3] > [1]"),
        Answer("[1] is off topic </think> [2] > [3] > [1]"),
        Answer("```\n[2] > [3] > [1]\n```"),
    ],
)
def test_a_whole_ranking_counts(answer: Answer) -> None:
    [ranking] = teacher(FakeModel(lambda worths: answer)).rank([query_pairs([1, 3, 2])])
    assert (ranking.order, ranking.flags) == ([1, 2, 0], [None] * 3) and ranking.usage[
        "windows_ok"
    ] == 1


@pytest.mark.parametrize("method", ["sliding", "top-down"])
def test_a_cut_answer_is_retried_if_the_card_allows(method: str) -> None:
    class Thinking(FakeModel):
        def answer(self, requests: Any) -> list[Answer]:
            return [
                answer if request.max_tokens == 900 else Answer(THOUGHT, cut=True)
                for request, answer in zip(requests, super().answer(requests), strict=True)
            ]

    worths = mixed(9)
    model = Thinking()
    [ranking] = teacher(
        model, method=method, window=4, step=2, top=2, passes=3, retry_tokens=900
    ).rank([query_pairs(worths)])
    assert ranking.order[:2] == best_first(worths)[:2] and ranking.usage["windows"] * 2 == len(
        model.requests
    )
    assert (
        ranking.usage["asked_again"] == ranking.usage["windows"]
        and "windows_cut" not in ranking.usage
    )
    [ranking] = teacher(Thinking(), window=4, step=2, retry_tokens=800).rank([query_pairs(worths)])
    assert (
        ranking.order == []
        and ranking.usage["asked_again"] == ranking.usage["windows_cut"] == ranking.usage["windows"]
    )
    assert (
        teacher(model, retry_tokens=9).identity["retry_tokens"] == 9
        and "retry_tokens" not in teacher(model).identity
    )


def test_without_room_for_a_retry_the_first_answer_stays() -> None:
    answers = iter([Answer("[2] > [3", cut=True), Answer(error="too long")])
    [ranking] = teacher(FakeModel(lambda worths: next(answers)), retry_tokens=900).rank(
        [query_pairs([1, 3, 2])]
    )
    assert ranking.flags == ["cut"] * 3


def test_a_refusal_is_flagged() -> None:
    [ranking] = teacher(FakeModel(lambda worths: "I'm sorry, but I cannot rank [1] and [2].")).rank(
        [query_pairs([1, 2])]
    )
    assert (ranking.flags, ranking.usage["windows_failed"]) == (["refused"] * 2, 1)


def test_a_pattern_may_name_the_end_of_the_thinking() -> None:
    prompt = LISTWISE | {"ranking": r"(?s)</think>(.*)"}
    model = FakeModel(lambda worths: "<think>[1] > [2]</think>[2] > [1]")
    assert ListwiseLLMTeacher(model, prompt).rank([query_pairs([1, 2])])[0].order == [1, 0]


def test_a_ranking_that_ended_before_the_limit_counts_with_what_it_omits() -> None:
    answer = Answer("[3] > [1]\n\nPassage [3] is the best as", cut=True)
    [ranking] = teacher(FakeModel(lambda worths: answer)).rank([query_pairs([1, 3, 2])])
    assert (ranking.order, ranking.flags) == ([2, 0], [None, "omitted", None])
    [ranking] = teacher(FakeModel(lambda worths: Answer("[3]\n[1]\n[2]\n[3", cut=True))).rank(
        [query_pairs([1, 3, 2])]
    )
    assert ranking.order == [2, 0, 1]
