"""The checks of one teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from irdistill.console.terminal import counted
from irdistill.evaluation.auditing.advice import Advice
from irdistill.evaluation.auditing.bias import Bias
from irdistill.evaluation.auditing.distribution import Distribution
from irdistill.evaluation.auditing.margins import Margins
from irdistill.evaluation.auditing.matching import Matching
from irdistill.evaluation.auditing.quality import DECIDING, Quality
from irdistill.evaluation.auditing.scale import Scale
from irdistill.evaluation.auditing.suspects import Suspects
from irdistill.evaluation.auditing.verdict import LEARN, Verdict


@dataclass(frozen=True)
class TeacherAudit:
    """The checks of one teacher's scores.

    Attributes:
        run: fingerprint of the run.
        p_holm: p of the comparison with the first stage, corrected over all teachers of the audit.
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
    def hint(self) -> str:
        """What to know before the losses that fit are used."""
        return "" if self.ruling.decision == LEARN else " (see the verdict before you do)"

    @property
    def line(self) -> str:
        """The counts and the verdict in one line."""
        spread = self.distribution
        return (
            f"{self.teacher} ({counted(spread.rows, 'document')} for"
            f" {counted(spread.queries, 'query')},"
            f" {spread.tied:.1%} tied, spread {spread.spread:.3g}): {self.ruling.words}"
        )

    def summary(self) -> dict[str, Any]:
        """The main figures: counts, nDCG@10 of teacher and first stage, and the verdict.

        ``value`` is over the documents shared with the first stage if there is one. Figures that
        could not be computed are None.
        """
        quality, spread = self.quality, self.distribution
        against = quality.against.deciding if quality and quality.against else None
        value = quality.values[DECIDING] if quality else None
        return {
            "teacher": self.teacher,
            "queries": spread.queries,
            "rows": spread.rows,
            "unscored": spread.unscored,
            "tied": spread.tied,
            "spread": spread.spread,
            "value": against.teacher if against else value,
            "first_stage": against.first_stage if against else None,
            "gain": against.difference.mean if against else None,
            "p": against.difference.p if against else None,
            "p_holm": self.p_holm,
            "verdict": self.ruling.words,
        }
