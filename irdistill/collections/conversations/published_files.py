"""Find and read files as they were published, in folders of any depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irdistill.collections.collection import Query, Turn
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgment_checks import NumberedJudgments
from irdistill.collections.judgments import numbered_judgments
from irdistill.collections.load_report import LoadReport
from irdistill.collections.text_files import SUFFIXES, read_text, uncompressed_name
from irdistill.collections.text_lines import json_objects, numbered_lines
from irdistill.errors import InputError
from irdistill.storage.plain_data import parse_json

_DEPTH = 4


class ParsedSplit(NamedTuple):
    """The content of the files of one split.

    Attributes:
        queries: in the order of the file.
        judgments: query -> document -> (grade, line); None if no file contains judgments.
        source: the file of the judgments.
        unit: what the line numbers count.
    """

    queries: dict[str, Query]
    judgments: NumberedJudgments | None
    source: Path
    unit: str = "line"


class ConversationLayout(NamedTuple):
    """The files of one publisher.

    Attributes:
        name: for messages.
        splits: the splits in a folder, the default first; empty if it does not have this layout.
        read: reads a split; its arguments are the folder, the split, the report, and a function
            that opens the corpus, for answers that are passages.
        passages: patterns of the files or folders with the passages of a split.
        home: where the files are published.
    """

    name: str
    splits: Callable[[Path], list[str]]
    read: Callable[[Path, str, LoadReport, Callable[[], Corpus]], ParsedSplit]
    passages: Callable[[str], Sequence[str]]
    home: str


def matching_paths(folder: Path, *patterns: str) -> list[Path]:
    """The paths that match the first pattern with any match, at the nearest level of the folder.

    The folder itself and four levels below it are searched. A pattern of a file also matches the
    compressed file: ``qrecc_test.json`` matches ``qrecc_test.json.gz``.
    """
    for pattern in patterns:
        for depth in range(_DEPTH + 1):
            paths = _matches(folder, depth, pattern)
            if paths:
                return paths
    return []


def all_matching_paths(folder: Path, pattern: str) -> list[Path]:
    """The paths that match a pattern at all of these levels, compressed or not."""
    return [path for depth in range(_DEPTH + 1) for path in _matches(folder, depth, pattern)]


def _matches(folder: Path, depth: int, pattern: str) -> list[Path]:
    endings = ("", *SUFFIXES) if Path(pattern).suffix and not pattern.endswith("*") else ("",)
    return sorted(
        {path for ending in endings for path in folder.glob("*/" * depth + pattern + ending)}
    )


def single_file(folder: Path, *patterns: str) -> Path | None:
    """The file that matches the first pattern with a match; None if there is none."""
    paths = matching_paths(folder, *patterns)
    if len(paths) > 1:
        raise InputError(
            f"{folder} has several files that could be meant:"
            f" {', '.join(str(path.relative_to(folder)) for path in paths)}. Keep one of them."
        )
    return paths[0] if paths else None


def read_entries(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON list, or of JSON lines (``.jsonl``)."""
    if uncompressed_name(path).endswith(".jsonl"):
        return [entry for _, entry in json_objects(numbered_lines(path), path)]
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InputError(f"{path} should hold a list of objects and holds {str(value)[:80]!r}.")
    return value


def required_field(entry: dict[str, Any], path: Path, number: int, *names: str) -> Any:
    """The value of an object under the first of these names that it has."""
    for name in names:
        if name in entry:
            return entry[name]
    raise InputError(
        f"entry {number} of {path} has no {' and no '.join(repr(name) for name in names)}; it has "
        f"{', '.join(map(repr, entry))}. Is it the file that was published under this name?"
    )


def list_or_empty(value: Any, name: str, path: Path, number: int) -> list[Any]:
    """A list; empty for ``null``."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise InputError(
            f"entry {number} of {path}: {name!r} should be a list, got {str(value)[:80]!r}."
        )
    return value


def object_list(value: Any, name: str, path: Path, number: int) -> list[dict[str, Any]]:
    """A list of objects; empty for ``null``."""
    objects = list_or_empty(value, name, path, number)
    if not all(isinstance(entry, dict) for entry in objects):
        raise InputError(
            f"entry {number} of {path}: {name!r} should be a list of objects, got"
            f" {str(value)[:80]!r}."
        )
    return objects


def add_query(queries: dict[str, Query], query: Query, path: Path) -> None:
    """Add a question."""
    if not query.text.strip():
        raise InputError(
            f"the question {query.id!r} of {path} is empty; add its text or remove it."
        )
    if query.id in queries:
        raise InputError(
            f"{path} has the question {query.id!r} twice. Judgments could mean either; remove one."
        )
    queries[query.id] = query


def text_or_empty(value: Any) -> str:
    """The value if it is a string, otherwise an empty string."""
    return value if isinstance(value, str) else ""


def context_query(entry: dict[str, Any], path: Path, number: int, rewrite: Any) -> Query:
    """A question of QReCC or TopiOCQA: ``Context`` alternates between questions and answers."""
    conversation, turn, context, question = (
        required_field(entry, path, number, name)
        for name in ("Conversation_no", "Turn_no", "Context", "Question")
    )
    history = tuple(
        Turn("assistant" if place % 2 else "user", text)
        for place, text in enumerate(list_or_empty(context, "Context", path, number))
        if isinstance(text, str) and text
    )
    text = text_or_empty(question)
    return Query(f"{conversation}_{turn}", text, history, text_or_empty(rewrite) or None)


def with_qrels_file(
    queries: dict[str, Query], path: Path, qrels: Path | None, report: LoadReport
) -> ParsedSplit:
    """Queries of the file ``path`` with the judgments of a file, if there is one."""
    if qrels is None:
        return ParsedSplit(queries, None, path)
    return ParsedSplit(queries, numbered_judgments(qrels, report), qrels)
