"""The vLLM back end against a stand-in with the same interface."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from irdistill.errors import MissingExtraError
from irdistill.teachers.llm import LanguageModel, Message, Request
from irdistill.teachers.llm.vllm import VllmModel
from tests.teachers.llm.tiny import tiny_lm, tiny_tokenizer


class SamplingParams:
    def __init__(
        self,
        *,
        temperature: float,
        max_tokens: int,
        logprobs: int | None = None,
        allowed_token_ids: list[int] | None = None,
    ) -> None:
        self.temperature, self.max_tokens = temperature, max_tokens
        self.logprobs, self.allowed_token_ids = logprobs, allowed_token_ids


class LLM:
    """A substitute for vllm.LLM: token -> log-probability - token / 100; writes ``" said "`` up to
    the limit.
    """

    text = " said "

    def __init__(self, model: str, **options: Any) -> None:
        self.options = options
        config = SimpleNamespace(
            max_model_len=options["max_model_len"] or 64, dtype="torch.bfloat16"
        )
        self.llm_engine = SimpleNamespace(model_config=config)

    def get_tokenizer(self) -> Any:
        return tiny_tokenizer()

    def generate(
        self,
        prompts: list[dict[str, list[int]]],
        sampling_params: list[SamplingParams],
        use_tqdm: bool,
    ) -> list[Any]:
        results = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            assert (
                len(prompt["prompt_token_ids"]) + params.max_tokens <= 64
                and params.temperature == 0
                and not use_tqdm
            )
            allowed = params.allowed_token_ids or []
            logprobs = (
                [{token: SimpleNamespace(logprob=-token / 100) for token in allowed}]
                if params.logprobs
                else None
            )
            written = tiny_tokenizer()(self.text)["input_ids"]
            engine_options = SimpleNamespace(
                text="",
                token_ids=[9] if allowed else written,
                logprobs=logprobs,
                finish_reason="length",
            )
            results.append(
                SimpleNamespace(outputs=[engine_options], num_cached_tokens=3 if allowed else None)
            )
        return results


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams, module.__version__ = LLM, SamplingParams, "0.11.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)


def test_labels_and_texts_come_back_in_order(vllm: None, tmp_path: Path) -> None:
    model = VllmModel(str(tiny_lm(tmp_path)))
    assert isinstance(model, LanguageModel)
    requested = [
        Request((Message("user", "a"),), ("y", "n")),
        Request((Message("user", "x" * 99),), ("y", "n")),
        Request((Message("user", "b"),), max_tokens=20),
        Request((Message("user", "b"),), max_tokens=60),
    ]
    labels, long, text, no_room = model.answer(requested)
    tokens = tiny_tokenizer()("yn")["input_ids"]
    assert labels.labels == pytest.approx(-np.array(tokens) / 100)
    assert labels.usage == {
        "requests": 1,
        "tokens": labels.input_tokens,
        "output_tokens": 1,
        "cached_tokens": 3,
    }
    assert long.error == no_room.error == "too long"
    assert (text.text, text.output_tokens, text.cut, labels.cut) == ("said", 6, True, False)
    assert model.relative_labels


def test_labels_are_read_after_the_thinking(
    vllm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VllmModel(str(tiny_lm(tmp_path)))
    monkeypatch.setattr(LLM, "text", "<think>a</think>y")
    request = Request((Message("user", "a"),), ("y", "n"), 1, thinking_tokens=17)
    [answer] = model.answer([request])
    assert answer.labels == pytest.approx(-np.array(tiny_tokenizer()("yn")["input_ids"]) / 100)
    thought, written = len("<think>a</think>"), len("<think>a</think>y")
    assert (answer.thinking_tokens, answer.output_tokens) == (thought, written + 1)
    [prompt] = model.chat.prompts([request._replace(labels=())])
    assert answer.input_tokens == 2 * len(prompt.ids) + thought + len("\n\n")
    monkeypatch.setattr(LLM, "text", "<think>a")
    [answer] = model.answer([request])
    assert (answer.error, answer.labels, answer.cut) == ("cut", None, True)


def test_the_engine_keeps_prefixes_and_reports_every_label(vllm: None, tmp_path: Path) -> None:
    model = VllmModel(str(tiny_lm(tmp_path)), max_length=32, gpus=2)
    options = model._engine.options
    assert options["enable_prefix_caching"] and options["logprobs_mode"] == "processed_logprobs"
    assert (
        options["max_model_len"],
        options["tensor_parallel_size"],
        options["trust_remote_code"],
    ) == (32, 2, False)
    assert model.identity["backend"] == "vllm 0.11.0" and model.identity["precision"] == "bfloat16"
    assert model.identity["max_length"] == 32


def test_without_vllm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"irdistill\[vllm\]"):
        VllmModel("owner/name")
