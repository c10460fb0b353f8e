"""What an audit gives: findings by teacher, pairs of teachers, and how both are written as lines
and as JSON.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from irdistill.evaluation.auditing.advice import Advice
from irdistill.evaluation.auditing.agreement import Agreement
from irdistill.evaluation.auditing.bias import Bias
from irdistill.evaluation.auditing.distribution import Distribution
from irdistill.evaluation.auditing.margins import Margins
from irdistill.evaluation.auditing.matching import Matching
from irdistill.evaluation.auditing.quality import DECIDING, Comparison, Quality
from irdistill.evaluation.auditing.scale import Scale
from irdistill.evaluation.auditing.suspects import Suspects
from irdistill.evaluation.auditing.verdict import Verdict


@dataclass(frozen=True)
class TeacherAudit:
    """What is known of one teacher's scores.

    Attributes:
        run: the fingerprint of the run. p_holm: of the deciding comparison, corrected over all
            teachers of the audit.
        ruling: the verdict with its reasons; ``verdict`` is its words.
    """

    teacher: str
    run: str
    distribution: Distribution
    scale: Scale
    margins: Margins
    matching: Matching
    advice: Advice
    quality: Quality | None
    p_holm: float | None
    suspects: Suspects
    bias: Bias
    ruling: Verdict

    @property
    def queries(self) -> int:
        """Lists looked at."""
        return self.distribution.queries

    @property
    def rows(self) -> int:
        """Documents in them."""
        return self.distribution.rows

    @property
    def unscored(self) -> int:
        """Documents without a score."""
        return self.distribution.unscored

    @property
    def tied(self) -> float:
        """Share of neighbouring ranks with one and the same score."""
        return self.distribution.tied

    @property
    def spread(self) -> float:
        """Mean standard deviation of the scores within a list."""
        return self.distribution.spread

    @property
    def deciding(self) -> Comparison | None:
        """The comparison with the first stage by nDCG@10, or None."""
        against = self.quality.against if self.quality is not None else None
        return against.deciding if against is not None else None

    @property
    def value(self) -> float | None:
        """Mean nDCG@10; over the documents shared with the first stage where there is one. None
        where nothing is judged.
        """
        if self.deciding is not None:
            return self.deciding.teacher
        return self.quality.values[DECIDING] if self.quality is not None else None

    @property
    def first_stage(self) -> float | None:
        """The first stage's nDCG@10 over the same documents."""
        return self.deciding.first_stage if self.deciding is not None else None

    @property
    def gain(self) -> float | None:
        """``value`` minus ``first_stage``."""
        return self.deciding.difference.mean if self.deciding is not None else None

    @property
    def p(self) -> float | None:
        """Of the paired t-test between the two."""
        return self.deciding.difference.p if self.deciding is not None else None

    @property
    def verdict(self) -> str:
        """Whether to learn from it, how, and why not."""
        return self.ruling.words

    @property
    def line(self) -> str:
        """All of it in one line, with the verdict."""
        return (
            f"{self.teacher} ({self.rows} documents for {self.queries} queries, {self.tied:.1%}"
            f" tied, spread {self.spread:.3g}): {self.verdict}"
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it, at full precision."""
        names = (
            "queries",
            "rows",
            "unscored",
            "tied",
            "spread",
            "value",
            "first_stage",
            "gain",
            "p",
            "verdict",
        )
        return (
            {"teacher": self.teacher} | {name: getattr(self, name) for name in names} | plain(self)
        )


@dataclass(frozen=True)
class Audit:
    """Teachers, and each two of them compared.

    Attributes:
        agreements: teachers with each other, then each with the untrained student where one was
            given.
        sampled, population: queries looked at, of how many.
        unheld: judged queries that no teacher holds.
        first_stage, student: names, or None.
        relevant_from: the grade from which a document counts as relevant, for all but nDCG@10.
    """

    dataset: str
    teachers: tuple[TeacherAudit, ...]
    agreements: tuple[Agreement, ...]
    sampled: int
    population: int
    unheld: int
    judged: int
    first_stage: str | None
    student: str | None
    seed: int
    relevant_from: int = 1

    @property
    def lines(self) -> list[str]:
        """One line a finding."""
        return [
            *(found.line for found in self.teachers),
            *(found.line for found in self.agreements),
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it, at full precision; figures that could not be computed are null."""
        names = (
            "dataset",
            "sampled",
            "population",
            "unheld",
            "judged",
            "first_stage",
            "student",
            "seed",
            "relevant_from",
        )
        own = {name: getattr(self, name) for name in names}
        return own | {
            "teachers": [found.to_json() for found in self.teachers],
            "agreements": plain(self.agreements),
        }


def plain(value: Any) -> Any:
    """Dataclasses, tuples and numbers as JSON holds them; a number that is not finite becomes
    null.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
