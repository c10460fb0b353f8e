"""The verb *audit*: is a teacher worth learning from?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from irdistill.collections import Collection
from irdistill.errors import IrdistillError
from irdistill.evaluation.measures import per_query
from irdistill.evaluation.significance import compare
from irdistill.runs import RankedList, Run, open_run

MEASURE = "nDCG@10"
_TOP = 10


@dataclass(frozen=True)
class TeacherAudit:
    """What is known of one teacher's scores.

    Attributes:
        value: its mean nDCG@10; None where nothing is judged.
        gain: its value minus the first stage's; ``p`` of the paired t-test between the two.
        rows, unscored: documents, and those without a score.
        tied: share of neighbouring ranks with one and the same score.
        spread: mean standard deviation of the scores within a list.
    """

    teacher: str
    queries: int
    rows: int
    unscored: int
    tied: float
    spread: float
    value: float | None = None
    first_stage: float | None = None
    gain: float | None = None
    p: float | None = None

    @property
    def line(self) -> str:
        """All of it in one line, with the verdict."""
        text = f"{self.teacher}: "
        if self.value is not None:
            text += f"{MEASURE} {self.value:.4f}"
            if self.gain is not None:
                text += f", {abs(self.gain):.4f} {'above' if self.gain >= 0 else 'below'} the first stage (p = {self.p:.2g})"
        else:
            text += "nothing is judged"
        text += f"; {self.rows} scores for {self.queries} queries, {self.tied:.1%} tied, spread {self.spread:.3g}"
        return f"{text}. {self.verdict}"

    @property
    def verdict(self) -> str:
        """Whether to learn from it, and why not."""
        if self.rows == self.unscored:
            return "It scored nothing."
        faults = []
        if self.unscored:
            faults.append(f"{self.unscored} documents have no score")
        if self.tied > 0.5:
            faults.append("most neighbours are tied, so lists teach little")
        if self.spread == 0:
            faults.append("all scores of a list are equal")
        if self.gain is not None and self.p is not None and (self.gain <= 0 or self.p >= 0.05):
            faults.append("it is not shown to be better than the first stage")
        return f"Beware: {'; '.join(faults)}." if faults else "Worth learning from."


@dataclass(frozen=True)
class Agreement:
    """How alike two teachers order the documents that both scored.

    Attributes:
        tau: mean over queries of Kendall's tau-b.
        top: share of queries with the same best document.
        overlap: mean share of common documents among the first ten.
    """

    left: str
    right: str
    queries: int
    tau: float
    top: float
    overlap: float

    @property
    def line(self) -> str:
        """All of it in one line."""
        return (f"{self.left} and {self.right}: Kendall tau {self.tau:.3f}, the same best document for {self.top:.1%} of "
                f"{self.queries} queries, {self.overlap:.1%} of the first ten in common.")


@dataclass(frozen=True)
class Audit:
    """Teachers, and each two of them compared."""

    dataset: str
    teachers: tuple[TeacherAudit, ...]
    agreements: tuple[Agreement, ...]

    @property
    def lines(self) -> list[str]:
        """One line a finding."""
        return [*(found.line for found in self.teachers), *(found.line for found in self.agreements)]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "dataset": self.dataset,
            "teachers": [asdict(found) | {"verdict": found.verdict} for found in self.teachers],
            "agreements": [asdict(found) for found in self.agreements],
        }


def audit(collection: Collection, teachers: Mapping[str, Run | str | Path],
          first_stage: Run | str | Path | None = None, seed: int = 42) -> Audit:
    """Look at teachers' scores before anything is trained on them.

    Args:
        teachers: name -> run with its scores.
        first_stage: the run that the teachers are to be better than.

    Raises:
        IrdistillError: no teacher is given, or a run belongs to another collection.
    """
    if not teachers:
        raise IrdistillError("an audit got no run; give at least one with a teacher's scores.")
    runs = {name: open_run(run, collection) for name, run in teachers.items()}
    judged = len(collection.qrels) > 0
    base = None
    if judged and first_stage is not None:
        base = per_query(collection.qrels, open_run(first_stage, collection), [MEASURE]).values[MEASURE]
    found = []
    for name, run in runs.items():
        entry = _shape(name, run)
        if judged:
            values = per_query(collection.qrels, run, [MEASURE]).values[MEASURE]
            entry["value"] = float(values.mean())
            if base is not None:
                difference = compare(values, base, seed)
                entry |= {"first_stage": float(base.mean()), "gain": difference.mean, "p": difference.p}
        found.append(TeacherAudit(**entry))
    pairs = tuple(_agreement(left, right, runs[left], runs[right]) for left, right in combinations(runs, 2))
    return Audit(collection.id, tuple(found), pairs)


def _shape(name: str, run: Run) -> dict[str, Any]:
    rows = unscored = neighbours = tied = 0
    spreads = []
    for found in run:
        scores = found.scores[~np.isnan(found.scores)]
        rows += len(found.scores)
        unscored += len(found.scores) - len(scores)
        neighbours += max(0, len(scores) - 1)
        tied += int((np.diff(scores) == 0).sum())
        if len(scores) > 1:
            spreads.append(float(scores.std(dtype=np.float64)))
    return {"teacher": name, "queries": len(run), "rows": rows, "unscored": unscored,
            "tied": tied / neighbours if neighbours else 0.0, "spread": float(np.mean(spreads)) if spreads else 0.0}


def _agreement(left: str, right: str, one: Run, two: Run) -> Agreement:
    taus, tops, overlaps = [], [], []
    for found in one:
        other = two.get(found.query_id)
        if other is None:
            continue
        first, second = _scored(found), _scored(other)
        common = [doc for doc in first if doc in second]
        if len(common) < 2:
            continue
        tau = kendalltau([first[doc] for doc in common], [second[doc] for doc in common]).statistic
        if tau == tau:
            taus.append(tau)
        tops.append(next(iter(first)) == next(iter(second)))
        depth = min(_TOP, len(first), len(second))
        overlaps.append(len(set(list(first)[:depth]) & set(list(second)[:depth])) / depth)
    return Agreement(left, right, len(tops), *(float(np.mean(values)) if values else 0.0 for values in (taus, tops, overlaps)))


def _scored(found: RankedList) -> dict[str, float]:
    """Document -> score in rank order, without those that have none."""
    return {doc: score for doc, score in zip(found.doc_ids, found.scores.tolist(), strict=True) if score == score}
