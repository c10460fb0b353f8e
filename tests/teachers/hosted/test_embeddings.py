"""Hosted embedders: as teachers, for `retrieve`, and as targets of `align`."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import irdistill as ird
from irdistill.errors import OptionError, ServerError
from irdistill.runs import open_run
from irdistill.teachers.hosted.hosted_encoder import EncoderOptions, HostedEncoder
from irdistill.teachers.llm.served_model import ServingOptions
from tests.students.tiny import tiny_backbone
from tests.teachers.hosted.hosted_stub import DIMENSION, HostedStub, text_vector, write_card
from tests.teachers.llm.chat_stub import Reply, always, first
from tests.teachers.scoring_helpers import contents
from tests.teachers.server_runs import (
    QUERIES,
    SECRET,
    kill_after,
    run_command,
    score,
)

pytest.importorskip("openai")


def encoder(
    server: HostedStub, folder: Path, more: dict[str, Any] | None = None, **options: Any
) -> HostedEncoder:
    card = {"url": server.url, "shape": server.shape} | (more or {})
    serving = ServingOptions(log=folder / "log.jsonl", max_retries=1)
    return HostedEncoder("stub", "m", card, serving, EncoderOptions(**options))


def unit(text: str) -> np.ndarray:
    vector = text_vector(text)
    return np.asarray(vector / np.linalg.norm(vector))


@pytest.mark.parametrize(
    ("shape", "encoding"),
    [
        ("openai", "float"),
        ("openai", "base64"),
        ("jina", "base64"),
        ("voyage", "float"),
        ("voyage", "base64"),
    ],
)
def test_vectors_are_the_servers_and_are_paid_for_once(
    shape: str, encoding: Any, stub: Any, folder: Path
) -> None:
    server = stub(shape)
    model = encoder(server, folder, {"limits": {"texts": 2}}, encoding=encoding, similarity="dot")
    texts = ["a", "b", "", "a", "c"]
    for _ in range(2):
        vectors = model.search_vectors(texts, "document")
        assert np.array_equal(
            vectors, [text_vector(text) if text else np.zeros(DIMENSION) for text in texts]
        )
    assert sorted(server.text_counts) == [("", text) for text in ("a", "b", "c", "dimension")]
    assert set(server.text_counts.values()) == {1}
    model.search_vectors(["a", "d"], "document")
    assert server.text_counts["", "a"] == 1 and server.text_counts["", "d"] == 1
    cosine = encoder(server, folder, encoding=encoding)
    assert cosine.search_vectors(["a"], "document") == pytest.approx(unit("a")[None], abs=1e-7)


def test_progress_counts_each_text_once(stub: Any, folder: Path, waits: list[float]) -> None:
    def refuse(prompt: str, nth: int) -> Reply:
        texts = prompt.split("|")[1:]
        return Reply(413, {"error": "too many"}) if len(texts) > 2 or "huge" in texts else Reply()

    model = encoder(stub("openai", refuse), folder)
    assert model.dimension == DIMENSION
    for _ in range(2):  # the second answers are from the log
        counts: list[int] = []
        model.search_vectors(["a", "b", "huge", "c", "d"], "document", done=counts.append)
        assert sum(counts) == 5 and min(counts) > 0


def test_a_dry_run_counts_each_text_once(
    stub: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STUB_KEY")
    server = stub("openai")
    prices = {"input": 2.0, "output": 0.0, "per": 1000}
    write_card(server, "hosted-embedder", url="https://example.com/v1", prices=prices)
    arguments = ["set", "--candidates", "candidates.txt", "--teacher", "stub.yaml", "--dry-run"]
    for size in ("9", "2"):  # documents are candidates of several parts
        command = ["estimate", *arguments, "--part-queries", size, "--json", "cost.json"]
        assert run_command(command) == 0
        figures = json.loads(Path("cost.json").read_text())
        # queries of 10 bytes, 10 documents of 13 and 2 of 14 bytes: 3, 4 and 4 tokens, and 8 around
        tokens = 0.75 * (9 * (3 + 8) + 12 * (4 + 8))
        assert figures["tokens"]["value"] == pytest.approx(tokens, abs=5)
        assert figures["cost"]["value"] == pytest.approx(tokens * 2 / 1000, abs=0.01)
    assert not server.bodies


def test_prompts_parameters_and_dimension(stub: Any, folder: Path) -> None:
    server = stub("openai")
    more = {
        "parameters": {"user": "me"},
        "query_parameters": {"input_type": "query"},
        "document_parameters": {"input_type": "document"},
    }
    model = encoder(
        server,
        folder,
        more,
        query_prompt="query: ",
        document_prompt="passage: ",
        dimension=4,
        document_characters=5,
    )
    assert model.dimension == 4 and model.search_vectors(["a"], "query").shape == (1, 4)
    model.search_vectors(["a text that is cut"], "document")
    bodies = [
        (server.texts(body), body["input_type"], body["dimensions"], body["user"])
        for body in server.bodies
    ]
    assert bodies[1:] == [
        (["query: a"], "query", 4, "me"),
        (["passage: a tex"], "document", 4, "me"),
    ]
    assert model.tower_identity("query") != model.tower_identity("document")
    assert model.identity()["prompts"] == {"query": "query: ", "document": "passage: "}


def test_a_wrong_dimension_is_an_error(stub: Any, folder: Path) -> None:
    server = stub("openai", always(Reply(body={"data": [{"index": 0, "embedding": [1.0, 2.0]}]})))
    with pytest.raises(ServerError, match="vector of 2 numbers, but the card of 'stub' asks for 3"):
        _ = encoder(server, folder, dimension=3).dimension
    changed = stub("openai", first(Reply()))
    model = encoder(changed, folder / "other")
    assert model.dimension == DIMENSION
    changed.plan = always(Reply(body={"data": [{"index": 0, "embedding": [1.0, 2.0]}]}))
    with pytest.raises(ServerError, match="had 8 numbers, and now the server gives 2"):
        model.search_vectors(["a"], "document")


def test_texts_without_a_vector_are_zero_and_reported(
    stub: Any, folder: Path, waits: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    def damaged(answer: Any) -> Any:
        short = base64.b64encode(np.zeros(3, "<f4").tobytes()).decode()
        data = [entry for entry in answer["data"] if entry["index"] != 1]
        for entry in data:
            if entry["index"] == 2:
                entry["embedding"] = short
            if entry["index"] == 3:
                entry["embedding"] = [float("nan")] * DIMENSION
        return answer | {"data": data}

    server = stub(
        "openai", lambda prompt, nth: Reply() if "dimension" in prompt else Reply(body=damaged)
    )
    vectors = encoder(server, folder).search_vectors(["a", "b", "c", "d", "e"], "document")
    assert np.array_equal(np.flatnonzero(~vectors.any(axis=1)), [1, 2, 3])
    assert vectors[4] == pytest.approx(unit("e"), abs=1e-7)
    assert (
        "3 of 5 texts have no vector from stub (1 not returned, 1 wrong dimension, 1 not a number)"
        in caplog.text
    )


@pytest.mark.parametrize(
    "fault",
    [
        Reply(429, b"", (("Retry-After", "2"),)),
        Reply(502, b"bad"),
        Reply(cut=30),
        Reply(body={"data": []}),
    ],
    ids=["429", "502", "cut", "empty"],
)
def test_a_passing_fault_is_retried(
    fault: Reply, stub: Any, folder: Path, waits: list[float]
) -> None:
    server = stub("openai", first(fault))
    assert encoder(server, folder).search_vectors(["a"], "query") == pytest.approx(
        unit("a")[None], abs=1e-7
    )
    assert len(server.bodies) == 4 and len(waits) == 2  # the text, and the word for the dimension


def test_a_teacher_scores_by_cosine_and_shares_its_vectors(stub: Any, folder: Path) -> None:
    server = stub("openai")
    write_card(
        server,
        "hosted-embedder",
        prices={"input": 1.0, "output": 0.0, "per": 10},
        limits={"texts": 4},
    )
    assert score("run") == 0
    run = open_run(folder / "run")
    for query in run.query_ids:
        expected = [
            unit(f"question {query[1:]}") @ unit(f"text number {doc[1:]}")
            for doc in run[query].doc_ids
        ]
        assert run[query].scores == pytest.approx(expected, abs=1e-6)
    assert run.manifest.identity.producer["kind"] == "hosted-embedder"
    assert run.manifest.usage["tokens"] == sum(
        map(len, [text for _, text in server.text_counts if text != "dimension"])
    )
    assert score("again", "--k", "3") == 0 and set(server.text_counts.values()) == {1}
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 8 and not [
        path for path in written if SECRET.encode() in path.read_bytes()
    ]


def test_retrieve_searches_with_the_servers_vectors(stub: Any, folder: Path) -> None:
    server = stub("openai")
    path = write_card(server, "hosted-embedder")
    assert run_command(["retrieve", "set", "--model", str(path), "--k", "3", "--out", "found"]) == 0
    run = open_run(folder / "found")
    texts = {f"d{n}": unit(f"text number {n}") for n in range(12)}
    for n in range(QUERIES):
        scores = {doc: float(unit(f"question {n}") @ vector) for doc, vector in texts.items()}
        best = sorted(scores, key=lambda doc: -scores[doc])[:3]
        assert run[f"q{n}"].doc_ids == best
        assert run[f"q{n}"].scores.tolist() == pytest.approx(
            [scores[doc] for doc in best], abs=1e-6
        )
    sent = len(server.bodies)
    assert run_command(["retrieve", "set", "--model", str(path), "--k", "3", "--out", "again"]) == 0
    assert len(server.bodies) == sent and contents(folder / "found") == contents(folder / "again")
    cached = ird.retrieve("set", str(path), k=3)
    assert cached["q1"].doc_ids == run["q1"].doc_ids and len(server.bodies) == sent
    hit = ird.search_text("set", "question 1", str(path), k=1)[0]
    assert hit.doc_id == run["q1"].doc_ids[0]


ALIGN = [
    "--backbone",
    "tiny",
    "--side",
    "both",
    "--batch-size",
    "4",
    "--steps",
    "6",
    "--start",
    "none",
    "--kinds",
    "documents,queries",
]


@pytest.mark.slow
def test_align_learns_a_servers_vectors_and_a_killed_job_resumes(stub: Any, folder: Path) -> None:
    tiny_backbone(folder / "tiny")
    killed = stub("openai")
    settings = {"parallel": 2}
    write_card(killed, "hosted-embedder", limits={"texts": 4}, settings=settings)
    arguments = ["align", "set", "--teacher", "stub.yaml", *ALIGN]
    kill_after(3, killed, ["-m", "irdistill", *arguments, "--out", "cut"])
    assert run_command([*arguments, "--out", "cut"]) == 0
    twice = [text for text, count in killed.text_counts.items() if count > 1]
    assert len(twice) <= 2 * 4 and len(killed.text_counts) > 20
    assert run_command([*arguments, "--out", "whole"]) == 0
    trained = [
        (folder / name / "model" / "model.safetensors").read_bytes() for name in ("cut", "whole")
    ]
    assert trained[0] == trained[1]
    assert (
        json.loads((folder / "cut" / "training.json").read_text())["identity"]["teacher"]["query"][
            "dimension"
        ]
        == DIMENSION
    )
    student: Any = ird.load_student(folder / "cut" / "model")
    assert student.dimension == DIMENSION


def test_a_hosted_teacher_has_no_weights_to_start_from(stub: Any, folder: Path) -> None:
    path = write_card(stub("openai"), "hosted-embedder")
    with pytest.raises(OptionError, match="has no weights to start from"):
        ird.align("set", str(path), out=folder / "x")
