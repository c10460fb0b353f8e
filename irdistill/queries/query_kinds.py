"""Kinds of synthetic queries: extracted from a passage, or written by a language model.

Five written kinds and the few-shot variant of the web query are those of CADET (Tamber et al. 2025,
"Teaching Dense Retrieval Models to Specialize", arXiv:2502.19712). The prompts of written kinds are
cards in ``data/prompts/``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from irdistill.collections import Document
from irdistill.queries.passage_keywords import KeywordSampler

DEFAULT_KINDS = ("title", "sentence")
EXTRACTED_KINDS = (*DEFAULT_KINDS, "title-question", "keyword")
"""Kinds that need no language model; every content word is copied from the passage."""
FROM_PARTS = {"paraphrases": "sentence", "title-questions": "title", "keyword-questions": "keyword"}
"""Kinds that a language model writes from an extracted query of another kind, without the passage.

``keyword-questions`` is a back-translation: the passage is reduced to keywords, and the model
writes the question that they stand for.
"""
WRITTEN_KINDS = ("questions", "claims", "titles", "keywords", "web", "few-shot", *FROM_PARTS)
"""Kinds that a language model writes; the prompt of ``few-shot`` shows real queries."""
KINDS = (*EXTRACTED_KINDS, *WRITTEN_KINDS)

QUESTION_TEMPLATES = (
    "what is known about {}?",
    "what is {}?",
    "how does {} work?",
    "why is {} important?",
    "where can I read about {}?",
    "explain {}",
    "an overview of {}",
    "examples of {}",
)
QUESTION_FORMS = ("how do i {}", "how to {}", "how can i {}", "what is the way to {}")
"""Forms that `as_question` gives to sentences."""
_QUESTION_START = re.compile(
    r"(how|what|why|when|where|which|who|is|are|do|does|did|can|could|should|would|will)\b", re.I
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
    if not words or len(words) > _MAX_QUESTION_WORDS or _QUESTION_START.match(text):
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


def title_question(title: str, rng: np.random.Generator) -> str:
    """A question template filled with a title.

    Examples:
        >>> title_question("Sorting large lists.", np.random.default_rng(0))
        'an overview of sorting large lists'
    """
    template = QUESTION_TEMPLATES[rng.integers(len(QUESTION_TEMPLATES))]
    return template.format(title.lower().rstrip(" .?!:"))


def extract_queries(
    document: Document,
    row: int,
    kind: str,
    count: int,
    rng: np.random.Generator,
    keywords: KeywordSampler | None = None,
) -> Iterator[DraftQuery]:
    """Queries made of the words of a passage.

    Args:
        kind: ``title``, ``title-question`` (a template with the title), ``sentence`` (up to
            ``count`` random ones) or ``keyword`` (some of the words that distinguish the passage).
        keywords: needed by the kind ``keyword``.
    """
    if kind in ("title", "title-question"):
        text = passage_title(document)
        if len(text.split()) >= 2:
            yield DraftQuery(text if kind == "title" else title_question(text, rng), row, kind)
        return
    if kind == "keyword":
        words = keywords.draw(row, rng) if keywords is not None else []
        if words:
            yield DraftQuery(" ".join(words), row, kind)
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
