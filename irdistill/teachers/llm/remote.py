"""Language models behind an OpenAI-compatible server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from irdistill.errors import ServerError
from irdistill.storage.plain_data import check_values
from irdistill.teachers.llm.budget import Spent
from irdistill.teachers.llm.chat_answers import NO_LOGPROBS, Completion, Usage
from irdistill.teachers.llm.chat_server import MAX_BYTES, TOP_LOGPROBS, ChatServer
from irdistill.teachers.llm.language_model import Answer, Message, Request
from irdistill.teachers.llm.reading import NO_ANSWER
from irdistill.teachers.llm.served_model import ServedModel, ServingOptions, access_of

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


class ServerModel(ServedModel[Request, Completion]):
    """A language model behind a server with the chat-completions interface; see `ServedModel`.

    Args:
        model: name of the model on the server.
        server: settings of the card: ``url``; ``key``, the name of an environment variable;
            ``prices``; ``parameters``, added to the body of every request; ``labels``, ``logprobs``
            or ``text`` (see `chat_answers.read_completion`); ``name``, which replaces the url in
            the identity and in the log if several servers, or one with a changing address, count as
            the same.
        url: and all others as in `ServingOptions`.
    """

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
        return ChatServer(self.model, access, self._parameters, self._labels == "logprobs")

    def _probe(self) -> Request:
        return _PROBE

    def _content(self, request: Request) -> list[Any]:
        return [
            [list(message) for message in request.messages],
            list(request.labels),
            request.max_tokens,
        ]

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
        return Answer(reply.text, labels, reply.error, *(usage or (0, 0, 0))[:3], cost, reply.cut)

    def _notes(self, request: Request, reply: Completion) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return {"model": reply.model, "time": now}

    def _check(self, answer: Answer, spent: Spent) -> None:
        """Stop if the server reports no log-probabilities."""
        if answer.error == NO_LOGPROBS and self._labels != "text":
            self.log.add_spent(spent, NO_LOGPROBS)
            raise ServerError(
                f"the server {self.url} reports no log-probabilities for the model"
                f" {self.model!r}. Use a server that does, or a teacher that reads text"
                " (llm-listwise), with labels: text in the card's server."
            )
