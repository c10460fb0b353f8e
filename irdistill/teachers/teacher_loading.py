"""Creating a teacher from a card, a model's name or a function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from irdistill.collections import Corpus
from irdistill.errors import OptionError
from irdistill.storage.plain_data import check_values
from irdistill.students.model_kinds import RETRIEVER_TYPES
from irdistill.teachers.function_teacher import (
    LoadedTeacher,
    TeacherFunction,
    as_teacher,
    load_reference,
)
from irdistill.teachers.teacher_card import HOSTED_KINDS, LLM_KINDS, TeacherCard, card_of

#: Module and name of what creates a teacher of a kind; it takes the settings as keyword-only
#: arguments.
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


def load_teacher(
    teacher: str | TeacherFunction | LoadedTeacher,
    corpus: Corpus,
    *,
    kind: str | None = None,
    work: Path | None = None,
    responses: Path | None = None,
    **settings: Any,
) -> LoadedTeacher:
    """Create a teacher.

    Args:
        teacher: name or path of a card, ``bm25``, a model (folder, ``package:`` path or hub id),
            ``module:function`` or ``path/to/file.py:function``, or a function or teacher object.
        corpus: the documents that it scores; retrievers and BM25 keep an index of them.
        responses: file that keeps the answers of a model behind a server, unless the setting
            ``log`` names another one. Other teachers ignore it, and so do hosted embedders, whose
            vectors are shared by all runs.
        settings: override the settings of the card; None leaves a setting as it is. A reference to
            a function needs ``trust_remote_code=True``.

    Examples:
        >>> from irdistill.collections import Collection
        >>> corpus = Collection.from_dicts("tiny", {"d1": "a text"}, {}, {}).corpus
        >>> load_teacher("bm25", corpus).identity["kind"]
        'bm25'
    """
    changed = {key: value for key, value in settings.items() if value is not None}
    if not isinstance(teacher, str):
        return as_teacher(teacher, changed)
    card = card_of(teacher, kind, changed.get("revision"))
    if card.kind == "function":
        return _load_function(card, changed)
    options = card.settings | changed
    if card.kind in LLM_KINDS:
        from irdistill.teachers.llm.llm_loading import load_llm_teacher

        if card.backend == "openai" and responses is not None:
            options = {"log": responses} | options
        return load_llm_teacher(card, options)
    if card.kind in HOSTED_KINDS:
        from irdistill.teachers.hosted.hosted_loading import load_hosted

        if card.kind == "hosted-reranker" and responses is not None:
            options = {"log": responses} | options
        return load_hosted(card, options)
    create = _creator(card.kind)
    known = known_settings(card.kind)
    unknown = sorted(set(options) - known)
    if unknown:
        raise OptionError(
            f"a teacher of kind {card.kind} has no setting {', '.join(unknown)}. Its settings are"
            f" {', '.join(sorted(known))}."
        )
    check_values(options, create, f"the settings of the teacher {card.name!r}", free=True)
    if card.kind == "bm25":
        return create(corpus, cache=work, **options)
    if card.kind in RETRIEVER_TYPES:
        if options.setdefault("type", card.kind) not in ("auto", card.kind):
            raise OptionError(
                f"the teacher {teacher!r} got kind {card.kind} and type {options['type']}, which"
                " contradict. Give one of them."
            )
        options["type"] = card.kind
    options["revision"] = options.get("revision") or card.revision
    index = (corpus, work) if card.kind in _KEEP_DOCUMENTS else ()
    return create(card.model, *index, **options)


def _load_function(card: TeacherCard, settings: dict[str, Any]) -> LoadedTeacher:
    """Import a function; permission comes from the caller only, never from the card."""
    if not settings.pop("trust_remote_code", False):
        raise OptionError(
            f"the teacher {card.name!r} runs the code of {card.model!r}. Give --trust-remote-code"
            " (trust_remote_code=True) if you trust it."
        )
    return load_reference(card.model, card.settings | settings)


def known_settings(kind: str) -> set[str]:
    """The settings of a kind of teacher (not of functions and servers)."""
    return {
        parameter.name
        for parameter in inspect.signature(_creator(kind)).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }


def _creator(kind: str) -> Callable[..., LoadedTeacher]:
    module, name = _TEACHERS[kind]
    creator: Callable[..., LoadedTeacher] = getattr(
        import_module(f"irdistill.teachers.{module}"), name
    )
    return creator


def responses_file(out: str | Path) -> Path:
    """The file of a server's answers for a run: next to its folder, so that overwriting keeps it.

    Examples:
        >>> responses_file("out/gpt").name
        'gpt.responses.jsonl'
    """
    folder = Path(out).resolve()
    return folder.with_name(f"{folder.name}.responses.jsonl")


@dataclass(frozen=True)
class TeacherSpec:
    """Arguments of `load_teacher`; travels to other processes, which load the teacher themselves.

    Attributes:
        teacher, kind, work, responses, settings: as in `load_teacher`.
    """

    teacher: str | TeacherFunction | LoadedTeacher
    kind: str | None = None
    work: Path | None = None
    responses: Path | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The teacher's name for messages."""
        if isinstance(self.teacher, str):
            return self.teacher
        return getattr(self.teacher, "__qualname__", type(self.teacher).__name__)

    def load(self, corpus: Corpus) -> LoadedTeacher:
        """Create the teacher."""
        return load_teacher(
            self.teacher,
            corpus,
            kind=self.kind,
            work=self.work,
            responses=self.responses,
            **self.settings,
        )
