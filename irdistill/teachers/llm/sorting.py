"""Sorting algorithms as generators, so that a comparison can wait for a language model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

#: ``before(a, b)`` is a generator that returns whether a belongs before b.
Sort = Generator[Any, Any, list[int]]
Before = Callable[[int, int], Generator[Any, Any, bool]]


def heap_top(places: Sequence[int], before: Before, top: int) -> Sort:
    """The best ``top`` places, sorted by a heap; then the others in their old order.

    At most ``2n + 2 * top * floor(log2(n))`` comparisons for n places.
    """
    heap = list(places)
    best: list[int] = []
    for root in reversed(range(len(heap) // 2)):
        yield from _sift(heap, root, before)
    while heap and len(best) < top:
        best.append(heap[0])
        last = heap.pop()
        if heap:
            heap[0] = last
            if len(best) < top:
                yield from _sift(heap, 0, before)
    left = set(heap)
    return best + [place for place in places if place in left]


def _sift(heap: list[int], root: int, before: Before) -> Generator[Any, Any, None]:
    while (child := 2 * root + 1) < len(heap):
        if child + 1 < len(heap) and (yield from before(heap[child + 1], heap[child])):
            child += 1
        if not (yield from before(heap[child], heap[root])):
            return
        heap[root], heap[child] = heap[child], heap[root]
        root = child


def slide_up(places: Sequence[int], before: Before, passes: int) -> Sort:
    """Passes from the bottom to the top that exchange neighbors; each pass moves one more place to
    the top.

    ``k (n - 1) - k (k - 1) / 2`` comparisons for k passes over n places, because sorted places are
    skipped.
    """
    order = list(places)
    for settled in range(min(passes, len(order) - 1)):
        for place in range(len(order) - 1, settled, -1):
            if (yield from before(order[place], order[place - 1])):
                order[place - 1], order[place] = order[place], order[place - 1]
    return order
