"""Whether the ranks and the scores of a run file agree, and what to tell the user if not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from irdistill.console.terminal import counted

EQUAL_SCORES = (
    "all scores of every query are equal, so the document ids decide the order, as in trec_eval. If"
    " the ranks are the order, import the file with irdistill runs import --ranks."
)


class RankFaults(NamedTuple):
    """How the ranks and scores of a run agree.

    Attributes:
        against_scores: queries with a document that has a better rank and a lower score than
            another.
        example: the number of the first such query.
        repeated: the first query in which two documents have the same rank, and that rank.
        lists: queries with at least two scored documents.
        equal: those of them in which all scores are the same.
    """

    against_scores: int = 0
    example: int = -1
    repeated: tuple[int, int] | None = None
    lists: int = 0
    equal: int = 0

    def add(self, queries: np.ndarray, ranks: np.ndarray, scores: np.ndarray) -> RankFaults:
        """The faults of these queries and of further ones.

        Args:
            queries: (n,) numbers of the queries; rows are ordered by query and rank, and all rows
                of a query come in one call.
            ranks: (n,).
            scores: (n,), NaN where not scored.
        """
        if len(queries) < 2:
            return self
        same_rank = (queries[1:] == queries[:-1]) & (ranks[1:] == ranks[:-1])
        row = int(np.argmax(same_rank)) if self.repeated is None and same_rank.any() else -1
        repeated = self.repeated if row < 0 else (int(queries[row]), int(ranks[row]))
        scored = ~np.isnan(scores)
        if not scored.all():
            queries, ranks, scores = queries[scored], ranks[scored], scores[scored]
        pair = queries[1:] == queries[:-1]
        rises = pair & (ranks[1:] > ranks[:-1]) & (scores[1:] > scores[:-1])
        wrong = np.unique(queries[1:][rises])
        lists = len(np.unique(queries[1:][pair]))
        unequal = len(np.unique(queries[1:][pair & (scores[1:] != scores[:-1])]))
        example = int(wrong[0]) if self.example < 0 and len(wrong) else self.example
        return RankFaults(
            self.against_scores + len(wrong),
            example,
            repeated,
            self.lists + lists,
            self.equal + lists - unequal,
        )

    def warnings(self, queries: int, example: str) -> list[str]:
        """Warnings for the user, of one or a few sentences each.

        Args:
            queries: number of queries of the run.
            example: the id of the query whose number is ``example``.
        """
        lines = []
        if self.against_scores:
            lines.append(
                f"the ranks of {self.against_scores} of {counted(queries, 'query')} contradict the"
                f" scores (first: query {example!r}). The scores decide the order, as in"
                " trec_eval. If the ranks are the order, import the file with irdistill runs import"
                " --ranks; if a lower score is better, negate the scores."
            )
        if self.lists and self.equal == self.lists:
            lines.append(EQUAL_SCORES)
        return lines
