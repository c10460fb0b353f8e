"""A linear layer that maps a student's vectors to the teacher's, fitted by least squares."""

from __future__ import annotations

import logging

import numpy as np
import torch
from sentence_transformers.base.modules import Dense, Normalize
from torch import nn

from irdistill.collections import Corpus
from irdistill.losses.embedding import TowerSide
from irdistill.search.vectors.vector_store import VectorStore
from irdistill.students.dense_student import DenseStudent
from irdistill.students.towers import projection, with_modules
from irdistill.training.align_options import AlignOptions

logger = logging.getLogger(__name__)


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
    mean length of the vectors, so that steps of a usual learning rate do not undo it. With ``start="none"`` a tower whose
    vectors have the teacher's length stays as it is, and another one gets a random layer.
    """
    modules = student.route(side)
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


def fit_linear(vectors: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The matrix (D, E) that maps vectors (n, D) to targets (n, E) with the least squared error.

    With fewer vectors than dimensions it is the smallest such matrix.

    Examples:
        >>> fit_linear(np.eye(2), np.array([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])).tolist()
        [[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]]
    """
    solution = np.linalg.lstsq(vectors.astype(np.float64), targets.astype(np.float64), rcond=None)
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
