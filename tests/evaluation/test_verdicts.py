"""Figures in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from irdistill.evaluation import Evaluation, Row, evaluate
from irdistill.evaluation.verdicts import differences_in_words, in_words, verdict_sentences

BASE = Row("BM25", "set", "nDCG@10", 2570, 0.4667, 0.4507, 0.4828)
STUDENT = Row(
    "student",
    "set",
    "nDCG@10",
    2570,
    0.5976,
    0.582,
    0.613,
    p=1e-60,
    p_random=1e-4,
    p_holm=3e-60,
    against="BM25",
    difference=0.1309,
    difference_low=0.1153,
    difference_high=0.1461,
    effect=0.33,
    detectable=0.022,
    wins=1012,
    ties=1018,
    losses=540,
)


def test_one_comparison_is_one_sentence() -> None:
    assert verdict_sentences(Evaluation((BASE, STUDENT))) == [
        "student is better than BM25 on nDCG@10: 0.5976 against 0.4667, +0.1309, 95% interval"
        " [+0.1153, +0.1461], p < 0.0001 after Holm; better on 1,012 queries, worse on 540, equal"
        " on 1,018."
    ]


def test_several_comparisons_begin_with_the_best_system() -> None:
    worse = replace(STUDENT, system="tiny", value=0.4, difference=-0.0667, p_holm=0.0312)
    lines = verdict_sentences(Evaluation((BASE, STUDENT, worse)))
    assert lines[0] == (
        "student has the highest nDCG@10 of 3 systems: 0.5976, 95% interval [0.5820, 0.6130]."
    )
    assert lines[2].startswith("tiny is worse than BM25 on nDCG@10: 0.4000 against 0.4667, -0.0667")
    assert "p = 0.0312 after Holm" in lines[2]


def test_two_datasets_are_named() -> None:
    rows = [replace(row, dataset=name) for name in ("a", "b") for row in (BASE, STUDENT)]
    lines = verdict_sentences(Evaluation(tuple(rows)))
    assert lines[1].startswith("On b, student has the highest nDCG@10 of 2 systems")
    assert lines[3].startswith("student is better than BM25 on nDCG@10 of b: ")


def test_of_many_comparisons_those_of_the_best_system_are_told() -> None:
    against = ("BM25", "MiniLM", "teacher", "small", "large")
    rows = [replace(STUDENT, against=name, p_holm=0.3 * (name == "large")) for name in against]
    assert verdict_sentences(Evaluation((BASE, *rows))) == [
        "student has the highest nDCG@10 of 2 systems: 0.5976, 95% interval [0.5820, 0.6130]. It is"
        " better than BM25, MiniLM, teacher and small. It is not shown to differ from large."
    ]


def test_without_a_baseline() -> None:
    runs = {"one": {"q": {"d": 1.0}}}
    assert verdict_sentences(evaluate({"q": {"d": 1}}, runs, "RR@10")) == [
        "RR@10 of one: 1.0000, 95% interval [1.0000, 1.0000]."
    ]
    lines = verdict_sentences(evaluate({"q": {"d": 1}}, runs | {"two": runs["one"]}, "NumRet"))
    assert lines[0] == "one has the highest NumRet of 2 systems: 1."
    assert lines[1] == "No baseline was named, so no difference is tested."


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "better, more than chance explains; small effect"),
        (
            {"difference": -0.1, "effect": -0.1},
            "worse, more than chance explains; very small effect",
        ),
        ({"effect": None}, "better, more than chance explains"),
        ({"wins": 0, "losses": 0, "p_holm": 1.0}, "equal on every query"),
        (
            {"p_holm": 0.06},
            "no difference shown; a true difference of 0.0220 would show in 4 of 5 such query sets",
        ),
        ({"p_holm": 0.06, "detectable": None}, "no difference shown; too few queries to tell"),
    ],
)
def test_tests_in_words(changes: dict[str, float | None], words: str) -> None:
    assert in_words(replace(STUDENT, **changes)) == words


def test_columns_that_are_the_same_everywhere_are_left_out() -> None:
    other = replace(STUDENT, against="MiniLM")
    assert list(differences_in_words([BASE, STUDENT]).header[:3]) == [
        "system",
        "measure",
        "in words",
    ]
    table = differences_in_words([STUDENT, other])
    assert list(table.header[:3]) == ["system", "against", "measure"]
    assert table.rows[1][4] == "+0.1309 [+0.1153, +0.1461]" and table.words == [3]
