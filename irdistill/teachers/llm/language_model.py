"""The interface of language models: they answer requests, many at a time, and report what that
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
        messages: the chat; the model's answer comes next. An assistant message at the end is the
            beginning of that answer.
        labels: if not empty, the answer is not text but the log-probability of each label as the
            answer's beginning, at the first token in which they differ (``("yes", "no")``).
        max_tokens: token limit of the answer.
        schema: JSON schema to which the server restricts the answer; None for free text.
        thinking_tokens: token limit of the thinking that may come before the answer; 0 for none.
            Labels are then read where the answer begins after it.
    """

    messages: tuple[Message, ...]
    labels: tuple[str, ...] = ()
    max_tokens: int = 256
    schema: Mapping[str, Any] | None = None
    thinking_tokens: int = 0

    def with_room(self, tokens: int) -> Request:
        """The same request with a larger limit: of the thinking if there is any, else of the
        answer.
        """
        if self.thinking_tokens:
            return self._replace(thinking_tokens=tokens)
        return self._replace(max_tokens=tokens)


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        text: the answer; empty for labels.
        labels: (L,) float32 natural log-probabilities of the request's labels, NaN for a label that
            the model's interface did not report; None without labels.
        error: why there is no answer (``refused``, ``too long``, ``no answer``, …), a flag for the
            run; else None.
        input_tokens: tokens read.
        output_tokens: tokens written.
        cached_tokens: those of the tokens read that came from a cache.
        cost: in the currency of the card's prices; 0 without prices.
        cut: whether the token limit ended the text.
        thinking_tokens: those of the tokens written that are thinking, as far as the model's
            interface reports them.
    """

    text: str = ""
    labels: np.ndarray | None = None
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cost: float = 0.0
    cut: bool = False
    thinking_tokens: int = 0

    @property
    def usage(self) -> dict[str, float]:
        """As a run's manifest sums it; without zeros."""
        counts = {
            "requests": 1,
            "tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "thinking_tokens": self.thinking_tokens,
            "cached_tokens": self.cached_tokens,
            "cost": self.cost,
        }
        return {key: value for key, value in counts.items() if value}


@runtime_checkable
class LanguageModel(Protocol):
    """A language model, local or behind a server."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """Everything about the model that determines its answers; written to the run's manifest."""
        ...

    @property
    def parallel(self) -> int:
        """The best number of concurrent requests: the batch of a local model, the connections to a
        server.
        """
        ...

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Answer requests, in their order.

        A request that cannot be answered gives an `Answer` with an error. What would fail all
        requests (no server, no permission, a spent budget) raises. A model behind a server can be
        called from several threads.
        """
        ...


def total_usage(answers: Sequence[Answer]) -> dict[str, float]:
    """The sum of the usage of answers."""
    total: dict[str, float] = {}
    for answer in answers:
        for key, value in answer.usage.items():
            total[key] = total.get(key, 0) + value
    return total
