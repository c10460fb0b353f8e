"""Split a docstring into a question (its summary) and a document (the rest)."""

from __future__ import annotations

import re
from typing import NamedTuple

TEXT_CHARACTERS = 1500
MIN_SUMMARY_WORDS = 4
MAX_SUMMARY_WORDS = 40
MIN_BODY_WORDS = 5

_SIGNATURE = re.compile(r"(?:async )?[A-Za-z_][\w.]*\s?\(")
_SENTENCE_END = re.compile(
    r"(?<![.\s]\w)(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)(?<!cf)[.!?]\s+(?=[A-Z0-9`'\"(*:\[])"
)
_ROLE_TITLED = re.compile(r":[\w:+-]+:`([^`<]+?)\s*<[^`>]*>`")
_ROLE = re.compile(r":[\w:+-]+:`([^`]*)`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]*>`__?")
_FOOTNOTE = re.compile(r"\s*\[(\d+|[A-Z]\w*\d+|#\w*)\]_")
_STRONG = re.compile(r"(?<![\w*])\*{1,2}(?=[^\s*])([^*]+?)(?<=[^\s*])\*{1,2}(?![\w*])")
_NOT_PROSE = re.compile(
    r"(>>>|\.\.|[-*+•]\s|\d+[.)]\s|:\w+(\s[^:`]*)?:(\s|$)" r"|@\w+|[-=~^\"*+#]{3,}|\||\{|<|\$)"
)
_GENERIC = re.compile(
    r"(see\b|alias (for|of|to)\b|same as\b|deprecated\b|internal\b|undocumented\b|not implemented\b"
    r"|this (method|function|class|property) is (deprecated|not|an alias)|in-?place version of\b"
    r"|method corresponding to\b|equivalent to\b|override\b|base class\b|initialize self\b"
    r"|returns? self\b|todo\b"
    r"|(array|tensor) method\b"
    r"|.*\bsee (the )?(documentation|help|corresponding)\b"
    r"|.*\bfor (more|full) (details|documentation|information)\b"
    r"|alias\b|refer to\b|read-only property\b|shorthand for\b|type of\b|mixin\b|an?"
    r" enumeration\b|enum\b)",
    re.IGNORECASE,
)


class DocstringParts(NamedTuple):
    """The text of a document, and its question if the docstring has a usable one."""

    text: str
    summary: str | None


def split_docstring(docstring: str, name: str) -> DocstringParts:
    """Split a docstring that ``inspect.cleandoc`` has cleaned.

    Signature lines (``pop(k[,d]) -> v, remove ...``) stay in the text without their prose. If the
    docstring has only a summary, this is the text, and there is no question.

    Args:
        name: the qualified name; a summary that only repeats it is not a question.

    Examples:
        >>> docstring = "Delete a folder and all files.\\n\\nLinks are not followed at all."
        >>> parts = split_docstring(docstring, "rm")
        >>> parts.summary, parts.text
        ('Delete a folder and all files', 'Links are not followed at all.')
    """
    signatures, prose = _signature_lines(docstring.split("\n"))
    first, rest = _first_paragraph(prose)
    summary, remainder = _first_sentence(first)
    pieces = ("\n".join(signatures), remainder, "\n".join(rest).strip("\n"))
    body = "\n".join(piece for piece in pieces if piece.strip())
    meaningful = len(re.findall(r"\w+", remainder + " " + " ".join(rest)))
    cleaned = clean_summary(summary)
    if meaningful < MIN_BODY_WORDS or not _usable(cleaned, name):
        return DocstringParts(shorten(docstring), None)
    return DocstringParts(shorten(body), cleaned)


def clean_summary(text: str) -> str:
    """Remove reST markup, remains of signatures and the final period from a sentence."""
    text = _ROLE_TITLED.sub(r"\1", text)
    text = _ROLE.sub(lambda match: _target(match[1]), text)
    text = _LINK.sub(r"\1", text)
    text = _FOOTNOTE.sub("", text)
    text = re.sub(r"`~([\w.]+)`", lambda match: _target(f"~{match[1]}"), text)
    text = re.sub(r"^\w+(, \w+)* -> (?=[A-Z])", "", text)
    text = text.replace("``", "").replace("`", "").replace("\\\\", "\\").replace(r"\*", "*")
    text = _STRONG.sub(r"\1", text)
    text = re.sub(r"\s+", " ", text).strip()
    return re.sub(r"(?<!\.)[.:;,]+$", "", text).strip()


def _target(role: str) -> str:
    """The displayed text of a cross reference: ``~a.b`` is ``b``."""
    return role.rsplit(".", 1)[-1] if role.startswith("~") else role.lstrip("!.")


def shorten(text: str) -> str:
    """Cut a text after the last word that ends within 1500 characters."""
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if len(text) <= TEXT_CHARACTERS:
        return text
    return re.sub(r"\s+\S*$", "", text[: TEXT_CHARACTERS + 1]).strip()


def normalize_summary(summary: str) -> str:
    """The words of a summary; summaries with the same words are the same question."""
    return " ".join(re.findall(r"\w+", summary.lower()))


def _signature_lines(lines: list[str]) -> tuple[list[str], list[str]]:
    """The signature lines at the start of a docstring, and its prose (also after an arrow)."""
    signatures: list[str] = []
    place = 0
    while place < len(lines):
        line = lines[place].strip()
        if not line or line == "--":
            place += 1
            continue
        last = _last_signature_line(lines, place)
        line = " ".join(part.strip() for part in lines[place : last + 1])
        end = _signature_end(line)
        if end is None:
            break
        place = last + 1
        sentence = _prose_after(line[end:])
        continued: list[str] = []
        while place < len(lines) and lines[place][:1] == " " and lines[place].strip():
            continued.append(lines[place].strip())
            place += 1
        if sentence:
            signatures.append(line[: len(line) - len(sentence)].rstrip(" -,:"))
            return signatures, [sentence, *continued, *lines[place:]]
        signatures.append(" ".join([line, *continued]))
    return signatures, lines[place:]


def _last_signature_line(lines: list[str], first: int) -> int:
    """The line where the parentheses of a signature are closed; the first line if they are not."""
    depth = 0
    for place in range(first, min(first + 30, len(lines))):
        depth += lines[place].count("(") - lines[place].count(")")
        if depth <= 0 or not lines[place].strip():
            return place if depth <= 0 else first
    return first


def _signature_end(line: str) -> int | None:
    """The end of the call at the start of a line; None if the line begins with prose."""
    start = _SIGNATURE.match(line)
    if start is None:
        return None
    depth = 0
    for place in range(start.end() - 1, len(line)):
        depth += {"(": 1, "[": 0, ")": -1}.get(line[place], 0)
        if depth == 0:
            after = line[place + 1 :].strip()
            return place + 1 if not after or after.startswith(("->", "-", "=", ":", "→")) else None
    return None


def _prose_after(after: str) -> str:
    """The sentence in ``-> v, remove the key``, ``-> None -- append`` or ``: the distance``."""
    after = after.strip()
    dashed = re.search(r"\s--\s+(.+)$" if after.startswith("->") else r"\s--?\s+(.+)$", f" {after}")
    if dashed:
        return dashed[1]
    if after.startswith(":"):
        return after[1:].strip()
    if re.match(r"-+>\s*[(\[]", after):
        return ""
    sentence = re.match(r"->\s*([a-z]+(?: \S+){4,})$", after)
    if sentence and "," not in sentence[1]:
        return sentence[1]
    arrow = re.match(r"->\s*[^\s,.:;]+(?:\s\w+){0,2}[,.:]\s+(\w.{12,})$", after)
    return arrow[1] if arrow else ""


def _first_paragraph(lines: list[str]) -> tuple[list[str], list[str]]:
    place = 0
    while place < len(lines) and not lines[place].strip():
        place += 1
    start = place
    while (
        place < len(lines) and lines[place].strip() and not _NOT_PROSE.match(lines[place].strip())
    ):
        if (
            place > start
            and lines[place][:1] in " \t"
            and lines[place - 1].rstrip().endswith((":", "."))
        ):
            break
        place += 1
    if place < len(lines) and re.fullmatch(r"[-=~^]{3,}", lines[place].strip()) and place > start:
        return [], lines[start:]
    return lines[start:place], lines[place:]


def _first_sentence(lines: list[str]) -> tuple[str, str]:
    paragraph = " ".join(line.strip() for line in lines)
    end = _SENTENCE_END.search(paragraph)
    return (paragraph[: end.start() + 1], paragraph[end.end() :]) if end else (paragraph, "")


def _usable(summary: str, name: str) -> bool:
    words = re.findall(r"\w+", summary)
    letters = sum(character.isalpha() or character == " " for character in summary)
    return (
        MIN_SUMMARY_WORDS <= len(words) <= MAX_SUMMARY_WORDS
        and letters >= 0.75 * len(summary)
        and re.match(r"[^\W_](?!\w*\()", summary) is not None
        and not _GENERIC.match(summary)
        and normalize_summary(summary) != normalize_summary(name)
        and "\\" not in summary
        and not re.search(r"\) -+> |^\w*[._]\w+: ", summary)
        and not re.match(r"\w+(\(\w+\)\w*)? (\w+ )?\[", summary)
        and not re.search(r"=\s*[\w.]+\(", summary)
    )
