"""A file of judgments by itself, to evaluate a run where no corpus is at hand."""

from __future__ import annotations

from pathlib import Path

from irdistill.collections.beir import numbered_lines, read_qrels
from irdistill.collections.model import Qrels
from irdistill.collections.report import LoadReport
from irdistill.errors import IrdistillError


def read_judgments(path: str | Path) -> Qrels:
    """Read TREC qrels (``query 0 document grade``), or a table ``query document grade`` as BEIR's; ``.gz`` too.

    Raises:
        IrdistillError: a line is of neither layout, or a document is judged twice and differently.
    """
    path = Path(path)
    if not path.is_file():
        raise IrdistillError(f"there is no file of judgments {path}.")
    first = next((line.split() for _, line in numbered_lines(path)), [])
    if len(first) != 4:
        found = read_qrels(path, LoadReport())
        return Qrels({query: {doc: grade for doc, (grade, _) in documents.items()} for query, documents in found.items()})
    judgments: dict[str, dict[str, int]] = {}
    for number, line in numbered_lines(path):
        fields = line.split()
        try:
            query_id, _, doc_id, value = fields
            grade = int(value)
        except ValueError as error:
            raise IrdistillError(
                f"line {number} of {path} is not a judgment: {line.strip()[:80]!r}. Expected query id, 0, document id and a whole "
                "number."
            ) from error
        if judgments.setdefault(query_id, {}).setdefault(doc_id, grade) != grade:
            raise IrdistillError(f"{path} judges document {doc_id!r} for query {query_id!r} twice and differently, the second time "
                                 f"in line {number}. Keep one of them.")
    return Qrels(judgments)
