"""Reading rankings and choices in a model's answers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.reading import (
    ChoiceReader,
    RankingReader,
    Reading,
    is_refusal,
    read_answer,
    without_fences,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
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
    ],
)
def test_rankings_of_three_passages(text: str, expected: Reading) -> None:
    parsed = RankingReader().read(text, 3)
    assert parsed[:4] == expected[:4]
    assert parsed.garbled == (expected.order == [])
    assert parsed.complete == (
        len(expected.order) == 3 and not expected.repeated and not expected.unknown
    )


def test_patterns_are_data() -> None:
    assert RankingReader(r"\bP(\d)\b").read("P3, P1 and P2; not [1]", 3).order == [2, 0, 1]
    assert RankingReader(r"\d").read("2 1 3", 3).order == [1, 0, 2]
    thinking = RankingReader(ranking=r"(?s)</think>(.*)")
    assert thinking.read("<think>[1] or [2]?</think> [2] > [1]", 2).order == [1, 0]
    assert thinking.read("<think>[1] or [2]?", 2).garbled
    assert RankingReader(ranking=r"(?m)^Ranking: (.*)$").read(
        "Ranking: [1]\nNo.\nRanking: [2] > [1]", 2
    ).order == [1, 0]


@given(st.permutations(range(1, 31)), st.sampled_from([" > ", ">", ", ", "\n"]))
def test_a_well_formed_answer_is_read_as_it_is(order: list[int], between: str) -> None:
    parsed = RankingReader().read(between.join(f"[{number}]" for number in order), 30)
    assert parsed[:4] == Reading([number - 1 for number in order], [], [], 0)[:4]


@given(st.text(alphabet="[]0123456789> a", max_size=60) | st.text(max_size=30), st.integers(1, 12))
@settings(max_examples=300)
def test_every_passage_is_in_the_order_or_omitted(text: str, count: int) -> None:
    parsed = RankingReader().read(text, count)
    assert sorted(parsed.order + parsed.omitted) == list(range(count))
    assert set(parsed.repeated) <= set(parsed.order)
    assert parsed.omitted == sorted(parsed.omitted)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A", 0),
        ("Passage B.", 1),
        (" B\n", 1),
        ("A. Yes, A!", 0),
        ("both A and B", None),
        ("Alpha", None),
        ("", None),
        ("a", None),
    ],
)
def test_a_choice_between_labels(text: str, expected: int | None) -> None:
    assert ChoiceReader(["A", "B"]).read(text) == expected


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("Not A", None),
        ("Passage A is not relevant to the query.", None),
        ("B isn't relevant", None),
        ("A cat is the topic", None),
        ("It is more relevant than A", None),
        ("Passage B is less relevant", None),
        ("A passage about cats", None),
        ("A more relevant passage is B", 1),
        ("A is more relevant", 0),
        ("A provides more", 0),
        ("A because it fits", 0),
        ("The answer is A because", 0),
        ("I choose A", 0),
        ("Passage A: about a cat", 0),
        ("Passage A directly answers", 0),
        ("Answer: B", 1),
        ("**A** is better", 0),
        ("(A) it fits", 0),
    ],
)
def test_a_label_that_is_denied_or_is_an_article_is_not_chosen(
    text: str, chosen: int | None
) -> None:
    assert ChoiceReader(["A", "B"]).read(text) == chosen


def test_a_choice_by_a_pattern() -> None:
    reader = ChoiceReader(["1", "2"], r"answer: (\S+)")
    assert [reader.read(text) for text in ("1 or 2? answer: 2", "answer: 1", "1", "answer: 3")] == [
        1,
        0,
        None,
        None,
    ]


@pytest.mark.parametrize("pattern", ["(", r"(\d)(\d)", 7])
def test_an_invalid_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(IrdistillError, match="identifier"):
        RankingReader(pattern)
    with pytest.raises(IrdistillError, match="choice"):
        ChoiceReader(["A", "B"], pattern)


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("[2] > [3] > [1]\n\nExplanation: [2] says a, [1] says b", [2, 3, 1]),
        ("Passage [3] is off topic. [1] > [2] > [3]", [1, 2, 3]),
        ("Initially [1], [2], [3]. Then [2] > [3] > [1].", [2, 3, 1]),
        ("Passage [2] > Passage [3] > Passage [1]", [2, 3, 1]),
        ("1. [2]\n2. [3]\n3. [1]", [2, 3, 1]),
        ("1. [2] - explains it\n2. [3] - less\n3. [1] - not", [2, 3, 1]),
        ("- [2]: a\n- [1]: b\n- [3]: c", [2, 1, 3]),
        ("Rank 1: [2]\nRank 2: [1]\nRank 3: [3]", [2, 1, 3]),
        ('["[2]", "[1]", "[3]"]', [2, 1, 3]),
        ("**[2]** > **[1]** > **[3]**", [2, 1, 3]),
        ("Here:\n```\n[2] > [1] > [3]\n```\nbecause [3]", [2, 1, 3]),
        ("<think>[1] is good. [3] is better. [1] > [3]</think> [2] > [1] > [3]", [2, 1, 3]),
        ("<reason>[1] > [3]</reason><answer>[2] > [1] > [3]</answer>", [2, 1, 3]),
        # mentioned, not ranked
        ("[3] is about x. [1] is about y. [2] too", []),
        ("[1], [2] and [3] all discuss cats. [2] is best", []),
        ("1. [1] - explains it\n2. [2] - less\n3. [3] - not", []),
        ("[2] is best", []),
        ("[2] is better than [1]", []),
        ("None of the passages are relevant: [1], [2], [3]", []),
        ("Passages: [1] [2] [3]", []),
        ("I cannot rank [2], [1], [3]", []),
        ("The order is not [1] > [2] > [3]", []),
        ("It is not the case that [2] > [1] > [3].", []),
        ("[1] < [2] < [3]", []),
        ("Least to most relevant: [1], [3], [2]", []),
        ("We rank. [1] > [2] > [3]? Let me check [2] again", []),
        # with words around it, and a ranking
        ("The passages do not answer it fully, but the ranking is: [2] > [3] > [1]", [2, 3, 1]),
        ("Ranking: [1], [2], [3]", [1, 2, 3]),
        ("None of them answers it. [2] > [1] > [3]", [2, 1, 3]),
        ("<li>[2]</li>\n<li>[1]</li>\n<li>[3]</li>", []),
        ("The order: [1] > [2] > [3]", [1, 2, 3]),
        ("I'd sort them so: [3], [1], [2]", [3, 1, 2]),
        ("<think>[2] > [3] > [1]", []),
        ("<think>[2] > [3] > [1]</think>", []),
        ("analysis[2] > [3] > [1]", []),
    ],
)
def test_the_order_of_mention_is_not_a_ranking(text: str, order: list[int]) -> None:
    assert [place + 1 for place in RankingReader().read(text, 3).order] == order


@pytest.mark.parametrize(
    ("text", "cut", "chosen"),
    [
        ("Passage A discusses the topic of", True, None),
        ("A\n\nPassage A is better because", True, 0),
        ("Passage B\nbecause", True, 1),
        ("A", True, None),
        ("<think>A</think>B", False, 1),
        ("<think>A", False, None),
        ("Passage A discusses", False, 0),
    ],
)
def test_a_choice_of_a_cut_answer_must_be_a_line(text: str, cut: bool, chosen: int | None) -> None:
    assert ChoiceReader(["A", "B"]).read(text, cut) == chosen
    assert ChoiceReader(["A", "B"], r"answer: (\w)").read("answer: B and so", True) == 1


@pytest.mark.parametrize(
    ("answer", "reply"),
    [
        (Answer("<think>a</think> b"), ("b", None)),
        (Answer("<think>a"), ("", "cut")),
        (Answer("b", cut=True), ("b", "cut")),
        (Answer("", cut=True), ("", "cut")),
        (Answer(""), ("", "no answer")),
        (Answer("x", error="too long"), ("", "too long")),
        (Answer("[2] > [1]<|im_end|>\n<|im_start|>user\n[1] > [2]"), ("[2] > [1]", None)),
        (Answer("b</s>"), ("b", None)),
        (Answer("<s>struck</s> out"), ("<s>struck</s> out", None)),
        (Answer("<|im_end|>"), ("", "no answer")),
        (Answer("I'm sorry, but I cannot rank [1] and [2]"), ("", "refused")),
        (Answer("```\nb\n```"), ("b", None)),
    ],
)
def test_all_answers_are_read_in_the_same_way(
    answer: Answer, reply: tuple[str, str | None]
) -> None:
    assert read_answer(answer) == reply


def test_fences_and_refusals() -> None:
    fenced = ("```sql\na\n```\nb", "```a", "a\n```", "no", "~~~\na\n~~~")
    assert [without_fences(text) for text in fenced] == ["a\n\nb", "a", "a", "no", "a"]
    assert (
        not is_refusal("sorry not sorry")
        and not is_refusal("i'm afraid of flying tips")
        and is_refusal("Je suis désolé")
    )
