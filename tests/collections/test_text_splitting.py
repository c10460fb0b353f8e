"""Passages tile their text, fit the budget, and end where a text can be cut."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from irdistill.collections.text_splitting import (
    HEADING,
    PARAGRAPH,
    SENTENCE,
    WORD,
    cut_places,
    split_text,
)


def token_ends(text: str) -> np.ndarray:
    """Words and punctuation marks, each one token; four letters are one token of a long word."""
    return np.array([m.end() for m in re.finditer(r"\w{1,4}|[^\w\s]", text)], np.int64)


def tokens(text: str) -> int:
    return len(token_ends(text))


def random_text(random: np.random.Generator) -> str:
    pieces = [
        "Sun.", "the cat ", "A dog? ", "\n\n", "# Title\n", "\n- item ", "word ", "x" * 90 + " ",
        "Ünïcode … ", "日本語。", "\n", "   ", "Section\n=======\n", "e.g. this ", '"Stop!" ', "1.5 ",
    ]  # fmt: skip
    return "".join(random.choice(pieces, size=int(random.integers(0, 80))))


@pytest.mark.parametrize("seed", range(60))
def test_passages_tile_the_text_and_fit(seed: int) -> None:
    random = np.random.default_rng(seed)
    text, budget = random_text(random), int(random.integers(1, 40))
    spans, _ = split_text(text, token_ends(text), budget)
    assert "".join(text[start:end] for start, end in spans) == text
    assert all(tokens(text[start:end]) <= budget for start, end in spans)
    assert spans == split_text(text, token_ends(text), budget).spans  # deterministic


@pytest.mark.parametrize("seed", range(60))
def test_overlapping_passages_cover_the_text(seed: int) -> None:
    random = np.random.default_rng(seed)
    text, budget = random_text(random), int(random.integers(6, 40))
    overlap = int(random.integers(1, budget // 2))
    spans, _ = split_text(text, token_ends(text), budget, overlap)
    assert spans[0][0] == 0 and spans[-1][1] == len(text)
    for (start, end), (following, last) in itertools.pairwise(spans):
        assert start < following <= end < last
        assert tokens(text[following:end]) <= overlap
    assert all(tokens(text[start:end]) <= budget for start, end in spans)


def test_a_text_that_fits_is_one_passage() -> None:
    assert split_text("", np.empty(0), 5).spans == [(0, 0)]
    assert split_text("One. Two.", token_ends("One. Two."), 4).spans == [(0, 9)]


def test_the_strongest_place_in_the_second_half_is_taken() -> None:
    text = "One two three. Four five. Six\n\nSeven. Eight nine ten eleven."
    spans, cut = split_text(text, token_ends(text), 10)
    assert [text[a:b] for a, b in spans] == [
        "One two three. Four five. Six\n\n",  # the paragraph, though "Seven." would fit
        "Seven. Eight nine ten eleven.",
    ]
    assert cut == 0


def test_a_heading_begins_a_passage_and_stays_with_its_text() -> None:
    text = "Intro one two three.\n\n# Head\n\nBody four five six. Seven."
    spans, _ = split_text(text, token_ends(text), 9)
    assert [text[a:b] for a, b in spans] == [
        "Intro one two three.\n\n",
        "# Head\n\nBody four five six. ",
        "Seven.",
    ]


def test_long_sentences_are_cut_at_words_and_counted() -> None:
    text = "alfa brav char delt echo foxt golf."
    spans, cut = split_text(text, token_ends(text), 3)
    assert [text[a:b] for a, b in spans] == ["alfa brav char ", "delt echo foxt ", "golf."]
    assert cut == 2
    spans, cut = split_text("x" * 20, token_ends("x" * 20), 2)
    assert spans == [(0, 8), (8, 16), (16, 20)] and cut == 2


def test_overlap_repeats_whole_sentences_or_words() -> None:
    text = "Aa bb. Cc dd. Ee ff. Gg hh."
    spans, _ = split_text(text, token_ends(text), 7, overlap=3)
    assert [text[a:b] for a, b in spans] == [
        "Aa bb. Cc dd. ",
        "Cc dd. Ee ff. ",
        "Ee ff. Gg hh.",
    ]
    text = "aa bb cc dd ee ff gg hh"
    spans, _ = split_text(text, token_ends(text), 5, overlap=2)
    assert [text[a:b] for a, b in spans] == ["aa bb cc dd ee ", "dd ee ff gg hh"]


def test_cut_places_by_hand() -> None:
    text = "Dr. x said so. Then\n- a\n\nTitle\n-----\nText"
    places, levels = cut_places(text)
    strength = dict(zip(places.tolist(), levels.tolist(), strict=True))
    assert strength[text.index("x said")] == WORD  # a lower-case letter continues the sentence
    assert strength[text.index("Then")] == SENTENCE
    assert strength[text.index("- a")] == SENTENCE
    assert strength[text.index("Title")] == HEADING
    assert strength[text.index("Text")] == WORD
    assert dict(zip(*map(np.ndarray.tolist, cut_places("a\n\nb")), strict=True)) == {3: PARAGRAPH}
