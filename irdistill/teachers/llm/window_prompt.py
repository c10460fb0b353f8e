"""How a window of passages is shown to a language model, and how its order is read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np

from irdistill.errors import InputError, OptionError
from irdistill.storage.files import digest
from irdistill.teachers.llm.language_model import CUT, Answer, LanguageModel, Request
from irdistill.teachers.llm.prompt_templates import Template, cut_passage
from irdistill.teachers.llm.reading import GARBLED, IDENTIFIER, RankingReader, Reading, read_answer
from irdistill.teachers.llm.structured_answers import (
    JSON,
    check_structured,
    order_schema,
    read_order,
)

#: What the order of a window is read from: the text of an answer, the log-probabilities of the
#: passages' labels where the answer begins, or an answer that a server restricts to a JSON schema.
TEXT, LABELS = "text", "labels"
WAYS = (TEXT, LABELS, JSON)
#: The flag of a passage whose label the model's interface did not report.
NOT_REPORTED = "label not reported"

#: Tokens of an answer: per identifier (brackets, digits, separator), and at its beginning and end.
_TOKENS_EACH, _TOKENS_MORE = 6, 16
#: JSON has twice that room: schemas allow white space, and small models fill lines with it.
_JSON_ROOM = 2
_PARTS: dict[str, Any] = {
    "passage": "[{number}] {text}",
    "identifier": None,
    "ranking": None,
    "labels": None,
}


class WindowPrompt:
    """Requests for the order of a window of passages, and the reader of their answers.

    Attributes:
        by: ``text``, ``labels`` or ``json``.
        digest: fingerprint of the prompt and of how answers are read.
        labels: the passages' labels; empty if passages have numbers.
    """

    def __init__(
        self,
        prompt: Mapping[str, Any],
        by: str = TEXT,
        passage_words: int | None = None,
        answer_tokens: int | None = None,
        thinking_tokens: int = 0,
    ) -> None:
        """Check a card's prompt.

        Args:
            prompt: as of `ListwiseLLMTeacher`.
            by: ``text``, ``labels`` or ``json``.
            passage_words: longer passages are cut.
            answer_tokens: token limit of an answer; None for the tokens of the identifiers of a
                window.
            thinking_tokens: token limit of the thinking before the answer.
        """
        self._thinking_tokens = thinking_tokens
        self.by, self._words, self._answer_tokens = by, passage_words, answer_tokens
        parts = _PARTS | {key: prompt[key] for key in _PARTS if key in prompt}
        self.labels = _check_labels(parts["labels"], by)
        self._names = [label.strip() for label in self.labels]
        self._template = Template(
            {key: value for key, value in prompt.items() if key not in _PARTS},
            ["query", "passages"],
            "the prompt of the listwise teacher",
            ["count"],
        )
        self._passage = Template(
            {"user": parts["passage"] or ""}, ["number", "text"], "the listwise prompt's passage"
        )
        identifier = (
            rf"\[({'|'.join(map(re.escape, self._names))})\]" if self.labels else IDENTIFIER
        )
        self._own_identifier = re.compile(identifier)
        self._reader = RankingReader(
            parts["identifier"] or identifier, parts["ranking"], self._names
        )
        if self.labels and parts["identifier"]:
            self._check_identifier(parts["identifier"])
        read = {"passage": parts["passage"], "identifier": parts["identifier"] or identifier}
        read["ranking"] = parts["ranking"]
        self.digest = digest(
            [self._template.digest, read, *([list(self.labels)] if self.labels else [])]
        )

    def _check_identifier(self, identifier: str) -> None:
        """Refuse an identifier of numbers for passages that have labels."""
        name = self._names[0]
        shown = self._passage.messages(number=name, text="")[0].content
        if self._reader.read(shown, 1).garbled:
            raise InputError(
                f"the prompt's identifier {identifier!r} does not find the label {name!r} in a"
                f" passage as it is shown, {shown.strip()!r}. Remove identifier, whose default fits"
                " the labels, and ask for the labels in the prompt."
            )

    def check(self, model: LanguageModel, window: int) -> None:
        """Refuse windows with more passages than labels, labels that the model does not read as one
        token each, and JSON from a model that cannot be restricted to it.
        """
        check_structured(model, self.by, self._template.parts)
        if not self.labels:
            return
        if window > len(self.labels):
            raise OptionError(
                f"window is {window}, and there are {len(self.labels)} labels"
                f" ({self._names[0]} to {self._names[-1]}). Use a window of at most"
                f" {len(self.labels)}, or list more labels in the prompt (labels: […])."
            )
        check = getattr(model, "check_labels", None)
        if self.by == LABELS and check is not None:
            check(self.request("query", ["passage"] * window))

    def request(self, query: str, texts: Sequence[str]) -> Request:
        """The request for the order of some passages, which `shown` has prepared."""
        names = self._names or [str(number) for number in range(1, len(texts) + 1)]
        passages = "\n".join(
            self._passage.messages(number=name, text=text)[0].content
            for name, text in zip(names, texts, strict=False)
        )
        messages = self._template.messages(query=query, passages=passages, count=str(len(texts)))
        if self.by == LABELS:
            labels = self.labels[: len(texts)]
            return Request(messages, labels, max_tokens=1, thinking_tokens=self._thinking_tokens)
        room = _JSON_ROOM if self.by == JSON else 1
        tokens = self._answer_tokens or room * (_TOKENS_EACH * len(texts) + _TOKENS_MORE)
        schema = order_schema(self._json_names(len(texts))) if self.by == JSON else None
        return Request(
            messages, max_tokens=tokens, schema=schema, thinking_tokens=self._thinking_tokens
        )

    def shown(self, text: str) -> str:
        """A passage on one line, cut, with ``[3]`` written as ``(3)``, so that it is not read as an
        identifier.
        """
        return self._own_identifier.sub(
            r"(\1)", " ".join(cut_passage(text, self._words)[0].split())
        )

    def read(self, answer: Answer, count: int) -> tuple[str | None, Reading | None]:
        """The order of an answer about ``count`` passages; if it has none, the flag with the
        reason.
        """
        if answer.error is not None:
            return answer.error, None
        if self.by == JSON:
            return read_order(answer, self._json_names(count))
        return self._by_labels(answer) if self.by == LABELS else self._by_text(answer, count)

    def _json_names(self, count: int) -> list[str] | list[int]:
        """The passages' names as JSON values."""
        return self._names[:count] or list(range(1, count + 1))

    def _by_text(self, answer: Answer, count: int) -> tuple[str | None, Reading | None]:
        """A cut answer counts if the whole ranking comes first."""
        text = self._template.parts.get("assistant", "") + answer.text
        reply = read_answer(answer._replace(text=text))
        if reply.flag not in (None, CUT):
            return reply.flag, None
        reading = self._reader.read(text, count)
        if reply.flag == CUT and (reading.garbled or not reading.certain):
            return CUT, None
        return (GARBLED, None) if reading.garbled else (None, reading)

    def _by_labels(self, answer: Answer) -> tuple[str | None, Reading | None]:
        """Equally likely passages stay in the order shown."""
        if answer.labels is None or np.isnan(answer.labels).all():
            return NOT_REPORTED, None
        logs = np.asarray(answer.labels, np.float64)
        missing = np.isnan(logs)
        order = np.argsort(np.where(missing, np.inf, -logs), kind="stable")
        ranked = [int(place) for place in order if not missing[place]]
        values, counts = np.unique(logs[~missing], return_counts=True)
        tied = int(counts[counts > 1].sum()) if len(values) else 0
        return None, Reading(ranked, [], np.flatnonzero(missing).tolist(), 0, tied=tied)


def _check_labels(labels: Any, by: str) -> tuple[str, ...]:
    """The labels of a card, or the letters A to Z; none for passages that have numbers."""
    if labels is None:
        return tuple(ascii_uppercase) if by == LABELS else ()
    valid = (
        isinstance(labels, list)
        and len(labels) > 1
        and all(isinstance(label, str) and label.strip() for label in labels)
        and len({label.strip() for label in labels}) == len(labels)
    )
    if not valid:
        raise InputError(
            f"the listwise prompt's labels are {labels!r}; expected a list of different texts, such"
            " as [A, B, C, D]. Put quotes around numbers and around yes and no."
        )
    return tuple(labels)
