"""Reading the response of a chat-completions server: the text, the log-probabilities of labels, and
the usage.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from irdistill.teachers.llm.language_model import CUT
from irdistill.teachers.llm.reading import NO_ANSWER, REFUSED
from irdistill.teachers.llm.thinking import answer_start, begins_thinking

NO_LOGPROBS, NOT_REPORTED = "no log-probabilities", "labels not reported"
THINKS_FIRST = "thinks first"

#: Finish reasons of servers for an answer that the token limit ended.
_CUT = ("length", "max_tokens", "max_output_tokens", "model_length", "token_limit")
_BRACKET = re.compile(r'"(?:[^"\\]|\\.)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
#: Responses with deeper nesting are not read; the needed fields are six levels deep.
_DEEPEST = 64
#: More tokens than any model reads or writes for a request; larger counts are ignored.
_MOST_TOKENS = 10_000_000

#: White space before a word in a token, as itself or as vocabularies write it.
_SPACE = " \t\r\n\u2581\u0120\u010a"


class Usage(NamedTuple):
    """Tokens as the server counted them; the cached ones are part of the input tokens.

    Attributes:
        searches: search units, of servers that bill those instead of tokens.
    """

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    searches: float = 0


class Completion(NamedTuple):
    """The content of a response.

    Attributes:
        text: the answer's text.
        labels: (L,) float32 as in `Answer`; None if none were requested.
        error: why there is no answer; None if there is one.
        usage: None if the server did not report it.
        fault: why the response is unusable, so that another try is worth it; then only ``usage`` is
            valid.
        model: the model's name on the server.
        cut: whether the token limit ended the text.
        thinking_tokens: tokens of thinking, if the server reports them.
    """

    text: str = ""
    labels: np.ndarray | None = None
    error: str | None = None
    usage: Usage | None = None
    fault: str | None = None
    model: str = ""
    cut: bool = False
    thinking_tokens: int = 0


def read_completion(
    body: str,
    labels: Sequence[str] = (),
    logprobs: bool = True,
    limit: int | None = None,
    thinking: bool = False,
) -> Completion:
    """Read a response of status 200. Separate thinking (``reasoning_content``) is not part of the
    answer.

    Args:
        body: the response.
        labels: labels of the request.
        logprobs: whether the labels' log-probabilities were requested. If not, only the text is
            available and no number is derived from it: the labels are NaN, the text is the label
            with which it begins (or empty), and the error says so.
        limit: token limit of the answer; an answer of this length counts as cut if the server does
            not state how it ended.
        thinking: whether the model may think first; the labels are then those of the first token
            after the thinking.
    """
    if too_deep(body):
        return Completion(fault=f"{_shown(body)}, which is nested more than {_DEEPEST} levels deep")
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        return Completion(fault=f"{_shown(body)}, which is not JSON")
    if not isinstance(data, dict):
        return Completion(fault=f"{_shown(body)}, which is not a chat completion")
    usage = _usage(data.get("usage"))
    thought = _thinking_tokens(data["usage"]) if usage else 0
    choices = data.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        count = f"{len(choices)} choices" if isinstance(choices, list) else "no choices"
        return Completion(usage=usage, fault=f"{_shown(body)}, which has {count}; expected one")
    message = choices[0].get("message")
    if not isinstance(message, dict):
        return Completion(usage=usage, fault=f"{_shown(body)}, which has no message")
    model = data["model"] if isinstance(data.get("model"), str) else ""
    none = np.full(len(labels), np.nan, dtype=np.float32) if labels else None
    reason = choices[0].get("finish_reason")
    if reason == "content_filter" or message.get("refusal"):
        return Completion(labels=none, error=REFUSED, usage=usage, model=model)
    text = _text(message.get("content"))
    base = Completion(labels=none, usage=usage, model=model, thinking_tokens=thought)
    cut = str(reason).lower() in _CUT or (
        reason is None and usage is not None and usage.output_tokens == limit
    )
    if not labels:
        error = None if text.strip() else CUT if cut else NO_ANSWER
        return base._replace(text=text, error=error, cut=cut)
    if not logprobs:
        return base._replace(text=_begins_with(text, labels), error=NO_LOGPROBS)
    entries = _entries(choices[0].get("logprobs"))
    place = _answer_place(entries, text) if thinking else 0
    if entries and place is None:
        return base._replace(error=CUT, cut=cut)
    top = _top(entries[place]) if entries and place is not None else None
    if top is None:
        return base._replace(error=NO_LOGPROBS if text.strip() else NO_ANSWER)
    if begins_thinking(max(top, key=lambda token: top[token], default="")):
        return base._replace(error=THINKS_FIRST)
    values = label_logprobs(top, labels)
    return base._replace(labels=values, error=NOT_REPORTED if np.isnan(values).all() else None)


def label_logprobs(top: Mapping[str, float], labels: Sequence[str]) -> np.ndarray:
    """The labels' log-probabilities, from those of the answer's most likely first tokens.

    A token counts for a label if it equals the label, or if it is the beginning of this label only.
    White space around tokens and labels is ignored; case is not. Several tokens of one label
    (``yes`` and `` yes``) are different beginnings of the answer, so their probabilities are added.

    Args:
        top: natural log-probabilities by token.

    Returns:
        (L,) float32; NaN for a label without a token.

    Examples:
        >>> label_logprobs({"yes": -0.25, "no": -1.5}, ["yes", "no"]).tolist()
        [-0.25, -1.5]
    """
    labels = [label.strip() for label in labels]
    collected: list[list[float]] = [[] for _ in labels]
    for token, value in top.items():
        bare = token.strip(_SPACE)
        begun = [place for place, label in enumerate(labels) if bare and label.startswith(bare)]
        equal = [place for place in begun if labels[place] == bare]
        for place in equal or (begun if len(begun) == 1 else []):
            collected[place].append(value)
    return np.array(
        [np.logaddexp.reduce(values) if values else np.nan for values in collected],
        dtype=np.float32,
    )


def _begins_with(text: str, labels: Sequence[str]) -> str:
    """The label with which the text begins as a whole word; empty if there is none."""
    bare, stripped = text.strip(), [label.strip() for label in labels]
    matching = [
        label
        for label in stripped
        if bare.startswith(label) and not bare[len(label) : len(label) + 1].isalnum()
    ]
    return max(matching, key=len) if matching else ""


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


def _entries(logprobs: Any) -> list[Any]:
    """What the server reports of each token of the answer; empty if it reports nothing."""
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    return entries if isinstance(entries, list) else []


def _answer_place(entries: Sequence[Any], text: str) -> int | None:
    """The index of the answer's first token after the thinking; None if there is none.

    The thinking ends at its marker. A server that separates it may leave out the marker; the answer
    is then the text at the end of all tokens.
    """
    tokens = [str(entry.get("token", "")) if isinstance(entry, dict) else "" for entry in entries]
    joined = "".join(tokens)
    start = answer_start(joined)
    if start == 0 and text.strip() and joined.rstrip().endswith(text.strip()):
        start = len(joined.rstrip()) - len(text.strip())
    if start is None:
        return None
    end = 0
    for place, token in enumerate(tokens):
        end += len(token)
        if end > start and token.strip(_SPACE):
            return place
    return None


def _top(first: Any) -> dict[str, float] | None:
    """Log-probability by token at a position of the answer; None if the server reports none.

    Invalid values are left out: NaN, above 0, and the -9999 that stands for "very unlikely".
    """
    try:
        entries = [*(first.get("top_logprobs") or []), first]
        values = {str(entry["token"]): float(entry["logprob"]) for entry in entries}
    except (TypeError, KeyError, IndexError, ValueError, AttributeError, OverflowError):
        return None
    return {token: value for token, value in values.items() if -1000 < value <= 1e-3}


def _usage(usage: Any) -> Usage | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = (
        details.get("cached_tokens")
        if isinstance(details, dict)
        else usage.get("prompt_cache_hit_tokens")
    )
    counts: tuple[Any, Any, Any] = (
        usage.get("prompt_tokens"),
        usage.get("completion_tokens", 0),
        cached or 0,
    )
    if any(
        isinstance(count, bool) or not isinstance(count, int) or not 0 <= count <= _MOST_TOKENS
        for count in counts
    ):
        return None
    if counts[2] > counts[0]:
        return None
    return Usage(*counts)


def _thinking_tokens(usage: Mapping[str, Any]) -> int:
    """Tokens of thinking as the server counted them; 0 if it did not."""
    details = usage.get("completion_tokens_details")
    count = details.get("reasoning_tokens") if isinstance(details, dict) else None
    valid = type(count) is int and 0 <= count <= _MOST_TOKENS
    return count if valid and count is not None else 0


def too_deep(body: str, deepest: int = _DEEPEST) -> bool:
    """Whether brackets outside of strings are nested deeper than this, which could overflow the
    parser's stack.

    Examples:
        >>> too_deep("[[1]]", 1), too_deep("[1]", 1)
        (True, False)
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
