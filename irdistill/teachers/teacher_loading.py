"""Teacher cards, and making a teacher from a card or a model's name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from typing import Any

from irdistill.card_files import card_names, find_card
from irdistill.collections import Corpus
from irdistill.errors import IrdistillError
from irdistill.storage.plain_data import check_values, read_yaml
from irdistill.students.model_kinds import RETRIEVER_TYPES
from irdistill.teachers.protocol import BatchTeacher, ListwiseTeacher, Teacher
from irdistill.teachers.teacher_kinds import kind_of

#: Kinds: the module of this package, and what in it makes the teacher. It takes settings as
#: keyword-only arguments.
_TEACHERS = {
    "cross-encoder": ("cross_encoder_teacher", "CrossEncoderTeacher"),
    "seq2seq": ("seq2seq_teacher", "Seq2SeqTeacher"),
    "causal": ("causal_teacher", "CausalTeacher"),
    "retriever": ("retriever_teacher", "load_retriever"),
    "interaction": ("interaction_teacher", "load_interaction"),
    "bm25": ("bm25_teacher", "BM25Teacher"),
    **dict.fromkeys(RETRIEVER_TYPES, ("retriever_teacher", "load_retriever")),
}
_KEEP_DOCUMENTS = ("retriever", *RETRIEVER_TYPES, "interaction")
LLM_KINDS = ("llm-pointwise", "llm-pairwise", "llm-listwise")
KINDS = (*_TEACHERS, *LLM_KINDS)
BACKENDS = ("transformers", "vllm", "openai")


@dataclass(frozen=True)
class TeacherCard:
    """A declaration of a teacher, one YAML file in ``teachers/``.

    Attributes:
        kind: ``cross-encoder``, ``seq2seq``, ``causal``, ``retriever`` (``dense``, ``sparse`` or
            ``late-interaction`` where its files do not say which), ``interaction``, ``bm25``,
            ``llm-pointwise``, ``llm-pairwise`` or ``llm-listwise``.
        model, revision: hub id, folder or ``package:`` path, and what pins it.
        settings: ``max_length``, ``precision``, ``label`` …, as the teacher's class takes them.
        backend: what runs a language model: ``transformers``, ``vllm``, or ``openai`` for any
            server with that interface.
        prompt: of a language model: templates by name, as the kind's class takes them.
        server: of the back end ``openai``: ``url``, ``key`` (the name of the environment variable
            that holds it), ``prices``.
        licence, source, published: of the model; the figure its authors give.
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
    licence: str = ""
    source: str = ""
    published: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise IrdistillError(
                f"the teacher card {self.name!r} has the kind {self.kind!r}; one of"
                f" {', '.join(KINDS)} was expected."
            )
        if self.kind != "bm25" and not self.model:
            raise IrdistillError(
                f"the teacher card {self.name!r} names no model; add a line model: …."
            )
        if (
            (self.backend not in BACKENDS)
            if self.kind in LLM_KINDS
            else (self.backend or self.prompt or self.server)
        ):
            raise IrdistillError(
                f"the teacher card {self.name!r} of kind {self.kind} has the back end"
                f" {self.backend!r}; a language model needs one of {', '.join(BACKENDS)}, and other"
                " kinds have no back end, prompt or server in their cards."
            )


def read_card(name: str) -> TeacherCard:
    """Read a card by name or path.

    Raises:
        IrdistillError: there is none, it is no YAML mapping, or it has unknown keys.
    """
    path = find_card("teachers", name)
    data = read_yaml(path, "teacher card")
    known = [entry.name for entry in fields(TeacherCard)]
    unknown = sorted(set(data) - set(known))
    if unknown or "kind" not in data:
        raise IrdistillError(
            f"the teacher card {path}"
            f" {'has the unknown keys ' + ', '.join(unknown) if unknown else 'lacks kind'}; known"
            f" keys: {', '.join(known)}."
        )
    check_values(data, TeacherCard, f"the teacher card {path}")
    named: dict[str, Any] = {"name": path.stem} | data
    return TeacherCard(**named)


def load_teacher(
    teacher: str,
    corpus: Corpus,
    *,
    kind: str | None = None,
    work: Path | None = None,
    responses: Path | None = None,
    **settings: Any,
) -> Teacher | BatchTeacher | ListwiseTeacher:
    """Make a teacher.

    Args:
        teacher: a card's name or path, ``bm25``, or a model (folder, ``package:`` path, hub id).
        corpus: what it is to score; retrievers and BM25 keep an index of it.
        kind: for a model without a card; else it is told from the model's own files.
        work: where vectors and indexes are kept; the cache folder where None.
        responses: the file in which the answers of a model behind a server are kept, unless the
            settings name another (``log``); other teachers have none.
        settings: override the card's; None leaves it as it is.

    Raises:
        IrdistillError: no such card or model, or a setting that the teacher does not know.
    """
    card = card_of(teacher, kind, settings.get("revision"))
    options = card.settings | {key: value for key, value in settings.items() if value is not None}
    if card.kind in LLM_KINDS:
        from irdistill.teachers.llm.llm_loading import load_llm_teacher

        if card.backend == "openai" and responses is not None:
            options = {"log": responses} | options
        return load_llm_teacher(card, options)
    make = _maker(card.kind)
    known = known_settings(card.kind)
    unknown = sorted(set(options) - known)
    if unknown:
        raise IrdistillError(
            f"a teacher of kind {card.kind} takes {', '.join(sorted(known))}, and was given"
            f" {', '.join(unknown)}."
        )
    check_values(options, make, f"the settings of the teacher {card.name!r}", free=True)
    if card.kind == "bm25":
        found: Teacher = make(corpus, cache=work, **options)
        return found
    if card.kind in RETRIEVER_TYPES:
        if options.setdefault("type", card.kind) not in ("auto", card.kind):
            raise IrdistillError(
                f"kind {card.kind} and type {options['type']} were both given for {teacher!r}; give"
                " one of them."
            )
        options["type"] = card.kind
    options["revision"] = options.get("revision") or card.revision
    made: Teacher | BatchTeacher = make(
        card.model, *((corpus, work) if card.kind in _KEEP_DOCUMENTS else ()), **options
    )
    return made


def known_settings(kind: str) -> set[str]:
    """What the settings of a card may hold, of every kind but those of language models."""
    return {
        one.name
        for one in inspect.signature(_maker(kind)).parameters.values()
        if one.kind is one.KEYWORD_ONLY
    }


def _maker(kind: str) -> Callable[..., Any]:
    module, name = _TEACHERS[kind]
    found: Callable[..., Any] = getattr(import_module(f"irdistill.teachers.{module}"), name)
    return found


def responses_file(out: str | Path) -> Path:
    """Where the answers of a server are kept for a run: beside its folder, so that overwriting the
    run keeps them.
    """
    folder = Path(out).resolve()
    return folder.with_name(f"{folder.name}.responses.jsonl")


def card_of(teacher: str, kind: str | None = None, revision: str | None = None) -> TeacherCard:
    """The card of a teacher as ``load_teacher`` is given it; a model without a card gets one made
    from its own files.

    Raises:
        IrdistillError: there is no such card or model.
    """
    try:
        return read_card(teacher)
    except IrdistillError:
        if teacher.endswith((".yaml", ".yml")) or _is_card(teacher):
            raise
    if not teacher.strip():
        raise IrdistillError(
            "the teacher's name is empty; give a card, bm25 or a model."
            f" {card_names('teachers', '')}"
        )
    if "/" not in teacher and not kind and teacher != "bm25" and not Path(teacher).exists():
        # the name of a card with a mistake in it, or one of the few models whose hub id has no
        # owner
        try:
            return TeacherCard(teacher, kind_of(teacher, revision), teacher)
        except IrdistillError as error:
            raise IrdistillError(
                f"there is no teacher {teacher!r}: no card and no model has this name."
                f" {card_names('teachers', teacher)} A model is given by its folder, package: path"
                " or hub id."
            ) from error
    return TeacherCard(
        teacher, kind or ("bm25" if teacher == "bm25" else kind_of(teacher, revision)), teacher
    )


def _is_card(teacher: str) -> bool:
    try:
        return find_card("teachers", teacher).is_file()
    except IrdistillError:
        return False
