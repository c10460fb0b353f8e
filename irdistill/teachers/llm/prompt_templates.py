"""Prompts: templates filled with a query and its passages, and passages cut so that they fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from irdistill.errors import IrdistillError
from irdistill.storage.files import digest
from irdistill.teachers.llm.language_model import Message

#: The parts a prompt may have, in the order of the chat.
PARTS = ("system", "user", "assistant")
_PLACE = re.compile(r"\{\{([a-z_]+)\}\}|\{([a-z_]+)\}")


class Template:
    """A prompt with places to fill, as ``{query}``; a literal ``{word}`` is written ``{{word}}``.

    All places are filled in one pass, so a passage that contains ``{query}`` stays as it is. Other
    braces (JSON in an example) are plain text.

    Attributes:
        parts: the templates by role; ``assistant``, where there is one, is the beginning of the
            model's answer.
        digest: fingerprint of the parts, for a teacher's identity.
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
            parts: ``user``, and where wanted ``system`` and ``assistant``.
            required: names of the places that must be somewhere in it.
            where: whose prompt it is, for errors (``"the prompt of the teacher 'x'"``).
            optional: names of places that may be in it.

        Raises:
            IrdistillError: there is no ``user`` part, a part is unknown or no text, a required
                place is missing, or a place is none of those named.
        """
        wrong = sorted(
            str(key)
            for key, value in parts.items()
            if key not in PARTS or not isinstance(value, str)
        )
        if wrong or not str(parts.get("user", "")).strip():
            raise IrdistillError(
                f"{where} {'has ' + ', '.join(wrong) if wrong else 'has no user part'}; expected"
                " were texts by the names user and, where wanted, system and assistant (the"
                " beginning of the model's answer)."
            )
        self.parts = {role: parts[role] for role in PARTS if parts.get(role)}
        found = {
            match[2] for text in self.parts.values() for match in _PLACE.finditer(text) if match[2]
        }
        missing = [name for name in required if name not in found]
        if missing:
            raise IrdistillError(
                f"{where} lacks {_names(missing)}; write each where its text shall stand."
            )
        unknown = sorted(found - set(required) - set(optional))
        if unknown:
            raise IrdistillError(
                f"{where} has the unknown places {_names(unknown)}; known are"
                f" {_names([*required, *optional])}. Text that shall stay as it is gets double"
                " braces: {{word}}."
            )
        self.digest = digest(self.parts)

    def messages(self, **values: str) -> tuple[Message, ...]:
        """The chat with its places filled: the system's message first, the beginning of the answer
        last.
        """

        def fill(match: re.Match[str]) -> str:
            return "{" + match[1] + "}" if match[1] else values[match[2]]

        return tuple(Message(role, _PLACE.sub(fill, text)) for role, text in self.parts.items())  # type: ignore[arg-type]

    def order(self, first: str, second: str) -> bool:
        """Whether a place comes before another wherever both are, reading the chat from its
        beginning.

        What comes before the first difference between two prompts is all that they can share.
        """
        found = [match[2] for text in self.parts.values() for match in _PLACE.finditer(text)]
        return second not in found or first not in found or found.index(first) < found.index(second)


def cut_passage(
    text: str, words: int | None = None, characters: int | None = None
) -> tuple[str, bool]:
    """The beginning of a passage, and whether anything was cut off.

    Args:
        words: at most so many, separated by white space; the white space between those kept stays
            as it is.
        characters: at most so many, after the words were counted.
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
    """How many passages `cut_passage` shortens, as ``passages_cut`` of a run's usage; empty where
    none.
    """
    cut = sum(cut_passage(text, words)[1] for text in texts)
    return {"passages_cut": float(cut)} if cut else {}
