"""Conversations as one text: order, turns, budget, and no leaks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irdistill.collections import Query, Turn
from irdistill.errors import IrdistillError
from irdistill.queries import HistoryTemplate
from irdistill.queries.history_template import count_words

TURNS = (
    Turn("user", "who is\nAda"),
    Turn("assistant", "a mathematician"),
    Turn("user", "when was she born"),
)
QUERY = Query("q", "what did she write", TURNS, "what did Ada Lovelace write")


@pytest.mark.parametrize(
    ("written", "text", "kept", "cut"),
    [
        ("newest questions", "what did she write [SEP] when was she born [SEP] who is Ada", 2, 0),
        (
            "newest all",
            "what did she write [SEP] when was she born [SEP] a mathematician [SEP] who is Ada",
            3,
            0,
        ),
        ("oldest questions", "who is Ada [SEP] when was she born [SEP] what did she write", 2, 0),
        (
            "oldest all separator=_|_",
            "who is Ada | a mathematician | when was she born | what did she write",
            3,
            0,
        ),
        ("newest all turns=1", "what did she write [SEP] when was she born", 1, 2),
        ("newest all turns=0", "what did she write", 0, 3),
        (
            "newest questions tokens=12",
            "what did she write [SEP] when was she born",
            1,
            1,
        ),  # 13 with the oldest turn
        (
            "newest questions tokens=13",
            "what did she write [SEP] when was she born [SEP] who is Ada",
            2,
            0,
        ),
        ("oldest questions tokens=12", "when was she born [SEP] what did she write", 1, 1),
        ("newest all tokens=1", "what did she write", 0, 3),
    ],
)
def test_rendered_histories(written: str, text: str, kept: int, cut: int) -> None:
    rendered = HistoryTemplate.parse(written).render(QUERY)
    assert (rendered.text, rendered.kept, rendered.cut) == (text, kept, cut)
    assert str(HistoryTemplate.parse(written)) == written


def test_a_question_without_history_is_itself() -> None:
    assert HistoryTemplate().render(Query("q", "who is Ada")) == ("who is Ada", 0, 0)


turns = st.lists(
    st.builds(
        Turn, st.sampled_from(["user", "assistant"]), st.text("ab c", min_size=1, max_size=12)
    ),
    max_size=6,
)
templates = st.builds(
    HistoryTemplate,
    st.sampled_from(["newest", "oldest"]),
    st.sampled_from(["questions", "all"]),
    st.sampled_from([" [SEP] ", " | ", " "]),
    st.none() | st.integers(1, 30),
    st.none() | st.integers(0, 6),
)


@given(turns, templates)
def test_the_question_stays_whole_and_the_newest_turns_stay_longest(
    history: list[Turn], template: HistoryTemplate
) -> None:
    query = Query("q", "the question", tuple(history), "LEAKED REWRITE")
    rendered = template.render(query)
    shown = [
        turn.text
        for turn in history
        if (template.shown == "all" or turn.role == "user") and turn.text.strip()
    ]
    assert rendered.kept + rendered.cut == len(shown)
    kept = [" ".join(text.split()) for text in shown[len(shown) - rendered.kept :]]
    expected = (
        ["the question", *reversed(kept)] if template.order == "newest" else [*kept, "the question"]
    )
    assert rendered.text == template.separator.join(expected)
    assert template.turns is None or rendered.kept <= template.turns
    assert (
        template.tokens is None
        or count_words(rendered.text) <= template.tokens
        or rendered.kept == 0
    )
    assert "LEAKED" not in rendered.text
    assert HistoryTemplate.parse(str(template)) == template


@pytest.mark.parametrize(
    "written", ["", "middle all", "newest some", "newest all tokens=x", "newest all depth=3"]
)
def test_invalid_templates_are_refused(written: str) -> None:
    with pytest.raises(IrdistillError, match="cannot read"):
        HistoryTemplate.parse(written)


@pytest.mark.parametrize(
    "settings",
    [{"tokens": 0}, {"turns": -1}, {"order": "random"}, {"shown": "none"}, {"tokens": True}],
)
def test_invalid_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(IrdistillError, match="expected"):
        HistoryTemplate(**settings)  # type: ignore[arg-type]
