"""Batches of a token budget over items sorted by length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

logger = logging.getLogger(__name__)


@dataclass
class TokenBudget:
    """Maximal padded tokens and items of a forward pass; halved when memory runs out."""

    tokens: int
    max_items: int = 1024

    def halve(self) -> None:
        """Halve the budget of all later batches."""
        self.tokens = max(1, self.tokens // 2)
        self.max_items = max(1, self.max_items // 2)


def token_budget_batches(
    lengths: Sequence[int] | np.ndarray, budget: TokenBudget
) -> Iterator[np.ndarray]:
    """Yield index arrays, longest items first, each with at most ``budget.tokens`` padded tokens.

    The longest first batch shows at once whether memory suffices. The order is deterministic (ties
    by index). An item longer than the budget is a batch of its own. A budget that is halved between
    batches applies to the next batch.

    Examples:
        >>> [batch.tolist() for batch in token_budget_batches([1, 3, 2], TokenBudget(4))]
        [[1], [2, 0]]
    """
    values = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-values, kind="stable")
    start = 0
    while start < len(order):
        longest = max(1, int(values[order[start]]))
        count = max(1, min(budget.tokens // longest, budget.max_items))
        yield order[start : start + count]
        start += count


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that GPU or CPU memory ran out."""
    text = str(error).lower()
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in text
        or "can't allocate memory" in text
    )


def run_batches(
    lengths: Sequence[int] | np.ndarray, budget: TokenBudget, forward: Callable[[np.ndarray], None]
) -> None:
    """Call ``forward(indices)`` on every batch; when memory runs out, halve the budget and retry.

    Raises:
        The original error if a single item does not fit.
    """
    values = np.asarray(lengths, dtype=np.int64)

    def run(indices: np.ndarray) -> None:
        try:
            forward(indices)
            return
        except Exception as error:
            if not is_out_of_memory(error) or len(indices) == 1:
                raise
        budget.halve()
        logger.warning(
            "out of memory with %d items: token budget halved to %d", len(indices), budget.tokens
        )
        for inner in token_budget_batches(values[indices], budget):
            run(indices[inner])

    # The budget may shrink between two batches: `token_budget_batches` reads it for each of them.
    for batch in token_budget_batches(values, budget):
        run(batch)
