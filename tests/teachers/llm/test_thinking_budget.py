"""Budgets of thinking tokens: labels after thinking, cut thinking, and what it costs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from irdistill import IrdistillError
from irdistill.teachers.llm.language_model import Answer, Message, Request
from irdistill.teachers.llm.listwise_teacher import ListwiseLLMTeacher
from irdistill.teachers.llm.local import TransformersModel
from irdistill.teachers.llm.pairwise_teacher import PairwiseTeacher
from irdistill.teachers.llm.pointwise_teacher import PointwiseTeacher
from irdistill.teachers.llm.response_log import ResponseLog
from irdistill.teachers.llm.thinking import answer_start, split_thinking
from tests.teachers.llm.chat_stub import Reply, always, completion
from tests.teachers.llm.ranking_fakes import LISTWISE, PAIRWISE, FakeModel, query_pairs
from tests.teachers.llm.server_models import PRICES, ask
from tests.teachers.llm.server_models import model as server_model
from tests.teachers.llm.tiny import TEMPLATE, tiny_lm

#: A template with a switch, as Qwen3's: thinking is on unless it is switched off.
SWITCH = TEMPLATE + (
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)


def reported(
    tokens: Sequence[str], top: dict[int, dict[str, float]], content: str, **more: Any
) -> dict[str, Any]:
    """A completion with log-probabilities of each token; ``top`` has alternatives by place."""
    body = completion(content, usage=(30, len(tokens)), **more)
    entries = []
    for place, token in enumerate(tokens):
        others = top.get(place, {token: -0.5})
        entries.append(
            {
                "token": token,
                "logprob": others.get(token, -0.5),
                "top_logprobs": [
                    {"token": name, "logprob": value} for name, value in others.items()
                ],
            }
        )
    body["choices"][0]["logprobs"] = {"content": entries}
    return body


TOP = {"yes": -0.25, "no": -1.5, "Hm": -4.0}
RESPONSES = {
    "markers in the content": reported(
        ["<think>", "yes", " or no", "</think>", "\n\n", "yes"],
        {1: {"no": -0.1}, 5: TOP},
        "<think>yes or no</think>\n\nyes",
    ),
    "the template opened the thinking": reported(
        ["yes", " or no", "</think>", "\n\n", "yes"], {0: {"no": -0.1}, 4: TOP}, "yes"
    ),
    "separate thinking with its markers": reported(
        ["<think>", "so no", "</think>", "yes"],
        {3: TOP},
        "yes",
        reasoning_content="so no",
    ),
    "separate thinking without markers": reported(
        ["so", " no", "\n", "yes"], {0: {"no": -0.1}, 3: TOP}, "yes", reasoning_content="so no"
    ),
    "tokens of the answer alone": reported(["yes"], {0: TOP}, "yes", reasoning_content="so no"),
    "no thinking": reported(["yes", "."], {0: TOP}, "yes."),
    "channels": reported(
        ["<|channel|>", "analysis", "<|message|>", "no", "<|end|>", "<|start|>", "assistant",
         "<|channel|>", "final", "<|message|>", "yes"],
        {3: {"no": -0.1}, 10: TOP},
        "yes",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RESPONSES)
def test_a_servers_labels_are_those_after_the_thinking(
    stub: Any, tmp_path: Path, name: str
) -> None:
    served = stub(always(Reply(body=RESPONSES[name])))
    request = ask("q", ("yes", "no"), max_tokens=1)._replace(thinking_tokens=100)
    [answer] = server_model(served, tmp_path).answer([request])
    assert answer.error is None and answer.labels is not None
    assert answer.labels.tolist() == [-0.25, -1.5]
    body = served.bodies[0]
    assert (body["max_tokens"], body["top_logprobs"]) == (116, 20)


def test_a_servers_unended_thinking_is_null_and_counted(stub: Any, tmp_path: Path) -> None:
    body = reported(["<think>", "yes", " no"], {}, "<think>yes no", finish="length")
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 3}
    served = stub(always(Reply(body=body)))
    teacher = PointwiseTeacher(
        server_model(served, tmp_path, {"prices": PRICES}), {}, thinking_tokens=40
    )
    scores = teacher.score(query_pairs([1, 2]))
    assert np.isnan(scores.values).all() and scores.flags == ["cut", "cut"]
    assert scores.usage["thinking_tokens"] == scores.usage["output_tokens"] == 6
    # 30 tokens read at 2 and 3 written at 10, each per 1000.
    assert scores.usage["cost"] == pytest.approx(2 * (30 * 2 + 3 * 10) / 1000)
    again = PointwiseTeacher(
        server_model(served, tmp_path, {"prices": PRICES}), {}, thinking_tokens=40
    ).score(query_pairs([1, 2]))
    assert again.usage == scores.usage and len(served.bodies) == 2


def test_a_text_after_thinking_is_read_and_the_limit_has_room_for_both(
    stub: Any, tmp_path: Path
) -> None:
    body = completion("<think>[1] > [2]</think>\n[2] > [1]", usage=(10, 20))
    body["usage"]["completion_tokens_details"] = {"reasoning_tokens": 12}
    served = stub(always(Reply(body=body)))
    teacher = ListwiseLLMTeacher(server_model(served, tmp_path), LISTWISE, thinking_tokens=500)
    [ranking] = teacher.rank([query_pairs([1, 2])])
    assert ranking.order == [1, 0] and ranking.usage["thinking_tokens"] == 12
    assert served.bodies[0]["max_tokens"] == 2 * 6 + 16 + 500


def test_a_server_cannot_report_labels_after_endless_thinking(stub: Any, tmp_path: Path) -> None:
    served = stub()
    teacher = PointwiseTeacher(server_model(served, tmp_path), {}, thinking_tokens=5000)
    with pytest.raises(IrdistillError, match="at most 4096 tokens before a label"):
        teacher.score(query_pairs([1]))
    assert not served.bodies


def test_the_log_keeps_the_tokens_of_thinking(tmp_path: Path) -> None:
    from irdistill.teachers.llm.budget import Spent

    log = ResponseLog(tmp_path / "log.jsonl")
    answer = Answer("a", None, None, 3, 9, 0, 0.5, False, 7)
    log.add("k", answer, Spent(1, 12, 0.5))
    log.add("plain", answer._replace(thinking_tokens=0), Spent())
    assert log.get("k") == answer
    written = (tmp_path / "log.jsonl").read_text().splitlines()
    assert '"thinking_tokens": 7' in written[1] and "thinking_tokens" not in written[2]
    log.close()


def thinking_model(folder: Path, texts: dict[str, str], template: str = SWITCH) -> Any:
    """A tiny model that writes these texts to prompts that contain their keys."""
    model = TransformersModel(
        str(tiny_lm(folder, template=template)), device="cpu", precision="float32"
    )

    def write(places: Any, prompts: Any, most: int, answers: list[Answer]) -> None:
        for place in places:
            shown = model.chat.tokenizer.decode(prompts[place].ids)
            assert "<think>" not in shown or template != SWITCH
            text = next(text for key, text in texts.items() if key in shown)
            length = len(model.chat._encode([text])[0])
            answers[place] = Answer(
                prompts[place].opened + text,
                input_tokens=len(prompts[place].ids),
                output_tokens=min(length, most),
                cut=length > most,
                thinking_tokens=model.chat.thinking_length(text, length),
            )

    model._write = write
    return model


def last_logs(model: Any, text: str, labels: Sequence[str]) -> list[float]:
    """The labels' log-probabilities after a text, computed by hand."""
    ids = model.chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    model._head.last = None
    with torch.inference_mode():
        logs = model.network(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
    tokens = [model.chat.tokenizer(label)["input_ids"][0] for label in labels]
    return [float(logs[token]) for token in tokens]


def test_a_local_models_labels_are_read_after_its_thinking(tmp_path: Path) -> None:
    thought = "<think>Cats purr, so B.</think>"
    model = thinking_model(tmp_path, {"cats": thought + "\n\nB is better", "dogs": "B"})
    labels = ("A", "B")
    [cats, dogs] = model.answer(
        [
            Request((Message("user", text),), labels, 1, thinking_tokens=64)
            for text in ("cats", "dogs")
        ]
    )
    prompt = "<s><|turn|>user\n{}</s><|turn|>assistant\n"
    by_hand = last_logs(model, prompt.format("cats") + thought + "\n\n", labels)
    assert cats.labels.tolist() == pytest.approx(by_hand, abs=1e-4)
    # A model that does not think begins its answer at once.
    assert dogs.labels.tolist() == pytest.approx(
        last_logs(model, prompt.format("dogs"), labels), abs=1e-4
    )
    assert (cats.thinking_tokens, dogs.thinking_tokens) == (len(thought), 0)
    assert cats.output_tokens == len(thought) + len("\n\nB is better") and cats.text == ""
    first, second = (len(prompt.format("cats")) - len("<s><|turn|></s><|turn|>") + 4, 0)
    assert cats.input_tokens == 2 * first + len(thought) + 2 + second


def test_a_thinking_block_that_the_template_opens_is_continued(tmp_path: Path) -> None:
    template = TEMPLATE + "<think>"
    model = thinking_model(tmp_path, {"cats": "So B.</think>\n\nB"}, template)
    [answer] = model.answer(
        [Request((Message("user", "cats"),), ("A", "B"), 1, thinking_tokens=64)]
    )
    text = "<s><|turn|>user\ncats</s><|turn|>assistant\n<think>So B.</think>\n\n"
    assert answer.labels.tolist() == pytest.approx(last_logs(model, text, ("A", "B")), abs=1e-4)


def test_local_thinking_that_does_not_end_is_null(tmp_path: Path) -> None:
    model = thinking_model(tmp_path, {"about": "<think>" + "so " * 30})
    scores = PointwiseTeacher(model, {}, labels=["yes", "no"], thinking_tokens=20).score(
        query_pairs([1, 2])
    )
    assert np.isnan(scores.values).all() and scores.flags == ["cut", "cut"]
    assert scores.usage["thinking_tokens"] > 0 and "label_mass_count" not in scores.usage


def test_thinking_is_switched_on_for_a_template_that_has_it_off(tmp_path: Path) -> None:
    template = TEMPLATE + "{% if thinking is defined and thinking %}<think>{% endif %}"
    model = TransformersModel(str(tiny_lm(tmp_path, template=template)), device="cpu")
    assert model.chat.render((Message("user", "a"),), thinking=True).endswith("<think>")
    assert not model.chat.render((Message("user", "a"),)).endswith("<think>")
    off = TransformersModel(str(tmp_path), device="cpu", template_options={"thinking": False})
    with pytest.raises(IrdistillError, match="switches thinking off"):
        off.answer([Request((Message("user", "a"),), thinking_tokens=5)])


class Thinker(FakeModel):
    """Thinks too long unless it may think for 90 tokens; then it answers."""

    structured = True

    def _one(self, request: Request) -> Answer:
        if request.thinking_tokens < 90:
            answer = Answer("<think>hm", cut=True, thinking_tokens=request.thinking_tokens)
            return answer._replace(text="", error="cut") if request.labels else answer
        count = len(request.labels) or len(re.findall("worth", request.messages[-1].content))
        if request.labels:
            return Answer(labels=np.arange(count, dtype=np.float32) - 9, thinking_tokens=80)
        if request.schema is not None:
            [(key, kind)] = request.schema["properties"].items()
            value: Any = list(range(count, 0, -1)) if key == "order" else kind["enum"][1]
            return Answer("<think>hm</think>" + json.dumps({key: value}), thinking_tokens=80)
        names = " > ".join(f"[{number}]" for number in range(count, 0, -1))
        return Answer("<think>hm</think>" + (names if "Order" in str(request) else "B"))


def listwise(by: str, **more: Any) -> Any:
    return lambda model: ListwiseLLMTeacher(model, LISTWISE, by=by, **more)


def pairwise(by: str, **more: Any) -> Any:
    return lambda model: PairwiseTeacher(model, PAIRWISE, by=by, **more)


@pytest.mark.parametrize("create", [listwise, pairwise])
@pytest.mark.parametrize("by", ["text", "labels", "json"])
def test_each_teacher_retries_thinking_that_was_cut(create: Callable[..., Any], by: str) -> None:
    pairs = query_pairs([1, 2, 3])
    model = Thinker()
    teacher = create(by, thinking_tokens=40, retry_tokens=100)(model)
    [ranking] = teacher.rank([pairs])
    assert ranking.flags == [None] * 3
    assert ranking.order == ([2, 1, 0] if create is listwise else [0, 1, 2])  # ties keep the order
    assert ranking.usage["asked_again"] == len(model.requests) / 2
    assert {request.thinking_tokens for request in model.requests} == {40, 100}
    assert teacher.identity["thinking_tokens"] == 40
    once = create(by, thinking_tokens=40)(Thinker())
    [ranking] = once.rank([pairs])
    assert (ranking.order, ranking.flags) == ([], ["cut"] * 3)
    assert ranking.usage["thinking_tokens"] == 40 * ranking.usage["requests"]


def test_pointwise_json_after_thinking() -> None:
    prompt = {"user": "Grade {query} {passage}"}
    teacher = PointwiseTeacher(
        Thinker(), prompt, labels=["x", "y"], gains=[0, 5], by="json", thinking_tokens=90
    )
    scores = teacher.score(query_pairs([1, 2]))
    assert scores.values.tolist() == [5.0, 5.0] and scores.usage["thinking_tokens"] == 160
    assert teacher.identity["thinking_tokens"] == 90


@pytest.mark.parametrize(
    ("create", "words"),
    [
        (lambda: listwise("text", thinking_tokens=0)(FakeModel()), "expected at least 1"),
        (lambda: listwise("text", thinking_tokens=50, retry_tokens=50)(FakeModel()), "above 50"),
        (
            lambda: ListwiseLLMTeacher(
                FakeModel(), LISTWISE | {"assistant": "["}, thinking_tokens=9
            ),
            "cannot think before it",
        ),
    ],
)
def test_invalid_settings_are_refused(create: Callable[[], Any], words: str) -> None:
    with pytest.raises(IrdistillError, match=words):
        create()


PIECES = st.lists(
    st.sampled_from(["<think>", "</think>", "a [1] ", "\n", "yes", "[THINK]", "[/THINK]", "<b>"]),
    max_size=12,
)


@given(PIECES)
@settings(max_examples=200, deadline=None)
def test_the_answer_starts_where_the_thinking_ends(pieces: list[str]) -> None:
    text = "".join(pieces)
    start, said = answer_start(text), split_thinking(text)
    assert (start is not None) == said.whole
    if start is not None:
        assert said.text.endswith(text[start:].strip())
        assert "think>" not in text[start:].lower()
