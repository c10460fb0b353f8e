"""Templates are checked when they are created, and filled in one pass."""

from __future__ import annotations

import pytest

from irdistill.errors import IrdistillError
from irdistill.teachers.llm import Message
from irdistill.teachers.llm.prompt_templates import Template, cut_passage


def test_placeholders_are_replaced_in_one_pass() -> None:
    template = Template(
        {
            "assistant": "Answer:",
            "user": 'Q {query}\nP {passage} {{query}} {"a": {1}}',
            "system": "Judge.",
        },
        ["query", "passage"],
        "the prompt",
    )
    assert template.messages(query="cats {passage}", passage="see {query}") == (
        Message("system", "Judge."),
        Message("user", 'Q cats {passage}\nP see {query} {query} {"a": {1}}'),
        Message("assistant", "Answer:"),
    )


def test_the_digest_follows_the_text() -> None:
    one, same, other = (
        Template({"user": text}, ["query"], "x") for text in ("a {query}", "a {query}", "b {query}")
    )
    assert one.digest == same.digest != other.digest


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"system": "{query} {passage}"}, "no user part"),
        ({"user": "{query}"}, "{passage}"),
        ({"user": "{query} {passage} {document}"}, "{document}"),
        ({"user": "{query} {passage}", "tool": "x"}, "tool"),
        ({"user": "{query} {passage}", "system": 3}, "system"),
        ({"user": "{query} {{passage}}"}, "lacks {passage}"),
    ],
)
def test_a_prompt_that_does_not_fit_is_refused(parts: dict[str, str], said: str) -> None:
    with pytest.raises(IrdistillError, match="the prompt of 'x'") as caught:
        Template(parts, ["query", "passage"], "the prompt of 'x'")
    assert said in str(caught.value)


def test_order_compares_the_positions_of_placeholders() -> None:
    assert Template({"user": "{query} {passage}"}, [], "x", ["query", "passage"]).order(
        "query", "passage"
    )
    assert not Template({"user": "{passage} {query}"}, [], "x", ["query", "passage"]).order(
        "query", "passage"
    )
    assert Template(
        {"system": "{query}", "user": "{passage}"}, [], "x", ["query", "passage"]
    ).order("query", "passage")


def test_passages_are_cut_at_words_and_characters() -> None:
    assert cut_passage(" one  two\nthree four ", words=3) == ("one  two\nthree", True)
    assert cut_passage("one two", words=2) == ("one two", False)
    assert cut_passage("one two", characters=4) == ("one", True)
    assert cut_passage("one two three", words=2, characters=100) == ("one two", True)
    assert cut_passage(" one ") == ("one", False)
