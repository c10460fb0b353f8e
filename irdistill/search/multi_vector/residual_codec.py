"""Vectors in a few bits per number (ColBERTv2, Santhanam et al. 2022, arXiv:2112.01488).

A vector is stored as its nearest centroid and, for each number of the residual, the bucket that it
falls into. The buckets are equally full, and decode to their medians.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from irdistill.errors import OptionError
from irdistill.search.array_shards import Layout

ROUNDS = 4
"""Rounds of k-means (Lloyd's algorithm), as in ColBERTv2."""
BITS = (1, 2, 4, 8)
_PRODUCTS = 1 << 22
"""Most products of vectors and centroids in memory."""


class ResidualCodec:
    """Encodes vectors with centroids and buckets.

    Attributes:
        centroids: (K, D) float32 on the device.
        bits: bits per number of a residual.
        width: bytes of a residual.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], device: torch.device) -> None:
        """Load a codec.

        Args:
            arrays: ``centroids`` (K, D), ``cutoffs`` (2^bits - 1,) and ``weights`` (2^bits,), all
                float32, as `train_codec` returns them.
        """
        self._means, self._cutoffs, weights = (
            np.array(arrays[name], np.float32) for name in ("centroids", "cutoffs", "weights")
        )
        self.centroids = torch.from_numpy(self._means).to(device)
        self.bits = len(weights).bit_length() - 1
        self.width = residual_bytes(self.centroids.shape[1], self.bits)
        self._shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        buckets = np.arange(256)[:, None] >> self._shifts & len(weights) - 1
        self._numbers = weights[buckets]  # (256, 8 / bits): the numbers that each byte encodes

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nearest centroids (n,) int64 and residuals (n, width) uint8 of vectors (n, D) float32."""
        on_device = torch.from_numpy(vectors).to(self.centroids.device)
        codes = nearest(on_device, self.centroids).cpu().numpy()
        residuals = vectors - self._means[codes]
        buckets = np.searchsorted(self._cutoffs, residuals, side="right").astype(np.uint8)
        per_byte = len(self._shifts)
        padded = np.pad(buckets, ((0, 0), (0, self.width * per_byte - buckets.shape[1])))
        shifted = padded.reshape(len(codes), self.width, per_byte) << self._shifts
        return codes, np.bitwise_or.reduce(shifted, axis=2)

    def decode(self, residuals: np.ndarray) -> np.ndarray:
        """Approximate residual vectors (n, D) float32 of residuals (n, width)."""
        numbers = np.take(self._numbers, residuals, axis=0)
        return numbers.reshape(len(residuals), -1)[:, : self._means.shape[1]]


def residual_bytes(dimension: int, bits: int) -> int:
    """Bytes of a residual.

    Examples:
        >>> residual_bytes(128, 4)
        64
    """
    if bits not in BITS:
        raise OptionError(
            f"bits per number of a residual is {bits!r}; expected one of"
            f" {', '.join(map(str, BITS))}."
        )
    return -(-dimension * bits // 8)


def codec_layout(dimension: int) -> Layout:
    """The stored arrays of a codec."""
    return {
        "centroids": ("float32", (dimension,)),
        "cutoffs": ("float32", ()),
        "weights": ("float32", ()),
    }


def train_codec(
    sample: np.ndarray,
    held_out: np.ndarray,
    centroids: int,
    bits: int,
    rng: np.random.Generator,
    device: torch.device,
) -> dict[str, np.ndarray]:
    """Train centroids by k-means, and buckets by the quantiles of residuals.

    A centroid is scaled to the mean length of its vectors.

    Args:
        sample: (n, D) float32 vectors for k-means, at least as many as ``centroids``.
        held_out: (m, D) float32 vectors whose residuals fill the buckets equally.
        rng: draws the first centroids.
    """
    vectors = torch.from_numpy(sample).to(device)
    first = torch.from_numpy(np.sort(rng.choice(len(sample), centroids, replace=False)))
    means = vectors[first.to(device)]
    for _ in range(ROUNDS):
        codes = nearest(vectors, means).cpu()
        means = _cluster_means(sample, codes, means)
    norms = means.norm(dim=1, keepdim=True)
    lengths = _cluster_means(np.linalg.norm(sample, axis=1, keepdims=True), codes, norms)
    means *= lengths / norms.clamp_min(torch.finfo().tiny)
    others = torch.from_numpy(held_out).to(device)
    residuals = (others - means[nearest(others, means)]).cpu().numpy()
    buckets = 1 << bits
    cutoffs = np.quantile(residuals, np.arange(1, buckets) / buckets)
    weights = np.quantile(residuals, (np.arange(buckets) + 0.5) / buckets)
    return {
        "centroids": means.cpu().numpy(),
        "cutoffs": cutoffs.astype(np.float32),
        "weights": weights.astype(np.float32),
    }


def nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """Nearest centroid (n,) int64 of each vector (n, D) by Euclidean distance."""
    offsets = centroids.square().sum(dim=1) / -2
    size = max(1, min(len(vectors), _PRODUCTS // len(centroids)))
    products = vectors.new_empty(size, len(centroids))  # reused: allocations fragment the memory
    codes = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for start in range(0, len(vectors), size):
        part = vectors[start : start + size]
        scores = torch.addmm(offsets, part, centroids.T, out=products[: len(part)])
        codes[start : start + size] = scores.argmax(dim=1)
    return codes


def _cluster_means(sample: np.ndarray, codes: Tensor, before: Tensor) -> Tensor:
    """Mean of each cluster, summed on the CPU in a fixed order; an empty cluster keeps its mean."""
    sums = torch.zeros(before.shape, dtype=torch.float32)
    sums.index_add_(0, codes, torch.from_numpy(sample))
    counts = torch.bincount(codes, minlength=len(before))[:, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), before.cpu()).to(before.device)
