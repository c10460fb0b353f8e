"""Write the query tower of a model as a network or a table that runs without torch."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import Tensor, nn

from irdistill.bundles.query_runtime import (
    NETWORK,
    SETTINGS,
    TABLE,
    TOKENIZER,
    WORD_VECTORS,
    WORDS,
    open_query_tower,
)
from irdistill.errors import IrdistillError, MissingExtraError, ModelError, one_line
from irdistill.modeling.library_output import quiet_libraries
from irdistill.students.saving import PROBES
from irdistill.students.student_base import Student
from irdistill.students.term_vectors import TermVectors
from irdistill.students.word_vectors import WordVectors

logger = logging.getLogger(__name__)

TOLERANCE = 1e-4
"""A number of a query vector may differ by this much, times the largest number if above 1."""


def write_query_tower(student: Student, folder: Path) -> None:
    """Write the query tower of a student to an empty folder, and compare its vectors.

    Raises:
        MissingExtraError: the libraries of ONNX are not installed.
        ModelError: the tower cannot be written so, or its vectors differ from the student's.
    """
    if student.kind not in ("dense", "sparse"):
        raise ModelError(
            f"the query tower of a {student.kind} model runs in sentence-transformers only"
        )
    modules = list(student.tower("query"))
    first: Any = modules[0]
    settings: dict[str, Any] = {
        "kind": student.kind,
        "prompt": student.prompts().get("query", ""),
        "normalize": student.similarity == "cosine",
        "dimension": student.dimension,
    }
    if isinstance(first, StaticEmbedding):
        first.tokenizer.save(str(folder / TOKENIZER))
        np.save(folder / TABLE, first.embedding.weight.detach().float().cpu().numpy())
        settings |= {"input": "static"}
        _require_plain(modules[1:])
    elif isinstance(first, SparseStaticEmbedding):
        settings |= {"input": "weights"} | _transformer_tokens(first, student, folder)
        np.save(folder / TABLE, first.weight.detach().float().cpu().numpy())
        _require_plain(modules[1:])
    elif isinstance(first, Transformer):
        settings |= {"input": "network"} | _transformer_tokens(first, student, folder)
        settings |= _write_network(student, modules, folder)
    else:
        raise ModelError(f"the query tower begins with {type(first).__name__}")
    (folder / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n", "utf-8")
    _compare(student, folder)


def try_query_tower(student: Student, folder: Path, required: bool) -> None:
    """As `write_query_tower`; unless it is required, a failure is logged and the folder emptied."""
    try:
        write_query_tower(student, folder)
    except IrdistillError as error:
        if required:
            raise
        shutil.rmtree(folder)
        folder.mkdir()
        logger.info(
            "the bundle is searched with sentence-transformers, which takes seconds to start: %s.",
            str(error).rstrip("."),
        )


def _require_plain(modules: Sequence[nn.Module]) -> None:
    """Only scaling to length 1 may follow a table."""
    others = [type(module).__name__ for module in modules]
    if any(name != "Normalize" for name in others):
        raise ModelError(f"the query tower goes on with {', '.join(others)}")


def _transformer_tokens(first: Any, student: Student, folder: Path) -> dict[str, Any]:
    backend = getattr(first.tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError(f"the tokenizer {type(first.tokenizer).__name__} is written in Python")
    backend.save(str(folder / TOKENIZER))
    return {
        "max_length": student.max_length("query"),
        "pad": int(first.tokenizer.pad_token_id or 0),
    }


def _splade_pooled(features: dict[str, Any], module: Any) -> dict[str, Any]:
    """As SpladePooling, whose loop over parts of a text fixes the length of traced texts."""
    weights = (features["token_embeddings"] * features["attention_mask"].unsqueeze(-1)).relu()
    for _ in range(2 if module.activation_function == "log1p_relu" else 1):
        weights = weights.log1p()
    pooled = weights.amax(dim=1) if module.pooling_strategy == "max" else weights.sum(dim=1)
    return features | {"sentence_embedding": pooled}


class _Tower(nn.Module):
    """The modules of a tower with positional inputs, for tracing."""

    def __init__(self, modules: Sequence[nn.Module], inputs: list[str]) -> None:
        super().__init__()
        self.network: Any = modules[0]
        self.rest = nn.ModuleList(modules[1:])
        self.inputs = inputs

    def forward(self, *values: Tensor) -> Tensor:
        features: dict[str, Any] = dict(zip(self.inputs, values, strict=True))
        module = self.network
        name = module.modality_config["text"]["method_output_name"]
        output = module.model(**features, return_dict=True)[name]
        features[module.module_output_name] = output
        for following in self.rest:
            if isinstance(following, SpladePooling):
                features = _splade_pooled(features, following)
            else:
                features = following(features)
        vectors: Tensor = features["sentence_embedding"]
        return vectors


def _write_network(student: Student, modules: list[Any], folder: Path) -> dict[str, Any]:
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            error.name or "onnxruntime", "onnx", "a bundle that is searched without torch"
        ) from error
    settings: dict[str, Any] = {}
    words = next((module for module in modules if isinstance(module, WordVectors)), None)
    if words is not None:
        if isinstance(words, TermVectors):
            raise ModelError("the model cuts words by a stemmer; fit its term vectors again")
        place = modules.index(words)
        _require_plain(modules[place + 1 :])
        modules, settings = modules[:place], {"words": True}
        (folder / WORDS).write_text(json.dumps(words.words, ensure_ascii=False), "utf-8")
        np.save(folder / WORD_VECTORS, words.weight.detach().float().cpu().numpy())
    first = modules[0]
    example = student.pad(
        student.tokenize(["a", "a b c d e f"], "query"), "query", device=torch.device("cpu")
    )
    signature = inspect.signature(first.model.forward).parameters
    inputs = [name for name in example if name in signature]
    # it warns of operators of libraries that are not installed
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    device, tower = student.device, _Tower(modules, inputs).eval().cpu()
    try:
        with quiet_libraries(), torch.inference_mode():
            torch.onnx.export(
                tower,
                tuple(example[name] for name in inputs),
                str(folder / NETWORK),
                input_names=inputs,
                output_names=["vectors"],
                dynamic_shapes=(tuple({0: "batch", 1: "sequence"} for _ in inputs),),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    except Exception as error:
        raise ModelError(
            f"the query tower of {student.source!r} cannot be written as an ONNX network"
            f" ({type(error).__name__}: {one_line(error)})."
        ) from error
    finally:
        tower.to(device)
    return settings


@torch.inference_mode()
def _compare(student: Student, folder: Path) -> None:
    """Compare the vectors of texts of all kinds with those of the student."""
    expected = student.search_vectors(list(PROBES), "query", "float32")
    vectors = open_query_tower(folder).encode(list(PROBES))
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    scale = max(1.0, float(np.abs(expected).max()))
    difference = float(np.abs(expected - vectors).max()) / scale
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the vectors of the query tower outside torch differ by up to {difference:.3g} from"
            f" those of {student.source!r}; at most {TOLERANCE:g} was expected."
        )
