"""What kind of model a name stands for, read from the model's files."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Literal, get_args

from irdistill.errors import ModelError, OptionError
from irdistill.modeling.model_files import read_model_json

logger = logging.getLogger(__name__)

RetrieverType = Literal["dense", "sparse", "late-interaction"]
ModelKind = Literal["dense", "sparse", "late-interaction", "cross-encoder"]

RETRIEVER_TYPES: tuple[str, ...] = get_args(RetrieverType)
#: How a model can be read, as ``--kind`` and ``kind=`` name it.
MODEL_KINDS: tuple[str, ...] = get_args(ModelKind)

_SPARSE = {"SpladePooling", "SparseAutoEncoder", "SparseStaticEmbedding"}
_MASKED = "ForMaskedLM"


@dataclass(frozen=True)
class ModelDescription:
    """What the configuration files of a model say about it.

    Attributes:
        name: the name of the model.
        config: its config.json; empty if it has none.
        saved: its config_sentence_transformers.json; empty if it has none.
        has_modules: whether it has a modules.json.
        modules: the classes of its sentence-transformers modules, including those in a router.
    """

    name: str
    config: dict[str, Any]
    saved: dict[str, Any]
    has_modules: bool
    modules: frozenset[str]

    @property
    def architectures(self) -> list[str]:
        """The classes of transformers in its config.json."""
        return list(self.config.get("architectures") or [])

    @property
    def saved_as(self) -> str:
        """The class of sentence-transformers that saved it; empty if unknown."""
        return str(self.saved.get("model_type", ""))

    @property
    def default_prompt(self) -> str:
        """The prompt that sentence-transformers puts before every text; empty if there is none."""
        prompts = self.saved.get("prompts") or {}
        name = self.saved.get("default_prompt_name")
        return str(prompts.get(name) or "") if self.has_modules else ""

    @property
    def reads_pairs(self) -> bool:
        """Whether it is a cross-encoder, which has no vectors to search with."""
        classifier = self._has_architecture("ForSequenceClassification")
        return self.saved_as == "CrossEncoder" or (classifier and not self.modules)

    @property
    def retriever_type(self) -> RetrieverType:
        """How a retriever represents a text."""
        library, names = self.saved_as, self.architectures
        late = library in ("MultiVectorEncoder", "ColBERT") or "MultiVectorMask" in self.modules
        if late or "HF_ColBERT" in names:
            return "late-interaction"
        return "sparse" if library == "SparseEncoder" or self.modules & _SPARSE else "dense"

    @property
    def saved_kind(self) -> ModelKind | None:
        """The kind that its files state; None for a backbone, which can be read in several ways."""
        if self.reads_pairs:
            return "cross-encoder"
        kind = self.retriever_type
        return kind if kind != "dense" or self.modules else None

    @property
    def classifier_outputs(self) -> int | None:
        """The number of outputs of a trained classification head; None without a head."""
        if not self.reads_pairs:
            return None
        if "num_labels" in self.config:
            return int(self.config["num_labels"])
        labels = self.config.get("id2label") or self.config.get("label2id")
        return len(labels) if labels else 2  # the default of transformers

    def warn_of_masked_model(self) -> None:
        """Log that a masked language model without modules is read as a dense model."""
        if not self.modules and self._has_architecture(_MASKED):
            logger.warning(
                "the model %s is a %s without modules.json: its token vectors are averaged, as of a"
                " dense model. If it is a SPLADE model, give --kind sparse (kind='sparse' in Python"
                " and in recipes); --kind dense silences this warning.",
                self.name,
                self.architectures[0],
            )

    def check_kind(self, kind: str) -> None:
        """Refuse a kind as which the trained model cannot be read.

        Raises:
            OptionError: the kind is unknown.
            ModelError: it was saved as another kind, or lacks weights that the kind needs.
        """
        if kind not in MODEL_KINDS:
            raise OptionError(
                f"the kind {kind!r} of the model {self.name!r} is unknown; choose one of"
                f" {', '.join(MODEL_KINDS)}."
            )
        saved = self.saved_kind
        if saved is not None and saved != kind:
            raise ModelError(
                f"the model {self.name!r} was saved as a {saved} model, but kind {kind!r} was"
                f" given; leave out the kind, or give {saved}."
            )
        if saved is None and kind == "sparse" and not self._has_architecture(_MASKED):
            raise ModelError(
                f"kind 'sparse' was given, but the model {self.name!r} has no masked-language-model"
                f" head (its architecture is {', '.join(self.architectures) or 'not stated'}), so"
                " its term weights would be random. Give a SPLADE model."
            )
        if (
            saved is None
            and kind == "late-interaction"
            and not self._has_architecture("ForRetrieval")
        ):
            raise ModelError(
                f"kind 'late-interaction' was given, but the model {self.name!r} has no trained"
                " projection of its token vectors, which would be random. Give a model that was"
                " saved by sentence-transformers, PyLate or ColBERT."
            )

    def _has_architecture(self, ending: str) -> bool:
        return any(name.endswith(ending) for name in self.architectures)


def describe_model(model: str, revision: str | None = None) -> ModelDescription:
    """Read the configuration files of a model.

    Args:
        model: model folder, ``package:`` path or hub id.

    Raises:
        NotFoundError: there is no such model.
    """

    def read(name: str) -> Any:
        return read_model_json(model, name, revision)

    listed = read("modules.json")
    types = {str(module["type"]) for module in listed or []}
    if any(name.endswith(".Router") for name in types):
        routes: dict[str, Any] = read("router_config.json") or {}
        types |= {str(name) for name in routes.get("types", {}).values()}
    return ModelDescription(
        model,
        config=read("config.json") or {},
        saved=read("config_sentence_transformers.json") or {},
        has_modules=listed is not None,
        modules=frozenset(name.rpartition(".")[2] for name in types),
    )


def model_kind(model: str, kind: str | None = None, revision: str | None = None) -> ModelKind:
    """How a trained model is read: as ``kind``, or as its files say.

    A masked language model without modules of sentence-transformers may be SPLADE or an encoder
    with mean pooling, which its files do not say: it is read as dense, with a warning.

    Raises:
        OptionError: the kind is unknown.
        ModelError: the model was saved as another kind, or lacks weights that the kind needs.
    """
    description = describe_model(model, revision)
    if kind is not None:
        description.check_kind(kind)
        return kind  # type: ignore[return-value]
    if description.reads_pairs:
        return "cross-encoder"
    if description.retriever_type == "dense":
        description.warn_of_masked_model()
    return description.retriever_type
