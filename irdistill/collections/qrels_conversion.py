"""Judgments from whatever holds them: a file, dicts, a data frame or an object of a library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from irdistill.collections.column_names import roles_of_header
from irdistill.collections.foreign_tables import comes_from, id_string, table_columns
from irdistill.collections.grades import parse_grade
from irdistill.collections.judgments import read_judgments
from irdistill.collections.qrels import Qrels
from irdistill.collections.table_layout import header_layout
from irdistill.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset
    from ranx import Qrels as RanxQrels

QrelsLike: TypeAlias = (
    "Qrels | Mapping[str, Mapping[str, int]] | str | PathLike[str] | pd.DataFrame | RanxQrels"
    " | Dataset | Iterable[tuple[Any, ...]]"
)


def as_qrels(judgments: QrelsLike, columns: str | Sequence[str] | None = None) -> Qrels:
    """Convert judgments of any common form to `Qrels`.

    Args:
        judgments: one of

            - `Qrels`, or dicts: query id -> document id -> grade
            - the path of a TREC qrels file, a table (TSV, CSV) or JSON, compressed or not
            - a pandas DataFrame, such as PyTerrier's with ``qid``, ``docno`` and ``label``
            - a Hugging Face dataset, such as BEIR's with ``query-id``, ``corpus-id`` and ``score``
            - a ``ranx.Qrels``
            - an iterable of ir_measures' or ir_datasets' judgments, or of tuples (query id,
              document id, grade)
        columns: the columns of a table, where their names do not say what they hold: names by role
            (``query=q,document=d,grade=g``) or roles in order (``query,-,document,grade``).

    Raises:
        InputError: the judgments cannot be read, a grade is not a whole number, or a document is
            judged twice with different grades.
        NotFoundError: there is no such file.

    Examples:
        >>> import pandas as pd
        >>> as_qrels(pd.DataFrame({"qid": [1, 1], "docno": ["a", "b"], "label": [2, 0]})).to_dict()
        {'1': {'a': 2, 'b': 0}}
    """
    if isinstance(judgments, Qrels):
        return judgments
    if isinstance(judgments, str | PathLike):
        return read_judgments(Path(judgments), columns)
    if comes_from(judgments, "ranx") and hasattr(judgments, "to_dict"):
        return Qrels(judgments.to_dict())
    table = table_columns(judgments)
    if table is not None:
        return _from_rows(_table_rows(*table, columns))
    if isinstance(judgments, Mapping):
        return Qrels(judgments)
    if isinstance(judgments, Iterable):
        return _from_rows(map(_row_of, judgments))
    raise InputError(
        f"{judgments!r:.80} is {type(judgments).__name__}, and judgments were expected: a path,"
        " dicts of dicts, a data frame, a dataset, ranx.Qrels, or (query, document, grade) tuples."
    )


def _table_rows(
    names: list[str], values: list[Sequence[Any]], columns: str | Sequence[str] | None
) -> Iterator[tuple[Any, Any, Any]]:
    place = "the table of judgments"
    if columns is None:
        roles = roles_of_header(names, "judgments", place)
    else:
        roles = header_layout(names, columns, "judgments", place)
    return zip(*(values[roles.index(role)] for role in ("query", "document", "grade")), strict=True)


def _row_of(entry: Any) -> tuple[Any, Any, Any]:
    if hasattr(entry, "query_id") and hasattr(entry, "doc_id") and hasattr(entry, "relevance"):
        return entry.query_id, entry.doc_id, entry.relevance
    if isinstance(entry, Sequence) and not isinstance(entry, str) and len(entry) == 3:
        return entry[0], entry[1], entry[2]
    raise InputError(
        f"{entry!r:.80} is not a judgment; a tuple (query id, document id, grade) or an object with"
        " query_id, doc_id and relevance was expected."
    )


def _from_rows(rows: Iterable[tuple[Any, Any, Any]]) -> Qrels:
    judgments: dict[str, dict[str, int]] = {}
    for query, document, value in rows:
        query_id, doc_id = id_string(query, "query"), id_string(document, "document")
        grade = parse_grade(value, f"query {query_id}, document {doc_id}")
        if judgments.setdefault(query_id, {}).setdefault(doc_id, grade) != grade:
            raise InputError(
                f"document {doc_id!r} is judged twice for query {query_id!r}, with the grades"
                f" {judgments[query_id][doc_id]} and {grade}. Keep one of them."
            )
    return Qrels(judgments)
