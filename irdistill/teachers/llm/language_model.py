"""What a language model is to a teacher: it answers requests, many at a time, and says what that
took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np

#: The flag of what a limit of tokens ended before it was whole.
CUT = "cut"


class Message(NamedTuple):
    """One message of a chat."""

    role: Literal["system", "user", "assistant"]
    content: str


class Request(NamedTuple):
    """One question to a language model, answered greedily (temperature 0).

    Attributes:
        messages: the chat so far; the model's answer comes next. An assistant message at the end is
            the beginning of that answer.
        labels: where given, no text is wanted but the log-probability of each of these as the
            answer's beginning, for the first token that tells them apart (``("yes", "no")``).
        max_tokens: of the answer.
    """

    messages: tuple[Message, ...]
    labels: tuple[str, ...] = ()
    max_tokens: int = 256


class Answer(NamedTuple):
    """What came back.

    Attributes:
        text: the answer; empty where labels were asked for.
        labels: (L,) float32 natural log-probabilities of the request's labels, NaN for one that the
            model's interface did not report; None where none were asked for.
        error: why there is no answer (``refused``, ``too long``, ``no answer`` …), a flag for the
            run; None where there is.
        input_tokens, output_tokens: read and written; ``cached_tokens`` of those read came out of a
            cache.
        cost: money, in the currency of the card's prices; 0 where it has none.
        cut: whether the text ends at the limit of tokens, and not where the model would have ended
            it.
    """

    text: str = ""
    labels: np.ndarray | None = None
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    cut: bool = False

    @property
    def usage(self) -> dict[str, float]:
        """As a run's manifest sums it up; what is 0 is left out."""
        counts = {
            "requests": 1,
            "tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "cost": self.cost,
        }
        return {key: value for key, value in counts.items() if value}


@runtime_checkable
class LanguageModel(Protocol):
    """A language model, here or behind a server."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything of the model that decides its answers; goes into the run's manifest."""
        ...

    @property
    def parallel(self) -> int:
        """How many requests it works on best at a time: the batch of a local model, the connections
        to a server.
        """
        ...

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests, in their order.

        A request that cannot be answered gives an `Answer` with an error; what would fail every
        request alike (no server, no permission, the budget is spent) raises.

        A model behind a server can be called from several threads at a time.
        """
        ...


def total_usage(answers: Sequence[Answer]) -> dict[str, float]:
    """The sum of what some answers took."""
    total: dict[str, float] = {}
    for answer in answers:
        for key, value in answer.usage.items():
            total[key] = total.get(key, 0) + value
    return total
