"""Export of students to ONNX, ONNX with 8-bit weights and OpenVINO, with a check of the vectors."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from torch import Tensor

from irdistill.errors import (
    MissingExtraError,
    ModelError,
    OptionError,
    OutputExistsError,
    one_line,
)
from irdistill.modeling.library_output import quiet_libraries
from irdistill.storage.files import make_folder, staging_path, write_json
from irdistill.storage.ownership import move_into_place
from irdistill.students import exported_model
from irdistill.students.cross_encoder_student import CrossEncoderStudent
from irdistill.students.dense_student import DenseStudent
from irdistill.students.exported_model import SETTINGS, ExportedModel
from irdistill.students.late_interaction_student import LateInteractionStudent
from irdistill.students.saving import PROBES, largest_difference
from irdistill.students.sparse_student import SparseStudent
from irdistill.students.student_base import Student
from irdistill.students.tower_model import TextKind
from irdistill.students.tower_network import (
    TowerNetwork,
    TowerPart,
    example_inputs,
    network_inputs,
    side_settings,
    tower_parts,
)
from irdistill.students.weight_averaging import without_adapters
from irdistill.students.word_vectors import WordVectors

logger = logging.getLogger(__name__)

#: Formats and their files.
FORMATS = {
    "onnx": "model.onnx",
    "onnx-int8": "model_qint8.onnx",
    "openvino": "openvino_model.xml",
}
_KINDS = (DenseStudent, SparseStudent, LateInteractionStudent, CrossEncoderStudent)
#: Numbers of a float model may differ by this much, times the largest number if it is above 1.
TOLERANCE = 1e-4
_PROTOBUF = 1_800_000_000
"""Bytes of weights above which ONNX keeps them in a second file; protobuf is limited to 2 GB."""


@dataclass(frozen=True)
class ExportAgreement:
    """Agreement of an exported model with plain sentence-transformers, from texts on.

    Attributes:
        pairs: number of pairs that both scored.
        difference: the largest difference of two scores, relative to the largest score if that is
            above 1.
        tau: Kendall's tau-b of the documents of a query, mean over queries.
        file_bytes: size of the exported networks.
        vector_difference: the largest difference of two numbers of the vectors of queries and
            documents, or of two scores of a cross-encoder, relative in the same way.
    """

    pairs: int
    difference: float
    tau: float
    file_bytes: int
    vector_difference: float


def export_student(
    student: Student,
    out: str | Path,
    form: str,
    queries: Sequence[str],
    documents: Sequence[str],
    least_tau: float = 0.9,
) -> ExportAgreement:
    """Write a student as networks from token ids to vectors or scores, and the code to run them.

    The folder needs neither torch nor sentence-transformers: `encode.py` in it tokenizes texts and
    runs the networks.

    Args:
        form: one of `FORMATS`.
        queries, documents: real texts, encoded by sentence-transformers and by the written folder.
        least_tau: minimal Kendall's tau between the rankings, for 8-bit weights.

    Raises:
        OptionError: the format or the kind of student is not supported.
        OutputExistsError: ``out`` exists.
        ModelError: the format cannot hold a part of the model, or the vectors do not agree.
    """
    if form not in FORMATS:
        raise OptionError(
            f"the format {form!r} is unknown; one of {', '.join(FORMATS)} was expected."
        )
    if not isinstance(student, _KINDS):
        kinds = ", ".join(kind.kind for kind in _KINDS)
        raise OptionError(f"a {student.kind} student cannot be exported; {kinds} can.")
    if not queries or len(documents) < 2:
        raise OptionError(
            "no texts to compare scores on; give a collection with queries and at least two"
            " documents."
        )
    _check_extras(form)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(f"{out} exists already; choose another --out, or remove it.")
    make_folder(out.parent)
    staged = staging_path(out)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        staged.mkdir()
        with quiet_libraries():
            settings = _write_folder(student, staged, form)
            agreement = _compare(student, ExportedModel(staged), queries, documents)
        _check(agreement, form, least_tau)
        write_json(staged / SETTINGS, {**settings, "agreement": asdict(agreement)})
        move_into_place(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return agreement


def export_query_tower(student: Student, folder: Path) -> None:
    """Write the query tower of a student to an empty folder, as `export_student` writes all towers.

    The vectors of probe texts are compared with those of sentence-transformers.

    Raises:
        MissingExtraError: the libraries of ONNX are not installed.
        ModelError: the network cannot hold a part of the tower, or the vectors do not agree.
    """
    check_query_tower(student)
    with quiet_libraries():
        _write_folder(student, folder, "onnx", ("query",))
        vectors = _tower_vectors(student, ExportedModel(folder), "query", PROBES)
    _check_difference(largest_difference(*vectors), "onnx")


def check_query_tower(student: Student) -> None:
    """Check what `export_query_tower` needs.

    Raises:
        MissingExtraError: the libraries of ONNX are not installed.
        ModelError: the network cannot hold a part of the tower.
    """
    _check_extras("onnx")
    tower_parts(student, ("query",))


def _check_extras(form: str) -> None:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnxruntime", "onnx", "export") from error
    if form == "openvino":
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino", "export to OpenVINO") from error


def _write_folder(
    student: Student, folder: Path, form: str, texts: Sequence[TextKind] | None = None
) -> dict[str, Any]:
    """Write networks, tokenizers, code and settings; returns the settings.

    Args:
        texts: the texts that the networks read (default: all that the student reads).
    """
    sides: dict[str, Any] = {}
    student = without_adapters(student)
    for part in tower_parts(student, texts):
        place = folder / part.folder
        place.mkdir()
        inputs = network_inputs(student, part)
        _write_network(student, part, inputs, place / FORMATS[form], form)
        tokenizer = student._first(part.sides[0]).tokenizer
        getattr(tokenizer, "backend_tokenizer", tokenizer).save(str(place / "tokenizer.json"))
        for module in part.modules:
            if isinstance(module, WordVectors):
                text = json.dumps(module.words, ensure_ascii=False)
                (place / "words.json").write_text(text, encoding="utf-8")
        for side in part.sides:
            sides[side] = {
                "folder": part.folder,
                "network": FORMATS[form],
                "inputs": inputs,
                "words": part.has_words and side == "query",
                **side_settings(student, side),
            }
    settings = {
        "format": form,
        "kind": student.kind,
        "similarity": student.similarity,
        "sides": sides,
    }
    write_json(folder / SETTINGS, settings)
    shutil.copyfile(str(exported_model.__file__), folder / "encode.py")
    return settings


def _write_network(
    student: Student, part: TowerPart, inputs: list[str], path: Path, form: str
) -> None:
    """Export one network.

    Raises:
        ModelError: it cannot be traced.
    """
    cut, device = getattr(student.model, "truncate_dim", None), student.device
    network = TowerNetwork(part, inputs, student.kind, cut).eval().cpu().float()
    example = example_inputs(inputs)
    # it warns of operators of libraries that are not installed
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    plain = path if form == "onnx" else path.parent / "plain.onnx"
    size = sum(value.numel() * value.element_size() for value in network.parameters())
    shapes = tuple(
        {0: "batch", 1: "words" if name in ("words", "word_mask") else "sequence"}
        for name in inputs
    )
    try:
        torch.onnx.export(
            network,
            tuple(example.values()),
            str(plain),
            input_names=inputs,
            output_names=[network.output],
            dynamic_shapes=(shapes,),
            dynamo=True,
            external_data=size > _PROTOBUF,
            verbose=False,
        )
    except Exception as error:  # torch.onnx has no common class of errors
        raise ModelError(
            f"the {' and '.join(part.sides)} side of {student.source!r} cannot be exported:"
            f" {one_line(error, 300)}"
        ) from error
    finally:
        network.to(device)
    if form == "onnx-int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(plain, path, weight_type=QuantType.QInt8, per_channel=True)
    if form == "openvino":
        import openvino

        openvino.save_model(openvino.convert_model(str(plain)), str(path), compress_to_fp16=False)
    if plain != path:
        for file in path.parent.glob("plain.onnx*"):
            file.unlink()


@torch.inference_mode()
def _compare(
    student: Student, exported: ExportedModel, queries: Sequence[str], documents: Sequence[str]
) -> ExportAgreement:
    """Encode texts with sentence-transformers and with the exported folder."""
    if isinstance(student, CrossEncoderStudent):
        pairs = [(query, document) for query in queries for document in documents]
        shape = (len(queries), len(documents))
        one = student.predict(pairs).numpy().reshape(shape)
        two = exported.predict(pairs).reshape(shape)
        return _agreement(one, two, largest_difference(*map(_tensors, (one, two))), exported)
    query_vectors = _tower_vectors(student, exported, "query", queries)
    document_vectors = _tower_vectors(student, exported, "document", documents)
    difference = max(largest_difference(*query_vectors), largest_difference(*document_vectors))
    scores = [
        _scores(student, *sides) for sides in zip(query_vectors, document_vectors, strict=True)
    ]
    return _agreement(scores[0], scores[1], difference, exported)


@torch.inference_mode()
def _tower_vectors(
    student: Student, exported: ExportedModel, side: TextKind, texts: Sequence[str]
) -> tuple[list[Tensor], list[Tensor]]:
    """The vectors of texts by sentence-transformers, and by the exported folder."""
    name = f"encode_{side}"
    plain = getattr(student.model, name)(list(texts), show_progress_bar=False)
    return _tensors(plain), _tensors(getattr(exported, name)(texts))


def _tensors(vectors: Any) -> list[Tensor]:
    """The vectors of texts as dense tensors in float32."""
    rows = [torch.as_tensor(row) for row in vectors]
    return [(row.to_dense() if row.is_sparse else row).float().cpu() for row in rows]


def _scores(student: Student, queries: list[Tensor], documents: list[Tensor]) -> np.ndarray:
    """(Q, D) float32 scores of all pairs."""
    index = torch.zeros(len(queries), 1, dtype=torch.int64)
    if isinstance(student, LateInteractionStudent):
        scores = student.scores(queries, documents, index)[1]
    else:
        scores = student.scores(torch.stack(queries), torch.stack(documents), index)[1]
    assert scores is not None
    return scores.numpy()


def _agreement(
    student: np.ndarray, scores: np.ndarray, difference: float, exported: ExportedModel
) -> ExportAgreement:
    taus = [kendalltau(one, two).statistic for one, two in zip(student, scores, strict=True)]
    return ExportAgreement(
        student.size,
        float(np.abs(student - scores).max() / max(1.0, np.abs(student).max())),
        float(np.nan_to_num(np.mean(taus), nan=1.0 if np.array_equal(student, scores) else 0.0)),
        sum(
            path.stat().st_size
            for path in exported.folder.rglob("*")
            if path.suffix in (".onnx", ".data", ".xml", ".bin")
        ),
        difference,
    )


def _check(agreement: ExportAgreement, form: str, least_tau: float) -> None:
    if form == "onnx-int8" and not agreement.tau >= least_tau:
        raise ModelError(
            f"with 8-bit weights Kendall's tau with the student is {agreement.tau:.3f}, below"
            f" {least_tau:g}: the model would rank differently. Export to onnx, or lower"
            " --least-tau and measure what that costs."
        )
    if form != "onnx-int8":
        _check_difference(max(agreement.difference, agreement.vector_difference), form)


def _check_difference(largest: float, form: str) -> None:
    if not largest <= TOLERANCE:
        raise ModelError(
            "the exported model's vectors or scores differ from those of sentence-transformers by"
            f" up to {largest:.3g}; at most {TOLERANCE:g} was expected. This backbone cannot"
            f" be exported to {form}."
        )
