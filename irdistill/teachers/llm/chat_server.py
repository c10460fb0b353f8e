"""An OpenAI-compatible server of chat completions, called through the official client."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from irdistill.errors import OptionError
from irdistill.teachers.llm.chat_answers import Completion, read_completion
from irdistill.teachers.llm.language_model import Request
from irdistill.teachers.llm.model_server import Failure, ModelServer, ServerAccess, Tries
from irdistill.teachers.llm.reading import REFUSED
from irdistill.teachers.llm.structured_answers import ABOUT_SCHEMA, SchemaForm, schema_parameters
from irdistill.teachers.protocol import TOO_LONG

#: Parameters that irdistill sets in every request.
_RESERVED = ("model", "messages", "stream", "n", "logprobs")
TOP_LOGPROBS = 20
#: The largest response: a hundred times the longest answer.
MAX_BYTES = 8 * 2**20
#: Token limit of a label that is written out, or that follows thinking.
_LABEL_TOKENS = 16
#: The error of a request whose token limit has another name on this server.
_RENAMED = "another name"
#: The error of a request whose JSON schema the server does not accept; the text is the server's.
SCHEMA_REFUSED = "schema refused"
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,20}(length|context)|too long|too many tokens",
    re.I,
)


class ChatServer(ModelServer[Request, Completion]):
    """A server of chat completions.

    Args:
        model: name of the model on the server.
        access: address, key and limits.
        parameters: added to the body of every request; replace irdistill's. None as a value removes
            a parameter.
        logprobs: whether labels are requested as log-probabilities.
        structured: how a JSON schema is sent; see `schema_parameters`.
    """

    def __init__(
        self,
        model: str,
        access: ServerAccess,
        parameters: Mapping[str, Any],
        logprobs: bool,
        structured: SchemaForm = "response_format",
    ) -> None:
        reserved = sorted(set(parameters) & set(_RESERVED))
        if reserved:
            raise OptionError(
                f"the server's parameters set {', '.join(reserved)}, which irdistill sets itself."
                " Remove them."
            )
        super().__init__(model, access, "a language model behind a server")
        self.logprobs, self._parameters = logprobs, dict(parameters)
        self._structured: SchemaForm = structured
        self._limit_name = "max_tokens"

    def max_tokens(self, request: Request) -> int:
        """The most tokens of the answer to a request."""
        for name in ("max_completion_tokens", "max_tokens"):
            if isinstance(self._parameters.get(name), int):
                return self._parameters[name]
        if request.labels:
            answer = 1 if self.logprobs else max(request.max_tokens, _LABEL_TOKENS)
            if request.thinking_tokens:
                answer = _LABEL_TOKENS
        else:
            answer = request.max_tokens
        return answer + request.thinking_tokens

    def send(
        self, request: Request, tries: Tries, max_retries: int | None = None
    ) -> Completion | Failure:
        """As `ModelServer.send`; again if the server wants another name of the token limit."""
        reply = super().send(request, tries, max_retries)
        renamed = isinstance(reply, Completion) and reply.error == _RENAMED
        return self.send(request, tries, max_retries) if renamed else reply

    def _post(self, client: Any, request: Request) -> None:
        self._local.limit_name = self._limit_name
        client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=[message._asdict() for message in request.messages],
            extra_body=self._body(request, self._limit_name),
        )

    def _read(self, request: Request, body: str, headers: Mapping[str, str]) -> Completion:
        thinking = bool(request.thinking_tokens)
        return read_completion(
            body, request.labels, self.logprobs, self.max_tokens(request), thinking
        )

    def _body(self, request: Request, limit_name: str) -> dict[str, Any]:
        body: dict[str, Any] = {"temperature": 0}
        if not {"max_tokens", "max_completion_tokens"} & self._parameters.keys():
            body[limit_name] = self.max_tokens(request)
        parameters = dict(self._parameters)
        if request.labels and self.logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}
        else:
            parameters.pop("top_logprobs", None)
        if request.schema is not None:
            parameters |= schema_parameters(self._structured, request.schema)
        return {key: value for key, value in (body | parameters).items() if value is not None}

    def _refusal(self, request: Request, status: int, code: str, text: str) -> Completion | None:
        if code in ("content_filter", "invalid_prompt"):
            return Completion(error=REFUSED)
        renamed = "instead" in text or code.startswith("unsupported")
        if "max_completion_tokens" in text and renamed and self._local.limit_name == "max_tokens":
            self._limit_name = "max_completion_tokens"
            return Completion(error=_RENAMED)
        named = "context_length" in code or "context_size" in text
        if status == 413 or named or _TOO_LONG.search(text):
            return Completion(error=TOO_LONG)
        if request.schema is not None and ABOUT_SCHEMA.search(text):
            return Completion(text, error=SCHEMA_REFUSED)
        return None
