"""What is said where the ranks and the scores of a run file do not fit together."""

from __future__ import annotations

EQUAL_SCORES = (
    "all scores of every query are equal, so the document ids decide the order, as in trec_eval. If the ranks are the order, import the "
    "file with irdistill runs import --ranks."
)


def ranks_against_scores(count: int, queries: int, example: str) -> str:
    """The warning about ``count`` of the queries of a run; ``example`` is the id of one of them."""
    return (
        f"the ranks of {count} of {queries} queries contradict the scores (first: {example!r}). The scores decide the order, as in "
        "trec_eval. If the ranks are the order, import the file with irdistill runs import --ranks; if a lower score is better, negate "
        "the scores."
    )
