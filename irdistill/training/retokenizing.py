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
from torch import nn

from irdistill.errors import ModelError
from irdistill.modeling.library_output import quiet_libraries
from irdistill.modeling.vocabularies import (
    Vocabulary,
    adapted_tokenizer,
    load_tokenizer,
    named_terms,
    vocabulary_map,
)
from irdistill.students.fingerprints import tokenizer_digest
from irdistill.students.sparse_student import SparseStudent
from irdistill.students.student_base import Student
from irdistill.students.term_map import TermMap
from irdistill.training.computed_models import write_computed_model

#: Bias of the rows that fill a model's output layer up, so that their terms get no weight.
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
    into which the old tokenizer cuts its text. A sparse model keeps its terms, which a `TermMap`
    behind it turns into those of the new vocabulary.

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
            module.embedding_dimension = int(first.model.get_input_embeddings().weight.shape[0])
        if isinstance(module, MultiVectorMask):
            words = set(module.skiplist_words)
            names = adapted.convert_ids_to_tokens(range(len(after)))
            module.skiplist_words = [
                name
                for name, text in zip(names, after.texts, strict=True)
                if text is not None and text.text in words
            ]
            module.resolve_with_tokenizer(adapted)
    if isinstance(student, SparseStudent):
        made.model.append(TermMap(torch.from_numpy(named_terms(before, after)), len(after)))
        made.model.to(student.device)
    sizes = np.diff(matrix.indptr)
    return made, {
        "tokens": len(after),
        "same_text": int((sizes == 1).sum()),
        "means": int((sizes > 1).sum()),
    }


@torch.no_grad()
def _convert_embeddings(network: Any, matrix: csr_matrix) -> None:
    """Replace the token embeddings; the output layer of a masked language model keeps its terms.

    A config knows one size of vocabulary, so the smaller of both layers is filled up.
    """
    size = matrix.shape[0]
    inputs = torch.from_numpy(
        matrix @ network.get_input_embeddings().weight[: matrix.shape[1]].cpu().numpy()
    )
    layer = network.get_output_embeddings()
    if layer is not None:
        size = max(size, len(layer.weight))
        terms = inputs.new_zeros(size, inputs.shape[1])
        terms[: len(layer.weight)] = layer.weight.cpu()
        bias = inputs.new_full((size,), _NEVER)
        bias[: len(layer.bias)] = layer.bias.cpu()
        network.config.tie_word_embeddings = False
        layer.weight = nn.Parameter(layer.weight.clone())
    network.resize_token_embeddings(size, mean_resizing=False)
    network.get_input_embeddings().weight[: len(inputs)] = inputs.to(network.device)
    if layer is not None:
        layer = network.get_output_embeddings()
        layer.weight, layer.bias = (nn.Parameter(x.to(network.device)) for x in (terms, bias))
