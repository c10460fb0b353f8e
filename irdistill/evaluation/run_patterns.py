"""Runs whose paths match a pattern with the fields {loss}, {student} and {seed}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import glob
from pathlib import Path

from irdistill.errors import NotFoundError, OptionError
from irdistill.evaluation.comparison import Entry
from irdistill.runs import open_run

FIELDS = ("loss", "student", "seed")


def find_runs(patterns: Sequence[str]) -> list[Entry]:
    """The runs that match, with the ids of their collections from their manifests."""
    entries = []
    for pattern in patterns:
        parts = re.split(r"\{(\w*)\}|(\*)", pattern)
        fields = [field for field in parts[1::3] if field]
        if "loss" not in fields or len(set(fields)) < len(fields) or set(fields) - set(FIELDS):
            raise OptionError(
                f"the pattern {pattern!r} has the fields {', '.join(fields) or '(none)'}; expected"
                " {loss} once, and {student} and {seed} at most once."
            )
        expression = "".join(
            re.escape(text) + (f"(?P<{field}>[^/]+?)" if field else "[^/]*" if star else "")
            for text, field, star in zip(
                parts[::3], [*parts[1::3], None], [*parts[2::3], None], strict=True
            )
        )
        matches = [
            (path, match)
            for path in sorted(glob(re.sub(r"\{\w*\}", "*", pattern)))
            if (Path(path) / "manifest.json").is_file()
            and (match := re.fullmatch(expression, path))
        ]
        if not matches:
            raise NotFoundError(
                f"no run folder matches {pattern!r}. Put the pattern in quotes, so that the shell"
                " does not expand it."
            )
        for path, match in matches:
            named = {field: match.groupdict().get(field, "") for field in FIELDS}
            run = open_run(path)
            entries.append(Entry(**named, collection=str(run.identity.collection["id"]), run=run))
    return entries
