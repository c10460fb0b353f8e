"""What the figures of a specialised model say, in words, and which model is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from irdistill.console.terminal import counted
from irdistill.evaluation.auditing.verdict import probability_words
from irdistill.evaluation.reporting.dataset_names import short_names
from irdistill.evaluation.significance import LEVEL
from irdistill.queries.query_kinds import WRITTEN_KINDS

BEFORE, LEXICAL, TEACHER, TERMS = "before", "BM25", "teacher", "term vectors"
AFTER = "after"
MERGED, TRAINED = "merged", "trained"
COPIED = (
    "These queries are copied from the documents; this figure does not show whether searchers are"
    " helped."
)


@dataclass(frozen=True)
class ReportQueries:
    """The datasets of a report.

    Attributes:
        synthetic: id of the held-out synthetic queries.
        kinds: kinds of these queries.
    """

    synthetic: str
    kinds: tuple[str, ...]

    @property
    def copied(self) -> bool:
        """Whether some of the synthetic queries are made of the documents' own words."""
        return not set(self.kinds) <= set(WRITTEN_KINDS)

    def in_words(self, dataset: str) -> str:
        """What the queries of a dataset are."""
        if dataset != self.synthetic:
            return f"the judged queries of {short_names([dataset])[dataset]}"
        written = "" if self.copied else ", written by a language model"
        return f"held-out synthetic queries ({', '.join(self.kinds)}{written})"


@dataclass(frozen=True)
class Choice:
    """The model that is kept, and why.

    Attributes:
        system: name of the system in the figures.
        lines: what was refused, in words.
    """

    system: str
    lines: tuple[str, ...] = ()


def choose_system(rows: Sequence[Mapping[str, Any]], tested: ReportQueries) -> Choice:
    """Choose between the model as it was, its term vectors, and what training made of them.

    The probe is the judged queries; without any, the held-out synthetic queries. A trained model is
    kept if its mean on the probe is above those of the term vectors and of the model as it was; on
    synthetic queries the difference to the model as it was must also be significant. Term vectors
    are refused if they are significantly below the model as it was.
    """
    measure = rows[0]["measure"]
    figures = {(row["dataset"], row["system"]): row for row in rows if row["measure"] == measure}
    datasets = list(dict.fromkeys(dataset for dataset, _ in figures))
    probe = next((name for name in datasets if name != tested.synthetic), tested.synthetic)
    values = {system: row for (dataset, system), row in figures.items() if dataset == probe}
    words = tested.in_words(probe)
    lines, kept = [], TERMS
    terms = values[TERMS]
    if terms["difference"] < 0 and _significant(terms):
        kept = BEFORE
        lines.append(
            f"The term vectors were refused: {measure} on {words} fell from"
            f" {values[BEFORE]['value']:.4f} to {terms['value']:.4f}."
        )
    for system in (MERGED, TRAINED):
        if system not in values:
            continue
        reason = _refusal(values, system, kept, probe == tested.synthetic)
        if not reason:
            kept = system
            continue
        lines.append(
            f"The {system} query tower was refused: {measure} on {words} is"
            f" {values[system]['value']:.4f}, {reason}."
        )
    compared = sum(system in values for system in (TERMS, MERGED, TRAINED))
    if compared > 1 and probe != tested.synthetic:
        lines.append(
            f"The judged queries also chose between {compared} models; the figure of the chosen one"
            " is slightly too high."
        )
    return Choice(kept, tuple(lines))


def _refusal(
    values: Mapping[str, Mapping[str, Any]], system: str, kept: str, synthetic: bool
) -> str:
    """Why a trained model does not replace the one that is kept so far; "" if it does."""
    new = values[system]
    for other in (kept, BEFORE):
        if new["value"] <= values[other]["value"]:
            return f"and {values[other]['value']:.4f} without it ({other})"
    if synthetic and not _significant(new):
        return "and the gain over the model before is not significant"
    return ""


def _significant(row: Mapping[str, Any]) -> bool:
    return row["p_holm"] is not None and row["p_holm"] < LEVEL


def verdict_lines(
    rows: Sequence[Mapping[str, Any]], tested: ReportQueries, choice: Choice
) -> list[str]:
    """One line per dataset and system: before, BM25 and now, by the first measure.

    The kept system has one line, as ``after``. Whether searchers are helped is only said of queries
    that are not copied from the documents.
    """
    measure = rows[0]["measure"]
    figures = {(row["dataset"], row["system"]): row for row in rows if row["measure"] == measure}
    lines = list(choice.lines)
    unchanged = choice.system == BEFORE
    if unchanged:
        lines.append("The result is the model as it was.")
    for (dataset, system), row in figures.items():
        if system in (BEFORE, LEXICAL, TEACHER, choice.system) or (unchanged and system == AFTER):
            continue
        mark = f" ({choice.system})" if system == AFTER else ""
        before, lexical, teacher = (
            figures[(dataset, name)]["value"] for name in (BEFORE, LEXICAL, TEACHER)
        )
        lead = teacher - before
        share = (
            f", {row['difference'] / lead:.0%} of the teacher's lead"
            if lead > 0
            else "; the teacher is not ahead of the model here, so there was nothing to learn"
        )
        lines.append(
            f"{system}{mark}, {tested.in_words(dataset)}: {measure} {before:.4f} before,"
            f" {row['value']:.4f} now ({row['difference']:+.4f}{share}); BM25 {lexical:.4f},"
            f" teacher {teacher:.4f}. {_words(row, lexical, dataset, tested)}"
        )
    return lines


def _words(row: Mapping[str, Any], lexical: float, dataset: str, tested: ReportQueries) -> str:
    """Whether it helped, as far as these queries can show it."""
    p, queries = row["p_holm"], counted(row["n"], "query")
    chance = "" if p is None else f" (corrected {probability_words(p)}, {queries})"
    if dataset == tested.synthetic and tested.copied:
        return COPIED
    if not _significant(row):
        words = f"Whether it helped is not significant{chance}."
    else:
        words = f"{'It helped' if row['difference'] > 0 else 'It did harm'}{chance}."
    if row["value"] < lexical:
        words += " BM25 alone is better on these queries."
    if dataset == tested.synthetic:
        words += " Queries of searchers may be of another form."
    return words
