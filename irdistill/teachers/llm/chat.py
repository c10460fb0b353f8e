"""From chats to token ids: the model's own template, and the tokens that tell labels apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

from irdistill.errors import IrdistillError
from irdistill.files import digest
from irdistill.teachers.llm.model import Message, Request


class Prompt(NamedTuple):
    """What a model reads for a request.

    Attributes:
        ids: token ids; where labels are asked for, up to the place where they part.
        labels: the token of each label at that place.
    """

    ids: list[int]
    labels: tuple[int, ...] = ()


class ChatTokenizer:
    """A tokenizer with its chat template.

    A model without a template reads the messages one after another, a blank line between. What a passage or a query
    contains of the tokenizer's control tokens (``</s>``, ``<|im_end|>``) is broken up by a space, so that no document can
    end its message and speak as somebody else.

    Attributes:
        digest: fingerprint of the template and its options, for identities.
    """

    def __init__(self, tokenizer: Any, options: Mapping[str, Any] | None = None) -> None:
        """Take a transformers tokenizer.

        Args:
            options: for the template, as ``enable_thinking: false`` of Qwen3.
        """
        self.tokenizer, self.options = tokenizer, dict(options or {})
        self.template = tokenizer.chat_template
        self.digest = digest([self.template, self.options])
        added = [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values() if token.special]
        control = sorted({*tokenizer.all_special_tokens, *added} - {""}, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, control)) or r"(?!)")
        starts = tokenizer("a", add_special_tokens=True)["input_ids"][:1]
        self._start = tokenizer.bos_token if tokenizer.bos_token_id is not None and starts == [tokenizer.bos_token_id] else ""
        self._found: dict[tuple[str, tuple[str, ...]], tuple[list[int], list[int], tuple[int, ...]]] = {}

    def prompts(self, requests: Sequence[Request]) -> list[Prompt]:
        """Token ids of each request, not cut.

        Raises:
            IrdistillError: the template refuses the messages, or no first token tells the labels apart.
        """
        if not requests:
            return []
        texts = [self.render(request.messages) for request in requests]
        encoded = self._encode(texts)
        return [self._with_labels(text, ids, request.labels) if request.labels else Prompt(ids)
                for text, ids, request in zip(texts, encoded, requests, strict=True)]

    def render(self, messages: Sequence[Message]) -> str:
        """The text that the model reads, control tokens and all."""
        chat = [{"role": role, "content": self._control.sub(lambda match: match[0][0] + " " + match[0][1:], content)}
                for role, content in messages]
        if not self.template:
            return self._start + "\n\n".join(message["content"] for message in chat)
        begun = messages[-1].role == "assistant"
        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=not begun,
                                                      continue_final_message=begun, **self.options)
        except Exception as error:
            raise IrdistillError(
                f"the model's chat template refuses a prompt of {', '.join(role for role, _ in messages)}: "
                f"{' '.join(str(error).split())[:300]}. Some models take no system message: put its text into user; some "
                "rewrite the beginning of an answer: leave assistant out."
            ) from error

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def _with_labels(self, text: str, ids: list[int], labels: tuple[str, ...]) -> Prompt:
        """Cut the prompt where the labels part.

        Text and label are tokenized together, since a label's first token depends on what stands before it. What follows
        the last control token does so whatever came before, so for most templates this is done once.
        """
        tail = text[max((match.start() for match in self._control.finditer(text)), default=0) :]
        own, shared, tokens = self._label_tokens(tail, labels)
        if ids[len(ids) - len(own) :] != own:
            own, shared, tokens = self._label_tokens(text, labels)
        return Prompt(ids[: len(ids) - len(own)] + shared, tokens)

    def _label_tokens(self, tail: str, labels: tuple[str, ...]) -> tuple[list[int], list[int], tuple[int, ...]]:
        """Ids of the tail, ids that the tail with any label begins with, and the token of each label that comes next."""
        if (tail, labels) not in self._found:
            own, *lines = self._encode([tail, *(tail + label for label in labels)])
            shared = lines[0][: reduce(min, (common_prefix(lines[0], line) for line in (lines[1:] or [own])))]
            tokens = tuple(line[len(shared)] if len(line) > len(shared) else -1 for line in lines)
            if -1 in tokens or len(set(tokens)) < len(labels):
                raise IrdistillError(
                    f"the labels {', '.join(map(repr, labels))} are not told apart by one token of this model: their next "
                    f"tokens are {', '.join(map(repr, self._names(tokens)))}. Choose labels that begin differently, none of "
                    "which begins another."
                )
            if len(self._found) > 1000:  # templates without control tokens: every tail is a whole prompt
                self._found.clear()
            self._found[tail, labels] = own, shared, tokens
        return self._found[tail, labels]

    def _names(self, tokens: Iterable[int]) -> list[str]:
        return ["" if token < 0 else self.tokenizer.decode([token]) for token in tokens]


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many ids two sequences begin with together."""
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return count
