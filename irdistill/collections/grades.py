"""Relevance grades: whole numbers, one for each judged query and document."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from irdistill.collections.foreign_tables import id_string
from irdistill.errors import InputError

GREATEST = 2**31 - 1
"""The largest grade, and the negated smallest: the limits of trec_eval and of 32-bit files."""
_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?", re.ASCII)
_TWICE = "have the same id as strings, such as 1 and '1'; use one type."


def parse_grade(value: Any, place: str) -> int:
    """A grade as an int. Whole numbers written as 2.0 are accepted; fractions are not rounded.

    Args:
        value: a number, or the text of a number.
    """
    if isinstance(value, Integral):
        grade = int(value)
    elif isinstance(value, str) and _WHOLE.fullmatch(value.strip()) and len(value) <= 40:
        grade = int(value.strip().partition(".")[0])
    elif isinstance(value, Real) and math.isfinite(value) and float(value).is_integer():
        grade = int(float(value))
    else:
        raise InputError(
            f"{place}: the grade is {value!r:.60}, and a whole number was expected, as in trec_eval"
            " and ir-measures. Scale or round the grades (0, 0.5 and 1 could become 0, 1 and 2)."
        )
    if abs(grade) > GREATEST:
        raise InputError(
            f"{place}: the grade is {str(grade)[:40]}; grades from {-GREATEST} to {GREATEST} were"
            " expected."
        )
    return grade


def check_grades(judgments: Mapping[Any, Mapping[Any, Any]]) -> dict[str, dict[str, int]]:
    """A checked copy of judgments: query id -> document id -> grade. Whole numbers become ids."""
    checked: dict[str, dict[str, int]] = {}
    for query, documents in judgments.items():
        query_id = query if type(query) is str else id_string(query, "query")
        if not isinstance(documents, Mapping):
            raise InputError(
                f"the judgments of query {query_id!r} are {documents!r:.60}; a mapping of document"
                " ids to grades was expected."
            )
        grades = {}
        for doc, grade in documents.items():
            doc_id = doc if type(doc) is str else id_string(doc, "document")
            # Most grades are small ints, and need no parsing.
            if type(grade) is not int or not -GREATEST <= grade <= GREATEST:
                grade = parse_grade(grade, f"query {query_id}, document {doc_id}")
            grades[doc_id] = grade
        if len(grades) != len(documents):
            raise InputError(f"two documents of query {query_id!r} {_TWICE}")
        checked[query_id] = grades
    if len(checked) != len(judgments):
        raise InputError(f"two queries of the judgments {_TWICE}")
    return checked
