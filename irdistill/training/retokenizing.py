"""The verb *retokenize*: a model with another tokenizer, its embeddings converted by strings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor

from irdistill.errors import ModelError
from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.vocabularies import (
    Vocabulary,
    adapted_tokenizer,
    load_tokenizer,
    vocabulary_map,
)
from irdistill.students.fingerprints import tokenizer_digest
from irdistill.students.student_base import Student
from irdistill.training.computed_models import write_computed_model

#: Bias of a term that the new tokenizer never writes, so that it gets no weight.
_NEVER = -1e4


def retokenize_model(
    student: Student, tokenizer: str, out: str | Path, overwrite: bool = False
) -> Path:
    """Write a model that reads texts with another tokenizer; see `retokenized`.

    ``OUT/training.json`` has the origin, and the share of tokens that both vocabularies have.

    Returns:
        The folder of the new model, ``OUT/model``.

    Raises:
        ModelError: the model or the tokenizer is of a kind that cannot be converted.
        SettingsDifferError: ``out`` has another model.
    """
    loaded = load_tokenizer(tokenizer)
    identity = {
        "verb": "retokenize",
        "model": student.identity(),
        "tokenizer": tokenizer_digest(loaded),
    }

    def compute() -> tuple[Student, dict[str, Any]]:
        with quiet_libraries():
            return retokenized(student, loaded)

    return write_computed_model(out, identity, compute, overwrite)


def retokenized(student: Student, tokenizer: Any) -> tuple[Student, dict[str, Any]]:
    """A copy of a student with another tokenizer, and what was converted.

    The embedding of a new token is that of the old token of the same text, or the mean of those
    into which the old tokenizer cuts its text. The terms of a sparse model are converted likewise.

    Raises:
        ModelError: the model has two towers or no fast tokenizer, or reads pairs.
    """
    first: Any = student.tower(student.sides[0])[0]
    old = getattr(first, "tokenizer", None)
    if student.has_two_towers or "pair" in student.sides or not getattr(old, "is_fast", False):
        raise ModelError(
            f"the model {student.source!r} cannot get another tokenizer; give a dense, sparse or"
            " late-interaction model with one transformer and a fast tokenizer."
        )
    made = copy.copy(student)
    made.model = copy.deepcopy(student.model)
    made.truncation = {}
    first, *others = made.model
    adapted = adapted_tokenizer(tokenizer, old)
    before, after = Vocabulary(old), Vocabulary(adapted)
    matrix = vocabulary_map(before, after)
    _convert_embeddings(first.model, matrix)
    first.processor = adapted
    for module in others:
        if isinstance(module, SpladePooling):
            module.embedding_dimension = len(after)
        if isinstance(module, MultiVectorMask):
            words = set(module.skiplist_words)
            names = adapted.convert_ids_to_tokens(range(len(after)))
            module.skiplist_words = [
                name
                for name, text in zip(names, after.texts, strict=True)
                if text is not None and text.text in words
            ]
            module.resolve_with_tokenizer(adapted)
    sizes = np.diff(matrix.indptr)
    return made, {
        "tokens": len(after),
        "same_text": int((sizes == 1).sum()),
        "means": int((sizes > 1).sum()),
    }


@torch.no_grad()
def _convert_embeddings(network: Any, matrix: csr_matrix) -> None:
    """Replace the token embeddings, and the output layer of a masked language model."""

    def converted(weight: Tensor) -> Tensor:
        return torch.from_numpy(matrix @ weight[: matrix.shape[1]].cpu().numpy())

    inputs = converted(network.get_input_embeddings().weight)
    layer = network.get_output_embeddings()
    outputs = None if layer is None else converted(layer.weight)
    bias = None if layer is None or layer.bias is None else converted(layer.bias)
    network.resize_token_embeddings(matrix.shape[0], mean_resizing=False)
    network.get_input_embeddings().weight.copy_(inputs)
    if outputs is not None:
        network.get_output_embeddings().weight.copy_(outputs)
    if bias is not None:
        never = torch.from_numpy(np.diff(matrix.indptr) == 0)
        network.get_output_embeddings().bias.copy_(bias.masked_fill(never, _NEVER))
