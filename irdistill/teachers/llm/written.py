"""Reading one requested line of text: a query, a question, a title."""

from __future__ import annotations

import json
import re
from typing import Any

from irdistill.teachers.llm.language_model import CUT, Answer
from irdistill.teachers.llm.reading import NO_ANSWER, REFUSED, Reply, is_refusal, read_answer

_KINDS = (
    r"(?:questions?|quer(?:y|ies)|claims?|titles?|key ?words?|key"
    r" ?phrases?|answers?|rewrites?|outputs?|responses?|results?|"
    r"q|a|t)"
)
_KINDS_LONG = _KINDS.replace("|q|a|t", "")
_WHICH = (
    r"(?:(?:the|my|your|a|final|last|new|re-?written|rephrased|reformulated|revised|improved|standalone|stand-alone|"
    r"self-contained|search|web|google|user|factual|natural|possible|suggested|generated|example|short|concise|one|best)\s+)*"
)
#: *Question:*, *1. Search query (short):*, *Rewritten question that stands alone:*
_LABEL = re.compile(
    rf"\s*(?:{_WHICH}{_KINDS}(?:\s+(?:is|\d{{1,2}}|(?:for|about|from) (?:this|the)"
    r" passage))?\s*(?:\([^()\n]{0,40}\))?"
    rf"|re-?written(?: {_KINDS_LONG})?[^:：\n]{{0,30}}|re-?write[^:：\n]{{0,30}})\s*[:：]\s*",
    re.IGNORECASE,
)
_MARK = re.compile(r"\s*(?:\(?\d{1,3}[.)]|[-*•–+]|#{1,6}|>)\s+")
_COURTESY = re.compile(
    r"\s*(?:(?:sure(?: thing)?|certainly|of course|absolutely|okay|ok|got"
    r" it)(?:[!.,:;]+\s*|\s+[-–—]\s+|\s*$)"
    r"|(?:all ?right|great(?: question)?|gladly|understood|no problem|yes|happy to"
    r" help)(?:[!.:]+\s*|\s*$))(?:(?:i['’]?d be"
    r"|i['’]m) (?:happy|glad) to (?:help|assist)[^.!:\n]*[.!:]\s*)?",
    re.IGNORECASE,
)
_PRESENTS = re.compile(
    r"\s*(?:(?:here(?:['’]s| is| are| you go)|below (?:is|are)|the following"
    r" (?:is|are))[^:：\n]{0,160}"
    r"|(?:this is|(?:based on|given|from|according to) (?:the|this|your)|i"
    r" (?:would|will|have|suggest|propose)|i['’](?:ll|d|ve)"
    r"|let me)"
    rf"\b[^:：\n]{{0,160}}\b{_KINDS_LONG}\b[^:：\n]{{0,60}}"
    rf"|(?:the|my|a|your)\s+{_WHICH}{_KINDS_LONG}(?:,?\s+(?:is|would be|could"
    r" be|that|which|written|based|as|(?:for|about"
    rf"|from) (?:this|the))\b"
    r"[^:：\n]{0,100})?)[:：]\s*",
    re.IGNORECASE,
)
_BARE_PRESENTS = re.compile(
    rf"\s*here(?:['’]s| is| are)\b[^?\n]{{0,80}}\b{_KINDS_LONG}\b[^?\n]{{0,60}}[.!]?\s*$",
    re.IGNORECASE,
)
#: *I can help with that.*, *I'll do that.*; and the names of a role or a language that a template
#: left in a line of its own.
_WILLING = re.compile(
    r"\s*i(?: can| will| would|['’]ll|['’]d)\b[^?\n]{0,40}\b(?:help|assist|do"
    r" (?:that|this|it)|happy|glad)\b"
    r"[^?\n]{0,40}[.!:]\s*",
    re.IGNORECASE,
)
_ROLE = re.compile(r"\s*(?:(?:assistant|json|text|markdown|plaintext)\s*[:：]?)\s*", re.IGNORECASE)
_ROLE_LABEL = re.compile(r"\s*assistant\s*[:：]\s*(?=\S)", re.IGNORECASE)
#: Beginnings of thinking without a marker.
_THINKS = re.compile(
    r"\s*(?:[*_#]*(?:thinking(?:"
    r" process)?|thoughts?|reasoning|analysis|explanation|rationale|scratchpad|step"
    r" \d+)[*_]*\s*[:：]|"
    r"(?:okay|ok|alright|hmm+|so|well|first|now),? (?:so |first,? )?(?:the user|let['’]?s|let me|i"
    r" (?:need|have|should|must"
    r"|will)|i['’]ll|we (?:need|have))\b|"
    r"(?:let['’]s|let me) (?:think|see|analy[sz]e|look|break|read|consider|start|first)\b|the user"
    r" (?:wants|asks|is asking"
    r"|asked|needs|has)\b|"
    r"(?:we|i) (?:need|have|are asked|am asked) to"
    r" (?:write|produce|generate|create|formulate|rewrite|come up|output)\b)",
    re.IGNORECASE,
)
_FINALLY = re.compile(
    rf"^\s*(?:[*_#>-]+\s*)?(?:(?:so,? )?(?:the |my )?(?:final|rewritten|resulting) {_KINDS_LONG}(?:"
    r" is)?"
    rf"|{_KINDS_LONG})\s*[*_]*\s*[:：]\s*[*_]*\s*",
    re.IGNORECASE | re.MULTILINE,
)
_TAGGED = re.compile(r"\s*<([a-zA-Z_]{1,30})>\s*(.*?)\s*(?:</\1>.*)?", re.DOTALL)
_NOTHING = re.compile(
    r"[\[({<]*\s*(?:n/?a|none|null|nil|empty|no (?:question|query|answer)|(?:your |the"
    r" )?(?:question|query"
    r"|title|claim|answer)(?: here)?)"
    r"\s*[\])}>.]*",
    re.IGNORECASE,
)
_PAIRS = {
    '"': '"',
    "'": "'",
    "`": "`",
    "“": "”",
    "‘": "’",
    "«": "»",
    "„": "“",
    "「": "」",
    "『": "』",
    "*": "*",
    "_": "_",
}
_NAMED = re.compile(f"{_WHICH}{_KINDS_LONG}", re.IGNORECASE)
#: JSON in an answer is read to this depth.
_DEPTH = 8


def read_written(answer: Answer) -> Reply:
    """The requested line: the first of several, without what models put around it.

    Removed are thinking, code fences, *Sure!*, *Here is the question:*, labels, list markers, tags
    and quotation marks. A refusal, thinking without a line after it, and a line that may have been
    cut give no text but a flag.
    """
    reply = read_answer(answer)
    if reply.flag not in (None, CUT):
        return reply
    line, whole = read_line(reply.text)
    if is_refusal(line):
        return Reply("", REFUSED)
    if reply.flag == CUT and (not whole or not line):
        return Reply("", CUT)
    return Reply(line, None if line else NO_ANSWER)


def read_line(text: str) -> tuple[str, bool]:
    """The first line with content, and whether another line follows, so that it is complete."""
    text = _of_json(text)
    if match := _TAGGED.fullmatch(text):
        text = match[2]
    if _THINKS.match(text):
        final = list(_FINALLY.finditer(text))
        if not final or final[-1].start() == 0:
            return "", False
        text = text[final[-1].end() :]
    lines = [line for line in text.strip().splitlines() if line.strip()]
    for number, line in enumerate(lines):
        last = number == len(lines) - 1
        bare = _bare(line, last)
        if len(bare) > 2 and re.search(r"\w", bare) and not _NOTHING.fullmatch(bare):
            return bare, not last or text.endswith("\n")
    return "", False


def _bare(line: str, last: bool) -> str:
    """A line without label, marker and quotation marks; empty if it announces the next line."""
    before = None
    line = _ROLE_LABEL.sub("", line.strip(), count=1)
    while line != before:
        before = line
        line = _unquoted(_MARK.sub("", line, count=1) if _MARK.match(line) else line)
        for pattern in (_COURTESY, _PRESENTS):
            if (match := pattern.match(line)) and (
                match.end() < len(line) or not last or pattern is _PRESENTS
            ):
                line = line[match.end() :].strip()
        line = re.sub(
            rf"^[*_]{{1,3}}({_WHICH}{_KINDS}\s*[:：]?)[*_]{{1,3}}\s*(?=[:：]|$)"
            rf"|^[*_]{{1,3}}({_WHICH}{_KINDS}\s*[:：])[*_]{{1,3}}",
            lambda match: match[1] or match[2] or "",
            line,
            flags=re.IGNORECASE,
        )
        line = _LABEL.sub("", line, count=1) if _LABEL.match(line) else line
    if not last and (
        line.endswith((":", "："))
        or _BARE_PRESENTS.fullmatch(line)
        or re.fullmatch(rf"{_WHICH}{_KINDS_LONG}", line, re.IGNORECASE)
    ):
        return ""
    if (
        _BARE_PRESENTS.fullmatch(line)
        or _WILLING.fullmatch(line)
        or line == "assistant"
        or (not last and _ROLE.fullmatch(line))
    ):
        return ""
    return " ".join(line.split())


def _unquoted(line: str) -> str:
    """Without quotation marks around the whole line; a pair around a word stays."""
    line = line.strip()
    while len(line) > 1 and line[0] in _PAIRS:
        closing, inside = _PAIRS[line[0]], line[1:-1]
        if line[-1] == closing and (
            line[0] == "'"
            or (line[0] not in inside and closing not in inside)
            or (line[0] in "*_`" and line[1] == line[0])
        ):
            line = inside.strip()
        elif line[0] not in line[1:] and closing not in line[1:] and line[0] not in "'*_":
            line = line[1:].strip()  # the closing one is on a line that is left out
        else:
            break
    if line and line[-1] in '"”`' and not any(mark in line[:-1] for mark in '"“”`'):
        line = line[:-1].strip()
    return line


def _of_json(text: str) -> str:
    """The first text in an answer that is JSON; other answers stay as they are."""
    stripped = re.sub(r"\Ajson\s*(?=[{\[])", "", text.strip(), flags=re.IGNORECASE)
    if not re.match(r"[{\[]\s*[\"'{}\[]", stripped) and not (
        stripped.startswith("{") and stripped.endswith("}")
    ):
        return text
    try:
        value: Any = json.loads(stripped)
    except (ValueError, RecursionError):
        return ""
    for _ in range(_DEPTH):
        if isinstance(value, str):
            return value
        if isinstance(value, dict):
            texts = [entry for entry in value.values() if isinstance(entry, str)]
            named = [
                entry
                for key, entry in value.items()
                if _NAMED.fullmatch(str(key).replace("_", " "))
            ]
            value = (
                named[0]
                if named
                else (
                    texts[0]
                    if len(texts) == 1
                    else next(iter(value.values()))
                    if len(value) == 1
                    else None
                )
            )
        elif isinstance(value, list) and value:
            value = value[0]
        else:
            break
    return value if isinstance(value, str) else ""
