"""Detect what the columns of a text table mean, in the same way for runs and judgments.

A header decides if there is one. Without a header a layout is used only if the content allows no
other; otherwise the file is refused with its possible readings and the option that chooses one. In
all layouts without a header, queries come before documents.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from irdistill.collections.column_names import (
    IGNORED,
    columns_option,
    is_header,
    parse_columns,
    role_of,
    roles_of_header,
)
from irdistill.collections.table_content import READINGS, TREC, TRIPLES, TableContent
from irdistill.collections.text_lines import LONGEST_LINE
from irdistill.errors import InputError

SAMPLE = 1 << 18
"""Bytes at the start of a file that decide its layout."""


class UnknownLayoutError(InputError):
    """A table without a header has none of the known layouts."""


@dataclass(frozen=True)
class TableLayout:
    """How a table is read.

    Attributes:
        roles: the role of each column; ``-`` if it is ignored, ``empty`` if it has no content.
        separator: a tab or a comma, or None for white space.
        quoted: whether cells may be in quotes, as in CSV.
        header: whether the first line that is not blank names the columns.
        chosen: whether a header or the user decided, not the content.
    """

    roles: tuple[str, ...]
    separator: str | None
    quoted: bool = False
    header: bool = False
    chosen: bool = False

    def place(self, role: str) -> int | None:
        """The number of the column from 0; None if there is none."""
        return self.roles.index(role) if role in self.roles else None

    def split(self, line: str) -> list[str]:
        """The cells of a line.

        Raises:
            InputError: the line cannot be read as CSV, for example because of a carriage return.
        """
        if self.quoted:
            if len(line) > csv.field_size_limit():
                csv.field_size_limit(LONGEST_LINE)
            try:
                return next(csv.reader([line.rstrip("\r\n")], delimiter=self.separator or " "), [])
            except csv.Error as error:
                raise InputError(
                    f"the line {line.strip()[:80]!r} cannot be read as CSV ({error}). Fix or remove"
                    " it."
                ) from error
        return line.rstrip("\r\n").split(self.separator) if self.separator else line.split()

    def describe(self) -> str:
        """The roles as one string, for messages and manifests."""
        return ",".join(self.roles)


@dataclass(frozen=True)
class TableSample:
    """The first lines of a table that are not blank, with their numbers from 1."""

    name: str
    lines: list[tuple[int, str]]


def read_sample(stream: IO[bytes], name: str | Path) -> TableSample:
    """Read the first 256 KiB of a stream, for `detect_layout`."""
    data = b""
    while len(data) < SAMPLE and (piece := stream.read(SAMPLE - len(data))):
        data += piece
    if len(data) >= SAMPLE and b"\n" in data:
        data = data[: data.rindex(b"\n") + 1]
    numbered = enumerate(data.decode("utf-8", "replace").split("\n"), 1)
    return TableSample(
        str(name), [(number, line.rstrip("\r")) for number, line in numbered if line.strip()]
    )


def detect_layout(
    sample: TableSample,
    kind: str,
    columns: str | Sequence[str] | None = None,
    prefer: Sequence[tuple[str, ...]] = (),
) -> TableLayout:
    """Detect the layout of a table.

    Args:
        kind: ``run`` or ``judgments``.
        prefer: layouts of a format that the user named; the first one that the content allows is
            used.
    """
    if not sample.lines:
        raise InputError(
            f"{sample.name} is empty; a table of {'scores' if kind == 'run' else 'judgments'} was"
            " expected."
        )
    layouts = _separated(sample)
    _refuse_comment(sample, layouts[0], kind)
    first = layouts[0].split(sample.lines[0][1])
    if (
        columns is None
        and not layouts[0].header
        and not any(
            sum(role != "empty" for role in _empty_ends(("",) * len(cells), [cells]))
            in READINGS[kind]
            for cells in (layout.split(sample.lines[0][1]) for layout in layouts)
        )
    ):
        raise _unknown(sample, kind, len(first))
    rows = _rows(sample, layouts[0], kind)
    place = f"{sample.name}, line {sample.lines[0][0]}"
    if columns is not None:
        return _by_user(layouts[0], first, kind, place, columns)
    if layouts[0].header:
        roles = _empty_ends(roles_of_header(first, kind, place), [first, *rows])
        return TableLayout(roles, layouts[0].separator, layouts[0].quoted, True, True)
    return _by_content(sample, layouts, rows, kind, prefer)


def trec_header(sample: TableSample) -> TableLayout | None:
    """The layout of a TREC run with a header; None if it has no header."""
    number, line = sample.lines[0] if sample.lines else (1, "")
    names = line.split()
    if not is_header(names):
        return None
    roles = roles_of_header(names, "run", f"{sample.name}, line {number}")
    expected = tuple(
        role if role in ("query", "document", "rank", "score") else IGNORED for role in TREC
    )
    if roles != expected:
        raise InputError(
            f"{sample.name}, line {number}: the header {line.strip()[:80]!r} is not that of a TREC"
            f" run ({' '.join(TREC)}). Import the file with irdistill runs import --format tsv,"
            " which reads the columns by name."
        )
    return TableLayout(roles, None, header=True, chosen=True)


def check_trec(sample: TableSample) -> None:
    """Refuse a file that could be a TREC run after a column of row numbers."""
    rows = [line.split() for _, line in sample.lines]
    if all(len(row) == len(TREC) for row in rows) and rows:
        table = TableContent(rows)
        possible = [roles for roles in READINGS["run"][6] if table.allows(roles, "run")]
        if len(possible) > 1 and not table.only_zero(1):
            number, line = sample.lines[0]
            raise InputError(
                f"{sample.name}, line {number} ({line.strip()[:80]!r}): the columns can be read in"
                f" {len(possible)} ways: {'; or '.join(map(_words, possible))}. Import the file"
                " with irdistill runs import, where --columns names them and --format trec chooses"
                " the first, and give the run."
            )


def _separated(sample: TableSample) -> list[TableLayout]:
    """The ways to split the lines, the likeliest first, without roles.

    If all lines have a tab, tabs separate the cells, because ids may contain spaces. Other lines
    are separated by white space or commas; so are those of a TREC run that mixes tabs and spaces.
    """
    first = sample.lines[0][1]
    for separator in ("\t", ",", None):
        layout = TableLayout((), separator, separator == ",")
        if (separator is None or separator in first) and is_header(cells := layout.split(first)):
            quoted = separator == "," or (
                separator == "\t" and all(cell[:1] == cell[-1:] == '"' for cell in cells if cell)
            )
            return [TableLayout((), separator, quoted, True)]
    tabs, spaces, commas = (
        TableLayout((), separator, separator == ",") for separator in ("\t", None, ",")
    )
    if all("\t" in line for _, line in sample.lines):
        by_tabs, by_spaces = (
            {len(layout.split(line)) for _, line in sample.lines} for layout in (tabs, spaces)
        )
        # Tabs in some lines and spaces in others: the six columns of TREC runs, which other
        # programs split at white space too.
        return [spaces] if len(by_tabs) > 1 and by_spaces == {len(TREC)} else [tabs, spaces]
    return [commas] if "," in first and len(first.split()) == 1 else [spaces]


def _rows(sample: TableSample, layout: TableLayout, kind: str) -> list[list[str]]:
    """The cells of the lines after the header."""
    width = len(layout.split(sample.lines[0][1]))
    rows = []
    for number, line in sample.lines[layout.header :]:
        rows.append(layout.split(line))
        if len(rows[-1]) != width:
            raise wrong_width(sample.name, number, line, layout, len(rows[-1]), width, kind)
    return rows


def _refuse_comment(sample: TableSample, layout: TableLayout, kind: str) -> None:
    """Refuse a comment as the first line, which would decide the number of columns."""
    lines = [line for _, line in sample.lines[:2]]
    if (
        lines[0].lstrip().startswith("#")
        and not layout.header
        and len({len(layout.split(line)) for line in lines}) > 1
    ):
        what = "row of scores" if kind == "run" else "judgment"
        raise InputError(
            f"line {sample.lines[0][0]} of {sample.name} is not a {what}: {lines[0].strip()[:80]!r}"
            " looks like a comment; remove the line."
        )


def wrong_width(
    name: str | Path, number: int, line: str, layout: TableLayout, count: int, width: int, kind: str
) -> InputError:
    """The error for a row with a different number of cells than the first line."""
    by = {"\t": "tabs", ",": "commas", None: "white space"}[layout.separator]
    comment = (
        " Comment lines, which start with #, are not allowed."
        if line.lstrip().startswith("#")
        else ""
    )
    what = "row of scores" if kind == "run" else "judgment"
    return InputError(
        f"line {number} of {name} is not a {what}: {line.strip()[:80]!r} has {count} fields,"
        f" separated by {by}, and {width} were expected, as in the first"
        f" line{f' ({layout.describe()})' if layout.roles else ''}. Fix or remove the"
        f" line.{comment}"
    )


def _empty_ends(roles: tuple[str, ...], rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Mark columns at the end without content, such as a tab at the end of each line makes."""
    end = len(roles)
    while end > 1 and not any(row[end - 1].strip() for row in rows):
        end -= 1
    return roles[:end] + ("empty",) * (len(roles) - end)


def _by_user(
    layout: TableLayout, first: list[str], kind: str, place: str, columns: str | Sequence[str]
) -> TableLayout:
    roles, names = parse_columns(columns, kind)
    if names or layout.header:
        return TableLayout(
            header_layout(first, columns, kind, place), layout.separator, layout.quoted, True, True
        )
    _check_count(roles, first, kind, place)
    return TableLayout(tuple(roles), layout.separator, layout.quoted, False, True)


def header_layout(
    first: Sequence[str], columns: str | Sequence[str], kind: str, place: str
) -> tuple[str, ...]:
    """The roles of named columns, as the user chose them.

    Args:
        first: the names.
    """
    roles, names = parse_columns(columns, kind)
    if names:
        return _by_names(first, names, kind, place)
    _check_count(roles, first, kind, place)
    for cell, role in zip(first, roles, strict=True):
        known = role_of(cell)
        if (
            known in ("query", "document", "rank", "score", "grade")
            and role != IGNORED
            and known != role
            and {known, role} != {"score", "grade"}
        ):
            raise InputError(
                f"{place}: the header calls a column {cell.strip()!r}, and"
                f" {columns_option(kind)} says that it is the {role}. Write"
                f" {columns_option(kind)} {role}=NAME to choose columns by their names."
            )
    return tuple(roles)


def _check_count(roles: Sequence[str], first: Sequence[str], kind: str, place: str) -> None:
    if len(roles) != len(first):
        raise InputError(
            f"{place}: {len(first)} columns, and {columns_option(kind)} names {len(roles)}. Write -"
            " for a column to leave out."
        )


def _by_names(
    first: Sequence[str], names: dict[str, str], kind: str, place: str
) -> tuple[str, ...]:
    plain = [cell.strip().strip('"').lower() for cell in first]
    chosen: dict[int, str] = {}
    for role, name in names.items():
        places = [number for number, cell in enumerate(plain) if cell == name.lower()]
        if len(places) != 1:
            raise InputError(
                f"{place}: {columns_option(kind)} names the column {name!r}, and the header has"
                f" {'several' if places else 'none'} of that name:"
                f" {', '.join(repr(cell) for cell in first)}."
            )
        chosen[places[0]] = role
    return roles_of_header(first, kind, place, chosen)


def _by_content(
    sample: TableSample,
    layouts: list[TableLayout],
    rows: list[list[str]],
    kind: str,
    prefer: Sequence[tuple[str, ...]],
) -> TableLayout:
    """The only layout that the content allows."""
    layout, width = layouts[0], len(rows[0])
    count = sum(role != "empty" for role in _empty_ends(("",) * width, rows))
    tail = ("empty",) * (width - count)
    table = TableContent([row[:count] for row in rows])
    for roles in prefer:
        if len(roles) == count and table.allows(roles, kind, chosen=True):
            return TableLayout(roles + tail, layout.separator, layout.quoted)
    possible = [roles for roles in READINGS[kind].get(count, ()) if table.allows(roles, kind)]
    published = {("judgments", 4): READINGS["judgments"][4][0], ("run", 6): TREC}.get((kind, count))
    if published in possible and table.only_zero(1):
        # As TREC publishes them; no other program writes a column of Q0 or 0 here.
        possible = [published]
    if len(possible) == 1 and _is_usable(possible[0], kind):
        return TableLayout(possible[0] + tail, layout.separator, layout.quoted)
    if (
        not any(_is_usable(roles, kind) for roles in possible)
        and len(layouts) > 1
        and (mixed := _mixed(sample, kind))
    ):
        return TableLayout(mixed, None)
    raise _undecided(sample, table, possible, kind, count, bool(prefer))


def _mixed(sample: TableSample, kind: str) -> tuple[str, ...] | None:
    """The layout of a TREC file with tabs and spaces in one line."""
    rows = [line.split() for _, line in sample.lines]
    roles = TREC if kind == "run" else READINGS["judgments"][4][0]
    if any(len(row) != len(roles) for row in rows):
        return None
    table = TableContent(rows)
    return roles if table.only_zero(1) and table.allows(roles, kind) else None


def _is_usable(roles: tuple[str, ...], kind: str) -> bool:
    needed = {"query", "document"} <= set(roles)
    return needed and (
        "grade" in roles
        if kind == "judgments"
        else bool({"score", "rank", "first score"} & set(roles))
    )


def _undecided(
    sample: TableSample,
    table: TableContent,
    possible: list[tuple[str, ...]],
    kind: str,
    count: int,
    named: bool,
) -> InputError:
    """The error for a table with several possible layouts, or none.

    Args:
        named: whether the user named the format.
    """
    usable = [roles for roles in possible if _is_usable(roles, kind)]
    last = "score" if kind == "run" else "grade"
    trec = kind == "run" and count == len(TREC)
    place = TREC.index("score") if trec else count - 1
    expected = named or ((trec or (kind == "judgments" and count == 4)) and table.only_zero(1))
    if (wrong := table.odd_number(place, expected)) is not None and not usable:
        number, cell = sample.lines[wrong][0], table.cell(wrong, place)
        what = f"{sample.name}, line {number}: the score {cell!r} is not a number"
        if kind == "judgments":
            place_name = f"line {number} of {sample.name}"
            what = f"{place_name}: the grade is {cell!r}, and a whole number was expected"
        return InputError(
            f"{what}. If the line names columns, say which they are: {columns_option(kind)}"
            f" query=NAME,document=NAME,{last}=NAME; else fix or remove it."
        )
    if not possible:
        return _unknown(sample, kind, count)
    number, line = sample.lines[0]
    readings = "; or ".join(_words(roles) for roles in possible)
    how = _how(kind, count, [_as_columns(roles) for roles in usable if roles != TRIPLES])
    if not usable:
        return InputError(
            f"{sample.name}, line {number} ({line.strip()[:80]!r}): the {count} columns look like"
            f" {readings}, without a {'score or rank' if kind == 'run' else 'grade'}. {how}."
        )
    chosen = [
        f"--format {name} chooses {name}"
        for name, roles in (("trec", TREC), ("triples", TRIPLES))
        if roles in possible
    ]
    if kind == "run" and count == 3 and table.allows(("query", "document", "score"), kind, True):
        chosen.append("--format tsv takes the last one for the score")
    return InputError(
        f"{sample.name}, line {number} ({line.strip()[:80]!r}): the {count} columns can be read in"
        f" {len(possible)} ways: {readings}. {'; '.join([how, *chosen])}."
    )


def _unknown(sample: TableSample, kind: str, count: int) -> InputError:
    """The error for a table with none of the known layouts."""
    number, line = sample.lines[0]
    what = "judgment" if kind == "judgments" else "row of scores"
    expected = (
        "query 0 document grade, or query document grade (a whole number), separated by tabs or"
        " white space"
        if kind == "judgments"
        else "query document score, query 0 document score or query Q0 document rank score tag"
    )
    how = f" {_how(kind, count, [])}." if count >= 3 else ""
    return UnknownLayoutError(
        f"line {number} of {sample.name} is not a {what}: {line.strip()[:80]!r} has {count}"
        f" columns. Expected: {expected}.{how}"
    )


def _how(kind: str, count: int, columns: list[str]) -> str:
    """What the user can do.

    Args:
        columns: the possible readings, as the option accepts them.
    """
    names = ["query", "document", "score" if kind == "run" else "grade"]
    shown = columns or [",".join([*names, *["-"] * (count - len(names))])]
    options = " or ".join(f"{columns_option(kind)} {one}" for one in shown)
    return (
        f"Name the columns, as {options} (- is a column to leave out), or put a line of column"
        " names on top"
    )


def _as_columns(roles: tuple[str, ...]) -> str:
    """A layout as the user writes it."""
    return ",".join(
        role if role in ("query", "document", "rank", "score", "grade") else IGNORED
        for role in roles
    )


def _words(roles: tuple[str, ...]) -> str:
    shown = {
        "negative": "negative document",
        "positive": "positive document",
        "index": "row number",
        "iteration": "0",
    }
    return ", ".join(shown.get(role, role) for role in roles)
