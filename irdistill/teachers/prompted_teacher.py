"""The common part of encoder-decoder and causal rerankers: a prompt in, the logits of one or two
tokens out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from irdistill.errors import IrdistillError, ModelError, OptionError, one_line
from irdistill.modeling.hardware import Precision, best_device, choose_dtype
from irdistill.modeling.model_files import resolve_model
from irdistill.modeling.model_revisions import model_identity
from irdistill.modeling.truncation import Truncation
from irdistill.modeling.weights import complete_weights
from irdistill.students.inputs import position_limit
from irdistill.teachers.control_tokens import BROKEN_UP
from irdistill.teachers.pair_prompts import TRUNCATION, PairTemplate
from irdistill.teachers.protocol import TextPair

_TOKENS_CPU, _TOKENS_GPU = 8192, 32_768


class LabelHead(nn.Module):
    """Some rows of a language model's head, in float32 whatever the precision of the rest.

    It replaces the whole head in the model. The model still scales its input (as T5 does) and caps
    its output (as Gemma 2 does), but does not compute the logits of the whole vocabulary.
    """

    def __init__(self, head: nn.Module, tokens: Sequence[int]) -> None:
        super().__init__()
        weight, bias = head.weight, getattr(head, "bias", None)
        assert isinstance(weight, Tensor)
        rows = torch.tensor(tokens, device=weight.device)
        self.weight = nn.Parameter(weight.detach()[rows].float(), requires_grad=False)
        self.bias = (
            None if bias is None else nn.Parameter(bias.detach()[rows].float(), requires_grad=False)
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """(…, H) to (…, tokens)."""
        return F.linear(hidden.float(), self.weight, self.bias)


class PromptedTeacher(ABC):
    """A reranker that reads a prompt with one query and one document.

    Its score is a raw logit: that of the token ``positive``, minus that of ``negative`` if there is
    one. The difference is the log-odds of the two. A softmax or sigmoid of it would compress the
    scores of good documents.

    Attributes:
        max_length: tokens of the whole prompt; see `irdistill.teachers.pair_prompts` for what is
            truncated.
    """

    kind: ClassVar[str]
    architectures: ClassVar[tuple[str, ...]]
    special_tokens: ClassVar[bool]
    usual_length: ClassVar[int]

    def __init__(
        self,
        model: str,
        revision: str | None,
        max_length: int | None,
        precision: Precision,
        trust_remote_code: bool,
        device: str | None,
    ) -> None:
        resolved = resolve_model(model, revision)
        self.model_name = model
        self.device = torch.device(device) if device else best_device()
        self.dtype = choose_dtype(precision, self.device)
        self.tokenizer, self.network = self._load(resolved, revision, trust_remote_code)
        self.pinned = model_identity(model, revision)
        most = position_limit(self.network) or 1 << 30
        if max_length is not None and not 8 <= max_length <= most:
            raise OptionError(
                f"max_length={max_length} does not fit {model!r}; expected a number from 8 to"
                f" {most}."
            )
        self.max_length = max_length or min(self.usual_length, most)
        self.truncation = {"pair": Truncation()}

    @classmethod
    @abstractmethod
    def auto_class(cls) -> Any:
        """The class of transformers that loads such a model."""

    def _load(
        self, resolved: str, revision: str | None, trust_remote_code: bool
    ) -> tuple[Any, Any]:
        from transformers import AutoTokenizer

        arguments: dict[str, Any] = {
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "local_files_only": Path(resolved).is_dir(),
        }
        try:
            with complete_weights(self.model_name):
                tokenizer = AutoTokenizer.from_pretrained(resolved, **arguments)
                network = self.auto_class().from_pretrained(resolved, dtype=self.dtype, **arguments)
                self._check_architecture(network)
        except IrdistillError:
            raise
        except Exception as error:
            raise ModelError(
                f"the model {self.model_name!r} cannot be loaded as a {self.kind} reranker:"
                f" {one_line(error, 400)}."
            ) from error
        if not tokenizer.is_fast:
            raise ModelError(
                f"the tokenizer of {self.model_name!r} does not report the positions of its"
                " tokens, so documents cannot be truncated exactly. Save a tokenizer.json with the"
                " model."
            )
        return tokenizer, network.eval()

    def _check_architecture(self, network: Any) -> None:
        names = network.config.architectures or []
        if not any(name.endswith(self.architectures) for name in names):
            raise ModelError(
                f"the model {self.model_name!r} (architecture {', '.join(names) or 'not stated'})"
                f" is not a {self.kind} reranker; expected one of"
                f" {', '.join('…' + name for name in self.architectures)}."
            )

    def _ask(self, template: PairTemplate, positive: str, negative: str | None) -> None:
        """Set the prompt and the compared tokens, and keep only the rows of the model's head that
        are needed.
        """
        self.template, self.positive, self.negative = template, positive, negative
        tokens = [
            self._token(name) for name in ([positive] if negative is None else [positive, negative])
        ]
        template.check(self.tokenizer, self.max_length, self.special_tokens)
        self.network.set_output_embeddings(LabelHead(self.network.get_output_embeddings(), tokens))
        self.network = self.network.to(self.device)

    def _token(self, name: str) -> int:
        vocabulary = self.tokenizer.get_vocab()
        if name not in vocabulary:
            written = self.tokenizer.convert_ids_to_tokens(
                self.tokenizer(name, add_special_tokens=False)["input_ids"]
            )
            raise OptionError(
                f"the vocabulary of {self.model_name!r} has no token {name!r}; its tokenizer writes"
                f" this word as {' '.join(map(repr, written))}. Use a token of the"
                " vocabulary."
            )
        return int(vocabulary[name])

    @property
    def identity(self) -> dict[str, Any]:
        """What determines the scores: weights, prompt, tokens and precision."""
        score = f"logit({self.positive})" + (
            f" - logit({self.negative})" if self.negative is not None else ""
        )
        return {
            "kind": self.kind,
            **self.pinned,
            "template": self.template.text,
            "score": score,
            "max_length": self.max_length,
            "truncation": TRUNCATION,
            "control_tokens": BROKEN_UP,
            "activation": "none (raw logits)",
            "backend": "torch",
            "precision": str(self.dtype).removeprefix("torch."),
        }

    @property
    def token_budget(self) -> int:
        """Padded tokens per forward pass."""
        return _TOKENS_CPU if self.device.type == "cpu" else _TOKENS_GPU

    def tokenize(self, pairs: Sequence[TextPair]) -> tuple[list[list[int]], np.ndarray]:
        """Token ids of each prompt, truncated and not padded, and their lengths."""
        texts = [(pair.query.text, pair.text) for pair in pairs]
        return self.template.encode(
            self.tokenizer, texts, self.max_length, self.special_tokens, self.truncation["pair"]
        )

    @torch.inference_mode()
    def forward(self, tokens: list[list[int]], rows: np.ndarray) -> np.ndarray:
        """(n,) float32 raw scores of the pairs ``rows``; padded on the right."""
        batch = [tokens[row] for row in rows.tolist()]
        lengths = torch.tensor([len(ids) for ids in batch])
        pad = self.tokenizer.pad_token_id or 0
        ids = torch.full((len(batch), int(lengths.max())), pad, dtype=torch.long)
        for place, row in enumerate(batch):
            ids[place, : len(row)] = torch.tensor(row)
        mask = (torch.arange(ids.shape[1])[None, :] < lengths[:, None]).long()
        logits = (
            self.answer(ids.to(self.device), mask.to(self.device), lengths.to(self.device))
            .float()
            .cpu()
            .numpy()
        )
        scores: np.ndarray = logits[:, 0] if self.negative is None else logits[:, 0] - logits[:, 1]
        return scores

    @abstractmethod
    def answer(self, ids: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
        """Logits (n, 1 or 2) of the compared tokens at the start of the answer.

        Args:
            ids: (n, T) padded on the right.
            mask: (n, T).
            lengths: (n,).
        """
