"""The words of a text that match a query."""

from __future__ import annotations

import time

from irdistill.search.lexical.matched_words import matched_excerpt, matched_spans


def words(query: str, text: str) -> list[str]:
    return [text[start:end] for start, end in matched_spans(query, text)]


def test_words_match_by_stem_and_stop_words_do_not() -> None:
    text = "The CATS are sleeping; a sleeper's cat, and I am the one."
    assert words("the cat is sleeping", text) == ["CATS", "sleeping", "cat"]
    assert words("the of a", text) == [] == words("cat", "")


def test_offsets_are_of_characters_of_the_original_text() -> None:
    text = "𝒜𝒷 İstanbul naïve CAFÉS"
    assert words("café naïve", text) == ["naïve", "CAFÉS"]


def test_an_excerpt_has_most_distinct_terms() -> None:
    text = "cat cat cat " + "x" * 400 + " the cat and the dog sleep " + "y" * 400 + " dog dog"
    part = matched_excerpt("cats dogs", text, 100)
    assert {part.text[start:end] for start, end in part.spans} == {"cat", "dog"}
    assert part.text == text[part.start : part.end] and len(part.text) <= 100
    assert matched_excerpt("bird", text, 50)[2:] == (0, 50)
    assert matched_excerpt("bird", "short", 50) == ("short", [], 0, 5)


def test_a_match_at_the_cut_is_cut() -> None:
    assert matched_excerpt("abcdef", "abcdef ghi", 4) == ("abcd", [(0, 4)], 0, 4)


def test_a_long_text_takes_linear_time() -> None:
    text = "cat dog " * 40_000
    start = time.perf_counter()
    assert matched_excerpt("cat dog bird", text).start == 0
    assert time.perf_counter() - start < 2.0
