"""Documents ranked by the scores of their passages: MaxP, FirstP and log-sum-exp.

MaxP and FirstP are of Dai and Callan 2019 (arXiv:1905.09217).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from irdistill.collections import Corpus
from irdistill.collections.passage_corpus import Passages
from irdistill.errors import OptionError
from irdistill.search.ranking import SearchHits, best_rows

Method = Literal["maxp", "firstp", "logsumexp"]
DENSE_TAU = 0.05
"""Default temperature of log-sum-exp of cosines, which differ by some hundredths."""
_DEEPER = 2


@dataclass(frozen=True)
class Aggregation:
    """How the scores of a document's passages become its score.

    - ``maxp``: the highest;
    - ``firstp``: that of the first passage;
    - ``logsumexp``: ``tau * log(sum(exp(score / tau)))`` over its passages with a score.

    Examples:
        >>> Aggregation("logsumexp", tau=0.5).settings()
        {'method': 'logsumexp', 'tau': 0.5}
    """

    method: Method = "maxp"
    tau: float = 1.0

    def settings(self) -> dict[str, Any]:
        """What determines the scores, as JSON values."""
        tau = {"tau": self.tau} if self.method == "logsumexp" else {}
        return {"method": self.method, **tau}

    def reduce(self, scores: np.ndarray, starts: np.ndarray) -> np.ndarray:
        """Document scores (Q, D) float32 of passage scores (Q, P); -inf where there is none.

        Args:
            scores: -inf for a passage that has no score.
            starts: (D,) the first passage of each document, ascending.

        Examples:
            >>> scores = np.array([[1.0, 3.0, 2.0]], np.float32)
            >>> Aggregation("maxp").reduce(scores, np.array([0, 2])).tolist()
            [[3.0, 2.0]]
        """
        if self.method == "firstp":
            return scores[:, starts]
        highest: np.ndarray = np.maximum.reduceat(scores, starts, axis=1)
        if self.method == "maxp":
            return highest
        lengths = np.diff(np.append(starts, scores.shape[1]))
        top = np.where(np.isfinite(highest), highest, 0.0).astype(np.float64)
        powers = np.exp((scores - np.repeat(top, lengths, axis=1)) / self.tau)
        sums = np.add.reduceat(powers, starts, axis=1)
        with np.errstate(divide="ignore"):
            return (top + self.tau * np.log(sums)).astype(np.float32)

    def best(self, scores: np.ndarray) -> int:
        """The number of the passage that is shown for a document, by its passages' scores (n,)."""
        return 0 if self.method == "firstp" else int(np.argmax(scores))


MAXP = Aggregation()


class PassageScores(NamedTuple):
    """Scores of some passages for groups of queries.

    Attributes:
        first: row of the first passage.
        groups: for each group (Q, n) float32, -inf where a passage has no score.
    """

    first: int
    groups: Sequence[np.ndarray]


def rank_documents(
    blocks: Iterable[PassageScores],
    corpus: Corpus,
    aggregation: Aggregation,
    k: int,
) -> list[list[SearchHits]]:
    """The exact top k documents of each query from the scores of all passages.

    Args:
        blocks: all passages in ascending order, a block in memory at a time.
        corpus: the documents, with their passages.

    Returns:
        For each group and query the hits, with the number of the best passage of each document.
    """
    assert corpus.passages is not None
    tops: list[list[SearchHits]] = []
    for first, starts, groups in _whole_documents(blocks, corpus.passages.starts):
        if not tops:
            tops = [[_no_hits() for _ in scores] for scores in groups]
        for lines, scores in zip(tops, groups, strict=True):
            reduced = aggregation.reduce(scores, starts)
            for place, (top, line) in enumerate(zip(lines, reduced, strict=True)):
                above = -np.inf
                if len(top.scores) == k:  # an equal score may still win by its id
                    above = float(np.nextafter(top.scores[-1], np.float32(-np.inf)))
                rows = np.arange(first, first + len(line))
                hits = best_rows(corpus, line, k, rows, above)
                if len(hits.rows):
                    numbers = _best_passages(scores[place], starts, hits.rows - first, aggregation)
                    lines[place] = _merged(corpus, top, hits._replace(passages=numbers), k)
    return tops


def document_scores(
    blocks: Iterable[PassageScores], corpus: Corpus, aggregation: Aggregation
) -> Iterator[tuple[int, list[np.ndarray]]]:
    """The scores (Q, n) of all documents for each group, block by block."""
    assert corpus.passages is not None
    for first, starts, groups in _whole_documents(blocks, corpus.passages.starts):
        yield first, [aggregation.reduce(scores, starts) for scores in groups]


def _whole_documents(
    blocks: Iterable[PassageScores], starts: np.ndarray
) -> Iterator[tuple[int, np.ndarray, list[np.ndarray]]]:
    """The scores in blocks of whole documents: the first document, where each begins in the block,
    and the scores.
    """
    rest: list[np.ndarray] = []
    document = 0
    for block in blocks:
        groups = list(block.groups)
        if rest:
            groups = [np.hstack(pair) for pair in zip(rest, groups, strict=True)]
        if not groups:
            continue
        begin = int(starts[document])
        last = int(np.searchsorted(starts, begin + groups[0].shape[1], side="right")) - 1
        stop = int(starts[last]) - begin
        if last > document:
            yield document, starts[document:last] - begin, [scores[:, :stop] for scores in groups]
        rest = [scores[:, stop:] for scores in groups]
        document = last


def _best_passages(
    scores: np.ndarray, starts: np.ndarray, documents: np.ndarray, aggregation: Aggregation
) -> np.ndarray:
    edges = np.append(starts, len(scores))
    return np.array(
        [aggregation.best(scores[edges[row] : edges[row + 1]]) for row in documents.tolist()],
        np.int32,
    )


def _merged(corpus: Corpus, first: SearchHits, second: SearchHits, k: int) -> SearchHits:
    """The top k of both; they have no document in common."""
    rows = np.concatenate([first.rows, second.rows])
    assert first.passages is not None and second.passages is not None
    numbers = np.concatenate([first.passages, second.passages])
    top = best_rows(corpus, np.concatenate([first.scores, second.scores]), k, rows)
    order = np.argsort(rows, kind="stable")
    return top._replace(passages=numbers[order[np.searchsorted(rows, top.rows, sorter=order)]])


def _no_hits() -> SearchHits:
    return SearchHits(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int32))


def deepen(
    search: Callable[[int], Sequence[SearchHits]], corpus: Corpus, k: int
) -> list[SearchHits]:
    """The top k documents of each query by MaxP, from the top passages of an index.

    The index is asked for more and more passages, until the first k documents cannot change.

    Args:
        search: the top passages of each query; its argument is how many.
        corpus: the documents, with their passages.
    """
    passages = corpus.passages
    assert passages is not None
    depth = _DEEPER * k
    while True:
        hits = search(depth)
        complete = depth >= len(passages)
        if complete or all(_is_deep_enough(top, passages, k, depth) for top in hits):
            return [max_passages(top, corpus, k) for top in hits]
        depth *= _DEEPER


def _is_deep_enough(top: SearchHits, passages: Passages, k: int, depth: int) -> bool:
    """Whether the passages that were not retrieved cannot change the first k documents."""
    if len(top.rows) < depth:
        return True
    certain = top.scores > top.scores[-1]
    return len(np.unique(passages.documents_of(top.rows[certain]))) >= k


def max_passages(top: SearchHits, corpus: Corpus, k: int) -> SearchHits:
    """The top k documents of retrieved passages, each with its best passage."""
    assert corpus.passages is not None
    if not k or not len(top.rows):
        return _no_hits()
    documents, numbers = (
        corpus.passages.documents_of(top.rows),
        corpus.passages.numbers(top.rows),
    )
    order = np.lexsort((numbers, -top.scores, documents))
    first = order[np.unique(documents[order], return_index=True)[1]]
    ranked = best_rows(corpus, top.scores[first], k, documents[first])
    places = np.searchsorted(documents[first], ranked.rows)
    return ranked._replace(passages=numbers[first][places].astype(np.int32))


def check_exact(aggregation: Aggregation, index: str) -> None:
    """Check that an index can be used with an aggregation.

    Raises:
        OptionError: it needs the scores of all passages, and the index finds only the best ones.
    """
    if aggregation.method != "maxp":
        raise OptionError(
            f"aggregate is {aggregation.method}, which needs the scores of all passages, and"
            f" {index} returns the best ones alone. Use --aggregate maxp, or an exact search"
            " (bm25, or --index flat)."
        )
