"""From chats to token ids: the model's chat template, and the tokens in which labels differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from irdistill.errors import ModelError, OptionError, one_line
from irdistill.storage.files import digest
from irdistill.teachers.control_tokens import ControlTokens
from irdistill.teachers.llm.language_model import Message, Request
from irdistill.teachers.llm.thinking import (
    answer_start,
    closing_marker,
    is_opening,
    opened_thinking,
)


class Prompt(NamedTuple):
    """What a model reads for a request.

    Attributes:
        ids: token ids; for labels, up to the position in which they differ.
        labels: the token of each label at that position.
        opened: the marker of thinking with which the prompt ends, so that the answer begins inside
            the thinking.
    """

    ids: list[int]
    labels: tuple[int, ...] = ()
    opened: str = ""


#: Options of chat templates that switch thinking on or off.
_SWITCHES = ("enable_thinking", "thinking")
_TRIED = ({"role": "user", "content": "Is water wet? Answer yes or no."},)


class ChatTokenizer:
    """A tokenizer with its chat template.

    A model without a template reads the messages one after another, separated by blank lines.
    Control tokens in a passage or query (``</s>``, ``<|im_end|>``) are broken up by a space, so
    that no document can end its message and speak in another role.

    Labels are read where an answer begins, so a model that thinks first has none there. For
    requests with labels, the template's switch (``enable_thinking``) is turned off unless the card
    sets it, a block of thinking that the template opens is closed, and ``empty_block`` is put
    before the answer. For requests with a limit of thinking, the switch is turned on.

    Attributes:
        digest: fingerprint of the template and its options, for identities.
        empty_block: text before the labels, for a model that begins its answers with thinking; else
            empty.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None) -> None:
        """Take a transformers tokenizer.

        Args:
            options: options of the template, such as ``enable_thinking: false`` of Qwen3.
        """
        self.tokenizer, self.options = tokenizer, dict(options or {})
        self.template = tokenizer.chat_template
        self.digest = digest([self.template, self.options])
        self._control = ControlTokens(tokenizer)
        self.empty_block = ""
        self._switch = self._thinking_switch(False)
        self._switch_on = self._thinking_switch(True)
        starts = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
        self._start = (
            tokenizer.bos_token
            if tokenizer.bos_token_id is not None and starts == [tokenizer.bos_token_id]
            else ""
        )
        self._found: dict[
            tuple[str, tuple[str, ...]], tuple[list[int], list[int], tuple[int, ...]]
        ] = {}

    def prompts(self, requests: Sequence[Request]) -> list[Prompt]:
        """Token ids of each request, not truncated."""
        if not requests:
            return []
        texts = [
            self.render(
                request.messages,
                labels=bool(request.labels),
                thinking=bool(request.thinking_tokens),
            )
            for request in requests
        ]
        encoded = self._encode(texts)
        return [
            (
                self._with_labels(text, ids, request.labels)
                if request.labels
                else Prompt(ids, opened=opened_thinking(text))
            )
            for text, ids, request in zip(texts, encoded, requests, strict=True)
        ]

    def prompt_after(self, request: Request, text: str) -> Prompt:
        """The prompt of a request for labels that ends where the answer begins after the thinking.

        Args:
            text: what the model wrote, with its thinking, which ends.
        """
        begun = self.render(request.messages, thinking=True)
        start = answer_start(text) or 0
        opened = opened_thinking(begun)
        if start:
            begun += text[len(opened) : start] + "\n\n"
        [ids] = self._encode([begun])
        return self._with_labels(begun, ids, request.labels)

    def thinking_length(self, text: str, tokens: int) -> int:
        """How many of the tokens of an answer are thinking; all of them if it does not end."""
        start = answer_start(text)
        if start is None:
            return tokens
        return min(tokens, len(self._encode([text[:start]])[0])) if start else 0

    def check_labels(self, request: Request) -> None:
        """Refuse labels that are not one token each where the answer to a request begins."""
        text, labels = self.render(request.messages, True), request.labels
        _, shared, _ = self._label_tokens(text, labels)
        longer = self._longer(text, labels, len(shared))
        if not longer:
            return
        bare = tuple(label.strip() for label in labels)
        fits = [
            variant
            for variant in (bare, tuple(f" {label}" for label in bare))
            if not self._longer(text, variant, len(shared))
        ]
        fix = (
            f"Write them in the prompt as labels: {json.dumps(list(fits[0]))}"
            if fits
            else "Use labels that are, such as letters, or read the order from a text (by: text)"
        )
        raise OptionError(
            f"the labels {', '.join(map(repr, longer[:5]))} are not single tokens of this model"
            f" after {text[-20:]!r}, and an order by labels reads one token of each. {fix}."
        )

    def _longer(self, text: str, labels: tuple[str, ...], shared: int) -> list[str]:
        """The labels that take more than one token after the tokens that all have in common."""
        lines = self._encode([text + label for label in labels])
        return [label for label, line in zip(labels, lines, strict=True) if len(line) != shared + 1]

    @property
    def thinking(self) -> str | None:
        """How thinking is suppressed for requests with labels, if the card does not set it; None if
        it is not.
        """
        if self._switch:
            return ", ".join(f"{key}: {str(value).lower()}" for key, value in self._switch.items())
        return f"empty block {self.empty_block!r}" if self.empty_block else None

    def may_think(self) -> str:
        """The marker with which the model might begin its answers; empty if there is none, or if
        the template has a switch.
        """
        if self._switch or any(name in self.options for name in _SWITCHES):
            return ""
        openings = sorted(
            (token for token in self.tokenizer.get_vocab() if is_opening(token)), key=len
        )
        return next(
            (token for token in openings if token == "<think>"), openings[0] if openings else ""
        )

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer without control tokens; markers of thinking, which are control
        tokens of some models, stay.
        """
        control = self._control.ids
        return str(
            self.tokenizer.decode(
                [number for number in ids if number not in control], skip_special_tokens=False
            )
        ).strip()

    def _thinking_switch(self, value: bool) -> dict[str, Any]:
        """The option of the template that switches thinking on or off; empty if it has none, if the
        card sets it, or if it makes no difference.
        """
        for name in _SWITCHES:
            switch = {name: value}
            if name in self.options:
                return {}
            if re.search(rf"\b{name}\b", str(self.template or "")):
                try:
                    texts = [
                        self.tokenizer.apply_chat_template(
                            list(_TRIED),
                            tokenize=False,
                            add_generation_prompt=True,
                            **self.options,
                            **more,
                        )
                        for more in ({}, switch)
                    ]
                except Exception:  # an invalid template raises when it is used
                    return {}
                if texts[0] != texts[1]:
                    return switch
        return {}

    def render(
        self, messages: Sequence[Message], labels: bool = False, thinking: bool = False
    ) -> str:
        """The text that the model reads, with control tokens.

        Args:
            messages: the chat.
            labels: whether the answer's first token must be a label, so that no thinking may come
                first.
            thinking: whether the model is to think before its answer.
        """
        chat = [
            {"role": role, "content": self._control.neutralize(content)}
            for role, content in messages
        ]
        begun = messages[-1].role == "assistant"
        if thinking:
            self._check_thinking()
        switch = self._switch_on if thinking else self._switch if labels else {}
        text = self._render(chat, begun, switch)
        if labels and not begun:
            opened = opened_thinking(text)
            text += f"\n\n{closing_marker(opened)}\n\n" if opened else self.empty_block
        return text

    def _check_thinking(self) -> None:
        off = [name for name in _SWITCHES if self.options.get(name) is False]
        if off:
            raise OptionError(
                "the card limits the tokens of thinking (thinking_tokens) and switches thinking"
                f" off (template_options: {off[0]}: false). Remove one of them."
            )

    def _render(
        self, chat: Sequence[Mapping[str, str]], begun: bool, switch: Mapping[str, Any]
    ) -> str:
        if not self.template:
            return self._start + "\n\n".join(message["content"] for message in chat)
        try:
            return str(
                self.tokenizer.apply_chat_template(
                    list(chat),
                    tokenize=False,
                    add_generation_prompt=not begun,
                    continue_final_message=begun,
                    **self.options,
                    **switch,
                )
            )
        except Exception as error:
            raise ModelError(
                "the model's chat template refuses a prompt with the roles"
                f" {', '.join(message['role'] for message in chat)}:"
                f" {one_line(error)}. If the model takes no system message, move"
                " its text to user; if it rewrites the beginning of an answer, leave out"
                " assistant."
            ) from error

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def _with_labels(self, text: str, ids: list[int], labels: tuple[str, ...]) -> Prompt:
        """End the prompt where the labels differ.

        Text and label are tokenized together, because a label's first token depends on the text
        before it. What follows the last control token does not depend on the text before that
        token, so with most templates this is computed once.
        """
        tail = text[max(self._control.starts(text), default=0) :]
        tail_ids, shared, tokens = self._label_tokens(tail, labels)
        if ids[len(ids) - len(tail_ids) :] != tail_ids:
            tail_ids, shared, tokens = self._label_tokens(text, labels)
        return Prompt(ids[: len(ids) - len(tail_ids)] + shared, tokens)

    def _label_tokens(
        self, tail: str, labels: tuple[str, ...]
    ) -> tuple[list[int], list[int], tuple[int, ...]]:
        """Ids of the tail, ids with which the tail with any label begins, and the next token of
        each label.
        """
        if (tail, labels) not in self._found:
            tail_ids, *lines = self._encode([tail, *(tail + label for label in labels)])
            shared = lines[0][
                : reduce(min, (common_prefix(lines[0], line) for line in lines[1:] or [tail_ids]))
            ]
            tokens = tuple(line[len(shared)] if len(line) > len(shared) else -1 for line in lines)
            if -1 in tokens or len(set(tokens)) < len(labels):
                raise OptionError(
                    f"the labels {', '.join(map(repr, labels))} do not differ in one token of this"
                    f" model: their next tokens are {', '.join(map(repr, self._names(tokens)))}."
                    " Choose labels that begin differently, none of which is the beginning of"
                    " another."
                )
            if (
                len(self._found) > 1000
            ):  # templates without control tokens: each tail is a whole prompt
                self._found.clear()
            self._found[tail, labels] = tail_ids, shared, tokens
        return self._found[tail, labels]

    def _names(self, tokens: Iterable[int]) -> list[str]:
        return ["" if token < 0 else self.tokenizer.decode([token]) for token in tokens]


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """The number of ids with which both sequences begin.

    Examples:
        >>> common_prefix([1, 2, 3], [1, 2, 4])
        2
    """
    count = 0
    for token, other in zip(first, second, strict=False):
        if token != other:
            break
        count += 1
    return count
