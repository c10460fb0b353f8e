"""Models behind a stub of a server, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from irdistill.teachers.llm import Message, Request
from irdistill.teachers.llm.remote import ServerModel
from tests.teachers.llm.chat_stub import (
    ChatStub,
)

PRICES = {"input": 2.0, "output": 10.0, "cached_input": 1.0, "currency": "USD", "per": 1000}


def model(
    stub: ChatStub, folder: Path, server: dict[str, Any] | None = None, **settings: Any
) -> ServerModel:
    return ServerModel(
        "stub",
        {"url": stub.url} | (server or {}),
        **({"log": folder / "log.jsonl", "max_retries": 3} | settings),
    )


def ask(prompt: str, labels: tuple[str, ...] = (), max_tokens: int = 20) -> Request:
    return Request((Message("system", "be brief"), Message("user", prompt)), labels, max_tokens)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()[1:]]
