"""What a model never reads: texts that are longer than its limit, counted where they are
tokenized.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

NOTABLE = 0.01
"""From this share of cut texts on, the line about them is a warning."""
PLURAL = {"query": "queries", "document": "documents", "pair": "pairs"}
_FIELDS = {"read": "", "cut": "_cut", "tokens": "_tokens", "tokens_cut": "_tokens_cut"}


@dataclass
class Truncation:
    """Counts over the texts that were tokenized.

    Attributes:
        read: texts.
        cut: of these, those that were too long.
        tokens: tokens that the model reads; without the special tokens that stand around a text,
            where a tokenizer counts them.
        tokens_cut: tokens that it does not read.
    """

    read: int = 0
    cut: int = 0
    tokens: int = 0
    tokens_cut: int = 0

    def count(self, coded: Any, limit: int, special: int = 0) -> None:
        """Count the result of a tokenizer of transformers that truncates.

        Nothing is tokenized again: the parts that were cut off come with the result. Tokenizers
            that are written in Python do
        not give them; their texts count as read in full.

        Args:
            coded: what the tokenizer returned, of texts or of pairs.
            limit: the most tokens of a text, special ones included.
            special: how many of a text's tokens are special.
        """
        lengths = [len(ids) for ids in coded["input_ids"]]
        self.read += len(lengths)
        self.tokens += sum(lengths) - special * len(lengths)
        encodings = getattr(coded, "encodings", None)
        if encodings is None:
            return
        for place, length in enumerate(lengths):
            if length < limit:
                continue
            lost = _left_out(encodings[place])
            self.cut += lost > 0
            self.tokens_cut += lost

    def add(self, lengths: Sequence[int], surplus: Sequence[int]) -> None:
        """Count texts of which it is known how many tokens they had, and how many were left out."""
        self.read += len(lengths)
        self.cut += sum(lost > 0 for lost in surplus)
        self.tokens_cut += sum(surplus)
        self.tokens += sum(lengths) - sum(surplus)

    def copy(self) -> Truncation:
        """The counts as they are now."""
        return Truncation(**asdict(self))

    def __add__(self, other: Truncation) -> Truncation:
        return Truncation(
            *(
                one + two
                for one, two in zip(asdict(self).values(), asdict(other).values(), strict=True)
            )
        )

    def __sub__(self, other: Truncation) -> Truncation:
        return Truncation(
            *(
                one - two
                for one, two in zip(asdict(self).values(), asdict(other).values(), strict=True)
            )
        )

    def usage(self, kind: str) -> dict[str, float]:
        """The counts as the usage of a run names them: ``documents``, ``documents_cut``,
        ``documents_tokens`` …
        """
        return {
            f"{PLURAL[kind]}{suffix}": float(getattr(self, name))
            for name, suffix in _FIELDS.items()
        }

    @classmethod
    def from_usage(cls, usage: Mapping[str, float], kind: str) -> Truncation:
        """Of a run's usage; all 0 where it has no such counts."""
        return cls(
            **{
                name: int(usage.get(f"{PLURAL[kind]}{suffix}", 0))
                for name, suffix in _FIELDS.items()
            }
        )

    def to_array(self) -> np.ndarray:
        """(4,) int64."""
        return np.array(list(asdict(self).values()), np.int64)

    def shares(self, kind: str) -> dict[str, float]:
        """``documents cut`` and ``tokens cut`` as shares, for a table of results; empty where
        nothing was cut.
        """
        whole = self.tokens + self.tokens_cut
        return (
            {
                f"{PLURAL[kind]} cut": self.cut / self.read,
                f"{kind} tokens cut": self.tokens_cut / whole,
            }
            if self.cut
            else {}
        )

    def report(
        self, kind: str, model: str, logger: logging.Logger, limit: int | None = None
    ) -> None:
        """One line about the texts that were cut; none where none was."""
        if not self.cut:
            return
        reads = f"the {limit} tokens" if limit is not None else "the tokens"
        logger.log(
            logging.WARNING if self.cut >= NOTABLE * self.read else logging.INFO,
            "%d of %d %s (%.1f%%) are longer than %s that %s reads; %.1f%% of all %s tokens never"
            " reach the model",
            self.cut,
            self.read,
            PLURAL[kind],
            100 * self.cut / self.read,
            reads,
            model,
            100 * self.tokens_cut / max(1, self.tokens + self.tokens_cut),
            kind,
        )


def changes(
    now: Mapping[str, Truncation], before: Mapping[str, Truncation]
) -> dict[str, Truncation]:
    """What was counted since ``before``, by kind of text."""
    return {kind: counts - before.get(kind, Truncation()) for kind, counts in now.items()}


def snapshot(source: object) -> dict[str, Truncation]:
    """The counts of a student or teacher by kind of text; none of one that does not count."""
    counts: Mapping[str, Truncation] = getattr(source, "truncation", {})
    return {kind: count.copy() for kind, count in counts.items()}


def _left_out(encoding: Any) -> int:
    """Tokens that an encoding lacks, special ones not counted.

    Of a pair, the parts that were cut off the first text come once with each part of the second;
    each is counted once.
    """
    parts = encoding.overflowing
    if not parts:
        return 0
    whole = _begins(encoding)
    if len(whole) < 2:
        return sum(len(part.ids) - sum(part.special_tokens_mask) for part in parts)
    lost = 0
    for part in parts:
        begins = _begins(part)
        same = [begins.get(side) == whole[side] for side in (0, 1)]
        if sum(same) == 1:
            moved = same.index(False)
            lost += part.sequence_ids.count(moved)
    return lost


def _begins(encoding: Any) -> dict[int, tuple[int, int]]:
    """For each text of an encoding where its first token lies in it."""
    sides = encoding.sequence_ids
    return {side: encoding.offsets[sides.index(side)] for side in (0, 1) if side in sides}
