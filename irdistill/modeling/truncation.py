"""Counts of texts and tokens that exceed a model's limit."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any

import numpy as np

#: From this share of truncated texts on, the report is a warning.
NOTABLE = 0.01
PLURAL = {"query": "queries", "document": "documents", "pair": "pairs"}
_FIELDS = {"read": "", "cut": "_cut", "tokens": "_tokens", "tokens_cut": "_tokens_cut"}


@dataclass
class Truncation:
    """Counts over tokenized texts.

    Attributes:
        read: number of texts.
        cut: number of texts that were truncated.
        tokens: tokens that the model reads, without special tokens.
        tokens_cut: tokens that it does not read.
    """

    read: int = 0
    cut: int = 0
    tokens: int = 0
    tokens_cut: int = 0

    def count(self, coded: Any, limit: int, special: int = 0) -> None:
        """Count the result of a truncating tokenizer of transformers.

        Fast tokenizers return the parts that were cut off, so nothing is tokenized twice. Python
        tokenizers do not; their texts count as read in full.

        Args:
            coded: the result of the tokenizer, for texts or pairs.
            limit: maximal tokens of a text, with special tokens.
            special: number of special tokens of a text.
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
        """Count texts by their numbers of tokens and of tokens that were left out."""
        self.read += len(lengths)
        self.cut += sum(lost > 0 for lost in surplus)
        self.tokens_cut += sum(surplus)
        self.tokens += sum(lengths) - sum(surplus)

    def copy(self) -> Truncation:
        """A copy of the counts."""
        return replace(self)

    def __add__(self, other: Truncation) -> Truncation:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Truncation(*(mine + theirs for mine, theirs in pairs))

    def __sub__(self, other: Truncation) -> Truncation:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Truncation(*(mine - theirs for mine, theirs in pairs))

    def usage(self, kind: str) -> dict[str, float]:
        """The counts by their names in the usage of a run, such as ``documents_cut``."""
        return {
            f"{PLURAL[kind]}{suffix}": float(getattr(self, name))
            for name, suffix in _FIELDS.items()
        }

    @classmethod
    def from_usage(cls, usage: Mapping[str, float], kind: str) -> Truncation:
        """The counts in a run's usage; 0 where they are missing."""
        return cls(
            **{
                name: int(usage.get(f"{PLURAL[kind]}{suffix}", 0))
                for name, suffix in _FIELDS.items()
            }
        )

    def to_array(self) -> np.ndarray:
        """(4,) int64."""
        return np.array(astuple(self), np.int64)

    def shares(self, kind: str) -> dict[str, float]:
        """Shares of truncated texts and tokens for a table; empty if nothing was truncated."""
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
        """Log one line about truncated texts, if there are any."""
        if not self.cut:
            return
        reads = f"the {limit} tokens" if limit is not None else "the tokens"
        notable = self.cut >= NOTABLE * self.read
        split = notable and kind == "document"
        logger.log(
            logging.WARNING if notable else logging.INFO,
            "%d of %d %s (%.1f%%) are longer than %s that %s reads; %.1f%% of all %s tokens never"
            " reach the model%s",
            self.cut,
            self.read,
            PLURAL[kind],
            100 * self.cut / self.read,
            reads,
            model,
            100 * self.tokens_cut / max(1, self.tokens + self.tokens_cut),
            kind,
            "; collect --passage-tokens splits documents into passages" if split else "",
        )


def changes(
    now: Mapping[str, Truncation], before: Mapping[str, Truncation]
) -> dict[str, Truncation]:
    """The difference of counts to ``before``, by kind of text."""
    return {kind: counts - before.get(kind, Truncation()) for kind, counts in now.items()}


def snapshot(source: object) -> dict[str, Truncation]:
    """A copy of the counts of a student or teacher, by kind of text; empty without counts."""
    counts: Mapping[str, Truncation] = getattr(source, "truncation", {})
    return {kind: count.copy() for kind, count in counts.items()}


def _left_out(encoding: Any) -> int:
    """The number of tokens that were cut off, without special tokens.

    For a pair, each part of the first text comes with each part of the second, and counts once.
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
    """The offsets of the first token of each text of an encoding."""
    sides = encoding.sequence_ids
    return {side: encoding.offsets[sides.index(side)] for side in (0, 1) if side in sides}
