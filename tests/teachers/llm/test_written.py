"""The requested line of an answer, without the words around it; empty if there is none."""

from __future__ import annotations

import pytest

from irdistill.teachers.llm.language_model import Answer
from irdistill.teachers.llm.reading import Reply
from irdistill.teachers.llm.written import read_written

LINES = {
    "What is it?": "What is it?",
    ' "What did Ada write?"\nBecause …': "What did Ada write?",
    "1. Question: What is it?\nmore": "What is it?",
    "Rewritten question: What?": "What?",
    "Rewritten question that stands alone: What?": "What?",
    "Question:\nWhat?": "What?",
    "Question 1: foo bar": "foo bar",
    "Search query (short): foo bar": "foo bar",
    "Answer: What is x?": "What is x?",
    "q: foo": "foo",
    "\n\n - keywords: a, b, c": "a, b, c",
    "**Title:** x y": "x y",
    "**Question**: What is x?": "What is x?",
    "**What is x?**": "What is x?",
    "### Question\nWhat is x?": "What is x?",
    "Query\nfoo bar": "foo bar",
    "<think>hm</think>What is x?": "What is x?",
    "<think>\n\n</think>\n\nWhat is x?": "What is x?",
    "Here is the question:\nWhat is x?": "What is x?",
    "Here is the question: What is x?": "What is x?",
    "Sure! Here's a question: What is x?": "What is x?",
    "Certainly! What is x?": "What is x?",
    'Sure!\n\nHere is a question based on the passage:\n\n"What is x?"\n\nThis asks': "What is x?",
    "Based on the passage, a good question is: What is x?": "What is x?",
    "The question is: what?": "what?",
    "The last question, written so that it stands alone: What?": "What?",
    "```\nWhat is x?\n```": "What is x?",
    "Here:\n```text\nWhat is x?\n```\nmore": "What is x?",
    "```What is x?```": "What is x?",
    '```json\n{"query": "What is x?"}\n```': "What is x?",
    '{"question": "What is x?", "why": "b"}': "What is x?",
    '["a b", "c d"]': "a b",
    '{"rewritten_question": "What is x?", "why": "b"}': "What is x?",
    "<query>What is x?</query>": "What is x?",
    "- What is x?\n- What is y?": "What is x?",
    "“What is x?”": "What is x?",
    "'What's new?'": "What's new?",
    "`grep -r`": "grep -r",
    "Okay, the user wants a question.\n\nFinal question: What is x?": "What is x?",
    "Reasoning: a\nQuery: x y": "x y",
    "What is x?\n\nThe answer is:\n\n```\n# Python 3\n```": "What is x?",
    "```\nWhat is x?": "What is x?",
    "What is x?<|im_end|>": "What is x?",
    "What is x?<|eot_id|><|start_header_id|>user": "What is x?",
    "assistant\n\nWhat is x?": "What is x?",
    "Assistant: What is x?": "What is x?",
    'json\n{"query": "what is x"}': "what is x",
    "Sure, I can help with that.\nWhat is x?": "What is x?",
    "Of course! I'll do that.\n\nWhat is x?": "What is x?",
    # what only looks like it
    "unable to generate ssh key": "unable to generate ssh key",
    "how can i help my dog": "how can i help my dog",
    "it seems windows update fails": "it seems windows update fails",
    "text editors": "text editors",
    "i need more ram for chrome": "i need more ram for chrome",
    "assistant manager salary": "assistant manager salary",
    "the passage is closed in winter": "the passage is closed in winter",
    "i don't have a receipt": "i don't have a receipt",
    "there are no questions left in trivia": "there are no questions left in trivia",
    "The ratio 3: what is it?": "The ratio 3: what is it?",
    "3D printing": "3D printing",
    "2.5 GHz radio": "2.5 GHz radio",
    'who wrote "Dune"': 'who wrote "Dune"',
    '"Dune" and "Foundation"': '"Dune" and "Foundation"',
    "ok google": "ok google",
    "sure jell pectin recipe": "sure jell pectin recipe",
    "here comes the sun lyrics": "here comes the sun lyrics",
    "Yes, and no": "Yes, and no",
    "Query time in SQL: how to reduce": "Query time in SQL: how to reduce",
    "let me love you lyrics": "let me love you lyrics",
    "The history of question marks: origin": "The history of question marks: origin",
    "Great Expectations plot": "Great Expectations plot",
    "The answer to life: 42": "The answer to life: 42",
    "I can't connect to wifi": "I can't connect to wifi",
    "I'm sorry lyrics": "I'm sorry lyrics",
    "sorry for your loss messages": "sorry for your loss messages",
    "as an ai engineer what to learn": "as an ai engineer what to learn",
    "What is the meaning of C++ std:": "What is the meaning of C++ std:",
}
NONE = {
    "": "no answer",
    "\n \n": "no answer",
    "?": "no answer",
    "<think>What is x?": "cut",
    "Here is the question:": "no answer",
    "Here is the query": "no answer",
    "query": "no answer",
    "[question]": "no answer",
    "N/A": "no answer",
    "[[[[[": "no answer",
    "[" * 100_000: "no answer",
    '{"a":' * 50_000: "no answer",
    '{"a": {"b": [1]}}': "no answer",
    "{not json}": "no answer",
    "Okay, the user wants a question about x. Let me": "no answer",
    "Reasoning: foo": "no answer",
    "```\n```": "no answer",
    "I'm sorry, but I can't help with that.": "refused",
    "I cannot assist with that request.": "refused",
    "Sorry, I can't do that": "refused",
    "As an AI language model, I do not": "refused",
    "**Sorry**, I can't": "refused",
    '"I am unable to write a question."': "refused",
    "The passage does not contain a claim.": "refused",
    "No question can be formed from this.": "refused",
    "抱歉，我无法": "refused",
    "Unfortunately, I cannot answer this.": "refused",
    "Unfortunately, the passage does not contain enough information.": "refused",
    '"Regrettably there is no information to form a question.': "refused",
    "Please provide the passage.": "refused",
    "<think>a</think>I'm sorry, but no": "refused",
    "I don't have enough information to write a question.": "refused",
    "I don't see a passage": "refused",
    "I need more context.": "refused",
    "I'm an AI and have no opinion": "refused",
    "It seems that the passage is missing. Please provide it": "refused",
    "The passage is empty.": "refused",
    "It looks like you didn't provide a passage": "refused",
    "Unable to generate a question": "refused",
    "Hello! How can I assist you today?": "refused",
    "There are no questions.": "refused",
    "assistant": "no answer",
}


@pytest.mark.parametrize("text", LINES)
def test_the_requested_line_is_read(text: str) -> None:
    assert read_written(Answer(text)) == Reply(LINES[text])
    assert read_written(Answer(LINES[text])) == Reply(LINES[text])


@pytest.mark.parametrize("text", NONE, ids=lambda text: text[:20])
def test_an_answer_without_a_line_has_no_text(text: str) -> None:
    assert read_written(Answer(text)) == Reply("", NONE[text])


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ("What is x?\nBecause it", Reply("What is x?")),
        ("How to x?\n\nAnswer:\n\n```python\ndef a", Reply("How to x?")),
        ("What is", Reply("", "cut")),
        ("Here is the question:\nWhat is", Reply("", "cut")),
        ("Here is the question:", Reply("", "cut")),
        ("Okay, the user wants", Reply("", "cut")),
        ("<think>a</think>What is", Reply("", "cut")),
        ("```\nWhat is", Reply("", "cut")),
        ("I'm sorry, but", Reply("", "refused")),
        ("", Reply("", "cut")),
    ],
)
def test_only_a_complete_line_of_a_cut_answer_counts(text: str, reply: Reply) -> None:
    assert read_written(Answer(text, cut=True)) == reply


def test_the_models_error_is_the_flag() -> None:
    assert read_written(Answer("What is x?", error="too long")) == Reply("", "too long")
