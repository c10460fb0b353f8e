"""Reading what a chat-completions server sent: the answer's text, its labels' log-probabilities,
and its usage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from irdistill.teachers.llm.language_model import CUT
from irdistill.teachers.llm.reading import NO_ANSWER, REFUSED
from irdistill.teachers.llm.thinking import begins_thinking

NO_LOGPROBS, NOT_REPORTED, THINKS_FIRST = (
    "no log-probabilities",
    "labels not reported",
    "thinks first",
)

#: What servers say where the limit of tokens ended an answer.
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length", "token_limit")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
#: Deeper nested responses are not read: what is looked for lies six levels deep.
_DEEPEST = 64
#: More tokens than any model reads or writes for a request; a larger number is no count.
_MOST_TOKENS = 10_000_000

#: What stands before a word in a token: white space, as itself or as vocabularies write it.
_SPACE = " \t\r\n\u2581\u0120\u010a"


class Usage(NamedTuple):
    """Tokens as the server counted them; the cached ones are some of those read."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


class Completion(NamedTuple):
    """What a response holds.

    Attributes:
        text: the answer's text.
        labels: (L,) float32 as of `Answer`; None where none were asked for.
        error: why there is no answer; None where there is one.
        usage: None where the server did not say.
        fault: what makes the response unusable, worth another try; the other fields but usage mean
            nothing then.
        model: as the server names it.
        cut: whether the limit of tokens ended the text.
    """

    text: str = ""
    labels: np.ndarray | None = None
    error: str | None = None
    usage: Usage | None = None
    fault: str | None = None
    model: str = ""
    cut: bool = False


def read_completion(
    body: str, labels: Sequence[str] = (), logprobs: bool = True, limit: int | None = None
) -> Completion:
    """Read a response of status 200. What a server gives as thinking (``reasoning_content``) is not
    part of the answer.

    Args:
        labels: of the request.
        logprobs: whether the labels' log-probabilities were asked for; else the text is all there
            is, and no number is made of it: the labels are NaN, the text is the label it begins
            with (or nothing), and the error says so.
        limit: tokens that the answer was allowed; an answer of as many was cut where the server
            does not say how it ended.
    """
    if too_deep(body):
        return Completion(fault=f"{_shown(body)}, which is nested more than {_DEEPEST} levels deep")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return Completion(fault=f"{_shown(body)}, which is no JSON")
    if not isinstance(data, dict):
        return Completion(fault=f"{_shown(body)}, which is no chat completion")
    usage = _usage(data.get("usage"))
    choices = data.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        count = f"{len(choices)} choices" if isinstance(choices, list) else "no choices"
        return Completion(
            usage=usage, fault=f"{_shown(body)}, which holds {count} where one was expected"
        )
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return Completion(usage=usage, fault=f"{_shown(body)}, which holds no message")
    model = data["model"] if isinstance(data.get("model"), str) else ""
    none = np.full(len(labels), np.nan, dtype=np.float32) if labels else None
    reason = choices[0].get("finish_reason")
    if reason == "content_filter" or message.get("refusal"):
        return Completion(labels=none, error=REFUSED, usage=usage, model=model)
    text = _text(message.get("content"))
    if not labels:
        cut = str(reason).lower() in _CUT or (
            reason is None and usage is not None and usage.output_tokens == limit
        )
        error = None if text.strip() else CUT if cut else NO_ANSWER
        return Completion(text, error=error, usage=usage, model=model, cut=cut)
    if not logprobs:
        return Completion(_begins_with(text, labels), none, NO_LOGPROBS, usage, model=model)
    top = _top(choices[0].get("logprobs"))
    if top is None:
        return Completion(
            labels=none, error=NO_LOGPROBS if text.strip() else NO_ANSWER, usage=usage, model=model
        )
    if begins_thinking(max(top, key=lambda token: top[token], default="")):
        return Completion(labels=none, error=THINKS_FIRST, usage=usage, model=model)
    values = label_logprobs(top, labels)
    return Completion(
        labels=values,
        error=NOT_REPORTED if np.isnan(values).all() else None,
        usage=usage,
        model=model,
    )


def label_logprobs(top: Mapping[str, float], labels: Sequence[str]) -> np.ndarray:
    """The labels' log-probabilities out of those of the answer's likeliest first tokens.

    A token counts for a label that it equals, or that it is the beginning of if it is the beginning
    of no other; white space around tokens and labels does not count, and upper and lower case
    differ. MultiValueCommand tokens of one label (``yes`` and `` yes``) are different beginnings of
    the answer, so their probabilities add up.

    Args:
        top: natural log-probabilities by token.

    Returns:
        (L,) float32; NaN for a label without a token among those.
    """
    labels = [label.strip() for label in labels]
    found: list[list[float]] = [[] for _ in labels]
    for token, value in top.items():
        bare = token.strip(_SPACE)
        begun = [place for place, label in enumerate(labels) if bare and label.startswith(bare)]
        equal = [place for place in begun if labels[place] == bare]
        for place in equal or (begun if len(begun) == 1 else []):
            found[place].append(value)
    return np.array(
        [np.logaddexp.reduce(values) if values else np.nan for values in found], dtype=np.float32
    )


def _begins_with(text: str, labels: Sequence[str]) -> str:
    """The one label that the text begins with, as a whole word; nothing where none or several."""
    bare, stripped = text.strip(), [label.strip() for label in labels]
    found = [
        label
        for label in stripped
        if bare.startswith(label) and not bare[len(label) : len(label) + 1].isalnum()
    ]
    return max(found, key=len) if found else ""


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(
            part["text"]
            for part in content
            if isinstance(part, dict)
            and isinstance(part.get("text"), str)
            and part.get("type", "text") in ("text", "output_text")
        )
    return content if isinstance(content, str) else ""


def _top(logprobs: Any) -> dict[str, float] | None:
    """Log-probability by token for the answer's first place; None where the server reports none.

    What is no log-probability is left out: NaN, above 0, and the -9999 that stands for "very
        unlikely".
    """
    try:
        first = logprobs["content"][0]
        entries = [*(first.get("top_logprobs") or []), first]
        found = {str(entry["token"]): float(entry["logprob"]) for entry in entries}
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError):
        return None
    return {token: value for token, value in found.items() if -1000 < value <= 1e-3}


def _usage(given: Any) -> Usage | None:
    if not isinstance(given, dict):
        return None
    details = given.get("prompt_tokens_details")
    cached = (
        details.get("cached_tokens")
        if isinstance(details, dict)
        else given.get("prompt_cache_hit_tokens")
    )
    counts: tuple[Any, Any, Any] = (
        given.get("prompt_tokens"),
        given.get("completion_tokens", 0),
        cached or 0,
    )
    if any(
        isinstance(one, bool) or not isinstance(one, int) or not 0 <= one <= _MOST_TOKENS
        for one in counts
    ):
        return None
    if counts[2] > counts[0]:
        return None
    return Usage(*counts)


def too_deep(body: str, deepest: int = _DEEPEST) -> bool:
    """Whether brackets outside of strings are nested deeper than this; a parser would run out of
    stack on some.
    """
    depth = 0
    for match in _BRACKET.finditer(body):
        if match[0] in "[{":
            depth += 1
            if depth > deepest:
                return True
        elif match[0] in "]}":
            depth -= 1
    return False


def _shown(body: str) -> str:
    text = " ".join(body[:600].split())
    return f"{text[:200]!r}" if text else "an empty body"
