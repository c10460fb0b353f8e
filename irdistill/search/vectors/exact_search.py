"""Exact nearest neighbours over a memory-mapped matrix, chunk by chunk, with bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from irdistill.console.progress import progress
from irdistill.modeling.hardware import best_device
from irdistill.search.array_shards import read_part
from irdistill.storage.checksums import CheckedArray


def exact_search(
    matrix: np.ndarray | CheckedArray,
    queries: Sequence[np.ndarray],
    k: int,
    *,
    memory: int = 256 << 20,
    device: torch.device | None = None,
    skip: np.ndarray | None = None,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The k greatest inner products of every query, in one pass over the matrix.

    Args:
        matrix: (N, D) float32 or float16, possibly a memory map.
        queries: groups of query vectors (Q_i, D). Every group is multiplied by itself, so its
            result does not depend on the other groups.
        memory: bytes that a chunk and its scores may take.
        device: where to multiply; the best there is where None.
        skip: rows, ascending, that are left out; they come last with the score -inf.

    Returns:
        For each group scores (Q_i, min(k, N)) float32 and rows int64, best first, equal scores by
        row.
    """
    rows, dimension = matrix.shape
    k = min(k, rows)
    place = device or best_device()
    groups = [
        torch.from_numpy(np.ascontiguousarray(group, dtype=np.float32)).to(place)
        for group in queries
    ]
    widest = max((len(group) for group in groups), default=0)
    chunk = max(1, memory // (4 * (dimension + 2 * widest)))
    best: list[tuple[torch.Tensor, torch.Tensor]] = [
        (
            group.new_empty(len(group), 0),
            torch.empty(len(group), 0, dtype=torch.int64, device=place),
        )
        for group in groups
    ]
    with progress(rows, "documents", f"search for {sum(map(len, groups))} queries") as bar:
        for start in range(0, rows, chunk):
            part = torch.from_numpy(read_part(matrix, start, min(start + chunk, rows))).to(place)
            left_out = None
            if skip is not None and len(skip):
                inside = (
                    skip[np.searchsorted(skip, start) : np.searchsorted(skip, start + len(part))]
                    - start
                )
                left_out = torch.from_numpy(inside).to(place)
            for number, group in enumerate(groups):
                products = group @ part.T
                if left_out is not None:
                    products[:, left_out] = -torch.inf
                scores, found = products.topk(min(k, len(part)), dim=1)
                scores = torch.cat([best[number][0], scores], dim=1)
                found = torch.cat([best[number][1], found + start], dim=1)
                keep = scores.topk(min(k, scores.shape[1]), dim=1).indices
                best[number] = scores.gather(1, keep), found.gather(1, keep)
            bar.update(len(part))
            del part  # before the next one is read
    return [
        sort_by_score_and_row(scores.cpu().numpy(), found.cpu().numpy()) for scores, found in best
    ]


def sort_by_score_and_row(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order each line of (Q, k) scores and rows by score descending, then row ascending."""
    order = np.lexsort((rows, -scores), axis=1)
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(
        rows, order, axis=1
    ).astype(np.int64)
