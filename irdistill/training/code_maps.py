"""Linear maps of query and document vectors to short codes: principal components and rotations.

Iterative quantization: Gong and Lazebnik 2011, doi:10.1109/CVPR.2011.5995432.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, Self

import numpy as np

from irdistill.console.progress_bars import with_progress
from irdistill.errors import InputError
from irdistill.search.array_shards import read_part
from irdistill.storage.checksums import CheckedArray

_BLOCK = 65_536
_SAMPLE = 8192
"""Documents that a rotation is fitted to."""
_ROUNDS = 30


class Affine(NamedTuple):
    """The map ``x W + b`` of vectors (n, D) with W (D, d) and b (d,), in float32."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, vectors: np.ndarray) -> np.ndarray:
        """(n, d) float32."""
        return vectors @ self.weight + self.bias


class CodeMaps(NamedTuple):
    """The maps of both towers to vectors whose inner product is the score."""

    documents: Affine
    queries: Affine

    def rotated(self, rotation: np.ndarray) -> Self:
        """Both maps with an orthogonal matrix (d, d) behind them, which keeps all scores."""
        return type(self)(
            *(
                Affine((weight @ rotation).astype(np.float32), (bias @ rotation).astype(np.float32))
                for weight, bias in self
            )
        )


def principal_components(matrix: np.ndarray | CheckedArray, dimension: int) -> CodeMaps:
    """The ``dimension`` directions in which the document vectors (N, D) vary most, in order.

    Documents are centered. Queries are not: that adds the same to all scores of a query.

    Raises:
        InputError: there are fewer than two different documents.

    Examples:
        >>> maps = principal_components(np.array([[3.0, 1.0], [-1.0, 1.0], [1.0, 1.0]]), 1)
        >>> np.abs(maps.documents(np.array([[3.0, 1.0]]))).round(6).tolist()
        [[2.0]]
    """
    rows, width = matrix.shape
    total, products = np.zeros(width), np.zeros((width, width))
    for start in range(0, rows, _BLOCK):
        block = read_part(matrix, start, min(start + _BLOCK, rows)).astype(np.float64)
        total += block.sum(axis=0)
        products += block.T @ block
    mean = total / max(1, rows)
    spread = products - rows * np.outer(mean, mean)
    if rows < 2 or not np.trace(spread) > 1e-9 * rows:
        raise InputError(f"principal components need documents that differ; {rows} were given.")
    _, directions = np.linalg.eigh(spread)
    weight = directions[:, ::-1][:, :dimension]
    # eigenvectors have no sign of their own
    weight = weight * np.sign(weight[np.abs(weight).argmax(axis=0), np.arange(dimension)])
    documents = Affine(weight.astype(np.float32), (-mean @ weight).astype(np.float32))
    return CodeMaps(documents, Affine(documents.weight, np.zeros(dimension, np.float32)))


def sign_rotation(vectors: np.ndarray, seed: int, rounds: int = _ROUNDS) -> np.ndarray:
    """The orthogonal matrix R (d, d) that brings the rows of ``X R`` near to their signs.

    It alternates between the signs B of ``X R`` and the rotation with the least ``|X R - B|^2``,
    from a random rotation.

    Examples:
        >>> rotation = sign_rotation(np.array([[2.0, 0.0], [0.0, 1.0]]), seed=0)
        >>> bool(np.allclose(rotation @ rotation.T, np.eye(2)))
        True
    """
    size = vectors.shape[1]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))
    for _ in range(rounds):
        signs = np.where(vectors @ rotation > 0, 1.0, -1.0)
        left, _, right = np.linalg.svd(vectors.T @ signs)
        rotation = left @ right
    return np.asarray(rotation)


def rotate_for_signs(
    maps: CodeMaps, matrix: np.ndarray | CheckedArray, sizes: Sequence[int], seed: int
) -> CodeMaps:
    """Rotate the dimensions between two cuts among themselves, so that every cut keeps its scores.

    Args:
        matrix: (N, D) document vectors; some rows at equal distances are read.
        sizes: dimensions that the vectors are cut to.
    """
    rows = np.unique(np.linspace(0, len(matrix) - 1, min(_SAMPLE, len(matrix))).astype(np.int64))
    vectors = maps.documents(np.asarray(matrix[rows], np.float32)).astype(np.float64)
    rotation = np.eye(vectors.shape[1])
    bounds = [0, *sorted(sizes)]
    blocks = [slice(first, last) for first, last in pairwise(bounds)]
    for block in with_progress(blocks, "blocks", "rotate dimensions"):
        rotation[block, block] = sign_rotation(vectors[:, block], seed)
    return maps.rotated(rotation)
