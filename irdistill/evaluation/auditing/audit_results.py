"""The result of an audit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from irdistill.console.terminal import counted
from irdistill.evaluation.auditing.agreement import Agreement
from irdistill.evaluation.auditing.quality import DECIDING
from irdistill.evaluation.auditing.sections import (
    agreement_section,
    bias_section,
    margins_section,
    quality_section,
    scores_section,
    suspects_section,
)
from irdistill.evaluation.auditing.teacher_audit import TeacherAudit
from irdistill.evaluation.auditing.verdict import HEADLINES
from irdistill.evaluation.diversity import Diversity
from irdistill.evaluation.reporting.findings import Finding, plain
from irdistill.evaluation.reporting.rendering import Displayed, render_html
from irdistill.storage.ownership import write_file


@dataclass(frozen=True, repr=False)
class Audit(Displayed):
    """The checks of all teachers, and how far each two agree.

    Attributes:
        dataset: id of the collection.
        teachers: the checks of each teacher.
        agreements: teachers with each other, then each with the untrained student.
        sampled: number of queries that were checked.
        population: number of queries that any teacher has.
        unheld: number of judged queries that no teacher has.
        judged: number of judged queries looked at.
        first_stage: name of the first stage, or None.
        student: name of the untrained student, or None.
        seed: random seed of the sample.
        relevant_from: lowest grade that counts as relevant, except in nDCG@10.
        diversity: of teachers and first stage, on some of the queries; None where they share none.
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
    diversity: Diversity | None = None

    @property
    def title(self) -> str:  # type: ignore[override]
        """Heading of the page."""
        return f"Audit of {', '.join(audit.teacher for audit in self.teachers)} on {self.dataset}"

    @property
    def lines(self) -> list[str]:
        """The verdicts and the agreements, one line each."""
        teachers = [teacher.line for teacher in self.teachers]
        return teachers + [agreement.line for agreement in self.agreements]

    @property
    def headline(self) -> str:
        """Which teachers to learn from, and which not, in a sentence for each decision."""
        groups: dict[str, list[str]] = {}
        for teacher in self.teachers:
            groups.setdefault(teacher.ruling.decision, []).append(teacher.teacher)
        return " ".join(
            sentence.format(" and ".join(groups[decision]))
            for decision, sentence in HEADLINES.items()
            if decision in groups
        )

    def findings(self) -> list[Finding]:
        """The verdicts, then a section per check."""
        verdicts = [
            Finding(
                "verdict",
                text=[teacher.line],
                severity=teacher.ruling.severity,
                values={teacher.teacher: teacher.ruling.decision},
            )
            for teacher in self.teachers
        ]
        teachers = self.teachers
        sections = [quality_section(teachers, self.relevant_from), scores_section(teachers)]
        sections.append(margins_section(teachers))
        if self.agreements:
            sections.append(agreement_section(self.agreements))
        if self.judged:
            sections.append(suspects_section(teachers))
        sections.append(bias_section(teachers, self.first_stage is not None))
        if self.diversity is not None:
            sections += self.diversity.findings()
        return [*verdicts, *sections, self._method()]

    def _method(self) -> Finding:
        drawn = "all" if self.sampled == self.population else f"{self.sampled} drawn at random of"
        text = [
            f"Looked at {drawn} {counted(self.population, 'query')} that at least one teacher has"
            f" (seed {self.seed}); {self.judged} of them are judged."
        ]
        if self.relevant_from > 1:
            text.append(
                f"Documents of grade {self.relevant_from} or above count as relevant; {DECIDING}"
                " weighs all grades."
            )
        if self.unheld:
            text.append(
                f"{self.unheld} judged queries of the collection are in no run and are left out"
                " here; evaluate counts 0."
            )
        text.append(
            "Differences are tested with a paired t-test, corrected by Holm's method over the"
            " teachers; intervals are bootstrapped over queries."
        )
        if self.student is not None:
            text.append(f"Student before training: {self.student}.")
        return Finding("method", "Method", text)

    def to_rows(self) -> list[dict[str, Any]]:
        """One mapping of main figures per teacher."""
        return [teacher.summary() for teacher in self.teachers]

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision; figures that could not be computed are None."""
        teachers = [plain(teacher.summary()) | plain(teacher) for teacher in self.teachers]
        return plain(self) | {"teachers": teachers}

    def to_html(self) -> str:
        """The page with plots, as one HTML file without scripts."""
        return render_html(self.title, self.findings(), verdicts=[self.headline])

    def write_html(self, path: str | Path) -> None:
        """Write the page to a file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_file(Path(path), self.to_html())
