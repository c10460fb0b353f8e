"""Language models run by transformers on this machine: hub ids, folders and GGUF files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.cache_utils import DynamicCache

from irdistill.errors import IrdistillError, MissingExtraError, ModelError, OptionError, one_line
from irdistill.modeling.batching import TokenBudget, run_batches
from irdistill.modeling.hardware import Precision, best_device, choose_dtype
from irdistill.modeling.model_files import resolve_model, split_gguf
from irdistill.modeling.model_revisions import model_identity
from irdistill.modeling.weights import complete_weights
from irdistill.teachers.llm.chat import ChatTokenizer, Prompt
from irdistill.teachers.llm.language_model import Answer, Message, Request
from irdistill.teachers.llm.prefixes import Group, SharedPrefix, can_share, group_by_prefix
from irdistill.teachers.llm.thinking import begins_thinking, closing_marker
from irdistill.teachers.llm.thought_labels import answer_all
from irdistill.teachers.protocol import TOO_LONG

logger = logging.getLogger(__name__)

_TOKENS_CPU, _TOKENS_GPU = 4096, 65_536
_TEXTS_CPU, _TEXTS_GPU = 8, 64
#: Tokens that end a turn in common chat templates; a model's files may name only one of several.
_TURN_ENDS = (
    "<|im_end|>",
    "<|return|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|eot|>",
    "<|endoftext|>",
    "</s>",
)


class TransformersModel:
    """A causal language model.

    Labels are scored with one pass over each prompt. The common beginning of a group of prompts
    (instructions, query) is computed once, and all of them read its keys and values. Logits are
    computed for the last position only, in float32 whatever the precision of the rest: in bfloat16
    a logit has 8 bits and many documents would be tied.

    A model whose vocabulary has a marker of thinking, and whose template has no switch for it, is
    asked one question when it is loaded. If its answer begins with the marker, an empty block of
    thinking is put before the labels.

    Attributes:
        max_length: tokens of prompt and answer together; a longer request gets the error ``too
            long``.
        share_prefixes: False reads every prompt from its beginning.
    """

    def __init__(
        self,
        model: str,
        *,
        revision: str | None = None,
        precision: Precision = "auto",
        device: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
        trust_remote_code: bool = False,
        template_options: Mapping[str, Any] | None = None,
        share_prefixes: bool = True,
    ) -> None:
        """Load a model.

        Args:
            model: hub id, folder, ``package:`` path, or a GGUF file (``file.gguf``,
                ``package:NAME/file.gguf``, ``hub/id::file.gguf``), whose weights are unpacked to
                ``precision``.
            precision: ``auto`` is bfloat16 if the device has instructions for it, else float32.
            max_length: tokens of prompt and answer together (default: the model's).
            batch_tokens: padded tokens per forward pass.
            batch_size: number of texts that are generated at a time.
            template_options: options of the chat template, such as ``enable_thinking: false``.
        """
        self.device = torch.device(device) if device else best_device()
        self.dtype = choose_dtype(precision, self.device)
        self.network, tokenizer = _load(model, revision, self.dtype, trust_remote_code)
        self.network.to(self.device).eval()
        self.model_name, self.pinned = model, model_identity(model, revision)
        self.chat = ChatTokenizer(tokenizer, template_options)
        self.max_length = _length(model, max_length, self.network.config)
        on_cpu = self.device.type == "cpu"
        self.parallel = batch_size or (_TEXTS_CPU if on_cpu else _TEXTS_GPU)
        self.share_prefixes = share_prefixes
        self._budget = TokenBudget(batch_tokens or (_TOKENS_CPU if on_cpu else _TOKENS_GPU))
        layer = self.network.get_output_embeddings()
        if layer is None:
            raise ModelError(
                f"the model {model!r} ({type(self.network).__name__}) has no output layer over its"
                " vocabulary. Use a causal language model."
            )
        self._head = _LastLogits(layer)
        self.network.set_output_embeddings(self._head)
        generation = self.network.generation_config
        ends = (
            [generation.eos_token_id, tokenizer.eos_token_id]
            if generation
            else [tokenizer.eos_token_id]
        )
        flat = [
            end
            for stated in ends
            for end in (stated if isinstance(stated, list) else [stated])
            if end is not None
        ]
        vocabulary = tokenizer.get_vocab()
        self._ends = sorted(
            {*flat, *(vocabulary[token] for token in _TURN_ENDS if token in vocabulary)}
        )
        self._pad = (
            tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (self._ends or [0])[0]
        )
        # A model's settings may contain a repetition penalty, which changes what is greedily
        # chosen.
        self.network.generation_config = GenerationConfig(
            do_sample=False, eos_token_id=self._ends or None, pad_token_id=self._pad
        )
        self.chat.empty_block = empty_block(self.chat, self._first_tokens)

    def _first_tokens(self, request: Request) -> str:
        with torch.inference_mode():
            answers = [Answer()]
            self._write([0], self.chat.prompts([request]), request.max_tokens, answers)
        return answers[0].text

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the answers, with the version of transformers, because kernels and GGUF
        reading change with it.
        """
        thinking = {"thinking": self.chat.thinking} if self.chat.thinking else {}
        return thinking | {
            **self.pinned,
            "backend": f"transformers {transformers.__version__}",
            "precision": str(self.dtype).removeprefix("torch."),
            "chat_template": self.chat.digest,
            "max_length": self.max_length,
        }

    def check_labels(self, request: Request) -> None:
        """Refuse labels that are not one token each where the answer to a request begins."""
        self.chat.check_labels(request)

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Log-probabilities of labels, or greedily generated text, in the requests' order."""
        return answer_all(self.chat, requests, self._answer, self._read_labels)

    def _read_labels(self, prompts: Sequence[Prompt]) -> list[Answer]:
        answers = [Answer(error=TOO_LONG)] * len(prompts)
        fit = [place for place, prompt in enumerate(prompts) if len(prompt.ids) <= self.max_length]
        with torch.inference_mode():
            self._score(fit, prompts, answers)
        return answers

    def _answer(self, requests: Sequence[Request]) -> list[Answer]:
        prompts = self.chat.prompts(requests)
        answers = [Answer(error=TOO_LONG)] * len(prompts)
        fit = [
            place
            for place, (prompt, request) in enumerate(zip(prompts, requests, strict=True))
            if len(prompt.ids) + (0 if request.labels else _most(request)) <= self.max_length
        ]
        with torch.inference_mode():
            self._score([place for place in fit if requests[place].labels], prompts, answers)
            for most in sorted(
                {_most(requests[place]) for place in fit if not requests[place].labels}
            ):
                places = [
                    place
                    for place in fit
                    if not requests[place].labels and _most(requests[place]) == most
                ]
                self._write(places, prompts, most, answers)
        return answers

    def _score(
        self, places: Sequence[int], prompts: Sequence[Prompt], answers: list[Answer]
    ) -> None:
        groups = (
            group_by_prefix([prompts[place].ids for place in places]) if self.share_prefixes else []
        )
        for length, members in groups or [Group(0, list(range(len(places))))]:
            batch = [places[member] for member in members]
            prefix = self._prefix(prompts[batch[0]].ids[:length]) if length else None
            if prefix is None:
                length = 0
            suffixes = [torch.tensor(prompts[place].ids[length:]) for place in batch]

            def forward(
                rows: np.ndarray,
                batch: list[int] = batch,
                suffixes: list[Tensor] = suffixes,
                prefix: SharedPrefix | None = prefix,
                length: int = length,
            ) -> None:
                logits = self._last_logits([suffixes[row] for row in rows], prefix)
                logs = (logits - logits.logsumexp(dim=-1, keepdim=True)).cpu()
                for row, line in zip(rows.tolist(), logs, strict=True):
                    prompt = prompts[batch[row]]
                    answers[batch[row]] = Answer(
                        labels=line[list(prompt.labels)].numpy().copy(),
                        input_tokens=len(prompt.ids),
                        cached_tokens=length if row else 0,
                    )

            run_batches([len(suffix) for suffix in suffixes], self._budget, forward)

    def _prefix(self, ids: Sequence[int]) -> SharedPrefix | None:
        """The cache of a common beginning; None for a model whose cache cannot be shared."""
        self._head.last = None
        inputs = torch.tensor([ids], device=self.device)
        output = self.network(
            input_ids=inputs,
            past_key_values=DynamicCache(config=self.network.config),
            use_cache=True,
        )
        cache = getattr(output, "past_key_values", None)
        if can_share(cache):
            return SharedPrefix(cache)
        logger.warning(
            "the cache of %s cannot be shared between prompts; each is read from its beginning",
            self.model_name,
        )
        self.share_prefixes = False
        return None

    def _last_logits(self, suffixes: Sequence[Tensor], prefix: SharedPrefix | None) -> Tensor:
        """(n, vocabulary) float32 logits after the last token of each row.

        Rows are padded on the right, where no token that counts sees the padding. Positions and the
        causal mask are those of the row alone, so no other mask is needed.
        """
        inputs = pad_sequence(list(suffixes), batch_first=True, padding_value=self._pad).to(
            self.device
        )
        self._head.last = torch.tensor([len(suffix) - 1 for suffix in suffixes], device=self.device)
        try:
            return self.network(
                input_ids=inputs, past_key_values=prefix, use_cache=prefix is not None
            ).logits[:, 0]
        finally:
            self._head.last = None

    def _write(
        self, places: Sequence[int], prompts: Sequence[Prompt], most: int, answers: list[Answer]
    ) -> None:
        lengths = [len(prompts[place].ids) + most for place in places]

        def forward(rows: np.ndarray) -> None:
            batch = [places[row] for row in rows.tolist()]
            longest = max(len(prompts[place].ids) for place in batch)
            inputs = torch.full((len(batch), longest), self._pad)
            mask = torch.zeros_like(inputs)
            for row, place in enumerate(batch):
                ids = prompts[place].ids
                inputs[row, longest - len(ids) :] = torch.tensor(ids)
                mask[row, longest - len(ids) :] = 1
            generated = self.network.generate(
                input_ids=inputs.to(self.device),
                attention_mask=mask.to(self.device),
                max_new_tokens=most,
            )
            for place, line in zip(batch, generated[:, longest:].tolist(), strict=True):
                count = next(
                    (number for number, token in enumerate(line, 1) if token in self._ends), 0
                )
                text = prompts[place].opened + self.chat.decode(line[: count or None])
                length = count or len(line)
                answers[place] = Answer(
                    text,
                    input_tokens=len(prompts[place].ids),
                    output_tokens=length,
                    cut=not count,
                    thinking_tokens=self.chat.thinking_length(text, length),
                )

        run_batches(lengths, TokenBudget(self._budget.tokens, self.parallel), forward)


def _most(request: Request) -> int:
    """The most tokens that are written for a request."""
    return request.max_tokens + request.thinking_tokens


class _LastLogits(nn.Module):
    """A model's output layer, for one position of each row.

    It replaces the layer, so that the model still does to its logits what it does afterwards
    (scaling, soft caps).

    Attributes:
        last: (n,) the position of each row, computed in float32; None for the last position, as in
            the model.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.last: Tensor | None = None

    @property
    def weight(self) -> Tensor:
        """The layer's weight; some models read its dtype."""
        return cast(Tensor, self.layer.weight)

    def forward(self, hidden: Tensor) -> Tensor:
        """(n, 1, vocabulary) logits of (n, length, width)."""
        if self.last is None:
            return self.layer(hidden[:, -1:])
        picked = hidden[torch.arange(len(hidden), device=hidden.device), self.last][:, None]
        if type(self.layer) is not nn.Linear:
            return self.layer(picked).float()
        bias = None if self.layer.bias is None else self.layer.bias.float()
        return nn.functional.linear(picked.float(), self.layer.weight.float(), bias)


def empty_block(chat: ChatTokenizer, first_tokens: Callable[[Request], str]) -> str:
    """An empty block of thinking for a model that begins its answers with thinking; else an empty
    text.

    Args:
        chat: the model's tokenizer.
        first_tokens: returns the beginning of the answer to a request.
    """
    opening = chat.may_think()
    if not opening or not chat.template:
        return ""
    first = first_tokens(
        Request((Message("user", "Is water wet? Answer yes or no."),), max_tokens=4)
    )
    if not begins_thinking(first):
        return ""
    logger.warning(
        "the model begins its answers with thinking (%r), so an empty block of thinking is put"
        " before the labels. If the model's template has a switch for thinking, set it in the card"
        " (template_options).",
        first[:40],
    )
    return f"{opening}\n\n{closing_marker(opening)}\n\n"


def _load(
    model: str, revision: str | None, dtype: torch.dtype, trust_remote_code: bool
) -> tuple[Any, Any]:
    place, file = split_gguf(resolve_model(model, revision))
    if file and find_spec("gguf") is None:
        raise MissingExtraError("gguf", "llm", f"the model {model!r}")
    options: dict[str, Any] = {
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "local_files_only": Path(place).is_dir(),
    }
    if file:
        options["gguf_file"] = file
    try:
        with complete_weights(model):
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
            network = AutoModelForCausalLM.from_pretrained(place, dtype=dtype, **options)
            _check_architecture(model, network)
    except IrdistillError:
        raise
    except Exception as error:
        raise ModelError(
            f"the language model {model!r} cannot be loaded: {one_line(error, 400)}."
        ) from error
    return network, tokenizer


def _check_architecture(model: str, network: Any) -> None:
    names = network.config.architectures or []
    if names and not any(
        part in name for name in names for part in ("CausalLM", "LMHead", "ConditionalGeneration")
    ):
        raise IrdistillError(
            f"the model {model!r} was saved as {', '.join(names)}, which is not a causal language"
            " model, so its output layer would be random. Use a model that generates text, or use"
            " this one as a retriever."
        )


def _length(model: str, max_length: int | None, config: Any) -> int:
    longest = int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 0) or 1_000_000
    if max_length is None:
        return longest
    if not 8 <= max_length <= longest:
        raise OptionError(
            f"max_length={max_length} does not fit {model!r}; expected a number from 8 to"
            f" {longest}."
        )
    return max_length
