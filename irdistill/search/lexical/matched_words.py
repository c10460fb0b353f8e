"""The words of a text that match a query, for people who read rankings."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from irdistill.modeling.stemming import StemTokenizer

_WORD = re.compile(r"(?u)\b\w\w+\b")
_LEAD = 60
"""Characters of an excerpt before its first matched word."""


class Excerpt(NamedTuple):
    """A part of a text.

    Attributes:
        text: the part.
        spans: start and end of its matched words, as character offsets into the part.
        start: where the part begins in the text, in characters.
        end: where it ends.
    """

    text: str
    spans: list[tuple[int, int]]
    start: int
    end: int


def matched_spans(query: str, text: str) -> list[tuple[int, int]]:
    """Start and end, in characters, of the words of a text whose BM25 term is in the query.

    Examples:
        >>> matched_spans("merging dictionaries", "How to merge a dictionary")
        [(7, 12), (15, 25)]
    """
    return [(start, end) for start, end, _ in _matches(query, text)]


def matched_excerpt(query: str, text: str, length: int = 320) -> Excerpt:
    """The part of a text with the most distinct terms of the query; the first of several.

    Args:
        length: characters of the part; a shorter text is returned whole.

    Examples:
        >>> matched_excerpt("sleeping cats", "One two three. The cat sleeps.", 15)
        Excerpt(text='The cat sleeps.', spans=[(4, 7), (8, 14)], start=15, end=30)
    """
    matches = _matches(query, text)
    start = _best_start(text, matches, length) if len(text) > length else 0
    end = _word_end(text, start, min(len(text), start + length))
    spans = [(begin - start, stop - start) for begin, stop, _ in matches if start <= begin < end]
    return Excerpt(text[start:end], [(a, min(b, end - start)) for a, b in spans], start, end)


def _matches(query: str, text: str) -> list[tuple[int, int, str]]:
    """Start, end and term of the words of a text whose term is in the query."""
    tokenizer = StemTokenizer()
    terms = set(tokenizer(query))
    return [
        (word.start(), word.end(), stem)
        for word in (_WORD.finditer(text) if terms else ())
        for stem in tokenizer(word.group())[:1]
        if stem in terms
    ]


def _best_start(text: str, matches: Sequence[tuple[int, int, str]], length: int) -> int:
    """Where the part of this length with the most distinct terms begins: at a word."""
    stops = [stop for _, stop, _ in matches]
    lead = min(_LEAD, length // 4)
    best, most = 0, len({term for _, _, term in matches[: bisect_right(stops, length)]})
    for place, (begin, _, _) in enumerate(matches):
        start = _word_start(text, min(max(0, begin - lead), len(text) - length), begin)
        inside = {term for _, _, term in matches[place : bisect_right(stops, start + length)]}
        if len(inside) > most:
            best, most = start, len(inside)
    return best


def _word_end(text: str, start: int, end: int) -> int:
    """The last end of a word at or before ``end``, unless it is far before."""
    if end == len(text) or text[end].isspace():
        return end
    space = text.rfind(" ", start, end)
    return space if space > end - min(_LEAD, (end - start) // 4) else end


def _word_start(text: str, start: int, limit: int) -> int:
    """The first beginning of a word at or after ``start``, at most ``limit``."""
    while 0 < start < limit and not (text[start - 1].isspace() and not text[start].isspace()):
        start += 1
    return start
