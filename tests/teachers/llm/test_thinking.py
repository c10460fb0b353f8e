"""Thinking is removed from answers, in the markers of many model families; unfinished thinking
leaves nothing.
"""

from __future__ import annotations

import pytest

from irdistill.teachers.llm.thinking import (
    begins_thinking,
    closing_marker,
    is_opening,
    opened_thinking,
    split_thinking,
)

ANSWERED = {
    "closed": "<think>[3] first, then [1]</think>\n\nsaid",
    "the template opened it": "[3] first, then [1] </think> said",
    "empty": "<think>\n\n</think>\n\nsaid",
    "self-closing": "<think/>said",
    "twice": "<think>a</think><think>b</think>said",
    "within itself": "<think>a <think>b</think> c</think>said",
    "with attributes": '<think time="3">a</think>said',
    "upper case": "<THINK>a</THINK>said",
    "thinking": "<thinking>a</thinking>said",
    "reasoning": "<reasoning>a</reasoning>said",
    "reason and answer": "<reason>a</reason><answer>said</answer>",
    "reflection": "<thinking>a<reflection>b</reflection></thinking><output>said</output>",
    "seed": "<seed:think>a</seed:think>said",
    "Magistral": "[THINK]a[/THINK]said",
    "Kimi": "◁think▷a◁/think▷said",
    "thoughts": (
        "<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>said<|end_of_solution|>"
    ),
    "Command": "<|START_THINKING|>a<|END_THINKING|><|START_RESPONSE|>said<|END_RESPONSE|>",
    "channels": (
        "<|channel|>analysis<|message|>a"
        " [1]<|end|><|start|>assistant<|channel|>final<|message|>said<|return|>"
    ),
    "a tool's channel": (
        "<|channel|>commentary to=x"
        " <|constrain|>json<|message|>{}<|call|><|channel|>final<|message|>said"
    ),
    "channels without control tokens": "analysisWe need [1].assistantfinalsaid",
    "Gemma": "<|channel>thought\na<channel|>said",
    "escaped": "&lt;think&gt;a&lt;/think&gt;said",
    "after the answer": "said <think>a</think>",
}


@pytest.mark.parametrize("name", ANSWERED)
def test_the_text_after_the_thinking_is_the_answer(name: str) -> None:
    said = split_thinking(ANSWERED[name])
    assert (said.text, said.whole) == ("said", True)
    assert split_thinking(said.text) == (said.text, True, said.text)


@pytest.mark.parametrize(
    "text",
    [
        "<think>[2] > [1] > [3]",
        "<think>a</think>b <think>c",
        "[THINK]a",
        "◁think▷a",
        "<|START_THINKING|>a",
        "<reasoning>a",
        "<|channel|>analysis<|message|>a [1]",
        "analysisWe need [1] > [2]",
        "<|channel>thought\na",
        "<think>a</thi",
        "&lt;think&gt;a",
    ],
)
def test_thinking_without_an_end_leaves_nothing(text: str) -> None:
    assert split_thinking(text) == ("", False, "")


@pytest.mark.parametrize(
    "text",
    [
        "analysis of variance",
        "a < b > c",
        "[1] > [2]",
        "what does <b>bold</b> do",
        "what does <result> mean",
        "",
    ],
)
def test_text_that_is_not_thinking_stays(text: str) -> None:
    assert split_thinking(text) == (text, True, text)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<think>", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("◁think▷", "◁/think▷"),
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("<seed:think>", "</seed:think>"),
        ("<|channel>thought", "<channel|>"),
    ],
)
def test_each_marker_is_closed_by_its_own(opening: str, closing: str) -> None:
    assert closing_marker(opening) == closing and is_opening(opening) and not is_opening(closing)
    assert opened_thinking(f"<|user|>x<|assistant|>{opening}\n") == opening and begins_thinking(
        f"\n{opening} a"
    )
    assert split_thinking(f"{opening} a [1] {closing} b").text == "b" and not begins_thinking("yes")


def test_long_answers_are_read_quickly() -> None:
    for text in (
        "<think>" * 50_000,
        "</think>" * 50_000,
        "<" * 200_000,
        "a <|channel|>" * 20_000,
        "<|channel|>a<|message|>" * 20_000,
    ):
        split_thinking(text)
