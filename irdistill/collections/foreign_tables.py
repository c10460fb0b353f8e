"""Tables and objects of other libraries, which are imported only when they are used."""

from __future__ import annotations

import html
import importlib
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from irdistill.errors import InputError, MissingExtraError

EXTRA = "interchange"


def import_library(name: str, purpose: str) -> Any:
    """Import pandas, ranx or datasets.

    Args:
        purpose: what needs the library; the subject of the error message.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise MissingExtraError(name, EXTRA, purpose) from error


def comes_from(value: object, library: str) -> bool:
    """Whether the class of an object is defined by a library; the library is not imported."""
    return any(kind.__module__.partition(".")[0] == library for kind in type(value).__mro__)


def table_columns(table: Any) -> tuple[list[str], list[Sequence[Any]]] | None:
    """The names and the values of the columns of a table; None for any other object.

    Args:
        table: a DataFrame of pandas or polars, a Hugging Face ``Dataset``, a ``DatasetDict`` with
            one split, or a pyarrow Table.
    """
    if comes_from(table, "pandas") and hasattr(table, "columns"):
        frame = table.reset_index(drop=True)
        names = [str(name) for name in frame.columns]
        return names, [frame.iloc[:, place].tolist() for place in range(len(names))]
    if comes_from(table, "datasets"):
        if isinstance(table, Mapping):
            if len(table) != 1:
                raise InputError(
                    f"the DatasetDict has the splits {', '.join(map(str, table))}. Pass one of"
                    " them: dataset[SPLIT]."
                )
            table = next(iter(table.values()))
        if not hasattr(table, "with_format") or not hasattr(table, "num_rows"):
            raise InputError(
                f"{type(table).__name__} is a streamed dataset. Load it with streaming=False."
            )
        columns = table.with_format(None)[:]
        return list(columns), list(columns.values())
    if comes_from(table, "polars") and hasattr(table, "columns"):
        table = table.to_arrow()
    if comes_from(table, "pyarrow") and hasattr(table, "column_names"):
        return list(table.column_names), [column.to_pylist() for column in table.columns]
    return None


def id_string(value: Any, kind: str) -> str:
    """An id of a table as a string; whole numbers are converted."""
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, str) and value:
        return str(value)
    raise InputError(
        f"the {kind} id {value!r:.60} is {type(value).__name__}; a non-empty string or a whole"
        " number was expected."
    )


def html_table(title: str, values: Mapping[str, Any]) -> str:
    """Names and values as an HTML table with two columns, for notebooks."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(str(value))}</td></tr>"
        for name, value in values.items()
    )
    return f"<table><caption>{html.escape(title)}</caption>{rows}</table>"
