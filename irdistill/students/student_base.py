"""The base class of students: a sentence-transformers model with what distillation needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from torch import Tensor, nn

from irdistill.console.progress_bars import ProgressCallback
from irdistill.errors import IrdistillError, ModelError, OptionError
from irdistill.losses.representations import BatchRepresentations
from irdistill.modeling.batching import TokenBudget
from irdistill.modeling.hardware import Precision
from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.model_files import STUDENT_FILE
from irdistill.modeling.model_revisions import model_revision
from irdistill.modeling.padding import TOKENLESS
from irdistill.modeling.truncation import Truncation
from irdistill.storage.files import read_json, write_json
from irdistill.students.keep_report import KeepReport
from irdistill.students.lora import add_adapters, merge_adapters
from irdistill.students.model_code import carry_code
from irdistill.students.saving import (
    PROBES,
    check_folder,
    compare_behavior,
    keep_tokenizer,
    staged_folder,
)
from irdistill.students.student_loading import load_encoder
from irdistill.students.student_options import (
    StudentOptions,
    check_student_options,
    constructor_signature,
)
from irdistill.students.tower_model import TextKind, TowerModel
from irdistill.students.towers import (
    separate_towers,
    set_lengths,
    share_equal_modules,
    shared_modules,
)

#: Options that a saved student takes without being built again.
_KEPT_ARCHITECTURE = {"max_length", "max_query_length", "trust_remote_code"}


class Shortened(NamedTuple):
    """How a model makes its vectors of those of another model.

    Attributes:
        model: the other model.
        shorten: maps its vectors (n, D) of texts, as an index has them, to those of this model.
    """

    model: Student
    shorten: Callable[[np.ndarray], np.ndarray]


class Student(TowerModel, ABC):
    """A model to be trained: tokens, gradients, scores and an identity.

    Args:
        backbone: model folder, ``package:`` path or hub id. A saved student of this kind keeps its
            towers, its head and what was frozen, unless an option changes its architecture.
        device: where the model runs (default: the best device).
        seed: seed of new weights.
        options: fields of `StudentOptions` that this kind has.

    Raises:
        OptionError: an option is unknown or does not fit the backbone.
        ModelError: the backbone cannot be loaded.
    """

    #: The class of sentence-transformers that opens the saved model.
    library: ClassVar[Any] = SentenceTransformer
    #: Modules that may take the texts.
    inputs: ClassVar[tuple[type[nn.Module], ...]] = (Transformer,)
    #: The fields of `irdistill.losses.BatchRepresentations` that it can fill.
    representation_names: ClassVar[frozenset[str]] = frozenset()
    #: Padded tokens of a batch that is encoded without gradients.
    tokens_cpu: ClassVar[int] = 8192
    tokens_gpu: ClassVar[int] = 65536
    #: Whether ``embed`` also returns representations that scores alone do not need.
    keep_representations = False
    #: Whether adapters are added to the weights when the model is saved.
    merge_lora = False
    #: The verdict of a training with ``keep`` that made it.
    keep_report: KeepReport | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__:  # for help() and completion
            cls.__signature__ = constructor_signature(cls.kind)  # type: ignore[attr-defined]

    def __init__(
        self,
        backbone: str | Path,
        *,
        device: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        settings = check_student_options(self.kind, options)
        name = str(backbone)
        if self._is_saved_student(name) and self._keeps(settings):
            saved = type(self).load(
                name,
                revision=settings.revision,
                trust_remote_code=settings.trust_remote_code,
                device=device,
            )
            self.__dict__.update(saved.__dict__)
            self._apply_to_saved(settings)
        else:
            self._build(name, settings, device, seed)
        if settings.lora_rank is not None:
            networks = [
                module.model
                for kind in self.sides
                if self.learns(kind)
                for module in self._transformers(kind)
            ]
            add_adapters(networks, settings, seed)
            self.merge_lora = settings.lora_merge

    @classmethod
    def from_model(cls, model: Any, source: str = "in memory", revision: str = "none") -> Self:
        """A student around a loaded model of sentence-transformers."""
        student = cls.__new__(cls)
        student._set_model(model, source, revision)
        return student

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        revision: str | None = None,
        trust_remote_code: bool = False,
        device: str | None = None,
    ) -> Self:
        """Open a saved student, or a model of sentence-transformers of the same kind.

        Raises:
            ModelError: it cannot be loaded, or is of another kind.
        """
        name = str(model)
        opened = cls._open(name, revision, trust_remote_code, device)
        student = cls.from_model(opened, name, model_revision(name, revision))
        saved = Path(name) / STUDENT_FILE
        if saved.is_file():
            frozen = read_json(saved).get("frozen", [])
            if "query" not in frozen and shared_modules(opened):
                student._set_model(separate_towers(opened), name, student.revision)
            for kind in frozen:
                student._freeze(kind)
        return student

    @classmethod
    def _open(
        cls, name: str, revision: str | None, trust_remote_code: bool, device: str | None
    ) -> Any:
        return load_encoder(
            name,
            revision=revision,
            trust_remote_code=trust_remote_code,
            device=device,
            library=cls.library,
        )

    def _set_model(self, model: Any, source: str, revision: str) -> None:
        self.model, self.source, self.revision = model, source, revision
        self.truncation: dict[str, Truncation] = {}
        self._check_model()
        for kind in self.sides:
            first = type(self.tower(kind)[0])
            if not issubclass(first, self.inputs):
                raise ModelError(
                    f"the {kind} side of {source!r} begins with {first.__name__}; a {self.kind}"
                    " student needs a sentence-transformers Transformer module there."
                )

    def _check_model(self) -> None:
        """Refuse a model that this kind of student cannot use."""

    @abstractmethod
    def _build(self, backbone: str, options: StudentOptions, device: str | None, seed: int) -> None:
        """Make the model out of a backbone and set it."""

    @classmethod
    def _is_saved_student(cls, name: str) -> bool:
        """Whether the backbone has a head of this kind, which ``_build`` would replace."""
        return False

    def _keeps(self, options: StudentOptions) -> bool:
        """Whether a saved student goes on as it is with these options."""
        changed = {name for name in options.changed() if not name.startswith("lora_")}
        return changed <= _KEPT_ARCHITECTURE

    def _apply_to_saved(self, options: StudentOptions) -> None:
        queries = self._transformers("query")
        if options.max_query_length is not None and not queries:
            raise OptionError(
                f"max_query_length={options.max_query_length}: {self.source!r} has no query model,"
                " so the query length is fixed; leave out max_query_length."
            )
        set_lengths(
            queries, self._transformers("document"), options.max_length, options.max_query_length
        )

    # -- vectors and scores

    def embed(self, features: Mapping[str, Any], kind: TextKind) -> Any:
        """Encode texts with gradients. A text without tokens gets a zero vector, or no vectors.

        Args:
            features: from ``pad`` (tensors) or from ``tokenize`` (lists).
        """
        if not isinstance(features["input_ids"], Tensor):
            features = self.pad(features, kind)
        tokenless = features.get(TOKENLESS)
        inputs = {key: value for key, value in features.items() if key != TOKENLESS}
        result = self._embed(inputs, kind)
        if tokenless is None:
            return result
        if isinstance(result, Tensor):
            return result.masked_fill(tokenless.view(-1, *[1] * (result.dim() - 1)), 0.0)
        return [
            vectors[:0] if empty else vectors
            for vectors, empty in zip(result, tokenless.tolist(), strict=True)
        ]

    @abstractmethod
    def _embed(self, features: Mapping[str, Any], kind: TextKind) -> Any:
        """As ``embed``, for padded texts that all have tokens."""

    def join(self, parts: Sequence[Any], order: Tensor) -> Any:
        """Concatenate results of ``embed`` in float32.

        Args:
            order: (n,) the place of each text in the concatenated parts.
        """
        return torch.cat([part.float() for part in parts])[order]

    @abstractmethod
    def scores(
        self, queries: Any, documents: Any, index: Tensor, every: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """List scores (B, N) and, if ``every``, in-batch scores (B, U); in float32.

        Args:
            queries: encoded queries, from ``join``.
            documents: the batch's U unique encoded documents, from ``join``.
            index: (B, N) the document of each list entry; negative on padding.
        """

    def representations(self, queries: Any, documents: Any) -> BatchRepresentations:
        """The vectors of a batch from ``join``, for losses that compare representations."""
        raise OptionError(f"a {self.kind} student has no representations, only scores.")

    def search_vectors(
        self,
        texts: Sequence[str],
        kind: TextKind,
        precision: Precision = "auto",
        budget: int | TokenBudget | None = None,
        done: ProgressCallback | None = None,
    ) -> Any:
        """Vectors for an index: their inner product, or MaxSim, is the similarity.

        Args:
            done: called with the number of encoded texts after each batch.

        Returns:
            (n, D) float32 (dense), sparse rows (n, V) (sparse), or a list of (tokens, D) (late
            interaction). A text without tokens gets zeros, an empty row, or no token.

        Raises:
            OptionError: the student can only rerank.
        """
        raise OptionError(
            f"a {self.kind} model has no vectors to search with; it can only rerank: irdistill"
            " score."
        )

    def longer_model(self, kind: TextKind) -> Shortened | None:
        """A model with longer vectors of which this model's are a function; None without one.

        A store of its vectors serves models that differ in their last linear layer or dimension.
        """
        return None

    # -- saving

    def save(self, path: str | Path) -> None:
        """Save the model to a folder. Other files in the folder stay.

        Raises:
            ModelError: the saved model would load as another model; nothing is written.
        """
        with staged_folder(path) as staged:
            self._write(staged)
            self.check_saved(staged)

    def check_saving(self, beside: Path) -> None:
        """Save to a temporary folder and compare, before time is spent on training.

        Args:
            beside: the folder in which the temporary one is made.

        Raises:
            ModelError: the saved model would load as another model.
        """
        with check_folder(beside) as folder:
            self._write(folder)
            self.check_saved(folder)

    def check_saved(self, folder: Path) -> None:
        """Open a saved folder and compare its model with this one.

        Raises:
            ModelError: they differ, or the folder cannot be opened.
        """
        trust = bool(getattr(self.model, "trust_remote_code", False))
        try:
            saved = type(self).load(str(folder), device=str(self.device), trust_remote_code=trust)
        except IrdistillError as error:
            raise ModelError(
                f"the {self.kind} student cannot be saved, because it does not load again: {error}"
            ) from error
        compare_behavior(self._behavior(), saved._behavior(), f"{self.kind} student", self.source)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.source)!r})"

    @torch.no_grad()
    def _behavior(self) -> dict[str, Any]:
        """Settings, tokens of the probe texts, and numbers computed from them, by name."""
        pairs = "pair" in self.sides
        facts: dict[str, Any] = {"similarity": self.similarity}
        if not pairs:
            facts["dimension"] = self.dimension
        kept, training = self.keep_representations, self.model.training
        self.keep_representations = False
        self.model.eval()
        try:
            encoded: dict[str, Any] = {}
            for kind in self.sides:
                texts: Any = [(PROBES[0], text) for text in PROBES] if pairs else list(PROBES)
                tokens = self.tokenize(texts, kind)
                facts[f"{kind} length"] = self.max_length(kind)
                facts[f"{kind} prompt"] = self._prompt(kind) or ""
                facts |= {
                    f"tokens of the {kind} {text[:40]!r}": ids
                    for text, ids in zip(PROBES, tokens["input_ids"], strict=True)
                }
                # the last probe is for the tokens alone; it takes longer than the others together
                short = range(len(PROBES) - 1)
                order = torch.tensor(short, device=self.device)
                encoded[kind] = self.join([self.embed(self.pad(tokens, kind, short), kind)], order)
            outputs = [
                value
                for side in encoded.values()
                for value in (side if isinstance(side, list) else [side])
            ]
            if not pairs:
                index = order.expand(len(order), -1)
                scores, _ = self.scores(encoded["query"], encoded["document"], index, every=False)
                outputs.append(scores)
            return facts | {"numbers": [value.float().cpu() for value in outputs]}
        finally:
            self.keep_representations = kept
            self.model.train(training)

    def _write(self, folder: Path) -> None:
        """Write the model as sentence-transformers does, and which towers are frozen."""
        model = merge_adapters(self.model) if self.merge_lora else self.model
        model = share_equal_modules(model)
        with quiet_libraries():
            model.save(str(folder), create_model_card=False)
            for module, place in self.saved_modules(model):
                if getattr(module, "tokenizer", None) is not None:
                    keep_tokenizer(module.tokenizer, folder / place)
        carry_code(folder)
        if isinstance(self.model[0], Router):
            frozen = [kind for kind in self.sides if not self.learns(kind)]
            write_json(folder / STUDENT_FILE, {"frozen": frozen})
