"""Pairwise teachers: the methods' orders and calls, both orders of a pair, and comparisons that
fail.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.pairwise_teacher import PairwiseTeacher
from irdistill.teachers.protocol import ListwiseTeacher
from tests.teachers.llm.ranking_fakes import (
    PAIRWISE,
    FakeModel,
    best_first,
    choose_better,
    query_pairs,
)

METHODS = ["all", "heapsort", "sliding"]


def teacher(model: FakeModel, **settings: Any) -> PairwiseTeacher:
    return PairwiseTeacher(model, PAIRWISE, **settings)


def mixed(count: int, seed: int = 0) -> list[int]:
    worths = list(range(100, 100 + count))
    random.Random(seed).shuffle(worths)
    return worths


def labels(first: float, second: float) -> Answer:
    return Answer(labels=np.array([first, second], np.float32))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 23])
def test_a_model_that_knows_gives_the_exact_order(method: str, count: int) -> None:
    worths = mixed(count)
    one = teacher(FakeModel(choose_better), method=method, top=count)
    [ranking] = one.rank([query_pairs(worths)])
    assert ranking.order == best_first(worths)
    assert ranking.flags == [None] * count
    assert isinstance(one, ListwiseTeacher)


@pytest.mark.parametrize("method", ["heapsort", "sliding"])
def test_the_top_is_sorted_and_the_rest_is_flagged(method: str) -> None:
    worths = mixed(30)
    [ranking] = teacher(FakeModel(choose_better), method=method, top=7).rank([query_pairs(worths)])
    assert ranking.order[:7] == best_first(worths)[:7]
    assert sorted(ranking.order) == list(range(30))
    assert [ranking.flags[place] for place in ranking.order] == [None] * 7 + ["unsorted"] * 23
    if method == "heapsort":
        assert ranking.order[7:] == sorted(ranking.order[7:])


@pytest.mark.parametrize("count", [1, 2, 5, 17, 40])
def test_all_pairs_take_n_times_n_minus_1_requests(count: int) -> None:
    model = FakeModel(choose_better, parallel=32)
    [ranking] = teacher(model, method="all").rank([query_pairs(mixed(count))])
    assert (
        len(model.requests)
        == count * (count - 1)
        == len({request.messages for request in model.requests})
    )
    assert ranking.usage.get("comparisons", 0) == count * (count - 1) // 2
    assert ranking.values is not None
    assert sorted(ranking.values.tolist()) == [float(wins) for wins in range(count)]


@pytest.mark.parametrize("count", [2, 5, 16, 64, 100])
@pytest.mark.parametrize("top", [1, 10])
@pytest.mark.parametrize("start", ["mixed", "worst", "best"])
def test_heapsort_takes_order_n_and_top_log_n_requests(count: int, top: int, start: str) -> None:
    worths = {
        "mixed": mixed(count),
        "worst": list(range(count)),
        "best": list(range(count, 0, -1)),
    }[start]
    model = FakeModel(choose_better)
    teacher(model, method="heapsort", top=top).rank([query_pairs(worths)])
    assert len(model.requests) <= 2 * (2 * count + 2 * top * math.floor(math.log2(count)))
    assert len(model.requests) < count * (count - 1) or count < 16


@pytest.mark.parametrize("count", [2, 5, 16, 40])
@pytest.mark.parametrize("top", [1, 3, 10])
def test_sliding_takes_at_most_two_requests_per_neighbor_and_pass(count: int, top: int) -> None:
    passes = min(top, count - 1)
    worst = FakeModel(choose_better)
    teacher(worst, method="sliding", top=top).rank([query_pairs(range(count))])
    assert (
        len(worst.requests)
        == 2 * (passes * (count - 1) - passes * (passes - 1) // 2)
        <= 2 * top * (count - 1)
    )
    best = FakeModel(choose_better)
    teacher(best, method="sliding", top=top).rank([query_pairs(range(count, 0, -1))])
    assert len(best.requests) == 2 * (
        count - 1
    )  # later passes come back to pairs that were asked about


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("by", ["labels", "text"])
@pytest.mark.parametrize("favoured", [0, 1])
def test_position_bias_is_canceled(method: str, by: str, favoured: int) -> None:
    """The model sees only great differences; else it takes the preferred position. Both orders make
    that a tie.
    """

    def reply(worths: list[int]) -> Answer | str:
        great = abs(worths[0] - worths[1]) > 10
        choice = int(worths[1] > worths[0]) if great else favoured
        return (
            "AB"[choice] if by == "text" else labels(*((0.0, -1.0) if choice == 0 else (-1.0, 0.0)))
        )

    [ranking] = teacher(FakeModel(reply), method=method, by=by, top=6).rank(
        [query_pairs([10, 11, 12, 50, 51, 52])]
    )
    assert ranking.order == [3, 4, 5, 0, 1, 2]
    assert ranking.flags == [None] * 6
    if method == "all":
        assert ranking.values is not None and ranking.values.tolist() == [1.0] * 3 + [4.0] * 3
        assert ranking.usage["ties"] == 6


def test_wins_and_ties_make_the_score() -> None:
    def reply(worths: list[int]) -> Answer:
        return labels(0.0, 0.0) if sum(worths) == 30 else choose_better(worths)

    [ranking] = teacher(FakeModel(reply)).rank([query_pairs([10, 20, 30])])
    assert ranking.values is not None
    assert ranking.values.tolist() == [0.5, 0.5, 2.0]
    assert ranking.order == [2, 0, 1]
    assert (ranking.usage["comparisons"], ranking.usage["ties"], ranking.usage["requests"]) == (
        3,
        1,
        6,
    )


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        (labels(-0.1, -2.0), 1.0),
        (labels(-2.0, -0.1), 0.0),
        (labels(-1.0, -1.0), 0.5),
        (labels(np.nan, -9.0), 0.0),
        (labels(-9.0, np.nan), 1.0),
        (labels(np.nan, np.nan), None),
        (Answer(), None),
        (Answer(error="refused"), None),
    ],
)
def test_choices_by_log_probabilities(answer: Answer, choice: float | None) -> None:
    assert teacher(FakeModel()).choice(answer) == choice


@pytest.mark.parametrize(
    ("text", "choice"),
    [("A", 1.0), ("Passage B is better.", 0.0), ("A or B", None), ("neither", None)],
)
def test_choices_by_text(text: str, choice: float | None) -> None:
    assert teacher(FakeModel(), by="text").choice(Answer(text)) == choice


@pytest.mark.parametrize(
    ("answer", "judged"),
    [
        (Answer("Passage A discusses the topic of", cut=True), (None, "cut")),
        (Answer("<think>A or B? A"), (None, "cut")),
        (Answer("B\n\nPassage B is better", cut=True), (0.0, None)),
        (Answer("<think>A</think> B"), (0.0, None)),
        (Answer("I'm sorry, but neither A nor B"), (None, "refused")),
        (Answer("A or B"), (None, "garbled")),
        (Answer(error="cut"), (None, "cut")),
    ],
)
def test_reasons_for_no_choice(answer: Answer, judged: tuple[float | None, str | None]) -> None:
    assert teacher(FakeModel(), by="text").judge(answer) == judged


def test_a_cut_answer_is_retried_if_the_card_allows() -> None:
    class Thinking(FakeModel):
        def answer(self, requests: Any) -> list[Answer]:
            return [
                answer if request.max_tokens == 900 else Answer("<think>A is", cut=True)
                for request, answer in zip(requests, super().answer(requests), strict=True)
            ]

    def reply(worths: list[int]) -> str:
        return "<think>A? B?</think>" + ("A" if worths[0] > worths[1] else "B")

    [ranking] = teacher(Thinking(reply), by="text", retry_tokens=900).rank([query_pairs([1, 3, 2])])
    assert ranking.order == [1, 2, 0] and (
        ranking.usage["asked_again"],
        ranking.usage["requests"],
    ) == (
        6,
        12,
    )
    [ranking] = teacher(Thinking(reply), by="text").rank([query_pairs([1, 3, 2])])
    assert ranking.flags == ["cut"] * 3 and ranking.usage["failed_comparisons"] == 3


def test_the_label_mass_is_summed_up(caplog: pytest.LogCaptureFixture) -> None:
    [ranking] = teacher(FakeModel(lambda worths: labels(-9.0 - worths[0], -9.0 - worths[1]))).rank(
        [query_pairs([1, 2])]
    )
    assert ranking.usage["label_mass_count"] == ranking.usage["label_mass_low_count"] == 2
    assert ranking.usage["label_mass_sum"] == pytest.approx(2 * (math.exp(-10) + math.exp(-11)))
    assert "rarely begins its answers with the labels 'A', 'B'" in caplog.text


def test_one_failed_order_fails_the_comparison() -> None:
    """10 shown before 20 cannot be read: two of the three comparisons of each are held, and both
    are won.
    """

    def reply(worths: list[int]) -> str:
        return "?" if worths == [10, 20] else "A" if worths[0] > worths[1] else "B"

    [ranking] = teacher(FakeModel(reply), by="text").rank([query_pairs([10, 20, 5, 1])])
    assert ranking.flags == ["doubtful", "doubtful", None, None]
    assert ranking.values is not None and ranking.values.tolist() == [3.0, 3.0, 1.0, 0.0]
    assert ranking.order == [0, 1, 2, 3]
    assert (ranking.usage["comparisons"], ranking.usage["failed_comparisons"]) == (6, 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_document_that_is_never_compared_is_null(method: str) -> None:
    def reply(worths: list[int]) -> Answer:
        return Answer(error="too long") if 13 in worths else choose_better(worths)

    [ranking] = teacher(FakeModel(reply), method=method, top=4).rank(
        [query_pairs([11, 14, 13, 12])]
    )
    assert ranking.order == [1, 3, 0]
    assert ranking.flags[2] == "too long"
    assert [ranking.flags[place] for place in ranking.order] == [
        None
    ] * 3  # a failure with the one at fault is not theirs
    if method == "all":
        assert ranking.values is not None
        np.testing.assert_array_equal(ranking.values, np.array([0.0, 2.0, np.nan, 1.0], np.float32))


@pytest.mark.parametrize("method", ["heapsort", "sliding"])
@pytest.mark.parametrize("lost", [{0}, {9}, {4, 5}, {0, 4, 9}, {1, 3, 5, 7}])
def test_documents_that_always_fail_do_not_block_others(method: str, lost: set[int]) -> None:
    worths = list(range(100, 110))

    def reply(ranking: list[int]) -> Answer:
        return (
            Answer(error="refused")
            if {worth - 100 for worth in ranking} & lost
            else choose_better(ranking)
        )

    [ranking] = teacher(FakeModel(reply), method=method, top=10).rank([query_pairs(worths)])
    assert ranking.order == [place for place in reversed(range(10)) if place not in lost]
    assert {place for place, flag in enumerate(ranking.flags) if flag == "refused"} == lost


@pytest.mark.parametrize("method", ["heapsort", "sliding"])
def test_a_comparison_that_failed_is_a_tie_and_both_are_doubtful(method: str) -> None:
    def reply(ranking: list[int]) -> Answer:
        return Answer(error="refused") if set(ranking) == {12, 13} else choose_better(ranking)

    [ranking] = teacher(FakeModel(reply), method=method, top=10).rank(
        [query_pairs([11, 12, 13, 14])]
    )
    assert ranking.order == [3, 1, 2, 0]
    assert ranking.flags == [None, "doubtful", "doubtful", None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reply", [Answer(error="no answer"), "…"])
def test_nothing_is_ranked_without_answers(method: str, reply: Answer | str) -> None:
    [ranking] = teacher(FakeModel(lambda worths: reply), method=method, by="text").rank(
        [query_pairs([1, 2, 3])]
    )
    assert ranking.order == []
    assert ranking.flags == ["no answer" if isinstance(reply, Answer) else "garbled"] * 3


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 14),
    st.sampled_from(METHODS),
    st.sampled_from(["labels", "text"]),
)
@settings(max_examples=120, deadline=None)
def test_every_document_is_ranked_or_flagged(seed: int, count: int, method: str, by: str) -> None:
    chance = random.Random(seed)

    def reply(worths: list[int]) -> Answer | str:
        kind = chance.random()
        if kind < 0.3:
            return Answer(error="refused")
        if by == "text":
            return chance.choice(["A", "B", "both A and B", ""])
        return labels(*(chance.choice([0.0, -1.0, np.nan]) for _ in range(2)))

    [ranking] = teacher(FakeModel(reply), method=method, by=by, top=5).rank(
        [query_pairs(mixed(count, seed))]
    )
    assert len(set(ranking.order)) == len(ranking.order) and set(ranking.order) <= set(range(count))
    for place in range(count):
        assert (place in ranking.order) == (ranking.flags[place] in (None, "doubtful", "unsorted"))
        assert ranking.values is None or np.isnan(ranking.values[place]) == (
            place not in ranking.order
        )


@pytest.mark.parametrize("method", METHODS)
def test_results_do_not_depend_on_timing(method: str) -> None:
    lists = [query_pairs(mixed(5 + number, number), f"q{number}") for number in range(6)]

    def reply(worths: list[int]) -> Answer:
        return Answer(error="refused") if sum(worths) % 7 == 0 else choose_better(worths)

    def rank(model: FakeModel) -> list[Any]:
        return [
            ranking._replace(values=None if ranking.values is None else ranking.values.tobytes())
            for ranking in teacher(model, method=method, top=3).rank(lists)
        ]

    expected = rank(FakeModel(reply, 1))
    for model in (
        FakeModel(reply, 6, True, 0.002),
        FakeModel(reply, 6, True, 0.002),
        FakeModel(reply, 5),
    ):
        assert rank(model) == expected


def test_many_pairs_are_compared_in_batches() -> None:
    model = FakeModel(choose_better, parallel=4096)
    worths = mixed(50)
    [ranking] = teacher(model).rank([query_pairs(worths)])
    assert model.batches == [1024, 1024, 402]
    assert ranking.order == best_first(worths)


def test_what_a_request_looks_like() -> None:
    model = FakeModel(choose_better)
    prompt = {"user": "{query}: {first} | {second}", "labels": ["1", "2"]}
    pairs = [
        pair._replace(text=pair.text + "\n\nand {first}  of all") for pair in query_pairs([1, 2])
    ]
    PairwiseTeacher(model, prompt, passage_words=6).rank([pairs])
    assert [request.messages[0].content for request in model.requests] == [
        "about q: passage worth 1 points and {first} | passage worth 2 points and {first}",
        "about q: passage worth 2 points and {first} | passage worth 1 points and {first}",
    ]
    assert {(request.labels, request.max_tokens) for request in model.requests} == {(("1", "2"), 1)}
    written = FakeModel(lambda worths: "2" if worths == [1, 2] else "1")
    [ranking] = PairwiseTeacher(written, prompt, by="text").rank([pairs])
    assert ranking.order == [1, 0]
    assert {(request.labels, request.max_tokens) for request in written.requests} == {((), 16)}


def test_the_identity_contains_what_determines_the_order() -> None:
    base = teacher(FakeModel()).identity
    assert base["model"] == {"model": "fake"} and base["method"] == "all" and "top" not in base
    identities = [
        base,
        *(
            teacher(FakeModel(), **settings).identity
            for settings in (
                {"method": "heapsort"},
                {"method": "sliding"},
                {"method": "sliding", "top": 5},
                {"by": "text"},
                {"passage_words": 9},
            )
        ),
    ]
    identities += [
        PairwiseTeacher(FakeModel(), PAIRWISE | more).identity
        for more in ({"system": "x"}, {"labels": ["1", "2"]}, {"choice": "[AB]"})
    ]
    assert len({str(identity) for identity in identities}) == len(identities)


@pytest.mark.parametrize("settings", [{"method": "bubble"}, {"by": "digit"}, {"top": 0}])
def test_invalid_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(IrdistillError, match="pairwise teacher"):
        teacher(FakeModel(), **settings)


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"user": "{query} {first}"},
        PAIRWISE | {"labels": ["A", "A"]},
        PAIRWISE | {"labels": "AB"},
        PAIRWISE | {"choice": "("},
    ],
)
def test_invalid_prompts_are_refused(prompt: dict[str, Any]) -> None:
    with pytest.raises(IrdistillError):
        PairwiseTeacher(FakeModel(), prompt)
