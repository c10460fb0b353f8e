"""A chat-completions server on loopback with scripted faults."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple


class Reply(NamedTuple):
    """How a request is answered.

    Attributes:
        body: JSON or raw bytes, or a function of the usual answer that returns them; the usual answer
            where None.
        delay: seconds before anything is sent.
        cut: send only so many bytes of the body and close.
        stream: in place of all that, raw bytes of the whole response, as long as there are any and
            somebody listens.
    """

    status: int = 200
    body: Any = None
    headers: tuple[tuple[str, str], ...] = ()
    delay: float = 0.0
    cut: int | None = None
    stream: Callable[[], Iterator[bytes]] | None = None


Plan = Callable[[str, int], Reply]


def completion(
    text: str = "",
    *,
    top: dict[str, float] | None = None,
    usage: Any = (10, 2),
    finish: str = "stop",
    **message: Any,
) -> dict[str, Any]:
    """A response as the interface defines it; `usage` (read, written[, cached]) or None."""
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
    }
    if top is not None:
        entries = [
            {"token": token, "logprob": value, "bytes": None} for token, value in top.items()
        ]
        choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    response: dict[str, Any] = {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "stub-2025",
        "choices": [choice],
    }
    if usage is not None:
        response["usage"] = {
            "prompt_tokens": usage[0],
            "completion_tokens": usage[1],
            "total_tokens": usage[0] + usage[1],
        }
        if len(usage) > 2:
            response["usage"]["prompt_tokens_details"] = {"cached_tokens": usage[2]}
    return response


def error(message: str, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": code}}


class ChatStub:
    """The server.

    Attributes:
        bodies: of all requests, in the order they came; ``keys`` the Authorization headers.
        seen: requests by the text of the last message; ``served`` those for which a whole answer
            with 200 was sent off.
        most: requests that were being worked on together at most. Both are counted before the first
            byte is sent, since a client may act on an answer before this thread runs again.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.request_counts: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.flying = self.most = self.sent = 0
        self.lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                stub._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Clients are killed in these tests."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def prompt(self, body: dict[str, Any]) -> str:
        """What identifies a request in the counts."""
        return str(body["messages"][-1]["content"])

    def usual(self, path: str, body: dict[str, Any]) -> Any:
        """The answer to a request without a fault."""
        return usual(body)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        sent = handler.rfile.read(int(handler.headers["Content-Length"]))
        if not sent:  # the client was killed
            handler.close_connection = True
            return
        body = json.loads(sent)
        prompt = self.prompt(body)
        with self.lock:
            self.bodies.append(body)
            self.keys.append(handler.headers.get("Authorization"))
            self.request_counts[prompt] += 1
            nth = self.request_counts[prompt]
            self.flying += 1
            self.most = max(self.most, self.flying)
        try:
            reply = self.plan(prompt, nth)
            time.sleep(reply.delay)
            content = reply.body
            if content is None or callable(content):
                answer = self.usual(handler.path, body)
                content = answer if content is None else content(answer)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
        finally:
            with self.lock:
                self.flying -= 1
        if reply.status == 200 and reply.cut is None:
            with self.lock:
                self.served[prompt] += 1
        try:
            if reply.stream is not None:
                handler.close_connection = True
                for piece in reply.stream():
                    self.sent += len(piece)
                    handler.wfile.write(piece)
                return
            handler.send_response(reply.status)
            handler.send_header("Content-Type", "application/json")
            handler.send_header("Content-Length", str(len(data)))
            for name, value in reply.headers:
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(data[: reply.cut])
            handler.wfile.flush()
            if reply.cut is not None:
                handler.close_connection = True
        except (BrokenPipeError, ConnectionResetError):
            handler.close_connection = True

    @contextmanager
    def running(self) -> Iterator[ChatStub]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


def usual(body: dict[str, Any]) -> dict[str, Any]:
    """Echoes the prompt; to a request for log-probabilities, some that depend on the prompt
    alone.
    """
    prompt = body["messages"][-1]["content"]
    if body.get("logprobs"):
        share = (sum(prompt.encode()) % 97 + 1) / 100
        return completion("", top={"yes": -share, "no": -2 * share}, usage=(len(prompt), 1))
    return completion(f"echo {prompt}", usage=(len(prompt), 2))


OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


def endless(*start: bytes, piece: bytes = b"x" * 65_536, pause: float = 0.0) -> Reply:
    """An endless response that begins with ``start``."""

    def stream() -> Iterator[bytes]:
        yield from start
        while True:
            yield piece
            time.sleep(pause)

    return Reply(stream=stream)


def always(reply: Reply) -> Plan:
    return lambda prompt, nth: reply


def first(*replies: Reply) -> Plan:
    """These replies to the first requests of each prompt, then the usual."""
    return lambda prompt, nth: replies[nth - 1] if nth <= len(replies) else Reply()


def poison(reply: Reply) -> Plan:
    """This reply to prompts that begin with ``bad``, the usual to others."""
    return lambda prompt, nth: reply if prompt.startswith("bad") else Reply()
