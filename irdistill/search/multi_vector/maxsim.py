"""MaxSim over the token vectors of a corpus (ColBERT, Khattab and Zaharia 2020, arXiv:2004.12832).

For each query token the largest inner product with a token of the document, summed over the query
tokens in float32. Exact search streams all tokens of the corpus past the queries; the candidates of
an approximate one are the documents of the tokens nearest to each query token in an index over all
tokens (section 3.6 there), scored exactly after that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from irdistill.collections import Corpus
from irdistill.console.progress import progress
from irdistill.modeling.hardware import best_device
from irdistill.search.array_shards import read_part
from irdistill.search.ranking import SearchHits, TopK, best_rows
from irdistill.search.vectors.vector_store import TokenStore

EMPTY = -np.inf
"""In place of the score of a document without a scored token, which is never found."""
_QUERY_TOKENS = 512
"""Query tokens multiplied at a time: what keeps the products in the caches of a CPU."""


class MaxSimQueries:
    """Some queries, laid out for MaxSim on a device.

    Args:
        vectors: of each query (tokens, D).
        mean: divide the sums by the numbers of query tokens (MeanMaxSim).
    """

    def __init__(self, vectors: Sequence[np.ndarray], mean: bool, device: torch.device) -> None:
        lengths = np.array([len(tokens) for tokens in vectors], dtype=np.int64)
        self.count, self.mean = len(vectors), mean
        edges = _edges(lengths, self.room(device))
        self.chunks = [
            (
                torch.from_numpy(np.concatenate(vectors[first:last]).astype(np.float32)).to(device),
                torch.from_numpy(lengths[first:last]).to(device),
            )
            for first, last in pairwise(edges)
        ]

    @staticmethod
    def room(device: torch.device) -> int:
        """Query tokens that are multiplied together."""
        return _QUERY_TOKENS if device.type == "cpu" else 16 * _QUERY_TOKENS

    def scores(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """MaxSim (n, Q) float32 with n documents: their tokens (T, D), and how many each has, at
        least 1.
        """
        found = []
        for queries, counts in self.chunks:
            largest = _segment_max(tokens @ queries.T, lengths)
            sums = torch.segment_reduce(largest.T.contiguous(), "sum", lengths=counts, axis=0).T
            found.append(sums / counts.clamp_min(1) if self.mean else sums)
        return torch.cat(found, dim=1)


def _segment_max(values: Tensor, lengths: Tensor) -> Tensor:
    """The maxima (n, Q) of (T, Q) over n runs of rows; none is empty."""
    if values.device.type == "cpu":  # segment_reduce takes twice as long there
        return torch.stack([run.amax(dim=0) for run in values.split(lengths.tolist())])
    return torch.segment_reduce(values, "max", lengths=lengths, axis=0)


def maxsim_search(
    store: TokenStore,
    groups: Sequence[Sequence[np.ndarray]],
    corpus: Corpus,
    k: int,
    *,
    mean: bool = False,
    memory: int = 256 << 20,
    device: torch.device | None = None,
) -> list[list[SearchHits]]:
    """The k best documents of each query of each group, in one pass over the store.

    Args:
        groups: queries (tokens, D). A group's products are made apart from the others', so its
            result depends on it alone.
        mean: MeanMaxSim in place of MaxSim.
        memory: bytes that tokens, their products and scores may take.
        device: where to multiply; the best there is where None.
    """
    place = device or best_device()
    asked = [MaxSimQueries(group, mean, place) for group in groups]
    best = [
        [TopK(corpus, k if len(query) else 0, above=EMPTY) for query in group] for group in groups
    ]
    width = max(1, sum(queries.count for queries in asked))
    block = max(1, min(len(store), memory // 4 // (4 * width)))
    chunk = _chunk_tokens(place, memory)
    with progress(
        len(store), "documents", f"search for {sum(queries.count for queries in asked)} queries"
    ) as bar:
        for first in range(0, len(store), block):
            end = min(first + block, len(store))
            scores = [
                np.full((queries.count, end - first), EMPTY, dtype=np.float32) for queries in asked
            ]
            for rows, tokens, lengths in _chunks(store, first, end, chunk, place):
                for found, queries in zip(scores, asked, strict=True):
                    if queries.count:
                        found[:, rows - first] = queries.scores(tokens, lengths).T.cpu().numpy()
                bar.update(len(rows))
            for group, found in zip(best, scores, strict=True):
                for one, values in zip(group, found, strict=True):
                    one.add(values, first)
    return [[one.hits for one in group] for group in best]


def rerank(
    store: TokenStore,
    query: np.ndarray,
    rows: np.ndarray,
    corpus: Corpus,
    k: int,
    *,
    mean: bool = False,
    memory: int = 256 << 20,
    device: torch.device | None = None,
) -> SearchHits:
    """The k best of some documents by exact MaxSim with one query (tokens, D)."""
    place = device or best_device()
    asked = MaxSimQueries([query], mean, place)
    scores = np.full(len(rows), EMPTY, dtype=np.float32)
    lengths = store.starts[rows + 1] - store.starts[rows]
    full = np.flatnonzero(lengths)
    edges = _edges(lengths[full], _chunk_tokens(place, memory))
    for first, last in pairwise(edges):
        chosen = full[first:last]
        tokens = store.take(rows[chosen]).values.to(place)
        scores[chosen] = (
            asked.scores(tokens, torch.from_numpy(lengths[chosen]).to(place))[:, 0].cpu().numpy()
        )
    return best_rows(corpus, scores, k if len(query) else 0, rows, above=EMPTY)


def _chunk_tokens(device: torch.device, memory: int) -> int:
    """Document tokens that are multiplied together: what keeps the products in the caches of a CPU,
    or fills a GPU.
    """
    return 8192 if device.type == "cpu" else max(1, memory // 2 // (4 * MaxSimQueries.room(device)))


def _edges(lengths: np.ndarray, room: int) -> list[int]:
    """Where to cut a sequence of texts, so that each part has at most ``room`` tokens, or one
    text.
    """
    edges, held = [0], 0
    for place, length in enumerate(lengths.tolist()):
        if place > edges[-1] and held + length > room:
            edges.append(place)
            held = 0
        held += length
    return [*edges, len(lengths)] if len(lengths) else [0]


def _chunks(
    store: TokenStore, first: int, end: int, size: int, device: torch.device
) -> Iterator[tuple[np.ndarray, Tensor, Tensor]]:
    """Documents with at least one token, about ``size`` tokens at a time: their rows, tokens (T, D)
    and token counts.
    """
    edges, tokens = _edges(np.diff(store.starts[first : end + 1]), size), store.matrix
    for start, stop in pairwise(edges):
        begins = store.starts[first + start : first + stop + 1]
        lengths = np.diff(begins)
        rows = first + start + np.flatnonzero(lengths)
        if len(rows):
            part = read_part(tokens, int(begins[0]), int(begins[-1]))
            yield (
                rows,
                torch.from_numpy(part).to(device),
                torch.from_numpy(lengths[lengths > 0]).to(device),
            )
