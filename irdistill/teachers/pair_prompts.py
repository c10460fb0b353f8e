"""Prompts with one query and one document: where the two are inserted, and how a prompt that is too
long is truncated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from irdistill.errors import IrdistillError, OptionError
from irdistill.modeling.truncation import Truncation
from irdistill.teachers.control_tokens import ControlTokens
from irdistill.teachers.protocol import TOO_LONG_LENGTH

QUERY, DOCUMENT, INSTRUCTION = "{query}", "{document}", "{instruction}"
TRUNCATION = "the document is cut at its end; query and template stay whole"


class PairTemplate:
    """A text with the placeholders ``{query}`` and ``{document}``, each once, and ``{instruction}``
    if there is an instruction.

    Other braces, in the template and in the texts, stay as they are.

    Attributes:
        text: the template with its instruction.

    Examples:
        >>> PairTemplate("Query: {query} Document: {document}").fill("cats", "Cats purr.")
        ('Query: cats Document: Cats purr.', 22, 32)
    """

    def __init__(self, text: str, instruction: str = "") -> None:
        for place in (QUERY, DOCUMENT):
            if text.count(place) != 1:
                raise OptionError(
                    f"the template {_shown(text)} contains {place} {text.count(place)} times;"
                    " expected exactly once."
                )
        if bool(instruction) != (INSTRUCTION in text):
            present, missing = (
                ("an instruction", f"placeholder {INSTRUCTION}")
                if instruction
                else (f"the placeholder {INSTRUCTION}", "instruction")
            )
            raise OptionError(
                f"the template {_shown(text)} has {present} but no {missing}. Set both or neither."
            )
        self.query_first = text.index(QUERY) < text.index(DOCUMENT)
        first, second = (QUERY, DOCUMENT) if self.query_first else (DOCUMENT, QUERY)
        start, rest = text.split(first)
        middle, end = rest.split(second)
        self._parts = tuple(part.replace(INSTRUCTION, instruction) for part in (start, middle, end))
        self.text = self._parts[0] + first + self._parts[1] + second + self._parts[2]

    def fill(self, query: str, document: str) -> tuple[str, int, int]:
        """The prompt, and the start and end of the document in it, in characters."""
        start, middle, end = self._parts
        first, second = (query, document) if self.query_first else (document, query)
        place = len(start) + (len(first) + len(middle) if self.query_first else 0)
        return start + first + middle + second + end, place, place + len(document)

    def encode(
        self,
        tokenizer: Any,
        pairs: Sequence[tuple[str, str]],
        max_length: int,
        special_tokens: bool,
        truncation: Truncation | None = None,
    ) -> tuple[list[list[int]], np.ndarray]:
        """Token ids of the prompts of (query, document) pairs, each of at most ``max_length``.

        A prompt is tokenized as one text. If it is too long, the last tokens that are entirely in
        the document are removed. So a short prompt has exactly the tokens of the whole text, and a
        truncated one those of its beginning and its end. Control tokens in a query or document
        (``<|im_end|>``) are broken up, so that only those of the template count.

        Args:
            tokenizer: a tokenizer of transformers, backed by the library tokenizers.
            pairs: queries and documents.
            special_tokens: whether the tokenizer adds the tokens that it puts around a text.
            truncation: counts what is removed.

        Returns:
            The ids, and their lengths (n,) int64: ``TOO_LONG_LENGTH`` if query and template leave
            no room for a document.
        """
        control = ControlTokens(tokenizer)
        filled = [
            self.fill(control.neutralize(query), control.neutralize(document))
            for query, document in pairs
        ]
        coded = tokenizer(
            [text for text, _, _ in filled],
            add_special_tokens=special_tokens,
            padding=False,
            truncation=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids: list[list[int]] = coded["input_ids"]
        if truncation is not None:
            truncation.add(
                [len(row) for row in ids], [max(0, len(row) - max_length) for row in ids]
            )
        too_long: list[int] = []
        for row, (_, start, end) in enumerate(filled):
            surplus = len(ids[row]) - max_length
            if surplus <= 0:
                continue
            inner = [
                place
                for place, (_, last) in enumerate(coded["offset_mapping"][row])
                if start < last <= end
            ]
            if surplus >= len(inner):
                too_long.append(row)
                continue
            left_out = set(inner[len(inner) - surplus :])
            ids[row] = [token for place, token in enumerate(ids[row]) if place not in left_out]
        lengths = np.array([len(row) for row in ids], dtype=np.int64)
        lengths[too_long] = TOO_LONG_LENGTH
        return ids, lengths

    def check(self, tokenizer: Any, max_length: int, special_tokens: bool) -> None:
        """Refuse a template that leaves no room for a query and a document."""
        if self.encode(tokenizer, [("", "")], max_length, special_tokens)[1][0] < 0:
            raise IrdistillError(
                f"the template {_shown(self.text)} alone takes more than max_length={max_length}"
                " tokens, which leaves no room for a query and a document. Raise --max-length."
            )


def chat_template(tokenizer: Any, prompt: str = "") -> str | None:
    """The template of a model that was saved with a chat template for the roles query and document,
    as sentence-transformers saves its rerankers; None if it has none.

    Args:
        tokenizer: the model's tokenizer.
        prompt: the default prompt that the model was saved with; it becomes the system message.
    """
    system = [{"role": "system", "content": prompt}] if prompt else []
    messages = [
        *system,
        {"role": "query", "content": QUERY},
        {"role": "document", "content": DOCUMENT},
    ]
    if not getattr(tokenizer, "chat_template", None):
        return None
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception:  # a template for user and assistant only: what it raises is its own affair
        return None
    return text if text.count(QUERY) == 1 and text.count(DOCUMENT) == 1 else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")
