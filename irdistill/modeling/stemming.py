"""The words that lexical scores count: lower case, no English stop words, stemmed."""

from __future__ import annotations

import re
from typing import Any

import Stemmer
from bm25s.stopwords import STOPWORDS_EN

_WORD = re.compile(r"(?u)\b\w\w+\b")
NAME = "words2+/en-stop/snowball-english"
REMEMBERED = 1 << 22
"""Different words whose stems are remembered; of a large corpus most words occur once."""


def words_of(text: str) -> list[str]:
    """The words of two and more letters or digits in a text, in lower case, stop words too."""
    return _WORD.findall(text.lower())


class Tokenizer:
    """Words of two and more letters or digits, lower case, no English stop words, stemmed."""

    def __init__(self) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        self._stems: dict[str, str | None] = dict.fromkeys(STOPWORDS_EN)

    def __call__(self, text: str) -> list[str]:
        """The stems of a text, in order, with repetitions."""
        stems, found = self._stems, []
        if len(stems) > REMEMBERED:
            stems = self._stems = dict.fromkeys(STOPWORDS_EN)
        for word in words_of(text):
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


class StemNumbers(dict[str, int]):
    """The number of a word's stem; -1 for a stop word. A stem that is looked up for the first time
    gets the next number.

    Attributes:
        stems: stem -> number.
    """

    def __init__(self) -> None:
        super().__init__(_STOPPED)
        self.stems: dict[str, int] = {}
        self._stem = Stemmer.Stemmer("english").stemWord

    def __missing__(self, word: str) -> int:
        if len(self) > REMEMBERED:
            self.clear()
            self.update(_STOPPED)
        number = self[word] = self.stems.setdefault(self._stem(word), len(self.stems))
        return number


_STOPPED = dict.fromkeys(STOPWORDS_EN, -1)
