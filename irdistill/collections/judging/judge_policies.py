"""One grade for each pair from the grades of several judges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irdistill.collections.judging.judge_files import JudgeRecords
from irdistill.collections.judging.judge_log import Judgment, Pair
from irdistill.collections.qrels import Qrels
from irdistill.errors import OptionError

POLICIES = ("any", "all", "majority")


@dataclass(frozen=True)
class CombinedJudgments:
    """The judgments of one or several people as one.

    Attributes:
        qrels: the grades.
        policy: ``any``, ``all``, ``majority``, or the name of the judge.
        judges: the judges who count.
        pairs: number of pairs with a grade of at least one of them.
        differing: number of pairs of which one judge says relevant and another not.
        undecided: number of pairs left out because no side has the majority.
        sources: the judgments behind each grade.
        collection: id and fingerprints of the collection.
    """

    qrels: Qrels
    policy: str
    judges: tuple[str, ...]
    pairs: int
    differing: int
    undecided: int
    sources: Mapping[Pair, Sequence[Judgment]]
    collection: Mapping[str, Any]


def combine_judges(
    records: JudgeRecords, policy: str | None = None, relevant_from: int = 1
) -> CombinedJudgments:
    """Combine judges; skipped pairs have no grade.

    Args:
        policy: what counts where judges differ. ``any``: the highest grade. ``all``: the lowest.
            ``majority``: more than half say relevant, or not; the middle grade of that side, the
            lower of two; without a majority the pair is left out. The name of a judge: that one
            alone. None: for a single judge only.
        relevant_from: lowest grade of a relevant document.

    Examples:
        >>> from irdistill.collections.judging import Judgment
        >>> def judged(judge, grade):
        ...     return {("q", "d"): Judgment("q", "d", "judged", grade, judge, "2026")}
        >>> records = JudgeRecords({}, {"anna": judged("anna", 1), "ben": judged("ben", 0)})
        >>> combine_judges(records, "any").qrels.to_dict()
        {'q': {'d': 1}}
        >>> combine_judges(records, "majority").undecided
        1
    """
    judges = _chosen(list(records.judges), policy)
    sources: dict[Pair, list[Judgment]] = {}
    for judge in judges:
        for pair, judgment in records.judges[judge].items():
            if judgment.grade is not None:
                sources.setdefault(pair, []).append(judgment)
    qrels: dict[str, dict[str, int]] = {}
    differing = undecided = 0
    for (query, doc), judgments in sorted(sources.items()):
        grades = [judgment.grade for judgment in judgments if judgment.grade is not None]
        differing += len({grade >= relevant_from for grade in grades}) == 2
        grade = _combined(grades, policy, relevant_from)
        if grade is None:
            undecided += 1
        else:
            qrels.setdefault(query, {})[doc] = grade
    return CombinedJudgments(
        Qrels(qrels),
        policy or judges[0],
        tuple(judges),
        len(sources),
        differing,
        undecided,
        sources,
        records.collection,
    )


def _chosen(judges: list[str], policy: str | None) -> list[str]:
    """The judges that count."""
    if policy in judges:
        return [policy] if policy is not None else judges
    if policy is None and len(judges) > 1:
        raise OptionError(
            f"{len(judges)} people judged ({', '.join(judges)}); say with --policy what counts"
            f" where they differ: {', '.join(POLICIES)}, or the name of one."
        )
    if policy is not None and policy not in POLICIES:
        raise OptionError(
            f"the policy {policy!r} is not known; {', '.join(POLICIES)} or one of the judges"
            f" {', '.join(judges)} was expected."
        )
    return judges


def _combined(grades: Sequence[int], policy: str | None, relevant_from: int) -> int | None:
    if policy == "any":
        return max(grades)
    if policy == "all":
        return min(grades)
    if policy != "majority":
        return grades[0]
    relevant = [grade for grade in grades if grade >= relevant_from]
    other = [grade for grade in grades if grade < relevant_from]
    if len(relevant) == len(other):
        return None
    side = sorted(relevant if len(relevant) > len(other) else other)
    return side[(len(side) - 1) // 2]
