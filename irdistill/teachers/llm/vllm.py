"""Language models run by vLLM's offline engine on GPUs (written for vLLM 0.11 and later, engine
V1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.errors import MissingExtraError, ModelError, one_line
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import resolve_model, split_gguf
from irdistill.modeling.model_revisions import model_identity
from irdistill.teachers.llm.chat import ChatTokenizer, Prompt
from irdistill.teachers.llm.language_model import Answer, Request
from irdistill.teachers.llm.local import empty_block
from irdistill.teachers.llm.thought_labels import answer_all
from irdistill.teachers.protocol import TOO_LONG


class VllmModel:
    """A causal language model in vLLM, which forms batches itself and caches the keys and values of
    common beginnings.

    Sampling is restricted to the labels' tokens, and their processed log-probabilities are
    requested, so that every label is reported. They are relative to the labels, which changes
    neither log-odds nor expected gains. vLLM computes logits in the model's precision: in bfloat16
    they have 8 bits, and documents may be tied.

    Attributes:
        relative_labels: the labels' probabilities always sum to 1, so that there is no label mass
            to measure.
    """

    relative_labels = True

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        precision: Precision = "auto",
        max_length: int | None = None,
        memory: float = 0.9,
        gpus: int = 1,
        parallel: int = 1024,
        trust_remote_code: bool = False,
        template_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Start an engine.

        Args:
            precision: ``auto`` is the model's.
            max_length: tokens of prompt and answer together (default: the model's).
            memory: share of each GPU's memory that the engine uses.
            gpus: number of GPUs over which the model is distributed (tensor parallel).
            parallel: number of requests that a teacher sends at a time; vLLM divides them.
            template_options: options of the chat template.
        """
        try:
            import vllm
        except ImportError as error:
            raise MissingExtraError(
                "vllm", "vllm", f"the back end vllm of the model {model!r}"
            ) from error
        place, file = split_gguf(resolve_model(model, revision))
        try:
            self._engine = vllm.LLM(
                model=(
                    str(Path(place) / file)
                    if file and Path(place).is_dir()
                    else place
                    if not file
                    else f"{place}/{file}"
                ),
                revision=revision,
                dtype=precision,
                max_model_len=max_length,
                gpu_memory_utilization=memory,
                tensor_parallel_size=gpus,
                trust_remote_code=trust_remote_code,
                enable_prefix_caching=True,
                logprobs_mode="processed_logprobs",
                max_logprobs=64,
                seed=0,
            )
        except Exception as error:
            raise ModelError(
                f"vLLM cannot load the model {model!r}: {one_line(error, 400)}."
            ) from error
        self._vllm, self.parallel = vllm, parallel
        self.model_name, self.pinned = model, model_identity(model, revision)
        self.chat = ChatTokenizer(self._engine.get_tokenizer(), template_options)
        config = self._engine.llm_engine.model_config
        self.max_length = int(config.max_model_len)
        self.precision = str(config.dtype).removeprefix("torch.")
        self.chat.empty_block = empty_block(
            self.chat, lambda request: self.answer([request])[0].text
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the answers; those of one model differ between versions of vLLM."""
        thinking = {"thinking": self.chat.thinking} if self.chat.thinking else {}
        return thinking | {
            **self.pinned,
            "backend": f"vllm {self._vllm.__version__}",
            "precision": self.precision,
            "chat_template": self.chat.digest,
            "max_length": self.max_length,
        }

    def check_labels(self, request: Request) -> None:
        """Refuse labels that are not one token each where the answer to a request begins."""
        self.chat.check_labels(request)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Log-probabilities of labels relative to each other, or greedily generated text."""
        return answer_all(self.chat, requests, self._answer, self._read_labels)

    def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        limits = [
            1 if request.labels else request.max_tokens + request.thinking_tokens
            for request in requests
        ]
        return self._generate(self.chat.prompts(requests), limits)

    def _read_labels(self, prompts: Sequence[Prompt]) -> list[Answer]:
        return self._generate(prompts, [1] * len(prompts))

    def _generate(self, prompts: Sequence[Prompt], limits: Sequence[int]) -> list[Answer]:
        answers = [Answer(error=TOO_LONG)] * len(prompts)
        # vLLM also counts the one token that is sampled for labels.
        fit = [
            place
            for place, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
            if len(prompt.ids) + limit <= self.max_length
        ]
        if not fit:
            return answers
        settings = [
            (
                self._vllm.SamplingParams(
                    temperature=0.0,
                    max_tokens=1,
                    logprobs=len(tokens),
                    allowed_token_ids=list(tokens),
                )
                if (tokens := prompts[place].labels)
                else self._vllm.SamplingParams(temperature=0.0, max_tokens=limits[place])
            )
            for place in fit
        ]
        outputs = self._engine.generate(
            [{"prompt_token_ids": prompts[place].ids} for place in fit], settings, use_tqdm=False
        )
        for place, output in zip(fit, outputs, strict=True):
            completion, prompt = output.outputs[0], prompts[place]
            answer = Answer(
                input_tokens=len(prompt.ids),
                output_tokens=len(completion.token_ids),
                cached_tokens=output.num_cached_tokens or 0,
            )
            if prompt.labels:
                first_logprobs = completion.logprobs[0] if completion.logprobs else {}
                logs = [
                    first_logprobs[token].logprob if token in first_logprobs else np.nan
                    for token in prompt.labels
                ]
                answers[place] = answer._replace(labels=np.array(logs, dtype=np.float32))
            else:
                text = prompt.opened + self.chat.decode(completion.token_ids)
                answers[place] = answer._replace(
                    text=text,
                    cut=getattr(completion, "finish_reason", None) == "length",
                    thinking_tokens=self.chat.thinking_length(text, answer.output_tokens),
                )
        return answers
