"""Relevance grades: whole numbers, one for each query and document."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from irdistill.errors import InputError

GREATEST = 2**31 - 1
"""The largest grade, and the smallest one negated: what trec_eval's programs and 32-bit files hold.
"""
_WHOLE = re.compile(r"[+-]?\d+(?:\.0*)?", re.ASCII)


def parse_grade(value: Any, place: str) -> int:
    """The grade as an int. Whole numbers written as 2.0 are accepted; a fraction is never cut off.

    Args:
        value: a number, or the text of one.
        place: where the grade stands, for the error message (``line 3 of qrels.tsv``).

    Raises:
        InputError: it is no number, a fraction, or larger than 32 bits hold.
    """
    if isinstance(value, Integral):
        grade = int(value)
    elif isinstance(value, str) and _WHOLE.fullmatch(value.strip()) and len(value) <= 40:
        grade = int(value.strip().partition(".")[0])
    elif isinstance(value, Real) and math.isfinite(value) and float(value).is_integer():
        grade = int(float(value))
    else:
        raise InputError(
            f"{place}: the grade is {value!r:.60}, and a whole number was expected, as trec_eval"
            " and ir-measures take it. Scale or round the grades yourself (0, 0.5 and 1 could"
            " become 0, 1 and 2): cutting off the fraction would change the figures."
        )
    if abs(grade) > GREATEST:
        raise InputError(
            f"{place}: the grade is {str(grade)[:40]}; grades from {-GREATEST} to {GREATEST} were"
            " expected."
        )
    return grade


def check_grades(judgments: Mapping[Any, Mapping[Any, Any]]) -> dict[str, dict[str, int]]:
    """Query -> document -> grade, checked and copied.

    Raises:
        InputError: an id is not text, or as `parse_grade`.
    """
    checked: dict[str, dict[str, int]] = {}
    for query_id, documents in judgments.items():
        if not isinstance(documents, Mapping):
            raise InputError(
                f"the judgments of query {query_id!r} are {documents!r:.60}; a mapping of document"
                " ids to grades was expected."
            )
        grades = {}
        for doc_id, grade in documents.items():
            if type(doc_id) is not str or type(query_id) is not str:
                _check_id(query_id, doc_id)
            # most grades are plain small integers
            grades[doc_id] = (
                grade
                if type(grade) is int and -GREATEST <= grade <= GREATEST
                else parse_grade(grade, f"query {query_id}, document {doc_id}")
            )
        checked[query_id] = grades
    return checked


def _check_id(query_id: Any, doc_id: Any) -> None:
    for kind, value in (("query", query_id), ("document", doc_id)):
        if not isinstance(value, str):
            raise InputError(
                f"the judgments have the {kind} id {value!r}, which is {type(value).__name__}; ids"
                f" are text: write {str(value)!r}."
            )
