"""A linear layer that maps a student's vectors to the teacher's, fitted by least squares."""

from __future__ import annotations

import logging

import numpy as np
import torch
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import nn

from irdistill.collections import Corpus
from irdistill.losses.embedding import TowerSide
from irdistill.search.vectors.vector_store import VectorStore
from irdistill.students.dense_student import DenseStudent
from irdistill.students.towers import projection, with_modules
from irdistill.training.align_options import AlignOptions

logger = logging.getLogger(__name__)
_RIDGE = 0.01
"""The last layer norm of a BERT leaves a direction in which vectors never differ; without a ridge
the layer has weights in the millions there, and one step of training destroys it. MiniLM cut to two
layers, fitted to 3,000 sentences of pydocs, mean cosine to the six layers on 1,000 others: 0.364 as
it is, 0.715 without a ridge, 0.716, 0.721 and 0.716 with 0.001, 0.01 and 0.1; fitted to 500
sentences 0.388, 0.428, 0.510 and 0.572.
"""


def begin_student(
    student: DenseStudent,
    side: TowerSide,
    corpus: Corpus,
    store: VectorStore,
    options: AlignOptions,
) -> None:
    """Give a tower a last linear layer to the teacher's dimension, as ``options.start`` says.

    The layer is before the normalization, if there is one. Linear layers that are there already are
    replaced, because the new one is fitted to what they read. For cosine similarity it keeps the
    mean length of the vectors, so that steps of a usual learning rate do not undo it. With
    ``start="none"`` a tower whose vectors have the teacher's length stays as it is, and another
    one gets a random layer. A static tower of that length always stays: `fit_static` begins it.
    """
    modules = student.route(side)
    if isinstance(modules[0], StaticEmbedding) and student.dimension == store.dimension:
        return
    kept, ending = _without_linear(modules)
    alone = _alone(student, kept)
    if options.start == "none":
        if student.dimension == store.dimension:
            return
        layer = projection(alone.dimension, store.dimension, "sentence_embedding", options.seed)
    else:
        rows = np.sort(
            np.random.default_rng([options.seed, 7]).permutation(len(corpus))[: options.start_texts]
        )
        rows = np.setdiff1d(rows, store.absent_rows)
        teacher = store.take(rows).values.numpy()
        vectors = alone.encode(corpus.texts(rows), side, options.precision)
        weight = fit_linear(vectors, teacher)
        if student.similarity == "cosine":
            weight *= _length(vectors) / _length(vectors @ weight)
        layer = projection(alone.dimension, store.dimension, "sentence_embedding", options.seed)
        with torch.no_grad():
            layer.linear.weight.copy_(torch.from_numpy(weight.T))
        logger.info(
            "the %s tower begins with a linear layer: mean cosine to the teacher %.3f",
            side,
            mean_cosine(vectors @ weight, teacher),
        )
    student.set_route(side, [*kept, layer.to(student.device), *ending])


def fit_linear(vectors: np.ndarray, targets: np.ndarray, ridge: float = _RIDGE) -> np.ndarray:
    """The matrix W (D, E) with the least ``|X W - Y|^2 + r |W|^2`` for rows X (n, D) and Y (n, E).

    Args:
        ridge: r as a share of the mean of the D sums of squares of X.

    Examples:
        >>> targets = np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
        >>> fit_linear(np.eye(2), targets, ridge=0).tolist()
        [[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]
    """
    vectors, targets = vectors.astype(np.float64), targets.astype(np.float64)
    dimension = vectors.shape[1]
    weight = np.sqrt(ridge * np.square(vectors).sum() / dimension)
    solution = np.linalg.lstsq(
        np.concatenate([vectors, weight * np.eye(dimension)]),
        np.concatenate([targets, np.zeros((dimension, targets.shape[1]))]),
        rcond=None,
    )
    return np.asarray(solution[0], dtype=np.float32)


def _length(vectors: np.ndarray) -> float:
    """The mean length of the rows, at least a tiny number."""
    return max(float(np.linalg.norm(vectors, axis=1).mean()), 1e-12)


def mean_cosine(vectors: np.ndarray, targets: np.ndarray) -> float:
    """The mean cosine of corresponding rows."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(targets, axis=1)
    return float(np.mean((vectors * targets).sum(axis=1) / np.maximum(lengths, 1e-12)))


def _without_linear(modules: list[nn.Module]) -> tuple[list[nn.Module], list[nn.Module]]:
    """The modules before the last linear layers, and the normalization at the end, if any."""
    kept, ending = list(modules), list[nn.Module]()
    while kept and isinstance(kept[-1], Normalize):
        ending.insert(0, kept.pop())
    while kept and _is_linear(kept[-1]):
        kept.pop()
    return kept, ending


def _is_linear(module: nn.Module) -> bool:
    return (
        isinstance(module, Dense)
        and module.linear.bias is None
        and isinstance(module.activation_function, nn.Identity)
        and module.module_input_name == "sentence_embedding"
    )


def _alone(student: DenseStudent, modules: list[nn.Module]) -> DenseStudent:
    """A student with one tower of some modules of another student."""
    model = with_modules(student.model, modules)
    return DenseStudent.from_model(model, student.source, student.revision)
