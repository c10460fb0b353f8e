"""Kinds of synthetic queries: extracted from a passage, or written by a language model.

The six written kinds and the few-shot variant of the web query are those of CADET (Tamber et al.
2025, "Teaching Dense Retrieval Models to Specialize", arXiv:2502.19712). Their prompts are cards in
``data/prompts/``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from irdistill.collections import Document

EXTRACTED_KINDS = ("title", "sentence")
"""Kinds that need no language model."""
WRITTEN_KINDS = ("questions", "claims", "titles", "keywords", "web", "few-shot")
"""Kinds that a language model writes; the prompt of ``few-shot`` shows real queries."""
KINDS = (*EXTRACTED_KINDS, *WRITTEN_KINDS)

QUESTION_FORMS = ("how do i {}", "how to {}", "how can i {}", "what is the way to {}")
"""Forms that `as_question` gives to sentences."""
_QUESTION_WORDS = frozenset(
    [
        "how",
        "what",
        "why",
        "when",
        "where",
        "which",
        "who",
        "is",
        "are",
        "do",
        "does",
        "did",
        "can",
        "could",
        "should",
        "would",
        "will",
    ]
)
_MAX_QUESTION_WORDS = 16

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^a-z])|\n\s*\n|(?<= \.)\s+")
_HEADING = re.compile(r"^\s*#{1,6}\s+(.+?)\s*#*\s*$", re.MULTILINE)
_MIN_WORDS, _MAX_WORDS = 5, 40


class DraftQuery(NamedTuple):
    """A query that has no id yet.

    Attributes:
        text: text of the query.
        row: row of its source passage in the corpus.
        kind: one of `KINDS`.
    """

    text: str
    row: int
    kind: str


def split_sentences(text: str) -> list[str]:
    """Sentences of 5 to 40 words, split at sentence ends and blank lines.

    Examples:
        >>> split_sentences("Too short. This sentence has at least five words.")
        ['This sentence has at least five words.']
    """
    sentences = (" ".join(part.split()) for part in _SENTENCE_END.split(text))
    return [text for text in sentences if _MIN_WORDS <= len(text.split()) <= _MAX_WORDS]


def as_question(text: str, form: int) -> str:
    """A sentence in one of the forms in which searchers ask, or "" if it is long or a question.

    Documents state and searchers ask. Texts in this form teach a small query tower the words of
    questions, which the sentences of documents do not have.

    Args:
        form: chooses the form, modulo their number.

    Examples:
        >>> as_question("Merge two lists into one.", 0)
        'how do i merge two lists into one'
        >>> as_question("What is a list?", 1)
        ''
    """
    words = text.rstrip(" .!?:;").split()
    if not words or len(words) > _MAX_QUESTION_WORDS or words[0].lower() in _QUESTION_WORDS:
        return ""
    if words[0][1:] == words[0][1:].lower():  # no acronym or name of a class
        words[0] = words[0].lower()
    return QUESTION_FORMS[form % len(QUESTION_FORMS)].format(" ".join(words))


def passage_title(document: Document) -> str:
    """Title of a passage, else its first Markdown heading, else an empty string."""
    title = " ".join(document.title.split())
    if title:
        return title
    match = _HEADING.search(document.text)
    return " ".join(match[1].split()) if match else ""


def extract_queries(
    document: Document, row: int, kind: str, count: int, rng: np.random.Generator
) -> Iterator[DraftQuery]:
    """Use the title of a passage, or up to ``count`` random sentences, as queries."""
    if kind == "title":
        text = passage_title(document)
        if len(text.split()) >= 2:
            yield DraftQuery(text, row, kind)
        return
    sentences = split_sentences(document.text)
    for place in sorted(rng.permutation(len(sentences))[:count].tolist()):
        yield DraftQuery(sentences[place], row, kind)


def normalize_query(text: str) -> str:
    """Words of a query in lower case; queries with the same words are duplicates.

    Examples:
        >>> normalize_query("How do I merge two dicts?")
        'how do i merge two dicts'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def drop_duplicates(
    drafts: Iterable[DraftQuery], known: set[str], counts: Counter[str]
) -> Iterator[DraftQuery]:
    """Yield each query once; count the others as ``duplicates`` or, without words, as ``empty``.

    Args:
        known: normalized queries of earlier calls; the new ones are added.
    """
    for draft in drafts:
        key = normalize_query(draft.text)
        if not key:
            counts["empty"] += 1
        elif key in known:
            counts["duplicates"] += 1
        else:
            known.add(key)
            yield draft
