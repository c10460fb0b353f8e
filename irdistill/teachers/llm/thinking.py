"""Thinking in an answer: what a model writes for itself before its answer, with the markers of many
model families.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NAMES = (
    r"(?:think|thinking|thoughts?|reason|reasoning|reflection|reflect|analysis|scratchpad|rationale|deliberation|"
    r"inner[_-]?monologue|cot|seed:think|antml:thinking)"
)
_OPENING = (
    rf"<{_NAMES}(?:\s[^<>]{{0,200}})?(?<!/)>",
    r"\[(?:THINK|THINKING|THOUGHTS?|REASONING)\]",
    "◁think▷",
    r"<\|(?:begin_of_|begin_|start_)?(?:think|thinking|thought|reasoning)\|>",
    r"<\|channel>\s*thought\b",
    r"<[|｜]think[|｜]>",
)
_CLOSING = (
    rf"</\s*{_NAMES}\s*>",
    r"\[/(?:THINK|THINKING|THOUGHTS?|REASONING)\]",
    "◁/think▷",
    r"<\|(?:end_of_|end_)(?:think|thinking|thought|reasoning)\|>|<\|/(?:think|thinking)\|>",
    r"<channel\|>",
    r"<[|｜]/think[|｜]>",
)
_MARKER = re.compile(
    f"(?P<open>{'|'.join(_OPENING)})|(?P<close>{'|'.join(_CLOSING)})", re.IGNORECASE
)
_EMPTY = re.compile(rf"<{_NAMES}\s*/>", re.IGNORECASE)
_ESCAPED = re.compile(rf"&lt;(/?{_NAMES})&gt;", re.IGNORECASE)
_OPEN_AT_END = re.compile(f"(?:{'|'.join(_OPENING)})\\s*$", re.IGNORECASE)

#: The channels of gpt-oss: a header, then its text; and the same if the server removed the control
#: tokens.
_CHANNEL = re.compile(
    r"(?:<\|channel\|>)?\s*(\w+)[^<>]{0,100}(?:<\|constrain\|>[^<>]{0,50})?<\|message\|>"
    r"(.*?)(?=<\|(?:end|start|return|call|channel)\|>|\Z)",
    re.DOTALL,
)
_BARE_CHANNEL = re.compile(r"^(?:analysis|commentary)(?=[A-Z\"'(\[*-])")
_BARE_FINAL = re.compile(r"assistant\s*final(?=\S)")

#: Wrappers of an answer after the thinking.
_WRAPPER = re.compile(
    r"<(answer|final_answer|final|output|response|solution|result)>|<\|begin_of_(solution)\|>"
    r"|<\|START_(RESPONSE)\|>",
    re.IGNORECASE,
)
_WRAPPER_END = re.compile(
    r"</(?:answer|final_answer|final|output|response|solution|result)>|<\|end_of_solution\|>"
    r"|<\|END_RESPONSE\|>",
    re.IGNORECASE,
)


class ReplyText(NamedTuple):
    """An answer without its thinking.

    Attributes:
        text: the text after the thinking; empty if the thinking does not end.
        whole: whether the thinking, if any, ends.
        raw: as ``text``, with the marker that ends the thinking and everything after it, as the
            model wrote them.
    """

    text: str
    whole: bool
    raw: str


def split_thinking(text: str) -> ReplyText:
    """Remove the thinking from an answer.

    Closed blocks are removed. Text before a closing marker without an opening one is thinking too,
    because a chat template may have written the opening. A block that is never closed leaves
    nothing: the answer was cut.

    Examples:
        >>> split_thinking("<think>Let me see.</think>yes").text
        'yes'
    """
    text = _EMPTY.sub("", _ESCAPED.sub(r"<\1>", text))
    if "<|message|>" in text:
        channels = [(match[1], match[2]) for match in _CHANNEL.finditer(text)]
        final = next((said for name, said in reversed(channels) if name.lower() == "final"), None)
        return ReplyText("", False, "") if final is None else _unwrapped(final, final)
    if _BARE_CHANNEL.match(text.lstrip()):
        finals = list(_BARE_FINAL.finditer(text))
        return (
            _unwrapped(text[finals[-1].end() :], text[finals[-1].end() :])
            if finals
            else ReplyText("", False, "")
        )
    said: list[str] = []
    start = raw = 0
    thinking = False
    for marker in _MARKER.finditer(text):
        if marker["open"]:
            if not thinking:
                said.append(text[start : marker.start()])
            thinking = True
        else:
            if not thinking:
                said.clear()
            thinking, start, raw = False, marker.end(), marker.start()
    if thinking:
        return ReplyText("", False, "")
    said.append(text[start:])
    return _unwrapped("".join(said), text[raw:])


def answer_start(text: str) -> int | None:
    """Where the answer begins after the thinking, as a position in the text; None if the thinking
    does not end.

    Examples:
        >>> [answer_start(text) for text in ("<think>Hm.</think>yes", "yes", "<think>Hm")]
        [18, 0, None]
    """
    if "<|message|>" in text or _BARE_CHANNEL.match(text.lstrip()):
        finals = [
            match.start(2) for match in _CHANNEL.finditer(text) if match[1].lower() == "final"
        ] or [match.end() for match in _BARE_FINAL.finditer(text)]
        return finals[-1] if finals else None
    start, thinking = 0, False
    for marker in _MARKER.finditer(text):
        thinking = bool(marker["open"])
        start = start if thinking else marker.end()
    return None if thinking else start


def opened_thinking(prompt: str) -> str:
    """The opening marker with which a prompt ends, so that the answer begins inside the thinking;
    else empty.
    """
    match = _OPEN_AT_END.search(prompt[-200:])
    return match[0].strip() if match else ""


def closing_marker(opening: str) -> str:
    """The marker that ends the thinking that ``opening`` begins.

    Examples:
        >>> closing_marker("<think>")
        '</think>'
    """
    if opening.startswith("["):
        return "[/" + opening[1:]
    if opening.startswith("◁"):
        return "◁/think▷"
    if opening.lower().startswith("<|channel>"):
        return "<channel|>"
    if re.match(r"<\|(begin|start)_", opening, re.IGNORECASE):
        return re.sub(
            r"(?i)begin|start", lambda word: "END" if word[0].isupper() else "end", opening, count=1
        )
    if opening.startswith(("<|", "<｜")):
        return opening[:2] + "/" + opening[2:]
    return "</" + opening[1:].split()[0].rstrip(">") + ">"


def begins_thinking(text: str) -> bool:
    """Whether a text begins with a marker of thinking, or with its first characters."""
    text = text.lstrip()
    match = _MARKER.match(text)
    return bool(match and match["open"]) or text.startswith(("<|channel|>analysis", "<|channel>"))


def is_thinking_marker(token: str) -> bool:
    """Whether a token of a vocabulary is a marker of thinking."""
    token = token.strip()
    return bool(_MARKER.fullmatch(token)) or token in (
        "<|channel|>",
        "<|message|>",
        "<|channel>",
        "<|start|>",
        "<|constrain|>",
    )


def is_opening(token: str) -> bool:
    """Whether a token of a vocabulary begins thinking."""
    match = _MARKER.fullmatch(token.strip())
    return bool(match and match["open"])


def _unwrapped(text: str, raw: str) -> ReplyText:
    """The text between ``<answer>`` and ``</answer>`` (the last of several), if there is such a
    wrapper.
    """
    ends = _WRAPPER_END.search(text)
    begins = [
        match
        for match in _WRAPPER.finditer(text)
        if ends or not text[: match.start()].rpartition("\n")[2].strip()
    ]
    if begins:
        text = text[begins[-1].end() :]
    if end := _WRAPPER_END.search(text):
        text = text[: end.start()]
    return ReplyText(text.strip(), True, raw)
