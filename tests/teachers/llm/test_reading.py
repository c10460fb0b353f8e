"""Reading rankings and choices out of what a model writes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.teachers.llm.reading import ChoiceReader, RankingReader, Reading


@pytest.mark.parametrize(("text", "expected"), [
    ("[2] > [3] > [1]", Reading([1, 2, 0], [], [], 0)),
    ("Sure, here it is:\n[2]>[3]>[1].", Reading([1, 2, 0], [], [], 0)),
    ("[2] > [1", Reading([1], [], [0, 2], 0)),
    ("[2] > [1] > [2] > [3]", Reading([1, 0, 2], [1], [], 0)),
    ("[3] > [3] > [3]", Reading([2], [2], [0, 1], 0)),
    ("[0] > [4] > [1]", Reading([0], [], [1, 2], 2)),
    ("[99999999999999999999] > [1]", Reading([0], [], [1, 2], 1)),
    ("[٣] > [1]", Reading([2, 0], [], [1], 0)),
    ("2 > 3 > 1", Reading([], [], [0, 1, 2], 0)),
    ("", Reading([], [], [0, 1, 2], 0)),
])
def test_what_an_answer_says_about_three_passages(text: str, expected: Reading) -> None:
    found = RankingReader().read(text, 3)
    assert found == expected
    assert found.garbled == (expected.order == [])
    assert found.complete == (len(expected.order) == 3 and not expected.repeated and not expected.unknown)


def test_patterns_are_data() -> None:
    assert RankingReader(r"\bP(\d)\b").read("P3, P1 and P2; not [1]", 3).order == [2, 0, 1]
    assert RankingReader(r"\d").read("2 1 3", 3).order == [1, 0, 2]
    thinking = RankingReader(ranking=r"(?s)</think>(.*)")
    assert thinking.read("<think>[1] or [2]?</think> [2] > [1]", 2).order == [1, 0]
    assert thinking.read("<think>[1] or [2]?", 2).garbled
    assert RankingReader(ranking=r"(?m)^Ranking: (.*)$").read("Ranking: [1]\nNo.\nRanking: [2] > [1]", 2).order == [1, 0]


@given(st.permutations(range(1, 31)), st.sampled_from([" > ", ">", ", ", "\n"]))
def test_a_well_formed_answer_is_read_as_it_is(order: list[int], between: str) -> None:
    found = RankingReader().read(between.join(f"[{number}]" for number in order), 30)
    assert found == Reading([number - 1 for number in order], [], [], 0)


@given(st.text(alphabet="[]0123456789> a", max_size=60) | st.text(max_size=30), st.integers(1, 12))
@settings(max_examples=300)
def test_every_passage_is_in_the_order_or_omitted(text: str, count: int) -> None:
    found = RankingReader().read(text, count)
    assert sorted(found.order + found.omitted) == list(range(count))
    assert set(found.repeated) <= set(found.order)
    assert found.omitted == sorted(found.omitted)


@pytest.mark.parametrize(("text", "expected"), [
    ("A", 0), ("Passage B.", 1), (" B\n", 1), ("A. Yes, A!", 0), ("both A and B", None), ("Alpha", None), ("", None), ("a", None),
])
def test_a_choice_between_labels(text: str, expected: int | None) -> None:
    assert ChoiceReader(["A", "B"]).read(text) == expected


def test_a_choice_by_a_pattern() -> None:
    reader = ChoiceReader(["1", "2"], r"answer: (\S+)")
    assert [reader.read(text) for text in ("1 or 2? answer: 2", "answer: 1", "1", "answer: 3")] == [1, 0, None, None]


@pytest.mark.parametrize("pattern", ["(", r"(\d)(\d)", 7])
def test_a_pattern_that_is_none(pattern: str) -> None:
    with pytest.raises(IrdistillError, match="identifier"):
        RankingReader(pattern)
    with pytest.raises(IrdistillError, match="choice"):
        ChoiceReader(["A", "B"], pattern)
