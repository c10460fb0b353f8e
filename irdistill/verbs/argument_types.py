"""Types of the arguments that verbs share.

A caller may give a collection, a run or a model by name, by path or as an object. Type checkers see
the unions; at run time `Source` marks what an argument names, without importing torch or pyarrow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field

_SEVERAL = ("runs", "models", "collections", "texts", "files")


@dataclass(frozen=True)
class Source:
    """Metadata of an argument that names something.

    Attributes:
        kind: ``collection``, ``collections``, ``judgments``, ``files``, ``run``, ``runs``,
            ``texts``, ``model``, ``models``, ``teacher``, ``student``, ``loss``, ``measures`` or
            ``validation``.
    """

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(self.check)

    def check(self, value: Any) -> Any:
        """Refuse values that cannot name anything; check losses and measures."""
        if self.kind == "validation":
            self._check_validation(value)
        elif self.kind not in _SEVERAL:
            self._check_single(value)
        elif isinstance(value, Mapping):
            for single in value.values():
                self._check_single(single)
        elif isinstance(value, list | tuple):
            for single in value:
                self._check_single(single)
        else:
            self._check_single(value)
        return value

    def _check_validation(self, value: Any) -> None:
        several = value if isinstance(value, list | tuple) else [value]
        if share_of(value) is None and any(
            isinstance(single, bool | int | float | Mapping) for single in several
        ):
            raise ValueError(f"expected {_EXPECTED[self.kind]}")

    def _check_single(self, value: Any) -> None:
        scalars = isinstance(value, bool | int | float)
        if scalars or (
            isinstance(value, list) and _plain(value) and self.kind not in ("measures", "models")
        ):
            raise ValueError(f"expected {_EXPECTED[self.kind]}")
        if self.kind == "loss":
            from irdistill.losses import parse_loss

            if isinstance(value, str):
                parse_loss(value)
        if self.kind == "measures":
            from irdistill.evaluation.measure_names import parse_measures

            parse_measures(value)


def share_of(value: Any) -> float | None:
    """The number that a value is or that a text shows; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _plain(values: list[Any]) -> bool:
    return all(isinstance(value, str | bool | int | float | None) for value in values)


_EXPECTED = {
    "collection": "a collection: an id, a path or an object",
    "collections": "collections: ids, paths or objects",
    "judgments": "a collection or judgments: an id, a path or an object",
    "files": "files or folders: paths",
    "run": "a run: a path or an object",
    "runs": "runs: paths, objects or a mapping of names to runs",
    "model": "a model: a name, a path or an object",
    "models": "models: names, paths, objects or a mapping of names to models",
    "teacher": "a teacher: a card, a model or a function",
    "texts": "texts: collections and text files",
    "llm": "a language model: a card or an object",
    "student": "a student: a kind or an object",
    "loss": "a loss: an expression or an object",
    "measures": "measures, as ir-measures writes them",
    "validation": "a share of the queries, or collections: ids, paths or objects",
}

if TYPE_CHECKING:
    from irdistill.collections import Collection, Qrels
    from irdistill.losses import Loss
    from irdistill.runs import Run
    from irdistill.students.student_base import Student
    from irdistill.teachers.function_teacher import LoadedTeacher, TeacherFunction
    from irdistill.teachers.llm.language_model import LanguageModel

    CollectionLike = str | Path | Collection
    JudgmentsLike = str | Path | Collection | Qrels | Mapping[str, Mapping[str, int]] | Any
    TextsLike = CollectionLike | Sequence[CollectionLike]
    FilesLike = str | Path | Sequence[str | Path]
    RunLike = str | Path | Run | Mapping[str, Mapping[str, float]] | Any
    RunsLike = RunLike | Sequence[RunLike] | Mapping[str, RunLike]
    ModelLike = str | Path | Student
    ModelsLike = ModelLike | Sequence[ModelLike] | Mapping[str, ModelLike | Sequence[ModelLike]]
    TeacherLike = str | TeacherFunction | LoadedTeacher
    LanguageModelLike = str | LanguageModel
    StudentLike = str | Student
    LossLike = str | Loss
    CollectionsLike = CollectionLike | Sequence[CollectionLike]
    ValidationLike = float | CollectionLike | Sequence[CollectionLike]
    MeasureName = str
    MeasuresLike = str | Sequence[str]
else:
    CollectionLike = Annotated[Any, Source("collection")]
    JudgmentsLike = Annotated[Any, Source("judgments")]
    TextsLike = Annotated[Any, Source("texts")]
    FilesLike = Annotated[Any, Source("files")]
    RunLike = Annotated[Any, Source("run")]
    RunsLike = Annotated[Any, Source("runs")]
    ModelLike = Annotated[Any, Source("model")]
    ModelsLike = Annotated[Any, Source("models")]
    TeacherLike = Annotated[Any, Source("teacher")]
    LanguageModelLike = Annotated[Any, Source("llm")]
    StudentLike = Annotated[Any, Source("student")]
    LossLike = Annotated[Any, Source("loss")]
    MeasureName = Annotated[str, Source("measures")]
    MeasuresLike = Annotated[Any, Source("measures")]
    CollectionsLike = Annotated[Any, Source("collections")]
    ValidationLike = Annotated[Any, Source("validation")]


def _writable(path: Path) -> Path:
    from irdistill.storage.ownership import check_replaceable

    check_replaceable(path)
    return path


OutputFile = Annotated[Path, AfterValidator(_writable)]
"""A file to write; one that irdistill did not write is refused before any work."""

ModelKind = Literal["dense", "sparse", "late-interaction", "cross-encoder"]

KindOption = Annotated[
    ModelKind | None,
    Field(
        description="How to read the model if its files do not say: sparse for SPLADE (default:"
        " detected)."
    ),
]
TrustOption = Annotated[bool, Field(description="Run code that comes with the model.")]
TextsArgument = Annotated[
    TextsLike,
    Field(
        description="Collections and text files (one text per line, or .jsonl). After a colon,"
        " what to take of a collection: pydocs/train:sentences,titles."
    ),
]
SeedOption = Annotated[int, Field(ge=0, lt=2**32, description="Random seed.")]
OverwriteOption = Annotated[bool, Field(description="Replace an existing result.")]
WorkersOption = Annotated[
    Annotated[int, Field(ge=1)] | None,
    Field(
        description="Number of Ray workers (default: one per GPU, or one per machine without GPUs)."
    ),
]
AddressOption = Annotated[
    str | None,
    Field(
        description="Address of a Ray cluster; auto for the one on this machine (default: start"
        " one)."
    ),
]
PolicyOption = Annotated[
    str | None,
    Field(
        description="What counts where judges differ: any, all, majority, or the name of one judge"
        " (needed if several judged)."
    ),
]
SelfMatchOption = Annotated[
    Literal["keep", "drop"],
    Field(
        description="drop leaves out a document with the query's own id (ArguAna and Quora, whose"
        " queries are documents)."
    ),
]
