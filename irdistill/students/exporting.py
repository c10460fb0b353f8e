"""Students for other runtimes (ONNX, ONNX with 8-bit weights, OpenVINO), compared with the student
before they get their name.
"""

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

from irdistill.errors import IrdistillError, MissingExtraError
from irdistill.modeling.library_output import quiet_libraries
from irdistill.storage.files import make_folder, staging_path, write_json
from irdistill.storage.ownership import move_into_place
from irdistill.students.base import Student
from irdistill.students.cross_encoder_student import CrossEncoderStudent
from irdistill.students.dense_student import DenseStudent
from irdistill.students.tower_model import TextKind

logger = logging.getLogger(__name__)

#: Formats, and the files that sentence-transformers looks for in a module's folder.
FORMATS = {
    "onnx": "onnx/model.onnx",
    "onnx-int8": "onnx/model_qint8.onnx",
    "openvino": "openvino/openvino_model.xml",
}
#: Scores of a float model may differ from the student's by this much, times the largest score where
#: that is above 1.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Agreement:
    """How the exported model scores the pairs of some queries and documents, beside the student.

    Attributes:
        pairs: how many were scored by both.
        difference: the largest difference of two scores.
        tau: Kendall's tau-b of a query's documents, the mean over queries.
        file_bytes: of the exported network.
    """

    pairs: int
    difference: float
    tau: float
    file_bytes: int


def export(
    student: Student,
    out: str | Path,
    form: str,
    queries: Sequence[str],
    documents: Sequence[str],
    least_tau: float = 0.9,
) -> Agreement:
    """Write a folder with the student as sentence-transformers saves it, and beside its weights the
    network in another format.

    Args:
        form: one of `FORMATS`.
        queries, documents: real texts; all pairs are scored as sentence-transformers does, by the
            folder that was written and by the same folder with its networks run in their new
            runtime.
        least_tau: refuse 8-bit weights that order a query's documents less alike than this.

    Raises:
        IrdistillError: the student is neither dense nor a cross-encoder, the format is unknown, it
            has a part that the format cannot hold, ``out`` is there already, or the scores do not
            agree; then nothing is left at ``out``.
    """
    if form not in FORMATS:
        raise IrdistillError(
            f"the format {form!r} is unknown; one of {', '.join(FORMATS)} was expected."
        )
    if not isinstance(student, DenseStudent | CrossEncoderStudent):
        raise IrdistillError(
            f"a {student.kind} student cannot be exported; dense ones and cross-encoders can."
        )
    if not queries or len(documents) < 2:
        raise IrdistillError(
            "no texts to compare scores on; give a collection with queries and at least two"
            " documents."
        )
    _check_carried(student)
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise IrdistillError(f"{out} is there already; choose another --out, or remove it.")
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
        found = _compare(
            _scores(saved, queries, documents), _scores(other, queries, documents), sum(files)
        )
        _check(found, form, least_tau)
        write_json(staged / "irdistill_export.json", {"format": form, "agreement": asdict(found)})
        move_into_place(staged, out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return found


def _check_carried(student: Student) -> None:
    """Refuse a model with parts that stand neither in a network nor among the modules of
    sentence-transformers.
    """
    modules = [module for module, _ in student.saved_modules()]
    ours = [
        type(module).__name__
        for module in modules
        if not type(module).__module__.startswith("sentence_transformers.")
    ]
    if ours:
        raise IrdistillError(
            f"the model {student.source!r} holds {', '.join(ours)}, which no exported network can"
            " carry, so its scores would be others. Export the model that it was made of, or use"
            " this one with torch."
        )
    adapted = any(
        getattr(module.model, "_hf_peft_config_loaded", False)
        for module in modules
        if isinstance(module, Transformer)
    )
    if adapted and not student.merge_lora:
        raise IrdistillError(
            f"the model {student.source!r} holds adapters beside its backbone, which no exported"
            " network can carry. Train it with lora_merge, which adds them to the weights."
        )


def _modules(student: Student) -> Iterator[tuple[Transformer, TextKind, str]]:
    """The transformers, the side each is for, and their folders within the saved model."""
    first = student.model[0]
    if not isinstance(first, Router):
        yield first, student.sides[0], ""
        return
    for route, modules in first.sub_modules.items():
        for place, module in enumerate(modules):
            if isinstance(module, Transformer):
                yield module, route, f"{route}_{place}_{type(module).__name__}"


class _Positional(nn.Module):
    """Inputs by position and one output, as a traced graph needs them."""

    def __init__(self, network: nn.Module, inputs: list[str], output: str) -> None:
        super().__init__()
        self.network, self.inputs, self.output = network, inputs, output

    def forward(self, *given: Tensor) -> Tensor:
        found: Tensor = self.network(**dict(zip(self.inputs, given, strict=True)))[self.output]
        return found


def _write(
    module: Transformer, other: Any, kind: TextKind, path: Path, form: str, student: Student
) -> int:
    """Write the network of a module, and let that of its copy run what was written; gives the
    bytes.
    """
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
    logging.getLogger("torch.onnx").setLevel(
        logging.ERROR
    )  # it warns of operators of libraries that are not there
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

        def run(given: list[np.ndarray]) -> np.ndarray:
            return session.run(None, dict(zip(inputs, given, strict=True)))[0]

    if plain != path:
        plain.unlink()

    def forward(**features: Any) -> dict[str, Tensor]:
        given = [features[name].cpu().numpy() for name in inputs]
        return {output: torch.from_numpy(np.asarray(run(given))).to(features["input_ids"].device)}

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
    return lambda given: compiled(dict(zip(inputs, given, strict=True)))[0]


@torch.inference_mode()
def _scores(student: Student, queries: Sequence[str], documents: Sequence[str]) -> np.ndarray:
    """(Q, D) scores of all pairs in float32, from whole texts on, by the functions of
    sentence-transformers.
    """
    if isinstance(student, CrossEncoderStudent):
        pairs = [(query, document) for query in queries for document in documents]
        return student.predict(pairs).numpy().reshape(len(queries), len(documents))
    asked, read = (
        encode(list(texts), convert_to_tensor=True, show_progress_bar=False).float().cpu()
        for encode, texts in (
            (student.model.encode_query, queries),
            (student.model.encode_document, documents),
        )
    )
    assert isinstance(student, DenseStudent)
    return student.scores(asked, read, torch.zeros(len(queries), 1, dtype=torch.int64))[1].numpy()


def _compare(student: np.ndarray, exported: np.ndarray, size: int) -> Agreement:
    taus = [kendalltau(one, two).statistic for one, two in zip(student, exported, strict=True)]
    return Agreement(
        student.size,
        float(np.abs(student - exported).max() / max(1.0, np.abs(student).max())),
        float(np.nan_to_num(np.mean(taus), nan=1.0 if np.array_equal(student, exported) else 0.0)),
        size,
    )


def _check(found: Agreement, form: str, least_tau: float) -> None:
    if form == "onnx-int8" and not found.tau >= least_tau:
        raise IrdistillError(
            f"with 8-bit weights Kendall's tau with the student is {found.tau:.3f}, below"
            f" {least_tau:g}: the model would rank in another way. Export to onnx, or lower"
            " --least-tau and measure what that costs."
        )
    if form != "onnx-int8" and not found.difference <= TOLERANCE:
        raise IrdistillError(
            "the exported model's scores differ from the student's by up to"
            f" {found.difference:.3g}; at most {TOLERANCE:g} was expected. This backbone cannot be"
            f" exported to {form}."
        )
