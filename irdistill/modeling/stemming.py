"""The words of lexical scores: lower case, stemmed, without English stop words."""

from __future__ import annotations

import re
from typing import Any

import Stemmer
from bm25s.stopwords import STOPWORDS_EN

_WORD = re.compile(r"(?u)\b\w\w+\b")
NAME = "words2+/en-stop/snowball-english"
#: Distinct words whose stems are cached; most words of a large corpus occur once.
REMEMBERED = 1 << 22


def words_of(text: str) -> list[str]:
    """The words of at least two letters or digits in lower case, with stop words."""
    return _WORD.findall(text.lower())


class StemTokenizer:
    """Stems of words of at least two letters or digits, without English stop words.

    Examples:
        >>> StemTokenizer()("The cats are sleeping")
        ['cat', 'sleep']
    """

    def __init__(self) -> None:
        self._stemmer = Stemmer.Stemmer("english")
        self._stems: dict[str, str | None] = dict.fromkeys(STOPWORDS_EN)

    def __call__(self, text: str) -> list[str]:
        """The stems of a text, in order, with repetitions."""
        stems = self._stems
        result: list[str] = []
        if len(stems) > REMEMBERED:
            stems = self._stems = dict.fromkeys(STOPWORDS_EN)
        for word in words_of(text):
            try:
                stem = stems[word]
            except KeyError:
                stem = stems[word] = self._stemmer.stemWord(word)
            if stem is not None:
                result.append(stem)
        return result

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]


class StemNumbers(dict[str, int]):
    """The number of a word's stem, -1 for a stop word; a new stem gets the next number.

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
