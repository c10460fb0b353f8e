"""Reading answers: which passages an answer ranks, which it leaves out, names twice or cannot be understood about."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from irdistill.errors import IrdistillError

IDENTIFIER = r"\[(\d+)\]"

#: Longer numbers are no passage's.
_DIGITS = 6


class Reading(NamedTuple):
    """An answer about ``count`` passages, numbered from 0 here.

    Attributes:
        order: passages as the answer names them, best first, each once, at the first place it is named.
        repeated: those of ``order`` that it names more than once.
        omitted: those it does not name, in their old order.
        unknown: how many of its identifiers are no passage's.
    """

    order: list[int]
    repeated: list[int]
    omitted: list[int]
    unknown: int

    @property
    def garbled(self) -> bool:
        """Nothing in the answer is an identifier of a passage."""
        return not self.order

    @property
    def complete(self) -> bool:
        """Every passage is named once, and nothing else."""
        return not (self.repeated or self.omitted or self.unknown)


class RankingReader:
    """Finds passages' identifiers in an answer such as ``[2] > [3] > [1]``."""

    def __init__(self, identifier: str = IDENTIFIER, ranking: str | None = None) -> None:
        """Compile the patterns of a card.

        Args:
            identifier: a regular expression for one identifier; its group, or the whole, is the passage's number from 1.
            ranking: where given, the last match of it in the answer (its group, or the whole) is what is read, so that
                what a model says before its ranking is not taken for one.

        Raises:
            IrdistillError: one is no regular expression, or has more than one group.
        """
        self._identifier = compile_pattern(identifier, "identifier")
        self._ranking = None if ranking is None else compile_pattern(ranking, "ranking")

    def read(self, text: str, count: int) -> Reading:
        """Read an answer about passages 1 to ``count``."""
        if self._ranking is not None:
            text = next(reversed(found(self._ranking, text)), "")
        order: dict[int, int] = {}
        unknown = 0
        for name in found(self._identifier, text):
            name = name.strip()
            number = int(name) if name.isdecimal() and len(name) <= _DIGITS else 0
            if 1 <= number <= count:
                order[number - 1] = order.get(number - 1, 0) + 1
            else:
                unknown += 1
        repeated = [place for place, times in order.items() if times > 1]
        return Reading(list(order), repeated, [place for place in range(count) if place not in order], unknown)


class ChoiceReader:
    """Finds which of two labels an answer chooses."""

    def __init__(self, labels: Sequence[str], choice: str | None = None) -> None:
        """Compile the pattern of a card.

        Args:
            choice: a regular expression whose group, or the whole, is a label; where None, each label as a word of its own.

        Raises:
            IrdistillError: it is no regular expression, or has more than one group.
        """
        words = "|".join(re.escape(label) for label in labels)
        self._labels = list(labels)
        self._pattern = compile_pattern(choice if choice is not None else rf"(?<!\w)(?:{words})(?!\w)", "choice")

    def read(self, text: str) -> int | None:
        """The place of the label; None where the answer names none, or both."""
        chosen = {name.strip() for name in found(self._pattern, text)} & set(self._labels)
        return self._labels.index(chosen.pop()) if len(chosen) == 1 else None


def compile_pattern(pattern: str, name: str) -> re.Pattern[str]:
    """Compile a card's regular expression.

    Raises:
        IrdistillError: it is none, or has more than one group.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise IrdistillError(f"the prompt's {name} {pattern!r} is no regular expression: {error}.") from error
    if compiled.groups > 1:
        raise IrdistillError(
            f"the prompt's {name} {pattern!r} has {compiled.groups} groups, and at most one was expected; write (?:…) for those "
            "that only hold things together."
        )
    return compiled


def found(pattern: re.Pattern[str], text: str) -> list[str]:
    """The group of every match, or the whole match where there is no group; "" for a group that took no part."""
    return [match[pattern.groups] or "" for match in pattern.finditer(text)]
