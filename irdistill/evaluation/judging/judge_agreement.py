"""How far people agree who judged the same pairs: shares, and Cohen's kappa."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from irdistill.collections.judging import JudgeRecords
from irdistill.console.terminal import counted
from irdistill.evaluation.reporting.findings import Finding, Table, cell, plain
from irdistill.evaluation.reporting.rendering import Displayed

SHOWN = 50
"""Differing pairs of two judges that are listed; the JSON has all of them."""


@dataclass(frozen=True)
class DifferingPair:
    """A pair to which two judges gave different grades."""

    query_id: str
    doc_id: str
    left: int
    right: int


@dataclass(frozen=True)
class JudgeTotals:
    """What one judge did.

    Attributes:
        judged, relevant, skipped: number of pairs.
        first, last: times of the oldest and the newest judgment that count.
    """

    judge: str
    judged: int
    relevant: int
    skipped: int
    first: str
    last: str


@dataclass(frozen=True)
class JudgeAgreement:
    """Two judges over the pairs that both gave a grade.

    Attributes:
        common: number of those pairs.
        agreed: number of these that both call relevant, or both not.
        share: ``agreed`` of ``common``; None if there is no such pair.
        kappa: Cohen's kappa of relevant and not relevant; None where it is not defined, as when
            both give all pairs one answer.
        same: number of pairs with the same grade.
        weighted_kappa: kappa of the grades with linear weights; None as above.
        differing: pairs with different grades, in the order of their ids.
    """

    left: str
    right: str
    common: int
    agreed: int
    share: float | None
    kappa: float | None
    same: int
    weighted_kappa: float | None
    differing: tuple[DifferingPair, ...]


@dataclass(frozen=True, repr=False)
class JudgeComparison(Displayed):
    """All judges, and the agreement of each two.

    Attributes:
        collection: id of the collection.
        relevant_from: lowest grade of a relevant document.
    """

    collection: str
    judges: tuple[JudgeTotals, ...]
    agreements: tuple[JudgeAgreement, ...]
    relevant_from: int = 1

    @property
    def headline(self) -> str:
        """The agreement in a sentence."""
        if not self.agreements:
            only = self.judges[0]
            return (
                f"{only.judge} judged {counted(only.judged, 'pair')} of {self.collection};"
                " agreement needs a second judge."
            )
        return " ".join(map(_sentence, self.agreements))

    def findings(self) -> list[Finding]:
        """The judges, their agreement, and the pairs on which they differ."""
        totals = [
            [
                judge.judge,
                str(judge.judged),
                str(judge.relevant),
                str(judge.skipped),
                judge.first,
                judge.last,
            ]
            for judge in self.judges
        ]
        columns = ["judge", "judged", "relevant", "skipped", "first", "last"]
        sections = [Finding("judges", text=[self.headline], tables=[Table(columns, totals)])]
        if not self.agreements:
            return sections
        rows = [
            [
                f"{pair.left} and {pair.right}",
                str(pair.common),
                cell(pair.share, ".1%"),
                cell(pair.kappa, ".3f"),
                str(pair.same),
                cell(pair.weighted_kappa, ".3f"),
            ]
            for pair in self.agreements
        ]
        header = ["judges", "in common", "agree", "kappa", "same grade", "weighted kappa"]
        note = (
            f"A grade of at least {self.relevant_from} is relevant. Kappa is Cohen's: 1 is full"
            " agreement, 0 is that of chance. The weighted one counts a difference of two grades"
            " twice as much as of one. It is not defined (-) if both judges give all pairs one"
            " grade."
        )
        table = Table(header, rows)
        sections.append(Finding("agreement", "Agreement", tables=[table], notes=[note]))
        return [*sections, *(_differences(pair) for pair in self.agreements if pair.differing)]

    def to_rows(self) -> list[dict[str, Any]]:
        """One mapping per two judges."""
        rows: list[dict[str, Any]] = plain(list(self.agreements))
        return rows

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision; figures that are not defined are None."""
        return dict(plain(self))


def compare_judges(records: JudgeRecords, relevant_from: int = 1) -> JudgeComparison:
    """Compare each two judges over the pairs that both gave a grade.

    Examples:
        >>> from irdistill.collections.judging import Judgment
        >>> def grades(judge, *values):
        ...     return {("q", f"d{n}"): Judgment("q", f"d{n}", "judged", grade, judge, "2026")
        ...             for n, grade in enumerate(values)}
        >>> records = JudgeRecords({"id": "demo"}, {
        ...     "anna": grades("anna", 1, 1, 0, 0), "ben": grades("ben", 1, 0, 0, 0)})
        >>> agreement = compare_judges(records).agreements[0]
        >>> agreement.share, agreement.kappa
        (0.75, 0.5)
    """
    totals, grades = [], {}
    for judge, judgments in records.judges.items():
        grades[judge] = records.grades(judge)
        times = sorted(judgment.time for judgment in judgments.values()) or ["-"]
        relevant = sum(grade >= relevant_from for grade in grades[judge].values())
        skipped = len(judgments) - len(grades[judge])
        totals.append(
            JudgeTotals(judge, len(grades[judge]), relevant, skipped, times[0], times[-1])
        )
    agreements = []
    for left, right in combinations(grades, 2):
        pairs = sorted(grades[left].keys() & grades[right].keys())
        first = np.array([grades[left][pair] for pair in pairs], dtype=np.int64)
        second = np.array([grades[right][pair] for pair in pairs], dtype=np.int64)
        agreed = int(((first >= relevant_from) == (second >= relevant_from)).sum())
        agreements.append(
            JudgeAgreement(
                left,
                right,
                len(pairs),
                agreed,
                agreed / len(pairs) if pairs else None,
                cohen_kappa(first >= relevant_from, second >= relevant_from),
                int((first == second).sum()),
                cohen_kappa(first, second),
                tuple(
                    DifferingPair(*pair, grades[left][pair], grades[right][pair])
                    for pair, differs in zip(pairs, (first != second).tolist(), strict=True)
                    if differs
                ),
            )
        )
    collection = str(records.collection.get("id", ""))
    return JudgeComparison(collection, tuple(totals), tuple(agreements), relevant_from)


def cohen_kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    """Cohen's kappa of two raters, a disagreement weighted by the distance of the two values.

    Args:
        first, second: (n,) booleans, or whole numbers.

    Returns:
        None if it is not defined: n is 0, or both raters give all of them one value.

    Examples:
        >>> cohen_kappa(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 0]))
        0.5
    """
    first, second = first.astype(np.int64), second.astype(np.int64)
    if not len(first):
        return None
    distance = float(np.abs(first - second).mean())
    left, left_counts = np.unique(first, return_counts=True)
    right, right_counts = np.unique(second, return_counts=True)
    distances = np.abs(left[:, None] - right[None, :])
    by_chance = float(left_counts @ distances @ right_counts) / len(first) ** 2
    return 1.0 - distance / by_chance if by_chance else None


def _sentence(pair: JudgeAgreement) -> str:
    names = f"{pair.left} and {pair.right}"
    if pair.share is None:
        return f"{names} have no judged pair in common."
    kappa = "is not defined" if pair.kappa is None else f"is {pair.kappa:.3f}"
    return (
        f"{names} agree on {pair.agreed} of {counted(pair.common, 'pair')} ({pair.share:.1%});"
        f" Cohen's kappa {kappa}."
    )


def _differences(pair: JudgeAgreement) -> Finding:
    shown: Sequence[DifferingPair] = pair.differing[:SHOWN]
    rows = [[each.query_id, each.doc_id, str(each.left), str(each.right)] for each in shown]
    more = len(pair.differing) - len(shown)
    return Finding(
        f"differing-{pair.left}-{pair.right}",
        f"Where {pair.left} and {pair.right} differ",
        tables=[Table(["query", "document", pair.left, pair.right], rows)],
        notes=[f"{more} more are in the JSON."] if more else (),
    )
