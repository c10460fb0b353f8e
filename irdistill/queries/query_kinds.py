"""Kinds of synthetic queries: those extract_queries out of a passage as it is, and those a language model
writes.

The six kinds that are written, and two that are few-shot variants of a web query, are those of
CADET (Tamber et al. 2025, "Teaching Dense Retrieval Models to Specialize", arXiv:2502.19712); their
prompts are cards in ``data/prompts/``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from irdistill.collections import Document

#: Kinds that need no language model, in the order in which they are made.
EXTRACTED_KINDS = ("title", "sentence")
#: Kinds that a language model writes; ``few-shot`` is shown real queries with their passages.
WRITTEN_KINDS = ("questions", "claims", "titles", "keywords", "web", "few-shot")
KINDS = (*EXTRACTED_KINDS, *WRITTEN_KINDS)

_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z])|\n\s*\n|(?<= \.)\s+")
_HEADING = re.compile(r"^\s*#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_WORDS = (5, 40)


class Draft(NamedTuple):
    """A query before it has an id.

    Attributes:
        text: what is asked.
        row: the passage it was made out of.
        kind: one of `KINDS`.
    """

    text: str
    row: int
    kind: str


def sentences(text: str) -> list[str]:
    """The sentences of a text that have 5 to 40 words, in order, white space made single; cut at
    full stops and blank lines.
    """
    found = (" ".join(part.split()) for part in _END.split(text))
    return [one for one in found if _WORDS[0] <= len(one.split()) <= _WORDS[1]]


def heading(document: Document) -> str:
    """The title; where there is none, the first Markdown heading in the text; else nothing."""
    title = " ".join(document.title.split())
    if title:
        return title
    match = _HEADING.search(document.text)
    return " ".join(match[1].split()) if match else ""


def extract_queries(
    document: Document, row: int, kind: str, count: int, draw: np.random.Generator
) -> Iterator[Draft]:
    """Queries that are a passage's own words: its title, or up to ``count`` of its sentences, drawn
    at random.
    """
    if kind == "title":
        text = heading(document)
        if len(text.split()) >= 2:
            yield Draft(text, row, kind)
        return
    found = sentences(document.text)
    for place in sorted(draw.permutation(len(found))[:count].tolist()):
        yield Draft(found[place], row, kind)


def normalize_query(text: str) -> str:
    """What makes two queries the same: letters and digits, in lower case."""
    return " ".join(re.findall(r"\w+", text.lower()))


def distinct(
    drafts: Iterator[Draft], seen: set[str], count: Callable[[str], None]
) -> Iterator[Draft]:
    """Each query once, by `normalize_query`; those left out are counted as ``duplicates``, those without a
    word as ``empty``.
    """
    for draft in drafts:
        key = normalize_query(draft.text)
        if not key:
            count("empty")
        elif key in seen:
            count("duplicates")
        else:
            seen.add(key)
            yield draft
