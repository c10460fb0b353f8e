"""What all students have in common: towers, lengths, tokens, identity and saving, over a
sentence-transformers model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import xxhash
from sentence_transformers.base.modules import Router, Transformer
from torch import Tensor, nn

from irdistill.console.progress import ProgressCallback
from irdistill.errors import IrdistillError
from irdistill.losses.representations import BatchRepresentations
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.model_files import STUDENT_FILE, quiet_libraries
from irdistill.modeling.padding import TOKENLESS, TokenRow, pad_texts
from irdistill.modeling.truncation import Truncation
from irdistill.storage.files import read_json, write_json
from irdistill.students.fingerprints import modules_digest, tokenizer_digest
from irdistill.students.saving import check_saved, keep_tokenizer, staged_folder

Kind = Literal["query", "document", "pair"]
Tokens = dict[str, list[Any]]


def with_prompt(prompt: str, text: Any) -> Any:
    """A text, or a pair of texts, with a prompt in front; of a pair it stands before the first, as
    sentence-transformers has it.
    """
    if not prompt:
        return text
    return prompt + text if isinstance(text, str) else (prompt + text[0], *text[1:])


class Student(ABC):
    """A sentence-transformers model with what distillation needs: tokens, gradients, scores and an
    identity.

    Attributes:
        model: the sentence-transformers model, single or with a Router of a query and a document
            tower.
        source: the name it was built or loaded from.
        revision: hub commit, or digest of the weight files, of ``source``.
        kind: the name of this sort of student, as ``--student`` takes it.
        truncation: of each kind of text that was tokenized so far, how much the model did not read.
        sides: what it encodes: queries and documents apart, or pairs of both.
    """

    kind: ClassVar[str]
    sides: ClassVar[tuple[Kind, ...]] = ("query", "document")
    inputs: ClassVar[tuple[type[nn.Module], ...]] = (Transformer,)
    #: The fields of `irdistill.losses.BatchRepresentations` that it can fill.
    representation_names: ClassVar[frozenset[str]] = frozenset()
    #: Whether ``embed`` is to keep them, where scores alone would do without.
    keep_representations = False
    tokens_cpu: ClassVar[int] = 8192  # padded tokens in a batch of texts encoded without gradients
    tokens_gpu: ClassVar[int] = 65536
    #: Whether it has adapters (`irdistill.students.lora`) that are to be added to the weights it is
    #: saved with.
    merge_lora: bool = False

    def __init__(self, model: Any, source: str = "in memory", revision: str = "none") -> None:
        self.model = model
        self.source = source
        self.revision = revision
        self.truncation: dict[str, Truncation] = {}
        self._check_similarity()
        for kind in self.sides:
            first = type(self.tower(kind)[0])
            if not issubclass(first, self.inputs):
                raise IrdistillError(
                    f"the {kind} side of {source!r} begins with {first.__name__}; a {self.kind}"
                    " student needs a sentence-transformers Transformer module there."
                )

    def _check_similarity(self) -> None:  # noqa: B027
        """Refuse a model that compares vectors in another way than ``scores``."""

    # -- what a kind of student has of its own
    # ------------------------------------------------------------

    @property
    @abstractmethod
    def similarity(self) -> str:
        """How two texts are compared: ``cosine``, ``dot``, ``maxsim``, ``meanmaxsim`` or
        ``logit``.
        """

    def embed(self, features: Mapping[str, Any], kind: Kind) -> Any:
        """What the model makes of texts, with gradients; of a text without tokens a zero vector, or
        no vector of a token.

        Args:
            features: from ``pad`` (tensors) or from ``tokenize`` (lists).
        """
        if not isinstance(features["input_ids"], Tensor):
            features = self.pad(features, kind)
        tokenless = features.get(TOKENLESS)
        result = self._embed(
            {key: value for key, value in features.items() if key != TOKENLESS}, kind
        )
        if tokenless is None:
            return result
        if isinstance(result, Tensor):
            return result.masked_fill(tokenless.view(-1, *[1] * (result.dim() - 1)), 0.0)
        return [
            vectors[:0] if empty else vectors
            for vectors, empty in zip(result, tokenless.tolist(), strict=True)
        ]

    @abstractmethod
    def _embed(self, features: Mapping[str, Any], kind: Kind) -> Any:
        """As ``embed``, of padded texts that all have tokens."""

    def join(self, parts: Sequence[Any], order: Tensor) -> Any:
        """One result of several of ``embed``, in float32; ``order`` (n,) is the place of each text
        in the parts.
        """
        return torch.cat([part.float() for part in parts])[order]

    @abstractmethod
    def scores(
        self, queries: Any, documents: Any, index: Tensor, every: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """List scores (B, N) and, where ``every``, in-batch scores (B, U); in float32.

        Args:
            queries: of B queries, documents: of the batch's U unique documents, as ``join`` gives
                them.
            index: (B, N) place among the documents of each list entry; negative where a list is
                padded.
        """

    def representations(self, queries: Any, documents: Any) -> BatchRepresentations:
        """What ``join`` gives of queries and documents, as losses between representations see
        it.
        """
        raise IrdistillError(
            f"a {self.kind} student gives no representations to a loss; it gives scores."
        )

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: Kind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> Any:
        """What an index holds of documents and is asked with: inner products of it, or MaxSim, are
        the similarity.

        Args:
            done: is told how many texts were encoded, batch by batch.

        Returns:
            (n, D) float32 of a dense student, compressed sparse rows (n, V) of a sparse one, and of
            a late-interaction one a list of (tokens, D). Zeros, an empty row, or no token for a
            text without tokens.

        Raises:
            IrdistillError: the student reads pairs.
        """
        raise IrdistillError(
            f"a {self.kind} model has no vectors to search with; it can only rerank: irdistill"
            " score."
        )

    # -- saving
    # -------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write a folder that loads as the same model; files of other names that are there stay.

        Raises:
            IrdistillError: what would be written loads as another model, which is compared on some
                texts; nothing is written.
        """
        with staged_folder(path) as staged:
            self._write(staged)
            check_saved(self, staged)

    def _write(self, folder: Path) -> None:
        """Write the model as sentence-transformers does (safetensors), and which towers are
        frozen.
        """
        model = self.model
        if self.merge_lora:
            from irdistill.students.lora import merged

            model = merged(model)
        with quiet_libraries():
            model.save(str(folder), create_model_card=False)
            for module, place in self.saved_modules():
                if getattr(module, "tokenizer", None) is not None:
                    keep_tokenizer(module.tokenizer, folder / place)
        if isinstance(self.model[0], Router):
            frozen = [kind for kind in ("query", "document") if not self.learns(kind)]
            write_json(folder / STUDENT_FILE, {"frozen": frozen})

    def saved_modules(self) -> Iterator[tuple[nn.Module, str]]:
        """The modules, those inside a router among them, and where each lies within the saved
        folder.
        """
        for number, module in enumerate(self.model):
            place = (
                ""
                if number == 0 and getattr(module, "save_in_root", False)
                else f"{number}_{type(module).__name__}"
            )
            if isinstance(module, Router):
                for route, modules in module.sub_modules.items():
                    yield from (
                        (inner, f"{place}/{route}_{step}_{type(inner).__name__}".lstrip("/"))
                        for step, inner in enumerate(modules)
                    )
            else:
                yield module, place

    def restore_frozen(self) -> None:
        """Freeze again the towers that were frozen when the student was saved."""
        side = Path(self.source) / STUDENT_FILE
        if side.is_file():
            for kind in read_json(side).get("frozen", []):
                self._freeze(kind)

    def _freeze(self, kind: Kind) -> None:
        for module in self.tower(kind):
            module.requires_grad_(False)

    # -- what it is
    # -----------------------------------------------------------------------------------------

    def tower(self, kind: Kind) -> list[nn.Module]:
        """The modules that a query or a document goes through, in order."""
        first = self.model[0]
        if not isinstance(first, Router):
            return list(self.model)
        return [
            *first.sub_modules[first._resolve_route(task=kind, modality="text")],
            *list(self.model)[1:],
        ]

    def _first(self, kind: Kind) -> Any:
        """The module that takes the texts."""
        return self.tower(kind)[0]

    def _transformers(self, kind: Kind) -> list[Transformer]:
        return [module for module in self.tower(kind) if isinstance(module, Transformer)]

    @property
    def dimension(self) -> int:
        """The length of a vector: of a text, or of a token."""
        return int(self.model.get_embedding_dimension())

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        return next(self.model.parameters()).device

    def max_length(self, kind: Kind) -> int:
        """The number of tokens to which a text of this kind is truncated."""
        first = self._first(kind)
        own = first.query_length if kind == "query" else first.document_length
        return int(own or first.max_seq_length or 512)

    def size(self) -> dict[str, int]:
        """Parameters and layers of the query tower, parameters of the document tower and of both,
        the bytes.
        """

        def count(modules: Iterable[nn.Module]) -> int:
            return sum(
                p.numel() for p in {id(p): p for m in modules for p in m.parameters()}.values()
            )

        return {
            "query_parameters": count(self.tower("query")),
            "query_layers": sum(
                module.model.config.num_hidden_layers for module in self._transformers("query")
            ),
            "document_parameters": count(self.tower("document")),
            "parameters": count([self.model]),
            "bytes": sum(p.numel() * p.element_size() for p in self.model.parameters()),
        }

    def weights_digest(self, kind: Kind | None = None) -> str:
        """A fingerprint of the weights as they are now, whatever file they came from.

        Of one tower alone where ``kind`` is given: students that share a frozen document tower
            share its
        vectors and indexes.
        """
        modules = list(self.model) if kind is None else self.tower(kind)
        state = xxhash.xxh3_128()
        for place, module in enumerate(modules):
            for name, value in sorted(module.state_dict().items()):
                state.update(f"{place}.{name} {value.dtype} {tuple(value.shape)}".encode())
                state.update(
                    value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                )
        return state.hexdigest()[:16]

    def identity(self) -> dict[str, Any]:
        """What determines the scores; goes into manifests."""
        return {
            "model": self.source,
            "revision": self.revision,
            "weights": self.weights_digest(),
            "kind": self.kind,
            "similarity": self.similarity,
            **{f"max_{kind}_length": self.max_length(kind) for kind in self.sides},
            "prompts": {kind: self._prompt(kind) or "" for kind in self.sides},
            **self.settings_digests(),
        }

    def settings_digests(self) -> dict[str, Any]:
        """Fingerprints of the tokenizers and of the modules' settings, by side."""
        return {
            "tokenizer": {
                kind: tokenizer_digest(self._first(kind).tokenizer) for kind in self.sides
            },
            "modules": {kind: modules_digest(self.tower(kind)) for kind in self.sides},
        }

    def document_identity(self) -> dict[str, Any]:
        """What determines the vectors of documents: the document tower, and nothing of the query
        tower.
        """
        return {
            "weights": self.weights_digest("document"),
            "modules": modules_digest(self.tower("document")),
            "tokenizer": tokenizer_digest(self._first("document").tokenizer),
            "prompt": self._prompt("document") or "",
            "max_length": self.max_length("document"),
            "similarity": self.similarity,
            "dimension": self.dimension,
        }

    def train_parameters(self) -> list[nn.Parameter]:
        """The parameters that learn: all but the frozen ones."""
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @property
    def head(self) -> list[nn.Parameter]:
        """The parameters that no backbone brings and that may learn at a rate of their own; none,
        where there are no such.
        """
        return []

    def learns(self, kind: Kind) -> bool:
        """Whether a tower has a parameter that is not frozen."""
        return any(p.requires_grad for module in self.tower(kind) for p in module.parameters())

    # -- from texts to tensors
    # ------------------------------------------------------------------------------

    def _prompt(self, kind: Kind) -> str | None:
        names = [kind] if kind == "query" else ["document", "passage", "corpus"]
        name = next(
            (name for name in names if name in self.model.prompts), self.model.default_prompt_name
        )
        return self.model.prompts.get(name) if name else None

    def tokenize(self, texts: Sequence[str], kind: Kind) -> Tokens:
        """Token ids of each text, truncated and not padded: ``{"input_ids": [[...], ...],
        ...}``.
        """
        module = self._first(kind)
        inputs = module.modality_config
        if module.tokenizer is None or "text" not in inputs or "message" in inputs:
            raise IrdistillError(
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

    def _count(self, coded: Any, kind: Kind, special: int) -> None:
        """Count what of the tokenized texts the model does not read."""
        self.truncation.setdefault(kind, Truncation()).count(coded, self.max_length(kind), special)

    def pad(
        self,
        tokens: Mapping[str, Sequence[Any]],
        kind: Kind,
        rows: Sequence[int] | np.ndarray | None = None,
        device: torch.device | None = None,
    ) -> dict[str, Any]:
        """Tensors for ``embed``, of all tokenised texts or of some rows, padded to the longest of
        them.
        """
        places = range(len(tokens["input_ids"])) if rows is None else rows
        chosen = [{key: values[int(row)] for key, values in tokens.items()} for row in places]
        return self.pad_rows(chosen, kind, device)

    def pad_rows(
        self, rows: Sequence[TokenRow], kind: Kind, device: torch.device | None = None
    ) -> dict[str, Any]:
        """As ``pad``, of texts that are given one by one, each as its features by name."""
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
