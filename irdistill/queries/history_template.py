"""Templates that render a conversation as one text for a student that reads no rewrites."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import Field

from irdistill.collections import Query, Turn
from irdistill.errors import OptionError
from irdistill.option_checks import check_fields

Count = Callable[[str], int]
"""Function that returns the number of tokens of a text."""
_TEMPLATE = re.compile(r"\s*(newest|oldest)(?:\s+(questions|all))?((?:\s+[a-z_]+=\S+)*)\s*")


def count_words(text: str) -> int:
    """Number of words separated by white space."""
    return len(text.split())


def tokenizer_count(model: str) -> Count:
    """Function that counts tokens, special tokens included, with the tokenizer of a model."""
    from transformers import AutoTokenizer

    from irdistill.modeling.library_output import quiet_libraries
    from irdistill.modeling.model_files import resolve_model

    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(resolve_model(model))
    return lambda text: len(tokenizer(text, truncation=False, verbose=False)["input_ids"])


class HistoryText(NamedTuple):
    """A conversation rendered as one text.

    Attributes:
        text: the question and the turns that fit.
        kept: number of turns in the text.
        cut: number of turns that did not fit. Turns that the template never shows (answers, when
            it shows questions) are not counted.
    """

    text: str
    kept: int
    cut: int


@dataclass(frozen=True)
class HistoryTemplate:
    """Order, turns and budget of a conversation that is rendered as one text.

    Written as ``newest questions tokens=256 turns=6``.

    Attributes:
        order: ``newest`` puts the question first, then the earlier turns from the newest to the
            oldest, so that truncation loses the oldest (DiSCo, Lupart et al. 2025,
            arXiv:2410.14609). ``oldest`` keeps the order of the conversation, the question last.
        shown: ``questions`` of the user, or ``all`` turns.
        separator: text between two turns. A special token of the tokenizer, such as ``[SEP]`` of
            BERT, is read as that token.
        tokens: maximum tokens of the text. Whole turns are left out, the oldest first. The
            question is never cut.
        turns: maximum turns of the history.

    Examples:
        >>> template = HistoryTemplate.parse("newest questions")
        >>> query = Query("q2", "and lists?", history=(Turn("user", "how do I merge dicts"),))
        >>> template.render(query).text
        'and lists? [SEP] how do I merge dicts'
    """

    order: Literal["newest", "oldest"] = "newest"
    shown: Literal["questions", "all"] = "questions"
    separator: str = " [SEP] "
    tokens: Annotated[int | None, Field(ge=1)] = None
    turns: Annotated[int | None, Field(ge=0)] = None

    def __post_init__(self) -> None:
        check_fields(self)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form that `__str__` writes; ``_`` in the separator stands for a space."""
        match = _TEMPLATE.fullmatch(text)
        if match is None:
            raise OptionError(
                f"cannot read the history template {text!r}; write it as: newest questions"
                " tokens=256 turns=6."
            )
        settings: dict[str, Any] = {}
        for word in match[3].split():
            name, _, value = word.partition("=")
            if name == "separator":
                settings[name] = value.replace("_", " ")
            elif name in ("tokens", "turns") and value.isdecimal():
                settings[name] = int(value)
            else:
                raise OptionError(
                    f"cannot read {word!r} in the history template {text!r}; expected tokens=N,"
                    " turns=N or separator=TEXT."
                )
        return cls(match[1], match[2] or "questions", **settings)  # type: ignore[arg-type]

    def __str__(self) -> str:
        limits = "".join(
            f" {name}={getattr(self, name)}"
            for name in ("tokens", "turns")
            if getattr(self, name) is not None
        )
        separator = f" separator={self.separator.replace(' ', '_')}"
        return (
            f"{self.order} {self.shown}{limits}{'' if self.separator == ' [SEP] ' else separator}"
        )

    def identity(self) -> dict[str, Any]:
        """Everything that determines the text, except the token counter."""
        return asdict(self)

    def render(self, query: Query, count: Count = count_words) -> HistoryText:
        """Render a question with its earlier turns; a rewrite of the question is never used.

        Args:
            count: counts the tokens of a text, for the budget.
        """
        shown = [
            turn
            for turn in query.history
            if (self.shown == "all" or turn.role == "user") and turn.text.strip()
        ]
        kept = shown if self.turns is None else shown[len(shown) - min(self.turns, len(shown)) :]
        while (
            kept and self.tokens is not None and count(self._join(query.text, kept)) > self.tokens
        ):
            kept = kept[1:]
        return HistoryText(self._join(query.text, kept), len(kept), len(shown) - len(kept))

    def _join(self, question: str, turns: list[Turn]) -> str:
        texts = [" ".join(turn.text.split()) for turn in turns]
        ordered = [question, *reversed(texts)] if self.order == "newest" else [*texts, question]
        return self.separator.join(ordered)
