"""Export of students to ONNX, ONNX with 8-bit weights and OpenVINO, with a check of the scores."""

from __future__ import annotations

import inspect
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import kendalltau
from sentence_transformers.base.modules import Router, Transformer
from torch import Tensor, nn

from irdistill.errors import MissingExtraError, ModelError, OptionError, OutputExistsError
from irdistill.modeling.library_output import quiet_libraries
from irdistill.storage.files import make_folder, staging_path, write_json
from irdistill.storage.ownership import move_into_place
from irdistill.students.cross_encoder_student import CrossEncoderStudent
from irdistill.students.dense_student import DenseStudent
from irdistill.students.lora import has_adapters
from irdistill.students.student_base import Student
from irdistill.students.tower_model import TextKind

logger = logging.getLogger(__name__)

#: Formats, and the files that sentence-transformers expects in a module's folder.
FORMATS = {
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_qint8.onnx",
    "openvino": "openvino/openvino_model.xml",
}
#: Scores of a float model may differ by this much, times the largest score if it is above 1.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ExportAgreement:
    """Agreement of the scores of an exported model with those of the student.

    Attributes:
        pairs: number of pairs that both scored.
        difference: the largest difference of two scores.
        tau: Kendall's tau-b of the documents of a query, mean over queries.
        file_bytes: size of the exported network.
    """

    pairs: int
    difference: float
    tau: float
    file_bytes: int


def export_student(
    student: Student,
    out: str | Path,
    form: str,
    queries: Sequence[str],
    documents: Sequence[str],
    least_tau: float = 0.9,
) -> ExportAgreement:
    """Save a student with sentence-transformers, with its network in another format as well.

    Args:
        form: one of `FORMATS`.
        queries, documents: real texts, whose pairs are scored with torch and the new runtime.
        least_tau: minimal Kendall's tau between the rankings, for 8-bit weights.

    Raises:
        OptionError: the format or the kind of student is not supported.
        OutputExistsError: ``out`` exists.
        ModelError: the format cannot hold a part of the model, or the scores do not agree.
    """
    if form not in FORMATS:
        raise OptionError(
            f"the format {form!r} is unknown; one of {', '.join(FORMATS)} was expected."
        )
    if not isinstance(student, DenseStudent | CrossEncoderStudent):
        raise OptionError(
            f"a {student.kind} student cannot be exported; dense ones and cross-encoders can."
        )
    if not queries or len(documents) < 2:
        raise OptionError(
            "no texts to compare scores on; give a collection with queries and at least two"
            " documents."
        )
    _check_carried(student)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputExistsError(f"{out} exists already; choose another --out, or remove it.")
    make_folder(out.parent)
    staged = staging_path(out)
    shutil.rmtree(staged, ignore_errors=True)
    try:
        with quiet_libraries():
            student.save(staged)
            saved, other = (type(student).load(str(staged), device="cpu") for _ in range(2))
            files = [
                _write(module, network.model, kind, staged / place / FORMATS[form], form, student)
                for (module, kind, place), (network, _, _) in zip(
                    _modules(student), _modules(other), strict=True
                )
            ]
        agreement = _compare(
            _scores(saved, queries, documents), _scores(other, queries, documents), sum(files)
        )
        _check(agreement, form, least_tau)
        write_json(
            staged / "irdistill_export.json", {"format": form, "agreement": asdict(agreement)}
        )
        move_into_place(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return agreement


def _check_carried(student: Student) -> None:
    """Refuse a model with parts that an exported network cannot hold."""
    modules = [module for module, _ in student.saved_modules()]
    ours = [
        type(module).__name__
        for module in modules
        if not type(module).__module__.startswith("sentence_transformers.")
    ]
    if ours:
        raise ModelError(
            f"the model {student.source!r} holds {', '.join(ours)}, which no exported network can"
            " carry, so its scores would be others. Export the model that it was made of, or use"
            " this one with torch."
        )
    if has_adapters(student.model) and not student.merge_lora:
        raise ModelError(
            f"the model {student.source!r} holds adapters beside its backbone, which no exported"
            " network can carry. Train it with lora_merge, which adds them to the weights."
        )


def _modules(student: Student) -> Iterator[tuple[Transformer, TextKind, str]]:
    """The transformers, the texts that each reads, and their folders in the saved model."""
    first = student.model[0]
    if not isinstance(first, Router):
        yield first, student.sides[0], ""
        return
    for route, modules in first.sub_modules.items():
        for place, module in enumerate(modules):
            if isinstance(module, Transformer):
                yield module, route, f"{route}_{place}_{type(module).__name__}"


class _Positional(nn.Module):
    """A network with positional inputs and one output, for tracing."""

    def __init__(self, network: nn.Module, inputs: list[str], output: str) -> None:
        super().__init__()
        self.network, self.inputs, self.output = network, inputs, output

    def forward(self, *values: Tensor) -> Tensor:
        output: Tensor = self.network(**dict(zip(self.inputs, values, strict=True)))[self.output]
        return output


def _write(
    module: Transformer, other: Any, kind: TextKind, path: Path, form: str, student: Student
) -> int:
    """Export the network of a module and let ``other`` run the exported one; returns its bytes."""
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "onnxruntime", "onnx", "export") from error
    network = module.model.eval().cpu().float()
    text: list[Any] = ["a", "a b c d e f"] if kind != "pair" else [("a", "b"), ("a b c", "d e f")]
    example = student.pad(student.tokenize(text, kind), kind, device=torch.device("cpu"))
    inputs = [name for name in example if name in inspect.signature(network.forward).parameters]
    output = str(module.modality_config["text"]["method_output_name"])
    make_folder(path.parent)
    # it warns of operators of libraries that are not installed
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    plain = path if form == "onnx" else path.parent / "plain.onnx"
    torch.onnx.export(
        _Positional(network, inputs, output),
        tuple(example[name] for name in inputs),
        str(plain),
        input_names=inputs,
        output_names=[output],
        dynamic_shapes=(tuple({0: "batch", 1: "sequence"} for _ in inputs),),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    if form == "onnx-int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        quantize_dynamic(plain, path, weight_type=QuantType.QInt8, per_channel=True)
    if form == "openvino":
        run = _openvino(plain, path, inputs)
    else:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

        def run(values: list[np.ndarray]) -> np.ndarray:
            return session.run(None, dict(zip(inputs, values, strict=True)))[0]

    if plain != path:
        plain.unlink()

    def forward(**features: Any) -> dict[str, Tensor]:
        values = [features[name].cpu().numpy() for name in inputs]
        return {output: torch.from_numpy(np.asarray(run(values))).to(features["input_ids"].device)}

    other.forward = forward
    return sum(file.stat().st_size for file in path.parent.iterdir())


def _openvino(plain: Path, path: Path, inputs: list[str]) -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError("openvino", "openvino", "export to OpenVINO") from error
    model = openvino.convert_model(str(plain))
    openvino.save_model(model, str(path), compress_to_fp16=False)
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda values: compiled(dict(zip(inputs, values, strict=True)))[0]


@torch.inference_mode()
def _scores(student: Student, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """(Q, D) float32 scores of all pairs, by the functions of sentence-transformers."""
    if isinstance(student, CrossEncoderStudent):
        pairs = [(query, document) for query in queries for document in documents]
        return student.predict(pairs).numpy().reshape(len(queries), len(documents))
    query_vectors, document_vectors = (
        encode(list(texts), convert_to_tensor=True, show_progress_bar=False).float().cpu()
        for encode, texts in (
            (student.model.encode_query, queries),
            (student.model.encode_document, documents),
        )
    )
    assert isinstance(student, DenseStudent)
    return student.scores(
        query_vectors, document_vectors, torch.zeros(len(queries), 1, dtype=torch.int64)
    )[1].numpy()


def _compare(student: np.ndarray, exported: np.ndarray, size: int) -> ExportAgreement:
    taus = [kendalltau(one, two).statistic for one, two in zip(student, exported, strict=True)]
    return ExportAgreement(
        student.size,
        float(np.abs(student - exported).max() / max(1.0, np.abs(student).max())),
        float(np.nan_to_num(np.mean(taus), nan=1.0 if np.array_equal(student, exported) else 0.0)),
        size,
    )


def _check(agreement: ExportAgreement, form: str, least_tau: float) -> None:
    if form == "onnx-int8" and not agreement.tau >= least_tau:
        raise ModelError(
            f"with 8-bit weights Kendall's tau with the student is {agreement.tau:.3f}, below"
            f" {least_tau:g}: the model would rank differently. Export to onnx, or lower"
            " --least-tau and measure what that costs."
        )
    if form != "onnx-int8" and not agreement.difference <= TOLERANCE:
        raise ModelError(
            "the exported model's scores differ from the student's by up to"
            f" {agreement.difference:.3g}; at most {TOLERANCE:g} was expected. This backbone cannot"
            f" be exported to {form}."
        )
