"""Options of students: one declaration for Python, the command line, recipes and the docs."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field

from irdistill.errors import OptionError

#: The kinds of students, as ``--student`` and recipes name them.
KINDS = ("dense", "sparse", "late-interaction", "cross-encoder", "split-cross-encoder", "kernel")

Layers = int | Sequence[int]
Similarity = Literal["cosine", "dot"]
PairHead = Literal["classifier", "similarity"]
Activation = Literal["relu", "log1p_relu"]
Pooling = Literal["mean", "cls", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens"]


@dataclass(frozen=True)
class OnlyFor:
    """Metadata of an option that not all kinds of students have."""

    kinds: tuple[str, ...]


_DENSE = OnlyFor(("dense",))
_PAIRS = OnlyFor(("cross-encoder",))
_SPARSE = OnlyFor(("sparse",))
_LATE = OnlyFor(("late-interaction",))
_SPLIT = OnlyFor(("split-cross-encoder",))
_TWO_TOWERS = OnlyFor(("dense", "sparse", "late-interaction"))
_QUERIES = OnlyFor(("dense", "sparse", "late-interaction", "split-cross-encoder", "kernel"))
_TOKENS = OnlyFor(("late-interaction", "split-cross-encoder", "kernel"))
_LORA = OnlyFor(("dense", "sparse", "late-interaction", "cross-encoder"))


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """How a student is built from its backbone.

    A description names the kinds of students that have the option, unless all have it. Values are
    checked by `check_student_options` and by the constructors of the students.

    Examples:
        >>> StudentOptions(layers=2).changed()
        {'layers': 2}
    """

    layers: Annotated[
        Layers | None,
        Field(
            description="Encoder layers to keep: a number (evenly spaced, with the first and the"
            " last) or a list of layer numbers. Kernel students: layers of the context (default 2)."
        ),
    ] = None
    max_length: Annotated[
        int | None,
        Field(
            ge=1,
            description="Truncate texts to this many tokens (default: the backbone's limit; kernel"
            " students: 200).",
        ),
    ] = None
    max_query_length: Annotated[
        int | None,
        Field(
            ge=1,
            description="Truncate queries to this many tokens (default: max_length;"
            " split cross-encoder: 32; kernel: 30).",
        ),
        _QUERIES,
    ] = None
    query_layers: Annotated[
        Layers | None,
        Field(
            description="Give queries a separate tower, a copy of the backbone with these layers;"
            " the document tower is frozen. Dense students: 0 is a vector for each token, without a"
            " transformer."
        ),
        _TWO_TOWERS,
    ] = None
    freeze_documents: Annotated[
        bool,
        Field(
            description="Freeze the document tower. Documents are encoded once and stored."
            " Without query_layers the query tower is a full copy."
        ),
        _TWO_TOWERS,
    ] = False
    query_backbone: Annotated[
        str | None,
        Field(
            description="Another, smaller model as the query tower; the document tower is frozen."
        ),
        _TWO_TOWERS,
    ] = None
    pooling: Annotated[
        Pooling | None,
        Field(
            description="How token vectors become one vector (default: the backbone's, else mean)."
        ),
        _DENSE,
    ] = None
    similarity: Annotated[
        Similarity | None,
        Field(description="How vectors are compared (default: the backbone's, else cosine)."),
        _DENSE,
    ] = None
    query_prompt: Annotated[
        str | None,
        Field(description='Text put before each query, such as "query: ".'),
        _DENSE,
    ] = None
    document_prompt: Annotated[
        str | None, Field(description="Text put before each document."), _DENSE
    ] = None
    inference_free: Annotated[
        bool,
        Field(description="Replace the query tower by one learned weight for each token."),
        _SPARSE,
    ] = False
    activation: Annotated[
        Activation | None,
        Field(
            description="How a logit x becomes a weight: relu is log(1 + relu(x)), log1p_relu is"
            " log(1 + log(1 + relu(x))) (Shen et al. 2025, arXiv:2504.14839). Default: the"
            " backbone's, else relu."
        ),
        _SPARSE,
    ] = None
    dimension: Annotated[
        int | None,
        Field(
            ge=1,
            description="Size of a token vector. Late interaction: size of the new projection"
            " (default 128). Split cross-encoder: size to which stored states are compressed"
            " (default: not compressed). Kernel: size of new random word embeddings (default: the"
            " backbone's embeddings).",
        ),
        _TOKENS,
    ] = None
    expand_queries: Annotated[
        int | None,
        Field(
            ge=3,
            description="Fill queries up to this many tokens with mask tokens (32 in ColBERT).",
        ),
        _LATE,
    ] = None
    mask_punctuation: Annotated[
        bool, Field(description="Leave the punctuation of documents out of the score."), _LATE
    ] = True
    token_pooling: Annotated[
        float | None,
        Field(
            ge=1,
            description="Keep one in this many token vectors of a document, as means of clusters.",
        ),
        _LATE,
    ] = None
    split_layer: Annotated[
        int | None,
        Field(
            ge=0,
            description="Lower layers in which query and document are read separately (default 3,"
            " or all but the last of a smaller backbone).",
        ),
        _SPLIT,
    ] = None
    head: Annotated[
        PairHead | None,
        Field(
            description="How a pair's score is read from its states: classifier (new layers on the"
            " first token) or similarity (begins as the similarity of both texts, for encoders of"
            " texts). Default: the backbone's head, else classifier."
        ),
        _PAIRS,
    ] = None
    lora_rank: Annotated[
        int | None,
        Field(ge=1, description="Train low-rank adapters of this rank, not the backbone."),
        _LORA,
    ] = None
    lora_alpha: Annotated[
        float | None,
        Field(gt=0, description="Scale of the adapters (default: twice lora_rank)."),
        _LORA,
    ] = None
    lora_targets: Annotated[
        str | Sequence[str],
        Field(description="Layers with adapters: all-linear, or the ends of their names."),
        _LORA,
    ] = "all-linear"
    lora_merge: Annotated[
        bool,
        Field(description="Add the adapters to the weights when the model is saved."),
        _LORA,
    ] = True
    revision: Annotated[
        str | None, Field(description="Revision of the backbone on the Hugging Face Hub.")
    ] = None
    trust_remote_code: Annotated[
        bool, Field(description="Run code that comes with the backbone.")
    ] = False

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }


#: The names of all options, for those who split mixed settings.
OPTION_NAMES = tuple(field.name for field in dataclasses.fields(StudentOptions))


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(StudentOptions, include_extras=True)


def option_kinds(name: str) -> tuple[str, ...]:
    """The kinds of students that have an option.

    Examples:
        >>> option_kinds("pooling")
        ('dense',)
    """
    limits = [entry for entry in _hints()[name].__metadata__ if isinstance(entry, OnlyFor)]
    return limits[0].kinds if limits else KINDS


def options_of(kind: str) -> tuple[str, ...]:
    """The names of the options of a kind of students.

    Raises:
        OptionError: the kind is unknown.
    """
    if kind not in KINDS:
        raise OptionError(f"the student {kind!r} is unknown; choose one of {', '.join(KINDS)}.")
    return tuple(name for name in OPTION_NAMES if kind in option_kinds(name))


def check_student_options(kind: str, options: Mapping[str, Any]) -> StudentOptions:
    """Check the options of a student before a model is loaded. None stands for the default.

    Raises:
        OptionError: the kind is unknown, does not have the option, or the value is not allowed.

    Examples:
        >>> check_student_options("kernel", {"layers": 3}).layers
        3
    """
    known = options_of(kind)
    defaults = StudentOptions()
    values = {name: value for name, value in options.items() if value is not None}
    for name, value in values.items():
        if name in known:
            _check(name, value)
        elif name not in OPTION_NAMES or value != getattr(defaults, name):
            raise OptionError(
                f"a {kind} student has no option {name}={value!r}; its options are"
                f" {', '.join(known)}."
            )
    checked = StudentOptions(**values)
    lora = [name for name in checked.changed() if name.startswith("lora_")]
    if lora and checked.lora_rank is None:
        raise OptionError(f"{lora[0]} needs lora_rank, which turns adapters on; add lora_rank=8.")
    return checked


def _check(name: str, value: Any) -> None:
    from pydantic import ConfigDict, TypeAdapter, ValidationError

    adapter = TypeAdapter(_hints()[name], config=ConfigDict(strict=True))
    try:
        adapter.validate_python(value)
    except ValidationError as error:
        messages = dict.fromkeys(entry["msg"] for entry in error.errors(include_url=False))
        expected = " or ".join(messages).replace("Input should be", "expected")
        raise OptionError(f"{name}={value!r} is not allowed: {expected}.") from error


def constructor_signature(kind: str) -> inspect.Signature:
    """The signature of a student's constructor, with the options of its kind."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    hints = get_type_hints(StudentOptions)
    options = [
        inspect.Parameter(
            name, keyword, default=getattr(StudentOptions, name), annotation=hints[name]
        )
        for name in options_of(kind)
    ]
    return inspect.Signature(
        [
            inspect.Parameter("backbone", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *options,
            inspect.Parameter("device", keyword, default=None),
            inspect.Parameter("seed", keyword, default=0),
        ]
    )
