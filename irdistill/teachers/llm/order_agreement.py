"""How well two orders of the same windows agree: by labels, and as the model writes them."""

from __future__ import annotations

from irdistill.storage.files import digest
from irdistill.teachers.llm.reading import Reading

#: Hexadecimal digits of a digest that decide whether a query is in the sample.
_DIGITS = 8


def in_sample(query_id: str, share: float) -> bool:
    """Whether a query belongs to a sample of this share of all queries.

    It depends on the query's id only, so a job that is resumed has the same sample.

    Examples:
        >>> in_sample("q1", 0.0), in_sample("q1", 1.0)
        (False, True)
    """
    return int(digest(["sample", query_id])[:_DIGITS], 16) < share * 16**_DIGITS


def window_agreement(order: Reading | None, generated: Reading | None) -> dict[str, float]:
    """Sums for a run's manifest: how well two orders of one window agree.

    Compared are the passages that both orders contain once. ``agreement_tau`` is Kendall's tau
    between them (1 for the same order, -1 for the reverse), ``agreement_first`` whether both begin
    with the same passage, and ``agreement_passages`` the number of such passages. Each is a sum and
    a count; see `irdistill.runs.manifest` for the mean.
    ``agreement_unread`` counts windows without one of the two orders, or with fewer than two such
    passages.

    Examples:
        >>> order, generated = Reading([2, 0, 1], [], [], 0), Reading([2, 1, 0], [], [], 0)
        >>> round(window_agreement(order, generated)["agreement_tau_sum"], 3)
        0.333
    """
    counts: dict[str, float] = {"agreement_windows": 1}
    both = [
        place
        for place in (order.order if order else [])
        if generated and place in generated.order and place not in generated.repeated
    ]
    if order is None or generated is None or len(both) < 2:
        return counts | {"agreement_unread": 1}
    from scipy.stats import kendalltau  # which takes a second to load

    tau = kendalltau(
        [order.order.index(place) for place in both],
        [generated.order.index(place) for place in both],
    ).statistic
    return counts | {
        "agreement_tau_sum": float(tau),
        "agreement_tau_count": 1,
        "agreement_first_sum": int(order.order[0] == generated.order[0]),
        "agreement_first_count": 1,
        "agreement_passages_sum": len(both),
        "agreement_passages_count": 1,
    }
