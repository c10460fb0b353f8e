"""MaxSim over the token vectors of a corpus (ColBERT, Khattab and Zaharia 2020, arXiv:2004.12832).

The score of a document is, for each query token, the largest inner product with one of its tokens,
summed over the query tokens in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from irdistill.collections import Corpus
from irdistill.console.progress_bars import progress
from irdistill.modeling.hardware import best_device
from irdistill.search.array_shards import read_part
from irdistill.search.ranking import SearchHits, TopK, best_rows
from irdistill.search.vectors.vector_store import TokenStore

EMPTY = -np.inf
"""Score of a document without scored tokens, which is never retrieved."""
_QUERY_TOKENS = 512
"""Query tokens that are multiplied together; their products fit the caches of a CPU."""
_MEMORY = 256 << 20


class MaxSimQueries:
    """Queries laid out for MaxSim on a device.

    Args:
        vectors: (tokens, D) of each query.
        mean: divide the sums by the number of query tokens (MeanMaxSim).
    """

    def __init__(self, vectors: Sequence[np.ndarray], mean: bool, device: torch.device) -> None:
        lengths = np.array([len(tokens) for tokens in vectors], dtype=np.int64)
        self.count, self.mean = len(vectors), mean
        self.chunks = [
            (
                torch.from_numpy(np.concatenate(vectors[first:last]).astype(np.float32)).to(device),
                torch.from_numpy(lengths[first:last]).to(device),
            )
            for first, last in pairwise(_chunk_edges(lengths, self.chunk_tokens(device)))
        ]

    @staticmethod
    def chunk_tokens(device: torch.device) -> int:
        """Query tokens that are multiplied together."""
        return _QUERY_TOKENS if device.type == "cpu" else 16 * _QUERY_TOKENS

    def scores(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Scores (n, Q) float32 of n documents.

        Args:
            tokens: (T, D) tokens of the documents.
            lengths: (n,) number of tokens of each document, at least 1.
        """
        scores = []
        for queries, counts in self.chunks:
            largest = _segment_max(tokens @ queries.T, lengths)
            sums = torch.segment_reduce(largest.T.contiguous(), "sum", lengths=counts, axis=0).T
            scores.append(sums / counts.clamp_min(1) if self.mean else sums)
        return torch.cat(scores, dim=1)


def _segment_max(values: Tensor, lengths: Tensor) -> Tensor:
    """Maxima (n, Q) of (T, Q) over n segments of rows, none of them empty."""
    if values.device.type == "cpu":  # segment_reduce takes twice as long there
        return torch.stack([rows.amax(dim=0) for rows in values.split(lengths.tolist())])
    return torch.segment_reduce(values, "max", lengths=lengths, axis=0)


def maxsim_search(
    store: TokenStore,
    groups: Sequence[Sequence[np.ndarray]],
    corpus: Corpus,
    k: int,
    *,
    mean: bool = False,
    memory: int = _MEMORY,
    device: torch.device | None = None,
) -> list[list[SearchHits]]:
    """Exact top k documents of each query, in one pass over the store.

    Args:
        groups: groups of queries (tokens, D). A group is multiplied separately, so its result
            depends on that group alone.
        mean: MeanMaxSim instead of MaxSim.
        memory: most bytes of tokens, products and scores.
    """
    tops = [
        [TopK(corpus, k if len(query) else 0, above=EMPTY) for query in group] for group in groups
    ]
    for first, scores in maxsim_blocks(store, groups, mean=mean, memory=memory, device=device):
        for group_tops, values in zip(tops, scores, strict=True):
            for top, line in zip(group_tops, values, strict=True):
                top.add(line, first)
    return [[top.hits for top in group_tops] for group_tops in tops]


def maxsim_blocks(
    store: TokenStore,
    groups: Sequence[Sequence[np.ndarray]],
    *,
    mean: bool = False,
    memory: int = _MEMORY,
    device: torch.device | None = None,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The scores (Q, n) of all documents for each group of queries, block by block.

    Args:
        groups, mean, memory: as in `maxsim_search`.

    Yields:
        The first row of a block, and the scores of each group; -inf for a document or a query
        without tokens.
    """
    device = device or best_device()
    prepared = [MaxSimQueries(group, mean, device) for group in groups]
    total = sum(queries.count for queries in prepared)
    block = max(1, min(len(store), memory // 4 // (4 * max(1, total))))
    chunk = _document_tokens(device, memory)
    with progress(len(store), "documents", f"search for {total} queries") as bar:
        for first in range(0, len(store), block):
            end = min(first + block, len(store))
            scores = [
                np.full((queries.count, end - first), EMPTY, dtype=np.float32)
                for queries in prepared
            ]
            for rows, tokens, lengths in _chunks(store, first, end, chunk, device):
                for values, queries in zip(scores, prepared, strict=True):
                    if queries.count:
                        values[:, rows - first] = queries.scores(tokens, lengths).T.cpu().numpy()
                bar.update(len(rows))
            for values, group in zip(scores, groups, strict=True):
                values[[place for place, query in enumerate(group) if not len(query)]] = EMPTY
            yield first, scores


def rerank(
    store: TokenStore,
    query: np.ndarray,
    rows: np.ndarray,
    corpus: Corpus,
    k: int,
    *,
    mean: bool = False,
    memory: int = _MEMORY,
    device: torch.device | None = None,
) -> SearchHits:
    """Top k of some documents by exact MaxSim with one query (tokens, D)."""
    device = device or best_device()
    queries = MaxSimQueries([query], mean, device)
    scores = np.full(len(rows), EMPTY, dtype=np.float32)
    lengths = store.starts[rows + 1] - store.starts[rows]
    not_empty = np.flatnonzero(lengths)
    for first, last in pairwise(_chunk_edges(lengths[not_empty], _document_tokens(device, memory))):
        chosen = not_empty[first:last]
        tokens = store.take(rows[chosen]).values.to(device)
        counts = torch.from_numpy(lengths[chosen]).to(device)
        scores[chosen] = queries.scores(tokens, counts)[:, 0].cpu().numpy()
    return best_rows(corpus, scores, k if len(query) else 0, rows, above=EMPTY)


def _document_tokens(device: torch.device, memory: int) -> int:
    """Document tokens that are multiplied together: they fit the caches of a CPU, or fill a GPU."""
    if device.type == "cpu":
        return 8192
    return max(1, memory // 2 // (4 * MaxSimQueries.chunk_tokens(device)))


def _chunk_edges(lengths: np.ndarray, limit: int) -> list[int]:
    """Where to split texts, so that each chunk has at most ``limit`` tokens, or one text."""
    edges, tokens = [0], 0
    for place, length in enumerate(lengths.tolist()):
        if place > edges[-1] and tokens + length > limit:
            edges.append(place)
            tokens = 0
        tokens += length
    return [*edges, len(lengths)] if len(lengths) else [0]


def _chunks(
    store: TokenStore, first: int, end: int, size: int, device: torch.device
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Rows, tokens (T, D) and token counts of the documents with tokens, about ``size`` tokens at
    a time.
    """
    edges = _chunk_edges(np.diff(store.starts[first : end + 1]), size)
    for start, stop in pairwise(edges):
        begins = store.starts[first + start : first + stop + 1]
        lengths = np.diff(begins)
        rows = first + start + np.flatnonzero(lengths)
        if len(rows):
            tokens = read_part(store.matrix, int(begins[0]), int(begins[-1]))
            yield (
                rows,
                torch.from_numpy(tokens).to(device),
                torch.from_numpy(lengths[lengths > 0]).to(device),
            )
