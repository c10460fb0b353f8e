"""What `collect` read, skipped and folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from irdistill.collections.collecting.decoding import UTF8
from irdistill.console.terminal import counted

UNKNOWN = "unknown kind"
_SHOWN_ENDINGS = 5
_SHOWN_TABLES = 3
_SHOWN_COLUMNS = 8
MOST_LISTED = 100_000
"""Entries of a list in the manifest; the counts continue."""


@dataclass
class CollectReport:
    """Counts and lists of one call of `collect`.

    Attributes:
        read: kind of file -> number of documents.
        skipped: reason -> number of files or rows.
        skipped_files: file and reason of each skipped file.
        columns: table -> role -> columns of this role; the role ``not read`` has the others.
        encodings: encoding -> number of files.
        other_encodings: file -> its encoding, where it is not UTF-8.
        duplicates: id of a document that was left out -> id of the one that is kept.
    """

    read: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    skipped_files: list[dict[str, str]] = field(default_factory=list)
    columns: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    encodings: Counter[str] = field(default_factory=Counter)
    other_encodings: dict[str, str] = field(default_factory=dict)
    duplicates: dict[str, str] = field(default_factory=dict)
    folded: int = 0

    def skip(self, place: str, kind: str, detail: str = "") -> None:
        """Count and list a file or a row that is not read."""
        self.skipped[kind] += 1
        if len(self.skipped_files) < MOST_LISTED:
            reason = f"{kind}: {detail}" if detail else kind
            self.skipped_files.append({"file": place, "reason": reason})

    def decoded(self, place: str, encoding: str) -> None:
        """Count the encoding of a file."""
        if encoding:
            self.encodings[encoding] += 1
        if encoding not in ("", UTF8) and len(self.other_encodings) < MOST_LISTED:
            self.other_encodings[place] = encoding

    def fold(self, doc_id: str, kept: str) -> None:
        """Count and list a document that repeats the text of another one."""
        self.folded += 1
        if len(self.duplicates) < MOST_LISTED:
            self.duplicates[doc_id] = kept

    def to_json(self) -> dict[str, Any]:
        """Plain values for the manifest."""
        return {
            "read": dict(sorted(self.read.items())),
            "columns": self.columns,
            "skipped": {
                "counts": dict(self.skipped.most_common()),
                "files": sorted(self.skipped_files, key=lambda entry: entry["file"]),
            },
            "duplicates": {"count": self.folded, "kept": self.duplicates},
            "encodings": {
                "counts": dict(self.encodings.most_common()),
                "files": self.other_encodings,
            },
        }


def summary_lines(manifest: Mapping[str, Any]) -> dict[str, str]:
    """What the screen shows of a manifest: name and value of each line."""
    lines = {"read": _counts(manifest["read"])}
    # A manifest of an earlier version does not have the columns.
    tables = manifest.get("columns", {})
    if tables:
        shown = [
            f"{table}: {_roles(roles)}" for table, roles in list(tables.items())[:_SHOWN_TABLES]
        ]
        more = [counted(len(tables) - len(shown), "more table")] if len(tables) > len(shown) else []
        lines["columns"] = "; ".join(shown + more)
    skipped = manifest["skipped"]
    if skipped["counts"]:
        lines["skipped"] = _counts(skipped["counts"])
    endings = Counter(
        entry["reason"].removeprefix(UNKNOWN).removeprefix(": ")
        for entry in skipped["files"]
        if entry["reason"].startswith(UNKNOWN)
    )
    if endings:
        lines["unknown kinds"] = _counts(dict(endings.most_common(_SHOWN_ENDINGS)))
    if manifest["duplicates"]["count"]:
        repeated = counted(manifest["duplicates"]["count"], "document")
        lines["duplicates"] = f"{repeated} left out: the same text as another document"
    encodings = manifest["encodings"]["counts"]
    if set(encodings) - {UTF8}:
        lines["encodings"] = _counts(encodings)
    return lines


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _roles(roles: Mapping[str, Sequence[str]]) -> str:
    texts = []
    for role, names in roles.items():
        shown = [repr(name) for name in names[:_SHOWN_COLUMNS]]
        more = [f"{len(names) - len(shown)} more"] if len(names) > len(shown) else []
        if names:
            texts.append(f"{role} {', '.join(shown + more)}")
    return ", ".join(texts)
