"""Vectors in a few bits for each number (ColBERTv2, Santhanam et al. 2022, arXiv:2112.01488,
section 3.3).

A vector is the nearest of K centroids and what is left of it, of which each number is kept as the
bucket that it falls in. Buckets hold equally many numbers, and stand for their medians.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.search.array_shards import Layout

ROUNDS = 4
"""Of k-means (Lloyd's), as ColBERTv2 has them."""
BITS = (1, 2, 4, 8)
_PRODUCTS = 1 << 22
"""Products of vectors and centroids that are held at once."""


class ResidualCodec:
    """Centroids and buckets.

    Attributes:
        centroids: (K, D) float32, where vectors are compared with them.
        bits: of each number of a residual.
        width: bytes of a residual.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], device: torch.device) -> None:
        """Of ``centroids`` (K, D), ``cutoffs`` (2^bits - 1,) and ``weights`` (2^bits,), all
        float32.
        """
        self._middles, self._cutoffs, weights = (
            np.array(arrays[name], np.float32) for name in ("centroids", "cutoffs", "weights")
        )
        self.centroids = torch.from_numpy(self._middles).to(device)
        self.bits = len(weights).bit_length() - 1
        self.width = residual_bytes(self.centroids.shape[1], self.bits)
        self._shifts = np.arange(0, 8, self.bits, dtype=np.uint8)
        buckets = np.arange(256)[:, None] >> self._shifts & len(weights) - 1
        self._numbers = weights[buckets]  # (256, 8 / bits): what each byte stands for

    def encode(self, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nearest centroid (n,) int64 of vectors (n, D) float32, and their residuals (n, width)
        uint8.
        """
        codes = (
            nearest(torch.from_numpy(vectors).to(self.centroids.device), self.centroids)
            .cpu()
            .numpy()
        )
        buckets = np.searchsorted(
            self._cutoffs, vectors - self._middles[codes], side="right"
        ).astype(np.uint8)
        each = len(self._shifts)
        padded = np.pad(buckets, ((0, 0), (0, self.width * each - buckets.shape[1])))
        return codes, np.bitwise_or.reduce(
            padded.reshape(len(codes), self.width, each) << self._shifts, axis=2
        )

    def decode(self, residuals: np.ndarray) -> np.ndarray:
        """About what was left of the vectors (n, D) float32, of residuals (n, width)."""
        numbers = np.take(self._numbers, residuals, axis=0).reshape(
            len(residuals), self.width * len(self._shifts)
        )
        return numbers[:, : self._middles.shape[1]]


def residual_bytes(dimension: int, bits: int) -> int:
    """The bytes of a residual.

    Raises:
        IrdistillError: so many bits are not kept.
    """
    if bits not in BITS:
        raise IrdistillError(
            f"residuals of {bits!r} bits a number were asked for; give one of"
            f" {', '.join(map(str, BITS))}."
        )
    return -(-dimension * bits // 8)


def codec_layout(dimension: int) -> Layout:
    """The arrays of a codec, as they are stored."""
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
    """Centroids by k-means, each as long as its vectors are on average, and buckets by the
    quantiles of residuals.

    Args:
        sample: (n, D) float32 that k-means sees; at least as many as ``centroids``.
        held_out: (m, D) float32, whose residuals fill the buckets evenly.
    """
    vectors = torch.from_numpy(sample).to(device)
    middles = vectors[
        torch.from_numpy(np.sort(rng.choice(len(sample), centroids, replace=False))).to(device)
    ]
    for _ in range(ROUNDS):
        codes = nearest(vectors, middles).cpu()
        middles = _means(sample, codes, middles)
    own = middles.norm(dim=1, keepdim=True)
    lengths = _means(np.linalg.norm(sample, axis=1, keepdims=True), codes, own)
    middles *= lengths / own.clamp_min(torch.finfo().tiny)
    others = torch.from_numpy(held_out).to(device)
    residuals = (others - middles[nearest(others, middles)]).cpu().numpy()
    buckets = 1 << bits
    cutoffs = np.quantile(residuals, np.arange(1, buckets) / buckets)
    weights = np.quantile(residuals, (np.arange(buckets) + 0.5) / buckets)
    return {
        "centroids": middles.cpu().numpy(),
        "cutoffs": cutoffs.astype(np.float32),
        "weights": weights.astype(np.float32),
    }


def nearest(vectors: Tensor, centroids: Tensor) -> Tensor:
    """For each vector (n, D) the nearest centroid (n,) int64, by Euclidean distance; that of the
    greatest cosine for unit ones.
    """
    offsets = centroids.square().sum(dim=1) / -2
    size = max(1, min(len(vectors), _PRODUCTS // len(centroids)))
    products = vectors.new_empty(
        size, len(centroids)
    )  # one for all parts: allocating it again and again scatters the memory
    codes = torch.empty(len(vectors), dtype=torch.int64, device=vectors.device)
    for start in range(0, len(vectors), size):
        part = vectors[start : start + size]
        found = torch.addmm(offsets, part, centroids.T, out=products[: len(part)])
        codes[start : start + size] = found.argmax(dim=1)
    return codes


def _means(sample: np.ndarray, codes: Tensor, before: Tensor) -> Tensor:
    """The mean of each centroid's vectors, added in one order wherever they were assigned; an idle
    centroid stays.
    """
    sums = torch.zeros(before.shape, dtype=torch.float32).index_add_(
        0, codes, torch.from_numpy(sample)
    )
    counts = torch.bincount(codes, minlength=len(before))[:, None]
    return torch.where(counts > 0, sums / counts.clamp_min(1), before.cpu()).to(before.device)
