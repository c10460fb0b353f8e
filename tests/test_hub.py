"""Models that the hub cannot provide: one error at once; a slow hub is waited for."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from huggingface_hub import constants

from irdistill import IrdistillError
from irdistill.collections import Corpus
from irdistill.modeling import hub
from irdistill.modeling.model_files import resolve_model
from irdistill.queries.history_template import tokenizer_count
from irdistill.students import build_student, load_student
from irdistill.teachers import load_teacher
from irdistill.teachers.teacher_kinds import kind_of
from irdistill.training.pretraining import load_transformer


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub client that is online, with empty caches."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "_checked", set())
    monkeypatch.setattr(hub, "_offline_by_us", False)


@pytest.fixture()
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")


@pytest.fixture()
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, float], list[str]]]:
    """Start a hub that answers with a status after some seconds; return the requested paths."""
    servers: list[HTTPServer] = []

    def start(status: int, seconds: float = 0.0) -> list[str]:
        paths: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                paths.append(self.path)
                time.sleep(seconds)
                body = json.dumps(
                    {"id": "owner/name", "_id": "1", "tags": [], "siblings": []}
                ).encode()
                try:
                    self.send_response(status)
                    if status == 401:
                        self.send_header("X-Error-Code", "RepoNotFound")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # the client did not wait

            def log_message(self, *arguments: object) -> None:
                """Nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        return paths

    yield start
    for server in servers:
        server.shutdown()


def cache_model(place: Path, name: str) -> None:
    snapshot = place / "hub" / f"models--{name.replace('/', '--')}" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")


@pytest.mark.parametrize(
    "load",
    [
        kind_of,
        resolve_model,
        load_student,
        tokenizer_count,
        lambda name: load_teacher(name, Corpus.in_memory([])),
        lambda name: load_teacher(name, Corpus.in_memory([]), kind="cross-encoder"),
        lambda name: build_student("dense", name),
        lambda name: build_student("kernel", name),
        lambda name: build_student("cross-encoder", name),
        lambda name: load_transformer(name, task="fill-mask", seed=1),
        lambda name: load_teacher(name, Corpus.in_memory([]), kind="causal"),
        lambda name: load_teacher(name, Corpus.in_memory([]), kind="seq2seq"),
        lambda name: load_teacher(name, Corpus.in_memory([]), kind="retriever"),
    ],
)
def test_every_loader_fails_at_once_without_a_network(
    load: Callable[[str], object], unreachable: None, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(IrdistillError) as error:
        load("nobody/nothing")
    assert time.monotonic() - began < 8 and "Retry" not in caplog.text
    message = str(error.value)
    assert (
        "the model 'nobody/nothing' cannot be loaded" in message
        and "cannot be reached" in message
        and "\n" not in message
    )


def test_a_model_in_the_hub_cache_is_used_without_a_network(
    tmp_path: Path, unreachable: None, caplog: pytest.LogCaptureFixture
) -> None:
    cache_model(tmp_path, "owner/name")
    with caplog.at_level(logging.WARNING, logger="irdistill"):
        assert resolve_model("owner/name") == resolve_model("owner/name") == "owner/name"
    assert caplog.text.count("The copy in the hub cache is used.") == 1
    assert constants.HF_HUB_OFFLINE is True  # no loader asks the hub for each file again
    with pytest.raises(IrdistillError, match=r"'owner/other' cannot be loaded.*cannot be reached"):
        resolve_model("owner/other")  # the network may be back, so it is asked for


def test_a_hub_that_answers(serve: Callable[..., list[str]]) -> None:
    paths = serve(200)
    assert resolve_model("owner/name") == resolve_model("owner/name") == "owner/name"
    assert paths == ["/api/models/owner/name"] and constants.HF_HUB_OFFLINE is False
    assert (
        resolve_model("owner/name", "v2") == "owner/name"
        and paths[1] == "/api/models/owner/name/revision/v2"
    )
    assert resolve_model("owner/name::model.gguf") == "owner/name::model.gguf" and len(paths) == 2


def test_a_slow_hub_is_waited_for(
    serve: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "_TIMEOUT", 0.2)
    serve(200, 0.6)
    assert resolve_model("owner/name") == "owner/name" and constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, "the hub has no model of this name, or it is private"),
        (404, "the hub has no model of this name"),
        (503, "answers with the error 503"),
        (500, "answers with the error 500"),
    ],
)
def test_what_the_hub_does_not_give(
    serve: Callable[..., list[str]], status: int, message: str, tmp_path: Path
) -> None:
    paths = serve(status)
    with pytest.raises(IrdistillError, match=message):
        resolve_model("owner/name")
    assert 1 <= len(paths) <= 2
    cache_model(tmp_path, "owner/name")
    assert resolve_model("owner/name") == "owner/name"


def test_offline_by_the_users_wish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., list[str]]
) -> None:
    paths = serve(200)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(IrdistillError, match="not in the hub cache, and HF_HUB_OFFLINE is set"):
        resolve_model("owner/name")
    cache_model(tmp_path, "owner/name")
    assert resolve_model("owner/name") == "owner/name" and paths == []
    with pytest.raises(IrdistillError, match="neither a folder nor a valid hub id"):
        resolve_model("two words")
