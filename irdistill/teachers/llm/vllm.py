"""Language models by vLLM's offline engine, for GPUs (written for vLLM 0.11 and later, engine
V1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.errors import IrdistillError, MissingExtraError
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import resolve_model, split_gguf
from irdistill.modeling.model_revisions import model_identity
from irdistill.teachers.llm.chat import ChatTokenizer
from irdistill.teachers.llm.language_model import Answer, Request
from irdistill.teachers.llm.local import empty_block
from irdistill.teachers.protocol import TOO_LONG


class VllmModel:
    """A causal language model in vLLM, which batches by itself and keeps the keys and values of
    prompts that begin alike.

    Sampling is restricted to the labels' tokens and their processed log-probabilities are asked
    for, so that every label is reported; they are relative to the labels alone, which changes
    neither log-odds nor expected gains. vLLM computes logits in the model's precision: in bfloat16
    they have 8 bits, and documents may be tied.

    Attributes:
        relative_labels: their probabilities sum to 1 whatever the model would rather say, so there
            is no label mass to measure.
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
            model: hub id, folder or GGUF file.
            precision: ``auto`` is the model's own.
            max_length: tokens of prompt and answer together; the model's own where None.
            memory: share of each GPU's memory that it takes.
            gpus: over which the model is spread (tensor parallel).
            parallel: requests that a teacher gives at a time; vLLM cuts them up.

        Raises:
            MissingExtraError: vllm is not installed.
            IrdistillError: the model cannot be loaded.
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
            raise IrdistillError(
                f"vLLM cannot load the model {model!r}: {' '.join(str(error).split())[:400]}"
            ) from error
        self._vllm, self.parallel = vllm, parallel
        self.model_name, self.pinned = model, model_identity(model, revision)
        self.chat = ChatTokenizer(self._engine.get_tokenizer(), template_options)
        config = self._engine.llm_engine.model_config
        self.max_length, self.precision = (
            int(config.max_model_len),
            str(config.dtype).removeprefix("torch."),
        )
        self.chat.empty_block = empty_block(
            self.chat, lambda request: self.answer([request])[0].text
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the answers; figures of one model differ between versions of vLLM."""
        thinking = {"thinking": self.chat.thinking} if self.chat.thinking else {}
        return thinking | {
            **self.pinned,
            "backend": f"vllm {self._vllm.__version__}",
            "precision": self.precision,
            "chat_template": self.chat.digest,
            "max_length": self.max_length,
        }

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Log-probabilities of labels among themselves, or greedily written text."""
        prompts = self.chat.prompts(requests)
        answers = [Answer(error=TOO_LONG)] * len(prompts)
        # vLLM counts the one token that is sampled for labels, too.
        fit = [
            place
            for place, (prompt, request) in enumerate(zip(prompts, requests, strict=True))
            if len(prompt.ids) + (1 if request.labels else request.max_tokens) <= self.max_length
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
                else self._vllm.SamplingParams(
                    temperature=0.0, max_tokens=requests[place].max_tokens
                )
            )
            for place in fit
        ]
        outputs = self._engine.generate(
            [{"prompt_token_ids": prompts[place].ids} for place in fit], settings, use_tqdm=False
        )
        for place, output in zip(fit, outputs, strict=True):
            found, prompt = output.outputs[0], prompts[place]
            answer = Answer(
                input_tokens=len(prompt.ids),
                output_tokens=len(found.token_ids),
                cached_tokens=output.num_cached_tokens or 0,
            )
            if prompt.labels:
                seen = found.logprobs[0] if found.logprobs else {}
                logs = [seen[token].logprob if token in seen else np.nan for token in prompt.labels]
                answers[place] = answer._replace(labels=np.array(logs, dtype=np.float32))
            else:
                cut = getattr(found, "finish_reason", None) == "length"
                answers[place] = answer._replace(
                    text=prompt.opened + self.chat.decode(found.token_ids), cut=cut
                )
        return answers
