"""Split a text into passages of a token budget, at headings, paragraphs and sentences."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

WORD, SENTENCE, PARAGRAPH, HEADING = 1, 2, 3, 4
"""Strength of a place where a text can be cut."""

_UNDERLINE = r"(?=[^\n]+\n([=~^\"'*+#-])\1{2,}[ \t]*(?:\n|$))"
_HEADING = re.compile(rf"^(?:#{{1,6}}[ \t]+(?=\S)|{_UNDERLINE})", re.MULTILINE)
_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")
_SENTENCE = re.compile(
    r"[.!?…][\"'”’)\]]*\s+(?=[^\sa-z])"  # a lower-case letter continues the sentence
    r"|[。！？]\s*"
    r"|\n[ \t]*(?=(?:[-*+•]|\d{1,3}[.)])[ \t])"  # items of a list
)
_WORD = re.compile(r"\s+(?=\S)")


class TextSpans(NamedTuple):
    """The passages of a text.

    Attributes:
        spans: first and last character (exclusive) of each passage.
        cut_sentences: number of cuts within a sentence, because it is longer than the budget.
    """

    spans: list[tuple[int, int]]
    cut_sentences: int


def split_text(text: str, token_ends: np.ndarray, budget: int, overlap: int = 0) -> TextSpans:
    """Split a text into passages of at most ``budget`` tokens.

    A passage ends at the last heading of its second half, else at the last paragraph, else at the
    last sentence. A sentence that is longer than the budget is cut at words, a longer word at
    tokens. Without an overlap the passages are the text: each character is in one passage.

    Args:
        token_ends: (T,) for each token of the text the character behind its last one, ascending.
        budget: most tokens per passage, at least 1.
        overlap: most tokens that a passage repeats of the one before it, whole sentences if they
            fit, else words; less than half of the budget.

    Examples:
        >>> text = "One two. Three four. Five."
        >>> ends = np.array([match.end() for match in re.finditer(r"\\w+|\\.", text)])
        >>> spans, cut = split_text(text, ends, budget=6)
        >>> [text[start:end] for start, end in spans]
        ['One two. Three four. ', 'Five.']
    """
    places, levels = cut_places(text)
    cutter = _Cutter(len(text), np.asarray(token_ends, np.int64), places, levels, budget)
    spans: list[tuple[int, int]] = []
    start = end = 0
    while end < len(text) or not spans:
        end = cutter.end(start, max(start, end))
        spans.append((start, end))
        start = cutter.repeated(start, end, min(overlap, (budget - 1) // 2))
    return TextSpans(spans, cutter.cut_sentences)


def cut_places(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Places (n,) where a text can be cut, ascending, and how strong each is.

    A place between a heading and its text is only as strong as one between words.
    """
    strongest: dict[int, int] = {}
    for level, pattern in ((WORD, _WORD), (SENTENCE, _SENTENCE), (PARAGRAPH, _PARAGRAPH)):
        strongest.update((match.end(), level) for match in pattern.finditer(text))
    for match in _HEADING.finditer(text):
        lines = 2 if match.end() == match.start() else 1
        last = match.start()
        for _ in range(lines):
            last = text.find("\n", last) + 1 or len(text)
        below = re.compile(r"\s*").match(text, last)
        if below is not None and below.end() in strongest:
            strongest[below.end()] = WORD
    for match in _HEADING.finditer(text):
        strongest[match.start()] = HEADING
    places = sorted(place for place in strongest if 0 < place < len(text))
    return (
        np.array(places, np.int64),
        np.array([strongest[place] for place in places], np.int8),
    )


class _Cutter:
    """Finds where passages end and begin."""

    def __init__(
        self,
        length: int,
        token_ends: np.ndarray,
        places: np.ndarray,
        levels: np.ndarray,
        budget: int,
    ) -> None:
        self.length, self.budget = length, budget
        self.token_ends = np.maximum.accumulate(token_ends) if len(token_ends) else token_ends
        self.places, self.levels = places, levels
        self.tokens_before = np.searchsorted(self.token_ends, places, side="right")
        self.cut_sentences = 0

    def end(self, start: int, least: int) -> int:
        """Where the passage that begins at ``start`` ends; behind ``least``."""
        first = int(np.searchsorted(self.token_ends, start, side="right"))
        if len(self.token_ends) - first <= self.budget:
            return self.length
        begin = int(np.searchsorted(self.places, least, side="right"))
        stop = int(np.searchsorted(self.tokens_before, first + self.budget, side="right"))
        half = int(np.searchsorted(self.tokens_before, first + (self.budget + 1) // 2))
        for level in (HEADING, PARAGRAPH, SENTENCE):
            strong = np.flatnonzero(self.levels[max(begin, half) : stop] >= level)
            if len(strong):
                return int(self.places[max(begin, half) + strong[-1]])
        strong = np.flatnonzero(self.levels[begin:stop] >= SENTENCE)
        if len(strong):
            return int(self.places[begin + strong[-1]])
        self.cut_sentences += 1
        if begin < stop:
            return int(self.places[stop - 1])
        # a word longer than the budget, which is cut behind the last token that fits
        return min(max(int(self.token_ends[first + self.budget - 1]), least + 1), self.length)

    def repeated(self, start: int, end: int, overlap: int) -> int:
        """Where the passage behind one from ``start`` to ``end`` begins."""
        if not overlap or end == self.length:
            return end
        last = int(np.searchsorted(self.token_ends, end, side="right"))
        begin = max(
            int(np.searchsorted(self.tokens_before, last - overlap)),
            int(np.searchsorted(self.places, start, side="right")),
        )
        stop = int(np.searchsorted(self.places, end))
        if begin >= stop:
            return end
        sentences = np.flatnonzero(self.levels[begin:stop] >= SENTENCE)
        return int(self.places[begin + (int(sentences[0]) if len(sentences) else 0)])
