"""PLAID over the tokens of a store (Santhanam et al. 2022, arXiv:2205.09707): late interaction that
looks at few vectors.

Every token is kept as a centroid and a few bits of residual (``residual_codec``), and every
centroid knows the documents with tokens of it. A search narrows its candidates in steps, each
dearer and closer to MaxSim than the one before: the documents under the centroids nearest to the
query's tokens; centroid interaction, which is MaxSim with a centroid in place of each token, first
over the centroids near to the query, then over all; and MaxSim over decoded vectors. The store has
the vectors themselves, so those that are left are scored exactly by the caller.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from irdistill.errors import IrdistillError
from irdistill.modeling.hardware import best_device
from irdistill.search.array_shards import Arrays, read_part, write_arrays
from irdistill.search.multi_vector.residual_codec import (
    ROUNDS,
    ResidualCodec,
    codec_layout,
    residual_bytes,
    train_codec,
)
from irdistill.search.vectors.vector_store import TokenStore, runs

FORMAT, SEARCH = 1, 1
"""Of the files, and of how they are searched: what is found may differ where one differs."""
BITS = 4
_SHARD_ROWS, _BLOCK_ROWS = 4096, 65_536
_CHUNK = 4096
"""Tokens that are encoded or scored together: what keeps their numbers in the caches of a CPU."""
_SAMPLE = 32
"""Tokens that k-means sees, for each centroid; 2 million at most."""
_HELD_OUT = 16_384


class Stages(NamedTuple):
    """How a search narrows its candidates.

    Attributes:
        probes: centroids of each query token whose documents are candidates; twice as many, and so
            on, until these are at least ``documents``.
        threshold: centroids with smaller products with all tokens of the query are passed over at
            first.
        documents: of these the first centroid interaction keeps so many, the second a quarter.
        rescored: MaxSim over decoded vectors keeps so many.
    """

    probes: int
    threshold: float
    documents: int
    rescored: int


def stages_for(k: int) -> Stages:
    """Settings for k results: the paper's, with four times as many documents, for more of the true
    best to be among them.
    """
    probes, threshold, documents = (
        (1, 0.5, 256) if k <= 10 else (2, 0.45, 1024) if k <= 100 else (4, 0.4, 4096)
    )
    return Stages(probes, threshold, 4 * max(documents, 4 * k), k + max(16, k // 4))


class PlaidIndex:
    """Finds candidates for MaxSim among the documents of a token store.

    Attributes:
        settings: what determines the index.
        nbytes: the size of its files.
        starts: (N + 1,) where the tokens of each document begin.
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
        self.codec = _codec(parts["codec"], device)
        self._codes, self._residuals = (
            parts["codes"].array("codes"),
            parts["codes"].array("residuals"),
        )
        self._begins, self._documents = (
            parts["lists"].array("begins"),
            parts["lists"].array("documents"),
        )
        ends = np.cumsum(self._begins[:, -1], dtype=np.int64)
        self._before = (ends - self._begins[:, -1])[:, None]  # the entries of earlier blocks

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
        """Build the index, go on where an earlier call was stopped, or open what is there.

        Args:
            bits: of each number of a residual: 1, 2, 4 or 8.
            centroids: where None, the power of two below 16 times the root of the number of tokens,
                and at most one for each 8.
            device: where to multiply; the best there is where None.

        Raises:
            IrdistillError: there are no tokens, or too few for so many centroids; bits that are not
                kept; or the folder holds an index over other vectors or with other settings.
        """
        tokens, folder, place = len(store.matrix), Path(folder), device or best_device()
        residual_bytes(store.dimension, bits)
        if not tokens:
            raise IrdistillError(
                f"{store.folder} holds no token vectors, and a plaid index needs some; use the flat"
                " index."
            )
        count = 2 ** int(np.log2(16 * tokens**0.5)) if centroids is None else centroids
        sampled = min(tokens, max(65_536, _SAMPLE * count), 1 << 21)
        count = max(1, min(count, sampled // 8)) if centroids is None else count
        if not 1 <= count <= sampled:
            raise IrdistillError(
                f"{count} centroids were asked for, and k-means sees {sampled} tokens; give 1 to"
                f" {sampled}."
            )
        settings = {
            "kind": cls.kind,
            "bits": bits,
            "centroids": count,
            "sampled": sampled,
            "rounds": ROUNDS,
            "seed": seed,
        }
        parts = {"codec": _write_codec(store, folder / "codec", settings, place)}
        parts["codes"] = _write_codes(store, folder / "codes", parts["codec"], place)
        parts["lists"] = _write_lists(store, folder / "lists", parts["codes"], count)
        return cls(store, settings, parts, place)

    def candidates(self, query: np.ndarray, k: int, stages: Stages | None = None) -> np.ndarray:
        """The documents, ascending, that are likely among the k best of a query (tokens, D) by
        MaxSim.

        Those that tie at the end of a stage all stay. A document without tokens is never found.

        Raises:
            IrdistillError: the query's vectors have another dimension.
        """
        if query.ndim != 2 or query.shape[1] != self.store.dimension:
            raise IrdistillError(
                f"query vectors of shape {query.shape} were given, not (tokens,"
                f" {self.store.dimension})."
            )
        probes, threshold, documents, rescored = stages or stages_for(k)
        asked = torch.from_numpy(np.asarray(query, dtype=np.float32)).to(self.device)
        products = self.codec.centroids @ asked.T
        rows = self._under(products, probes)
        while len(rows) < documents and probes < len(products):
            probes *= 2
            rows = self._under(products, probes)
        near = products.cpu().numpy()
        if len(rows) > documents:
            close = (products >= threshold).any(dim=1).cpu().numpy()
            rows = _best(rows, self._scores(rows, near, kept=close), documents)
        if len(rows) > documents // 4:
            rows = _best(rows, self._scores(rows, near), documents // 4)
        if len(rows) > rescored:
            rows = _best(rows, self._scores(rows, near, asked), rescored)
        return rows

    def _under(self, products: Tensor, probes: int) -> np.ndarray:
        """The documents under the nearest centroids of each query token, by products (K,
        tokens).
        """
        cells = products.topk(min(probes, len(products)), dim=0).indices.unique().cpu().numpy()
        begins = self._begins[:, cells].astype(np.int64)
        lengths = self._begins[:, cells + 1] - begins
        return np.unique(
            self._documents[runs((self._before + begins).ravel(), lengths.ravel())]
        ).astype(np.int64)

    def _scores(
        self,
        rows: np.ndarray,
        near: np.ndarray,
        asked: Tensor | None = None,
        kept: np.ndarray | None = None,
    ) -> np.ndarray:
        """MaxSim (n,) of documents with centroids in place of tokens, by the query's products (K,
        tokens) with them.

        Args:
            asked: the query's vectors (tokens, D), whose products with the residuals are added:
                with decoded tokens, that is.
            kept: of each centroid whether it counts; all where None. A document with none that does
                scores -inf.
        """
        sizes = np.cumsum(self.starts[rows + 1] - self.starts[rows])
        parts = np.split(rows, np.searchsorted(sizes, np.arange(_CHUNK, sizes[-1], _CHUNK)))
        return np.concatenate([self._part_scores(part, near, asked, kept) for part in parts])

    def _part_scores(
        self, rows: np.ndarray, near: np.ndarray, asked: Tensor | None, kept: np.ndarray | None
    ) -> np.ndarray:
        places, lengths = self.store.places(rows)
        codes = self._codes[places]
        if kept is not None:
            chosen = np.flatnonzero(kept[codes])
            owners = np.repeat(np.arange(len(rows)), lengths)[chosen]
            codes, lengths = codes[chosen], np.bincount(owners, minlength=len(rows))
        products = np.take(near, codes, axis=0)
        if asked is not None:
            residuals = torch.from_numpy(self.codec.decode(self._residuals[places])).to(self.device)
            products += (residuals @ asked.T).cpu().numpy()
        scores = np.full(len(rows), -np.inf, dtype=np.float32)
        full = np.flatnonzero(lengths)
        if len(full):
            begins = (np.cumsum(lengths) - lengths)[full]
            scores[full] = np.maximum.reduceat(products, begins, axis=0).sum(axis=1)
        return scores


def _best(rows: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """The rows of the greatest scores, and all that are equal to the last of them."""
    return rows[scores >= np.partition(scores, -count)[-count]]


def _codec(arrays: Arrays, device: torch.device) -> ResidualCodec:
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
    write_arrays(folder, identity, codec_layout(store.dimension), 1, 1, make, what="cluster")
    return Arrays(folder)


def _write_codes(store: TokenStore, folder: Path, trained: Arrays, device: torch.device) -> Arrays:
    codec = _codec(trained, device)

    def make(start: int, end: int) -> dict[str, np.ndarray]:
        first, last = int(store.starts[start]), int(store.starts[end])
        codes, residuals = (
            np.empty(last - first, np.int32),
            np.empty((last - first, codec.width), np.uint8),
        )
        for begin in range(first, last, _CHUNK):
            part = read_part(store.matrix, begin, min(begin + _CHUNK, last))
            places = slice(begin - first, begin - first + len(part))
            codes[places], residuals[places] = codec.encode(part)
        return {"codes": codes, "residuals": residuals}

    layout = {"codes": ("int32", ()), "residuals": ("uint8", (codec.width,))}
    write_arrays(
        folder,
        {"format": FORMAT, "codec": trained.fingerprint},
        layout,
        len(store),
        _SHARD_ROWS,
        make,
        what="index",
    )
    return Arrays(folder)


def _write_lists(store: TokenStore, folder: Path, encoded: Arrays, centroids: int) -> Arrays:
    """The documents of each centroid, for blocks of documents: begins (blocks, K + 1) into the
    block's documents.
    """
    codes = encoded.array("codes")

    def make(start: int, end: int) -> dict[str, np.ndarray]:
        owners = np.repeat(np.arange(end - start), np.diff(store.starts[start : end + 1]))
        held = codes[store.starts[start] : store.starts[end]]
        pairs = np.unique(held.astype(np.int64) * _BLOCK_ROWS + owners)
        begins = np.searchsorted(pairs, np.arange(centroids + 1) * _BLOCK_ROWS)
        return {"begins": begins, "documents": pairs % _BLOCK_ROWS + start}

    layout = {"begins": ("int32", (centroids + 1,)), "documents": ("int32", ())}
    identity = {"format": FORMAT, "codes": encoded.fingerprint}
    write_arrays(folder, identity, layout, len(store), _BLOCK_ROWS, make, what="invert")
    return Arrays(folder)
