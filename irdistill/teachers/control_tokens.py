"""Control tokens in texts, with which a document could end its message or speak as the model."""

from __future__ import annotations

import re
from typing import Any

from irdistill.teachers.llm.thinking import is_thinking_marker

#: Tokens that chat templates are made of, although some tokenizers do not list them as special.
_MARKUP = re.compile(
    r"<[|｜][^<>\s]{1,60}[|｜]>|</?(?:tool_call|tool_response|tools|start_of_turn|end_of_turn)>|\[/?(?:INST"
    r"|SYSTEM_PROMPT)\]|<</?SYS>>"
)

#: How control tokens in texts are treated, for identities.
BROKEN_UP = "broken up by a space in queries and documents"


class ControlTokens:
    """The control tokens of a tokenizer of transformers.

    Tokenizers read ``<|im_end|>`` or ``</s>`` in a text as the control token. In a prompt this is
    an injection: the document ends its message and continues in another role. So all teachers that
    put texts into a *prompt* break control tokens up: language models, causal and encoder-decoder
    rerankers, and cross-encoders with a chat template. Plain cross-encoders and retrievers do not.
    Their input has no messages, sentence-transformers reads ``[SEP]`` in a text as the token in
    training and in use, and scores must be the same here.

    Attributes:
        ids: ids of the control tokens, except those that mark thinking.
    """

    def __init__(self, tokenizer: Any) -> None:
        added = getattr(tokenizer, "added_tokens_decoder", {})
        special = {
            *map(str, tokenizer.all_special_tokens),
            *(str(token) for token in added.values() if token.special),
        }
        markup = {
            str(token)
            for token in added.values()
            if _MARKUP.fullmatch(str(token)) or is_thinking_marker(str(token))
        }
        names = sorted(
            (name for name in special | markup if len(name.strip()) > 1), key=len, reverse=True
        )
        self._names = re.compile("|".join(map(re.escape, names)) or r"(?!)")
        numbers = [
            *tokenizer.all_special_ids,
            *(number for number, token in added.items() if token.special),
        ]
        self.ids = frozenset(
            number for number in numbers if not is_thinking_marker(str(added.get(number, "")))
        )
        backend = getattr(tokenizer, "backend_tokenizer", None)
        folded = any(
            getattr(token, "normalized", False) for token in added.values() if str(token) in names
        )
        self._normalizer = getattr(backend, "normalizer", None) if folded else None

    def neutralize(self, text: str) -> str:
        """The text with a space after the first character of each control token; other texts do not
        change.
        """
        if self._normalizer is not None and not self._names.search(text):
            # Tokens that are looked for after normalization: full-width or upper-case letters may
            # become one.
            normal = self._normalizer.normalize_str(text)
            return self._break(normal) if self._names.search(normal) else text
        return self._break(text)

    def starts(self, text: str) -> list[int]:
        """The positions of control tokens in a text."""
        return [match.start() for match in self._names.finditer(text)]

    def _break(self, text: str) -> str:
        return self._names.sub(lambda match: match[0][0] + " " + match[0][1:], text)
