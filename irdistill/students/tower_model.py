"""A sentence-transformers model as two towers: its modules, sizes, tokens and identity."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xxhash
from sentence_transformers.base.modules import Router, Transformer
from torch import nn

from irdistill.errors import ModelError
from irdistill.modeling.padding import TokenRow, pad_texts
from irdistill.modeling.truncation import Truncation
from irdistill.students.fingerprints import modules_digest, tokenizer_digest

TextKind = Literal["query", "document", "pair"]
TokenColumns = dict[str, list[Any]]


class TowerModel:
    """A model through which queries and documents go by the same or by different modules.

    Attributes:
        model: the sentence-transformers model, single or with a Router of two towers.
        source: the name it was built or loaded from.
        revision: hub commit, or digest of the files, of ``source``.
        kind: the kind of student.
        sides: what it encodes: queries and documents separately, or pairs.
        similarity: how texts are compared.
        truncation: how much of the texts tokenized so far the model does not read, by text kind.
    """

    kind: ClassVar[str]
    sides: ClassVar[tuple[TextKind, ...]] = ("query", "document")
    model: Any
    source: str
    revision: str
    truncation: dict[str, Truncation]

    @property
    def similarity(self) -> str:
        """How texts are compared: ``cosine``, ``dot``, ``maxsim``, ``meanmaxsim`` or ``logit``."""
        raise NotImplementedError

    def tower(self, kind: TextKind) -> list[nn.Module]:
        """The modules that a text of this kind goes through, in order."""
        return [*self.route(kind), *(list(self.model)[1:] if self.has_two_towers else ())]

    def route(self, kind: TextKind) -> list[nn.Module]:
        """The modules of a tower without those that both towers end with."""
        if not self.has_two_towers:
            return list(self.model)
        first = self.model[0]
        return list(first.sub_modules[first._resolve_route(task=kind, modality="text")])

    @property
    def has_two_towers(self) -> bool:
        """Whether queries and documents go through different modules."""
        return isinstance(self.model[0], Router)

    def _first(self, kind: TextKind) -> Any:
        """The module that takes the texts."""
        return self.tower(kind)[0]

    def _transformers(self, kind: TextKind) -> list[Transformer]:
        return [module for module in self.tower(kind) if isinstance(module, Transformer)]

    def _freeze(self, kind: TextKind) -> None:
        for module in self.tower(kind):
            module.requires_grad_(False)

    def learns(self, kind: TextKind) -> bool:
        """Whether a tower has a parameter that is not frozen."""
        return any(p.requires_grad for module in self.tower(kind) for p in module.parameters())

    def _gradients(self, kind: TextKind) -> AbstractContextManager[Any]:
        """Compute gradients only if the tower is trained."""
        return nullcontext() if self.learns(kind) else torch.no_grad()

    def train_parameters(self) -> list[nn.Parameter]:
        """The parameters that are not frozen."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def head(self) -> list[nn.Parameter]:
        """New parameters that may have their own learning rate."""
        return []

    @property
    def dimension(self) -> int:
        """The length of the vector of a text or of a token."""
        return int(self.model.get_embedding_dimension())

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.model.parameters()).device

    def max_length(self, kind: TextKind) -> int:
        """The number of tokens to which a text of this kind is truncated."""
        first = self._first(kind)
        length = first.query_length if kind == "query" else first.document_length
        return int(length or first.max_seq_length or 512)

    def size(self) -> dict[str, int]:
        """Parameters by tower and in all, layers of the query tower, and bytes."""

        def count(modules: Iterable[nn.Module]) -> int:
            parameters = {id(p): p.numel() for module in modules for p in module.parameters()}
            return sum(parameters.values())

        layers = [module.model.config.num_hidden_layers for module in self._transformers("query")]
        return {
            "query_parameters": count(self.tower("query")),
            "query_layers": sum(layers),
            "document_parameters": count(self.tower("document")),
            "parameters": count([self.model]),
            "bytes": sum(p.numel() * p.element_size() for p in self.model.parameters()),
        }

    # -- identity

    def weights_digest(self, kind: TextKind | None = None) -> str:
        """A fingerprint of the current weights, of one tower if ``kind`` is given.

        Students that share a frozen document tower share its vectors and indexes.
        """
        modules = list(self.model) if kind is None else self.tower(kind)
        state = xxhash.xxh3_128()
        for place, module in enumerate(modules):
            for name, value in sorted(module.state_dict().items()):
                state.update(f"{place}.{name} {value.dtype} {tuple(value.shape)}".encode())
                flat = value.detach().cpu().contiguous().reshape(-1)
                state.update(flat.view(torch.uint8).numpy())
        return state.hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """All that determines the scores, for manifests."""
        return {
            "model": self.source,
            "revision": self.revision,
            "weights": self.weights_digest(),
            "kind": self.kind,
            "similarity": self.similarity,
            **{f"max_{kind}_length": self.max_length(kind) for kind in self.sides},
            "prompts": self.prompts(),
            **self.settings_digests(),
        }

    def settings_digests(self) -> dict[str, Any]:
        """Fingerprints of the tokenizers and of the modules' settings, by text kind."""
        return {
            "tokenizer": {
                kind: tokenizer_digest(self._first(kind).tokenizer) for kind in self.sides
            },
            "modules": {kind: modules_digest(self.tower(kind)) for kind in self.sides},
        }

    def document_identity(self) -> dict[str, Any]:
        """All that determines the vectors of documents, and nothing of the query tower."""
        return self.tower_identity("document")

    def tower_identity(self, kind: TextKind) -> dict[str, Any]:
        """All that determines the vectors of the texts of a kind, and nothing of other towers.

        Queries and documents have the same identity if they go through the same modules in the
        same way.
        """
        return {
            "weights": self.weights_digest(kind),
            "modules": modules_digest(self.tower(kind)),
            "tokenizer": tokenizer_digest(self._first(kind).tokenizer),
            "prompt": self._prompt(kind) or "",
            "max_length": self.max_length(kind),
            "similarity": self.similarity,
            "dimension": self.dimension,
        }

    # -- tokens

    def _prompt(self, kind: TextKind) -> str | None:
        prompts = self.model.prompts
        names = ("query",) if kind == "query" else ("document", "passage", "corpus")
        known = (name for name in names if name in prompts)
        name = next(known, self.model.default_prompt_name)
        return prompts.get(name) if name else None

    def prompts(self) -> dict[str, str]:
        """The prompt of each kind of text; empty if there is none."""
        return {kind: self._prompt(kind) or "" for kind in self.sides}

    def tokenize(self, texts: Sequence[str], kind: TextKind) -> TokenColumns:
        """Token ids of each text, truncated and not padded: ``{"input_ids": [[...], ...], ...}``.

        Raises:
            ModelError: the model does not take plain text.
        """
        module = self._first(kind)
        inputs = module.modality_config
        if module.tokenizer is None or "text" not in inputs or "message" in inputs:
            raise ModelError(
                f"the model {self.source!r} takes no plain text; a {self.kind} student needs a text"
                " encoder."
            )
        prompt = self._prompt(kind) or ""
        coded = module.tokenizer(
            [with_prompt(prompt, text) for text in texts],
            truncation="longest_first",
            max_length=self.max_length(kind),
            padding=False,
        )
        self._count(coded, kind, module.tokenizer.num_special_tokens_to_add(kind == "pair"))
        return dict(coded)

    def _count(self, coded: Any, kind: TextKind, special: int) -> None:
        """Count how much of the tokenized texts the model does not read."""
        self.truncation.setdefault(kind, Truncation()).count(coded, self.max_length(kind), special)

    def pad(
        self,
        tokens: Mapping[str, Sequence[Any]],
        kind: TextKind,
        rows: Sequence[int] | np.ndarray | None = None,
        device: torch.device | None = None,
    ) -> dict[str, Any]:
        """Tensors for ``embed`` of tokenized texts, or of some rows, padded to the longest."""
        places = range(len(tokens["input_ids"])) if rows is None else rows
        chosen = [{key: values[int(row)] for key, values in tokens.items()} for row in places]
        return self.pad_rows(chosen, kind, device)

    def pad_rows(
        self, rows: Sequence[TokenRow], kind: TextKind, device: torch.device | None = None
    ) -> dict[str, Any]:
        """As ``pad``, of texts that come one by one, each as a mapping of its features."""
        first = self._first(kind)
        tokenizer = first.tokenizer
        fill = {
            "input_ids": tokenizer.pad_token_id,
            "token_type_ids": tokenizer.pad_token_type_id,
        }
        padded = pad_texts(rows, fill, left=tokenizer.padding_side == "left")
        features: dict[str, Any] = {
            key: value.to(device or self.device, non_blocking=True) for key, value in padded.items()
        }
        prompt = self._prompt(kind)
        if prompt and isinstance(first, Transformer):
            features["prompt_length"] = first._get_prompt_length(prompt)
        return features

    def saved_modules(self, model: Any = None) -> Iterator[tuple[nn.Module, str]]:
        """The modules, including those inside a router, and their folders in the saved model.

        A module that two routes share is saved once, in the folder of the first.

        Args:
            model: the model that is saved (default: this one).
        """
        for number, module in enumerate(self.model if model is None else model):
            in_root = number == 0 and getattr(module, "save_in_root", False)
            place = "" if in_root else f"{number}_{type(module).__name__}"
            if not isinstance(module, Router):
                yield module, place
                continue
            written: set[int] = set()
            for route, modules in module.sub_modules.items():
                for step, inner in enumerate(modules):
                    if id(inner) in written:
                        continue
                    written.add(id(inner))
                    name = f"{route}_{step}_{type(inner).__name__}"
                    yield inner, f"{place}/{name}".lstrip("/")


def with_prompt(prompt: str, text: Any) -> Any:
    """A text with a prompt in front; of a pair, the first text gets the prompt."""
    if not prompt:
        return text
    return prompt + text if isinstance(text, str) else (prompt + text[0], *text[1:])
