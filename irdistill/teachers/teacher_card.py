"""Teacher cards: the YAML files in ``teachers/``."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from irdistill.card_files import card_names, find_card
from irdistill.errors import InputError, IrdistillError, NotFoundError
from irdistill.storage.plain_data import check_values, read_yaml
from irdistill.students.model_kinds import RETRIEVER_TYPES
from irdistill.teachers.function_teacher import is_reference
from irdistill.teachers.teacher_kinds import kind_of

LLM_KINDS = ("llm-pointwise", "llm-pairwise", "llm-listwise")
HOSTED_KINDS = ("hosted-reranker", "hosted-embedder")
KINDS = (
    "cross-encoder",
    "seq2seq",
    "causal",
    "retriever",
    *RETRIEVER_TYPES,
    "interaction",
    "bm25",
    "function",
    *LLM_KINDS,
    *HOSTED_KINDS,
)
BACKENDS = ("transformers", "vllm", "openai")


@dataclass(frozen=True)
class TeacherCard:
    """A teacher as its card declares it.

    Attributes:
        kind: ``cross-encoder``, ``seq2seq``, ``causal``, ``retriever`` (or ``dense``, ``sparse``,
            ``late-interaction`` if the model's files do not say which), ``interaction``, ``bm25``,
            ``function``, ``llm-pointwise``, ``llm-pairwise``, ``llm-listwise``,
            ``hosted-reranker`` or ``hosted-embedder``.
        model: hub id, folder, ``package:`` path, or ``module:function``.
        revision: commit, tag or branch of a hub model.
        settings: keyword arguments of the teacher's class (``max_length``, ``precision``, …).
        backend: what runs a language model: ``transformers``, ``vllm``, or ``openai`` for any
            server with that interface.
        prompt: prompt templates of a language model, by name.
        server: settings of the back end ``openai`` and of hosted models: ``url``, ``key`` (name of
            the environment variable that holds the key), ``prices``, …
        license: license of the model.
        source: where the model was published.
        published: figures that the model's authors report.
    """

    name: str
    kind: str
    model: str = ""
    revision: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    backend: str = ""
    prompt: dict[str, Any] = field(default_factory=dict)
    server: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    license: str = ""
    source: str = ""
    published: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(
                f"the teacher card {self.name!r} has the unknown kind {self.kind!r}. Use one of"
                f" {', '.join(KINDS)}."
            )
        if self.kind != "bm25" and not self.model:
            raise InputError(
                f"the teacher card {self.name!r} has no model. Add a line `model: …` with a hub"
                " id, a folder or a package: path."
            )
        if self.kind in LLM_KINDS:
            if self.backend not in BACKENDS:
                raise InputError(
                    f"the teacher card {self.name!r} has the unknown back end {self.backend!r}."
                    f" A language model needs one of {', '.join(BACKENDS)}."
                )
        elif self.kind in HOSTED_KINDS:
            if self.backend or self.prompt or not self.server:
                raise InputError(
                    f"the teacher card {self.name!r} of the kind {self.kind} needs a server, and"
                    " has no back end and no prompt. Add server: {url: …, shape: …}, and remove"
                    " them."
                )
        elif self.backend or self.prompt or self.server:
            raise InputError(
                f"the teacher card {self.name!r} has a back end, a prompt or a server, which only"
                " models behind a server and language models use. Remove them, or set kind to one"
                f" of {', '.join((*LLM_KINDS, *HOSTED_KINDS))}."
            )


def read_card(name: str) -> TeacherCard:
    """Read a card by name or path.

    Examples:
        >>> read_card("minilm").kind
        'retriever'
    """
    path = find_card("teachers", name)
    data = read_yaml(path, "teacher card")
    known = [entry.name for entry in fields(TeacherCard)]
    unknown = sorted(set(data) - set(known))
    if unknown or "kind" not in data:
        problem = f"has the unknown keys {', '.join(unknown)}" if unknown else "lacks the key kind"
        raise InputError(f"the teacher card {path} {problem}. Known keys: {', '.join(known)}.")
    check_values(data, TeacherCard, f"the teacher card {path}")
    return TeacherCard(**{"name": path.stem, **data})


def card_of(teacher: str, kind: str | None = None, revision: str | None = None) -> TeacherCard:
    """Return the card of a teacher; a model without a card gets one derived from its files.

    Args:
        teacher: name or path of a card, ``bm25``, ``module:function``, or a model.
    """
    try:
        return read_card(teacher)
    except IrdistillError:
        if teacher.endswith((".yaml", ".yml")) or _is_card(teacher):
            raise
    if not teacher.strip():
        raise NotFoundError(
            "the teacher's name is empty. Give a card, bm25, a model or module:function."
            f" {card_names('', 'teachers')}"
        )
    if is_reference(teacher):
        return TeacherCard(teacher, "function", teacher)
    if kind or teacher == "bm25":
        return TeacherCard(teacher, kind or "bm25", teacher)
    try:
        return TeacherCard(teacher, kind_of(teacher, revision), teacher)
    except IrdistillError as error:
        if "/" in teacher or Path(teacher).exists():
            raise
        # A misspelled card, or one of the few hub models whose id has no owner.
        raise NotFoundError(
            f"there is no teacher {teacher!r}: no card and no model has this name."
            f" {card_names(teacher, 'teachers')} Give a model as a folder, package: path or hub"
            " id."
        ) from error


def _is_card(teacher: str) -> bool:
    try:
        return find_card("teachers", teacher).is_file()
    except IrdistillError:
        return False
