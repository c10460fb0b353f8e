"""Files as they are published: found in a folder however it is nested, and read as lists of
objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irdistill.collections.collection import Query
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import NumberedJudgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.text_files import SUFFIXES, read_text, uncompressed_name
from irdistill.collections.text_lines import json_objects, numbered_lines
from irdistill.errors import IrdistillError
from irdistill.storage.plain_data import parse_json

_DEPTH = 4


class ParsedSplit(NamedTuple):
    """What the files of one split say.

    Attributes:
        queries: in the order of the file.
        judgments: query -> document -> (grade, number); None where no file holds any.
        source: the file of the judgments.
        unit: what the numbers count in it.
    """

    queries: dict[str, Query]
    judgments: NumberedJudgments | None
    source: Path
    unit: str = "line"


class ConversationLayout(NamedTuple):
    """How one publisher lays his files out.

    Attributes:
        name: as the messages call it.
        splits: the splits that a folder has of it, the default first; none where it is not of this
            layout.
        read: the questions and judgments of a split; what it takes is the folder, the split, the
            report, and a function that opens the corpus, for answers that are passages of it.
        passages: patterns of the files or folders that hold the passages of a split.
        home: where all of it is published.
    """

    name: str
    splits: Callable[[Path], list[str]]
    read: Callable[[Path, str, LoadReport, Callable[[], Corpus]], ParsedSplit]
    passages: Callable[[str], Sequence[str]]
    home: str


def matching_paths(folder: Path, *patterns: str) -> list[Path]:
    """The paths of the first pattern that has any, in the folder itself or up to four folders down,
    the nearest level alone.

    A pattern of a file also stands for the file compressed: ``qrecc_test.json`` for
        ``qrecc_test.json.gz``.
    """
    for pattern in patterns:
        for depth in range(_DEPTH + 1):
            paths = _matches(folder, depth, pattern)
            if paths:
                return paths
    return []


def all_matching_paths(folder: Path, pattern: str) -> list[Path]:
    """The paths of a pattern on all of these levels, compressed or not."""
    return [path for depth in range(_DEPTH + 1) for path in _matches(folder, depth, pattern)]


def _matches(folder: Path, depth: int, pattern: str) -> list[Path]:
    endings = ("", *SUFFIXES) if Path(pattern).suffix and not pattern.endswith("*") else ("",)
    return sorted(
        {path for ending in endings for path in folder.glob("*/" * depth + pattern + ending)}
    )


def single_file(folder: Path, *patterns: str) -> Path | None:
    """The file of the first pattern that has one.

    Raises:
        IrdistillError: several match on the same level.
    """
    paths = matching_paths(folder, *patterns)
    if len(paths) > 1:
        raise IrdistillError(
            f"{folder} has several files that could be meant:"
            f" {', '.join(str(path.relative_to(folder)) for path in paths)}. Keep one of them"
            " there."
        )
    return paths[0] if paths else None


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of a file with one a line (``.jsonl``).

    Raises:
        IrdistillError: it holds something else.
    """
    if uncompressed_name(path).endswith(".jsonl"):
        return [entry for _, entry in json_objects(numbered_lines(path), path)]
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise IrdistillError(f"{path} should hold a list of objects and holds {str(value)[:80]!r}.")
    return value


def required_field(entry: dict[str, Any], path: Path, number: int, *names: str) -> Any:
    """The value under the first of these names that an object has.

    Raises:
        IrdistillError: it has none of them.
    """
    for name in names:
        if name in entry:
            return entry[name]
    raise IrdistillError(
        f"entry {number} of {path} has no {' and no '.join(repr(name) for name in names)}; it has "
        f"{', '.join(map(repr, entry))}. Is it the file that was published under this name?"
    )


def list_or_empty(value: Any, name: str, path: Path, number: int) -> list[Any]:
    """A list, empty where there is none (``null``).

    Raises:
        IrdistillError: it is something else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise IrdistillError(
            f"entry {number} of {path}: {name!r} should be a list, got {str(value)[:80]!r}."
        )
    return value


def object_list(value: Any, name: str, path: Path, number: int) -> list[dict[str, Any]]:
    """A list of objects, empty where there is none.

    Raises:
        IrdistillError: it is something else.
    """
    entries_of = list_or_empty(value, name, path, number)
    if not all(isinstance(entry, dict) for entry in entries_of):
        raise IrdistillError(
            f"entry {number} of {path}: {name!r} should be a list of objects, got"
            f" {str(value)[:80]!r}."
        )
    return entries_of


def add_query(queries: dict[str, Query], query: Query, path: Path) -> None:
    """Add a question.

    Raises:
        IrdistillError: it is empty, or its id is there already.
    """
    if not query.text.strip():
        raise IrdistillError(
            f"the question {query.id!r} of {path} is empty; write its text or remove it."
        )
    if query.id in queries:
        raise IrdistillError(
            f"{path} has the question {query.id!r} twice. Judgments could mean either; remove one."
        )
    queries[query.id] = query


def text_or_empty(value: Any) -> str:
    """A text, empty where there is none."""
    return value if isinstance(value, str) else ""
