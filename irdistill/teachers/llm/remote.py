"""Language models behind an OpenAI-compatible server."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irdistill.errors import OptionError, ServerError, one_line
from irdistill.storage.plain_data import check_values
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.chat_answers import NO_LOGPROBS, Completion, Usage
from irdistill.teachers.llm.chat_server import (
    MAX_BYTES,
    SCHEMA_REFUSED,
    TOP_LOGPROBS,
    ChatServer,
)
from irdistill.teachers.llm.language_model import CUT, Answer, Message, Request
from irdistill.teachers.llm.reading import NO_ANSWER
from irdistill.teachers.llm.served_model import ServedModel, ServingOptions, access_of
from irdistill.teachers.llm.structured_answers import FORMS, RESTRICTIONS, SchemaForm
from irdistill.teachers.llm.thinking import split_thinking

#: The code that a schema prescribes to find out whether the server restricts answers to it: no
#: model writes it to this question by itself.
_CODE = {"type": "string", "enum": ["irdistill-7391"]}
_SCHEMA_PROBE = Request(
    (Message("user", "Say hello in one sentence."),),
    max_tokens=64,
    schema={
        "type": "object",
        "properties": {"code": _CODE},
        "required": ["code"],
        "additionalProperties": False,
    },
)
#: Thinking before labels is limited, because a response lists the log-probabilities of its tokens.
_MOST_THINKING = 4096
_PROBE = Request((Message("user", "Answer with the word yes."),), max_tokens=16)


@dataclass(frozen=True)
class ServerCard:
    """The server of a card; see `ServerModel`."""

    url: str | None = None
    name: str | None = None
    key: str | None = None
    prices: dict[str, Any] | None = None
    parameters: dict[str, Any] | None = None
    labels: Literal["logprobs", "text"] = "logprobs"
    structured: SchemaForm = "response_format"


class ServerModel(ServedModel[Request, Completion]):
    """A language model behind a server with the chat-completions interface; see `ServedModel`.

    Args:
        model: name of the model on the server.
        server: settings of the card: ``url``; ``key``, the name of an environment variable;
            ``prices``; ``parameters``, added to the body of every request; ``labels``, ``logprobs``
            or ``text`` (see `chat_answers.read_completion`); ``structured``, how a JSON schema is
            sent (see `structured_answers.schema_parameters`); ``name``, which replaces the url in
            the identity and in the log if several servers, or one with a changing address, count as
            the same.
        url: and all others as in `ServingOptions`.

    Attributes:
        structured: answers can be restricted to a JSON schema. Before the first such request, one
            with a schema that no answer follows by chance shows whether the server does so.
    """

    structured = True

    def __init__(
        self,
        model: str,
        server: Mapping[str, Any],
        *,
        url: str | None = None,
        key: str | None = None,
        parallel: int = 8,
        timeout: float = 120.0,
        time_limit: float | None = None,
        max_retries: int = 8,
        max_cost: float | None = None,
        max_requests: int | None = None,
        max_tokens_total: int | None = None,
        log: str | Path | None = None,
        replay: bool = False,
    ) -> None:
        check_values(server, ServerCard, "the card's server")
        card = ServerCard(**server)
        options = ServingOptions(
            url=url,
            key=key,
            parallel=parallel,
            timeout=timeout,
            time_limit=time_limit,
            max_retries=max_retries,
            max_cost=max_cost,
            max_requests=max_requests,
            max_tokens_total=max_tokens_total,
            log=log,
            replay=replay,
        )
        self._labels, self._parameters = card.labels, card.parameters or {}
        self._form: SchemaForm = card.structured
        self._schema_lock, self._schema_checked = threading.Lock(), False
        identity = {
            "backend": "openai",
            "api": "chat completions",
            "model": model,
            "server": card.name or str(url or card.url).rstrip("/"),
            "parameters": dict(self._parameters),
            "labels": card.labels
            if card.labels == "text"
            else f"top {TOP_LOGPROBS} log-probabilities",
        }
        super().__init__(model, server, identity, options)

    def _connect(self, url: str, key: str | None, options: ServingOptions) -> ChatServer:
        access = access_of(url, key, options, MAX_BYTES)
        return ChatServer(
            self.model, access, self._parameters, self._labels == "logprobs", self._form
        )

    def _probe(self) -> Request:
        return _PROBE

    def _content(self, request: Request) -> list[Any]:
        content: list[Any] = [
            [list(message) for message in request.messages],
            list(request.labels),
            request.max_tokens,
        ]
        if request.schema is not None:
            content.append({"schema": dict(request.schema), "form": self._form})
        if request.thinking_tokens:
            content.append({"thinking_tokens": request.thinking_tokens})
        return content

    def _fetch(self, request: Request, key: str, stop: threading.Event) -> Answer:
        """As `ServedModel._fetch`; before the first request with a schema, check that the server
        follows schemas.
        """
        if request.labels and request.thinking_tokens > _MOST_THINKING:
            raise OptionError(
                f"thinking_tokens is {request.thinking_tokens}, and a server reports the"
                f" log-probabilities of at most {_MOST_THINKING} tokens before a label. Lower it,"
                " or read the answer as text or JSON (by: text, by: json)."
            )
        if request.schema is not None:
            with self._schema_lock:
                if not self._schema_checked:
                    self._check_schema(request, stop)
                    self._schema_checked = True
        return super()._fetch(request, key, stop)

    def _check_schema(self, request: Request, stop: threading.Event) -> None:
        """Raise if the server does not restrict answers to a schema."""
        if clash := sorted(self._parameters.keys() & set(RESTRICTIONS)):
            raise OptionError(
                f"the server's parameters set {', '.join(clash)}, and answers are restricted to the"
                " teacher's own JSON schema (by: json). Remove them."
            )
        probe = _SCHEMA_PROBE._replace(thinking_tokens=request.thinking_tokens)
        answer = self._send(probe, None, stop)
        if not isinstance(answer, Answer):
            return  # the request itself shows whether the server is down
        said = split_thinking(answer.text)
        try:
            follows = said.whole and json.loads(said.text) == {"code": _CODE["enum"][0]}
        except ValueError:
            follows = False
        if follows:
            return
        if answer.cut or answer.error == CUT:
            raise ServerError(
                f"the server {self.url} wrote {answer.output_tokens} tokens and no answer to a"
                " short question with a JSON schema, so the model thinks too long. Raise"
                " thinking_tokens, or switch thinking off (parameters: {chat_template_kwargs:"
                " {enable_thinking: false}})."
            )
        raise ServerError(
            f"the server {self.url} ignores JSON schemas sent as structured:"
            f" {self._form}: it answered {one_line(answer.text)[:100]!r} where only"
            f" {json.dumps({'code': _CODE['enum'][0]})} is allowed. {self._other_forms()}"
        )

    def _other_forms(self) -> str:
        others = ", ".join(form for form in FORMS if form != self._form)
        return (
            f"Set another form in the card's server (structured: one of {others}), start the server"
            " with structured outputs, or read answers as text (by: text)."
        )

    def _guess_tokens(self, request: Request) -> int:
        """One token per three bytes, more than a prompt has in most languages, plus some."""
        texts = (message.content.encode("utf-8", "surrogatepass") for message in request.messages)
        return sum(map(len, texts)) // 3 + 8 * (len(request.messages) + 2)

    def _to_answer(
        self, request: Request, reply: Completion | None, usage: Usage | None, cost: float
    ) -> Answer:
        reply = reply or Completion(error=NO_ANSWER)
        labels = reply.labels
        if labels is None and request.labels:
            labels = np.full(len(request.labels), np.nan, dtype=np.float32)
        read, written, cached = (usage or (0, 0, 0))[:3]
        thought = min(reply.thinking_tokens, written)
        return Answer(
            reply.text, labels, reply.error, read, written, cached, cost, reply.cut, thought
        )

    def _notes(self, request: Request, reply: Completion) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"model": reply.model, "time": now}

    def _check(self, answer: Answer, spent: Spent) -> None:
        """Stop if the server reports no log-probabilities, or refuses a JSON schema."""
        if answer.error == SCHEMA_REFUSED:
            raise ServerError(
                f"the server {self.url} refuses the JSON schema sent as structured: {self._form}:"
                f" {answer.text}. {self._other_forms()}"
            )
        if answer.error == NO_LOGPROBS and self._labels != "text":
            self.log.add_spent(spent, NO_LOGPROBS)
            raise ServerError(
                f"the server {self.url} reports no log-probabilities for the model"
                f" {self.model!r}. Use a server that does, or a teacher that reads text"
                " (llm-listwise), with labels: text in the card's server."
            )
