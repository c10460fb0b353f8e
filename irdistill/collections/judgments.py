"""A file of judgments by itself, to evaluate a run where no corpus is at hand."""

from __future__ import annotations

from pathlib import Path

from irdistill.collections.beir import read_qrels
from irdistill.collections.checking import Numbered, without_lines
from irdistill.collections.grades import whole_grade
from irdistill.collections.lines import numbered_lines
from irdistill.collections.model import Qrels
from irdistill.collections.report import LoadReport
from irdistill.errors import IrdistillError


def read_judgments(path: str | Path) -> Qrels:
    """Read TREC qrels (``query 0 document grade``), or a table ``query document grade`` as BEIR's; ``.gz`` too.

    Raises:
        IrdistillError: a line is of neither layout, or a document is judged twice and differently.
    """
    return Qrels(without_lines(numbered_judgments(Path(path), LoadReport())))


def numbered_judgments(path: Path, report: LoadReport) -> Numbered:
    """As `read_judgments`, with the line of each judgment: query -> document -> (grade, line)."""
    if not path.is_file():
        raise IrdistillError(f"there is no file of judgments {path}.")
    first = next((line.split() for _, line in numbered_lines(path)), [])
    if len(first) != 4:
        return read_qrels(path, report)
    judgments: Numbered = {}
    for number, line in numbered_lines(path):
        fields = line.split()
        if len(fields) != 4:
            raise IrdistillError(
                f"line {number} of {path} is not a judgment: {line.strip()[:80]!r}. Expected query id, 0, document id and a whole "
                "number."
            )
        query_id, _, doc_id, value = fields
        grade = whole_grade(value, f"line {number} of {path}")
        known = judgments.setdefault(query_id, {}).setdefault(doc_id, (grade, number))
        if known[0] != grade:
            raise IrdistillError(
                f"{path} judges document {doc_id!r} for query {query_id!r} twice and differently, the second time in line "
                f"{number}: {known[0]} in line {known[1]}, {grade} in line {number}. Keep one of them."
            )
        if known[1] != number:
            report.add("duplicate judgments", f"{path.name} line {number} (as line {known[1]})")
    return judgments
