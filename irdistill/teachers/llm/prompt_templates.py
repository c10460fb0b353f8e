"""Prompt templates with placeholders for a query and its passages, and passages cut to fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from irdistill.errors import InputError
from irdistill.storage.files import digest
from irdistill.teachers.llm.language_model import Message

#: The parts of a prompt, in the order of the chat.
PARTS = ("system", "user", "assistant")
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}|\{([a-z_]+)\}")


class Template:
    """A prompt with placeholders such as ``{query}``; a literal ``{word}`` is written ``{{word}}``.

    All placeholders are replaced in one pass, so a passage that contains ``{query}`` stays as it
    is. Other braces (JSON in an example) are plain text.

    Attributes:
        parts: the templates by role; ``assistant`` is the beginning of the model's answer.
        digest: fingerprint of the parts, for a teacher's identity.

    Examples:
        >>> template = Template({"user": "Rate {passage} for {query}."}, ["query", "passage"], "p")
        >>> template.messages(query="cats", passage="Cats purr.")
        (Message(role='user', content='Rate Cats purr. for cats.'),)
    """

    def __init__(
        self,
        parts: Mapping[str, str],
        required: Sequence[str],
        where: str,
        optional: Sequence[str] = (),
    ) -> None:
        """Check a card's prompt.

        Args:
            parts: ``user``, and optionally ``system`` and ``assistant``.
            required: placeholders that must be in it.
            optional: placeholders that may be in it.
        """
        wrong = sorted(
            str(key)
            for key, value in parts.items()
            if key not in PARTS or not isinstance(value, str)
        )
        if wrong or not str(parts.get("user", "")).strip():
            raise InputError(
                f"{where} has {', '.join(wrong) if wrong else 'no user part'}; expected texts with"
                " the names user and optionally system and assistant (the beginning of the model's"
                " answer)."
            )
        self.parts = {role: parts[role] for role in PARTS if parts.get(role)}
        places = {
            match[2] for text in self.parts.values() for match in _PLACE.finditer(text) if match[2]
        }
        missing = [name for name in required if name not in places]
        if missing:
            raise InputError(f"{where} lacks {_names(missing)}. Add each where its text belongs.")
        unknown = sorted(places - set(required) - set(optional))
        if unknown:
            raise InputError(
                f"{where} has the unknown placeholders {_names(unknown)}; known are"
                f" {_names([*required, *optional])}. Write literal braces as {{{{word}}}}."
            )
        self.digest = digest(self.parts)

    def messages(self, **values: str) -> tuple[Message, ...]:
        """The chat with its placeholders replaced: the system message first, the beginning of the
        answer last.
        """

        def fill(match: re.Match[str]) -> str:
            return "{" + match[1] + "}" if match[1] else values[match[2]]

        return tuple(Message(role, _PLACE.sub(fill, text)) for role, text in self.parts.items())  # type: ignore[arg-type]

    def order(self, first: str, second: str) -> bool:
        """Whether a placeholder comes before another one in the chat (also true if one is missing).

        Two prompts can share what comes before their first difference.
        """
        places = [match[2] for text in self.parts.values() for match in _PLACE.finditer(text)]
        return (
            second not in places
            or first not in places
            or places.index(first) < places.index(second)
        )


def cut_passage(
    text: str, words: int | None = None, characters: int | None = None
) -> tuple[str, bool]:
    """The beginning of a passage, and whether anything was cut off.

    Args:
        text: the passage.
        words: the most words, separated by white space; the white space between them is kept.
        characters: the most characters, applied after ``words``.

    Examples:
        >>> cut_passage("one two  three", words=2)
        ('one two', True)
    """
    kept = text.strip()
    whole = len(kept)
    if words is not None:
        for number, match in enumerate(re.finditer(r"\S+", kept), 1):
            if number == words:
                kept = kept[: match.end()]
                break
    if characters is not None:
        kept = kept[:characters].rstrip()
    return kept, len(kept) < whole


def _names(names: Sequence[str]) -> str:
    return ", ".join("{" + name + "}" for name in names) or "none"


def cut_usage(texts: Iterable[str], words: int | None) -> dict[str, float]:
    """How many passages `cut_passage` shortens, as ``passages_cut`` of a run's usage; empty if
    none.
    """
    cut = sum(cut_passage(text, words)[1] for text in texts)
    return {"passages_cut": float(cut)} if cut else {}
