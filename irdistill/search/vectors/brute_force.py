"""Exact nearest neighbors over a memory-mapped matrix, chunk by chunk, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from irdistill.console.progress_bars import progress
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
    """Top k inner products of each query, in one pass over the matrix.

    Args:
        matrix: (N, D) float32 or float16, possibly a memory map.
        queries: groups of query vectors (Q_i, D). A group is multiplied separately, so its result
            depends on that group alone.
        memory: most bytes of a chunk and its scores.
        skip: rows to leave out, ascending; they come last, with the score -inf.

    Returns:
        For each group, scores (Q_i, min(k, N)) float32 and rows int64, best first, ties by
        ascending row.

    Examples:
        >>> matrix = np.eye(3, dtype=np.float32)
        >>> [(scores, rows)] = exact_search(matrix, [matrix[:1]], 2, device=torch.device("cpu"))
        >>> rows.tolist()
        [[0, 1]]
    """
    device = device or best_device()
    rows, dimension = matrix.shape
    k = min(k, rows)
    groups = [
        torch.from_numpy(np.ascontiguousarray(group, dtype=np.float32)).to(device)
        for group in queries
    ]
    widest = max(map(len, groups), default=0)
    chunk = max(1, memory // (4 * (dimension + 2 * widest)))
    best = [
        (group.new_empty(len(group), 0), torch.empty(len(group), 0, dtype=torch.int64).to(device))
        for group in groups
    ]
    with progress(rows, "documents", f"search for {sum(map(len, groups))} queries") as bar:
        for start in range(0, rows, chunk):
            part = torch.from_numpy(read_part(matrix, start, min(start + chunk, rows))).to(device)
            skipped = None
            if skip is not None and len(skip):
                first, last = np.searchsorted(skip, [start, start + len(part)])
                skipped = torch.from_numpy(skip[first:last] - start).to(device)
            for number, group in enumerate(groups):
                products = group @ part.T
                if skipped is not None:
                    products[:, skipped] = -torch.inf
                top, places = products.topk(min(k, len(part)), dim=1)
                scores = torch.cat([best[number][0], top], dim=1)
                places = torch.cat([best[number][1], places + start], dim=1)
                keep = scores.topk(min(k, scores.shape[1]), dim=1).indices
                best[number] = scores.gather(1, keep), places.gather(1, keep)
            bar.update(len(part))
            del part  # before the next one is read
    return [
        sort_by_score_and_row(scores.cpu().numpy(), places.cpu().numpy()) for scores, places in best
    ]


def score_blocks(
    matrix: np.ndarray | CheckedArray,
    queries: Sequence[np.ndarray],
    *,
    memory: int = 256 << 20,
    device: torch.device | None = None,
    skip: np.ndarray | None = None,
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The inner products (Q, n) of all rows with each group of queries (Q, D), block by block.

    Args:
        matrix, memory: as in `exact_search`.
        skip: rows whose products are -inf, ascending.

    Yields:
        The first row of a block, and the products of each group.
    """
    device = device or best_device()
    rows, dimension = matrix.shape
    groups = [
        torch.from_numpy(np.ascontiguousarray(group, dtype=np.float32)).to(device)
        for group in queries
    ]
    chunk = max(1, memory // (4 * (dimension + 3 * sum(map(len, groups)))))
    with progress(rows, "documents", f"search for {sum(map(len, groups))} queries") as bar:
        for start in range(0, rows, chunk):
            part = torch.from_numpy(read_part(matrix, start, min(start + chunk, rows))).to(device)
            products = [(group @ part.T).cpu().numpy() for group in groups]
            if skip is not None and len(skip):
                first, last = np.searchsorted(skip, [start, start + len(part)])
                for lines in products:
                    lines[:, skip[first:last] - start] = -np.inf
            bar.update(len(part))
            yield start, products


def sort_by_score_and_row(scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort each line of (Q, k) scores and rows by descending score, then ascending row."""
    order = np.lexsort((rows, -scores), axis=1)
    sorted_rows = np.take_along_axis(rows, order, axis=1).astype(np.int64)
    return np.take_along_axis(scores, order, axis=1), sorted_rows
