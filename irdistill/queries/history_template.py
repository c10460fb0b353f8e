"""Laying out a conversation as one text: what a student reads of the turns before a question."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, Self

from irdistill.collections import Query, Turn
from irdistill.errors import IrdistillError

#: How many tokens a text has.
Count = Callable[[str], int]
_WRITTEN = re.compile(r"\s*(newest|oldest)(?:\s+(questions|all))?((?:\s+[a-z_]+=\S+)*)\s*")


def words(text: str) -> int:
    """Tokens where no tokenizer is named: words between white space."""
    return len(text.split())


def token_count(model: str) -> Count:
    """Counts as a model's tokenizer does, special tokens included.

    Raises:
        IrdistillError: there is no such model.
    """
    from transformers import AutoTokenizer

    from irdistill.modeling.model_files import quiet_libraries, resolve_model

    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(model))
    return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


class HistoryText(NamedTuple):
    """A conversation as one text.

    Attributes:
        text: the question and the turns that were kept.
        kept, cut: turns of the history in the text, and those the budget left out; turns that the
            template does not show (answers, where it shows questions) are in neither.
    """

    text: str
    kept: int
    cut: int


@dataclass(frozen=True)
class HistoryTemplate:
    """The order, the turns and the budget of a conversation that is laid out as one text.

    Written as ``newest questions tokens=256 turns=6``.

    Attributes:
        order: ``newest``: the question, then the turns before it from the newest to the oldest, as
            DiSCo lays them out (Lupart et al. 2025, arXiv:2410.14609), so that a text that is cut
            at its end loses the oldest; ``oldest``: the conversation as it went, the question last.
        shown: ``questions`` of the user alone, or ``all`` turns.
        separator: between two turns; a tokenizer's own mark, as ``[SEP]`` of BERT, is read as that
            mark.
        tokens: of the whole text; the oldest turns are left out, whole, until it fits. The question
            is never cut.
        turns: at most so many turns of the history.

    Raises:
        IrdistillError: a value is none of these.
    """

    order: Literal["newest", "oldest"] = "newest"
    shown: Literal["questions", "all"] = "questions"
    separator: str = " [SEP] "
    tokens: int | None = None
    turns: int | None = None

    def __post_init__(self) -> None:
        if self.order not in ("newest", "oldest") or self.shown not in ("questions", "all"):
            raise IrdistillError(
                f"the history is to be laid out as {self.order!r} {self.shown!r}; expected were"
                " newest or oldest, and questions or all."
            )
        for name, least in (("tokens", 1), ("turns", 0)):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int) or value < least
            ):
                raise IrdistillError(
                    f"{name} of the history is {value!r}; a whole number of at least {least} was"
                    " expected."
                )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `__str__` writes; ``_`` stands for a space in the separator.

        Raises:
            IrdistillError: it cannot be read.
        """
        match = _WRITTEN.fullmatch(text)
        if match is None:
            raise IrdistillError(
                f"the history {text!r} cannot be read; write it as: newest questions tokens=256"
                " turns=6."
            )
        given: dict[str, Any] = {}
        for word in match[3].split():
            name, _, value = word.partition("=")
            if name == "separator":
                given[name] = value.replace("_", " ")
            elif name in ("tokens", "turns") and value.isdecimal():
                given[name] = int(value)
            else:
                raise IrdistillError(
                    f"{word!r} in the history {text!r} cannot be read; give tokens=N, turns=N or"
                    " separator=TEXT."
                )
        return cls(match[1], match[2] or "questions", **given)  # type: ignore[arg-type]

    def __str__(self) -> str:
        budget = "".join(
            f" {name}={getattr(self, name)}"
            for name in ("tokens", "turns")
            if getattr(self, name) is not None
        )
        separator = (
            "" if self.separator == " [SEP] " else f" separator={self.separator.replace(' ', '_')}"
        )
        return f"{self.order} {self.shown}{budget}{separator}"

    def identity(self) -> dict[str, Any]:
        """All that decides the text, but the counting of tokens."""
        return asdict(self)

    def render(self, query: Query, count: Count = words) -> HistoryText:
        """The question of a query and what its template shows of the turns before it; never its
        rewrite.

        Args:
            count: of tokens, for the budget.
        """
        shown = [
            turn
            for turn in query.history
            if (self.shown == "all" or turn.role == "user") and turn.text.strip()
        ]
        kept = shown if self.turns is None else shown[len(shown) - min(self.turns, len(shown)) :]
        while (
            kept and self.tokens is not None and count(self._joined(query.text, kept)) > self.tokens
        ):
            kept = kept[1:]
        return HistoryText(self._joined(query.text, kept), len(kept), len(shown) - len(kept))

    def _joined(self, question: str, turns: list[Turn]) -> str:
        texts = [" ".join(turn.text.split()) for turn in turns]
        ordered = [question, *reversed(texts)] if self.order == "newest" else [*texts, question]
        return self.separator.join(ordered)
