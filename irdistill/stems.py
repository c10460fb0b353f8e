"""The words that lexical scores count: lower case, no English stop words, stemmed."""

from __future__ import annotations

import re
from typing import Any

import Stemmer
from bm25s.stopwords import STOPWORDS_EN

_WORD = re.compile(r"(?u)\b\w\w+\b")
NAME = "words2+/en-stop/snowball-english"


class Tokenizer:
    """Words of two and more letters or digits, lower case, no English stop words, stemmed."""

    def __init__(self) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        self._stems: dict[str, str | None] = dict.fromkeys(STOPWORDS_EN)

    def __call__(self, text: str) -> list[str]:
        """The stems of a text, in order, with repetitions."""
        stems, found = self._stems, []
        for word in _WORD.findall(text.lower()):
            try:
                stem = stems[word]
            except KeyError:
                stem = stems[word] = self._stemmer.stemWord(word)
            if stem is not None:
                found.append(stem)
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
