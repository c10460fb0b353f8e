"""PLAID over the tokens of a store (Santhanam et al. 2022, arXiv:2205.09707).

Each token is stored as a centroid and a few bits of residual (`residual_codec`), and each centroid
lists the documents with its tokens. A search narrows its candidates in steps, each more expensive
and closer to MaxSim: documents under the centroids nearest to the query tokens; centroid
interaction (MaxSim with centroids instead of tokens), first with the centroids near the query, then
with all; and MaxSim with decoded vectors. The caller rescores the rest with the stored vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irdistill.errors import InputError, OptionError
from irdistill.modeling.hardware import best_device
from irdistill.search.array_shards import Arrays, ShardOptions, read_part, write_arrays
from irdistill.search.multi_vector.residual_codec import (
    ROUNDS,
    ResidualCodec,
    codec_layout,
    residual_bytes,
    train_codec,
)
from irdistill.search.vectors.vector_store import TokenStore, concatenated_ranges

FORMAT, SEARCH = 1, 1
"""Versions of the files, and of the search; another version may return other documents."""
BITS = 4
_SHARD_ROWS, _BLOCK_ROWS = 4096, 65_536
_CHUNK = 4096
"""Tokens that are encoded or scored together; they fit the caches of a CPU."""
_SAMPLE = 32
"""Tokens per centroid in the k-means sample, at most 2 million in total."""
_HELD_OUT = 16_384


class Stages(NamedTuple):
    """How a search narrows its candidates.

    Attributes:
        probes: centroids per query token whose documents are candidates. It is doubled until there
            are at least ``documents`` candidates.
        threshold: centroids with a smaller product with every query token are ignored in the first
            centroid interaction.
        documents: candidates kept by the first centroid interaction; the second keeps a quarter.
        rescored: candidates kept by MaxSim with decoded vectors.
    """

    probes: int
    threshold: float
    documents: int
    rescored: int


def stages_for(k: int) -> Stages:
    """Settings for k results: those of the paper with four times the documents, for recall."""
    probes, threshold, documents = (
        (1, 0.5, 256) if k <= 10 else (2, 0.45, 1024) if k <= 100 else (4, 0.4, 4096)
    )
    return Stages(probes, threshold, 4 * max(documents, 4 * k), k + max(16, k // 4))


class PlaidIndex:
    """Candidates for MaxSim among the documents of a token store.

    Attributes:
        settings: everything that determines the index.
        nbytes: bytes of its files.
        starts: (N + 1,) where the tokens of each document start.
    """

    kind = "plaid"

    def __init__(
        self,
        store: TokenStore,
        settings: Mapping[str, Any],
        parts: Mapping[str, Arrays],
        device: torch.device,
    ) -> None:
        self.store, self.starts, self.device = store, store.starts, device
        self.settings = {**settings, "search": SEARCH}
        self.nbytes = sum(part.nbytes for part in parts.values())
        self.codec = _load_codec(parts["codec"], device)
        codes, lists = parts["codes"], parts["lists"]
        self._codes, self._residuals = codes.array("codes"), codes.array("residuals")
        self._begins, self._documents = lists.array("begins"), lists.array("documents")
        ends = np.cumsum(self._begins[:, -1], dtype=np.int64)
        self._before = (ends - self._begins[:, -1])[:, None]  # list entries of earlier blocks

    @classmethod
    def build(
        cls,
        store: TokenStore,
        folder: str | Path,
        *,
        bits: int = BITS,
        centroids: int | None = None,
        seed: int = 42,
        device: torch.device | None = None,
    ) -> PlaidIndex:
        """Build the index, resume, or open the existing one.

        Args:
            bits: bits per number of a residual: 1, 2, 4 or 8.
            centroids: number of centroids (default: the power of two below 16 times the square root
                of the number of tokens, at most one per 8 tokens).
        """
        tokens, folder, device = len(store.matrix), Path(folder), device or best_device()
        residual_bytes(store.dimension, bits)
        if not tokens:
            raise InputError(
                f"{store.folder} contains no token vectors, which a plaid index needs; use the flat"
                " index."
            )
        count = 2 ** int(np.log2(16 * tokens**0.5)) if centroids is None else centroids
        sampled = min(tokens, max(65_536, _SAMPLE * count), 1 << 21)
        count = max(1, min(count, sampled // 8)) if centroids is None else count
        if not 1 <= count <= sampled:
            raise OptionError(
                f"centroids is {count}, and k-means sees {sampled} tokens; expected 1 to {sampled}."
            )
        settings = {
            "kind": cls.kind,
            "bits": bits,
            "centroids": count,
            "sampled": sampled,
            "rounds": ROUNDS,
            "seed": seed,
        }
        parts = {"codec": _write_codec(store, folder / "codec", settings, device)}
        parts["codes"] = _write_codes(store, folder / "codes", parts["codec"], device)
        parts["lists"] = _write_lists(store, folder / "lists", parts["codes"], count)
        return cls(store, settings, parts, device)

    def candidates(self, query: np.ndarray, k: int, stages: Stages | None = None) -> np.ndarray:
        """Documents, ascending, that are likely in the top k of a query (tokens, D) by MaxSim.

        All ties at the end of a stage are kept. Documents without tokens are never candidates.
        """
        if query.ndim != 2 or query.shape[1] != self.store.dimension:
            raise InputError(
                f"query vectors have the shape {query.shape}; expected"
                f" (tokens, {self.store.dimension})."
            )
        probes, threshold, documents, rescored = stages or stages_for(k)
        vectors = torch.from_numpy(np.asarray(query, dtype=np.float32)).to(self.device)
        products = self.codec.centroids @ vectors.T
        rows = self._documents_under(products, probes)
        while len(rows) < documents and probes < len(products):
            probes *= 2
            rows = self._documents_under(products, probes)
        near = products.cpu().numpy()
        if len(rows) > documents:
            close = (products >= threshold).any(dim=1).cpu().numpy()
            rows = _best(rows, self._scores(rows, near, centroids=close), documents)
        if len(rows) > documents // 4:
            rows = _best(rows, self._scores(rows, near), documents // 4)
        if len(rows) > rescored:
            rows = _best(rows, self._scores(rows, near, vectors), rescored)
        return rows

    def _documents_under(self, products: Tensor, probes: int) -> np.ndarray:
        """Documents of the nearest centroids of each query token, by products (K, tokens)."""
        cells = products.topk(min(probes, len(products)), dim=0).indices.unique().cpu().numpy()
        begins = self._begins[:, cells].astype(np.int64)
        lengths = self._begins[:, cells + 1] - begins
        entries = concatenated_ranges((self._before + begins).ravel(), lengths.ravel())
        return np.unique(self._documents[entries]).astype(np.int64)

    def _scores(
        self,
        rows: np.ndarray,
        near: np.ndarray,
        vectors: Tensor | None = None,
        centroids: np.ndarray | None = None,
    ) -> np.ndarray:
        """MaxSim (n,) of documents with centroids instead of tokens.

        Args:
            near: (K, tokens) products of the centroids with the query.
            vectors: (tokens, D) query vectors, to add their products with the residuals, which is
                MaxSim with decoded tokens.
            centroids: (K,) whether each centroid counts (default: all). A document without one that
                counts scores -inf.
        """
        sizes = np.cumsum(self.starts[rows + 1] - self.starts[rows])
        parts = np.split(rows, np.searchsorted(sizes, np.arange(_CHUNK, sizes[-1], _CHUNK)))
        return np.concatenate([self._part_scores(part, near, vectors, centroids) for part in parts])

    def _part_scores(
        self,
        rows: np.ndarray,
        near: np.ndarray,
        vectors: Tensor | None,
        centroids: np.ndarray | None,
    ) -> np.ndarray:
        places, lengths = self.store.places(rows)
        codes = self._codes[places]
        if centroids is not None:
            chosen = np.flatnonzero(centroids[codes])
            owners = np.repeat(np.arange(len(rows)), lengths)[chosen]
            codes, lengths = codes[chosen], np.bincount(owners, minlength=len(rows))
        products = np.take(near, codes, axis=0)
        if vectors is not None:
            residuals = torch.from_numpy(self.codec.decode(self._residuals[places])).to(self.device)
            products += (residuals @ vectors.T).cpu().numpy()
        scores = np.full(len(rows), -np.inf, dtype=np.float32)
        not_empty = np.flatnonzero(lengths)
        if len(not_empty):
            begins = (np.cumsum(lengths) - lengths)[not_empty]
            scores[not_empty] = np.maximum.reduceat(products, begins, axis=0).sum(axis=1)
        return scores


def _best(rows: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The rows with the highest scores, and all ties of the last of them."""
    return rows[scores >= np.partition(scores, -count)[-count]]


def _load_codec(arrays: Arrays, device: torch.device) -> ResidualCodec:
    return ResidualCodec({name: np.asarray(arrays.array(name)) for name in codec_layout(1)}, device)


def _write_codec(
    store: TokenStore, folder: Path, settings: Mapping[str, Any], device: torch.device
) -> Arrays:
    def make(_start: int, _end: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(settings["seed"])
        held_out, sample = (
            np.asarray(
                store.matrix[np.sort(rng.choice(len(store.matrix), size, replace=False))],
                dtype=np.float32,
            )
            for size in (min(_HELD_OUT, len(store.matrix)), settings["sampled"])
        )
        return train_codec(sample, held_out, settings["centroids"], settings["bits"], rng, device)

    identity = {"format": FORMAT, "vectors": store.fingerprint, **settings}
    layout = codec_layout(store.dimension)
    write_arrays(folder, identity, layout, 1, 1, make, ShardOptions(label="cluster"))
    return Arrays(folder)


def _write_codes(store: TokenStore, folder: Path, trained: Arrays, device: torch.device) -> Arrays:
    codec = _load_codec(trained, device)

    def make(start: int, end: int) -> dict[str, np.ndarray]:
        first, last = int(store.starts[start]), int(store.starts[end])
        codes = np.empty(last - first, np.int32)
        residuals = np.empty((last - first, codec.width), np.uint8)
        for begin in range(first, last, _CHUNK):
            part = read_part(store.matrix, begin, min(begin + _CHUNK, last))
            places = slice(begin - first, begin - first + len(part))
            codes[places], residuals[places] = codec.encode(part)
        return {"codes": codes, "residuals": residuals}

    identity = {"format": FORMAT, "codec": trained.fingerprint}
    layout = {"codes": ("int32", ()), "residuals": ("uint8", (codec.width,))}
    options = ShardOptions(label="index")
    write_arrays(folder, identity, layout, len(store), _SHARD_ROWS, make, options)
    return Arrays(folder)


def _write_lists(store: TokenStore, folder: Path, encoded: Arrays, centroids: int) -> Arrays:
    """The documents of each centroid, in blocks of documents.

    ``begins`` (blocks, K + 1) are offsets into the ``documents`` of a block.
    """
    codes = encoded.array("codes")

    def make(start: int, end: int) -> dict[str, np.ndarray]:
        owners = np.repeat(np.arange(end - start), np.diff(store.starts[start : end + 1]))
        block_codes = codes[store.starts[start] : store.starts[end]]
        pairs = np.unique(block_codes.astype(np.int64) * _BLOCK_ROWS + owners)
        begins = np.searchsorted(pairs, np.arange(centroids + 1) * _BLOCK_ROWS)
        return {"begins": begins, "documents": pairs % _BLOCK_ROWS + start}

    layout = {"begins": ("int32", (centroids + 1,)), "documents": ("int32", ())}
    identity = {"format": FORMAT, "codes": encoded.fingerprint}
    options = ShardOptions(label="invert")
    write_arrays(folder, identity, layout, len(store), _BLOCK_ROWS, make, options)
    return Arrays(folder)
