"""``irdistill compare``."""

from __future__ import annotations

import re
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

import click

from irdistill.cli.options import examples, free_file, json_option, self_match_option, write_result
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError
from irdistill.storage.ownership import write_file

if TYPE_CHECKING:
    from irdistill.evaluation import Entry
    from irdistill.evaluation.ranking_policies import SelfMatch

FIELDS = ("loss", "student", "seed")


@click.command(
    epilog=examples(
        "irdistill compare 'out/losses/{loss}.s{seed}' --plot out/losses.svg",
    )
)
@click.argument("pattern", nargs=-1, required=True)
@click.option("--measure", default="nDCG@10", show_default=True, help="As ir-measures writes it.")
@click.option("--level", default=0.05, show_default=True, help="Of all tests.")
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    callback=free_file,
    help="Draw the critical-difference diagram: an .svg, .png or .pdf file.",
)
@click.option(
    "--markdown",
    type=click.Path(path_type=Path),
    callback=free_file,
    help="Write the tables that are printed.",
)
@self_match_option()
@json_option()
def compare(
    pattern: tuple[str, ...],
    measure: str,
    level: float,
    plot: Path | None,
    markdown: Path | None,
    self_match: SelfMatch,
    json_file: Path | None,
) -> None:
    """Which loss is best, over students, collections and seeds?

    A PATTERN is the path of run folders with {loss} in it, and {student} and {seed} where there are
    several; * stands for anything. The collections are those the runs were made for. Each student
    and seed needs a run of every loss.
    """
    from irdistill.collections import load_collection
    from irdistill.evaluation import compare_losses
    from irdistill.evaluation.rank_diagram import write_diagram

    entries = find_runs(pattern)
    collections = {
        name: load_collection(name) for name in dict.fromkeys(entry.collection for entry in entries)
    }
    found = compare_losses(entries, collections, measure, level, self_match)
    text = found.to_markdown()
    write_result(json_file, found.to_json())
    if markdown is not None:
        write_file(markdown, text)
    if plot is not None:
        write_diagram(found, plot)
    echo(text)


def find_runs(patterns: tuple[str, ...]) -> list[Entry]:
    """The runs whose paths match, with the ids of their collections from their manifests.

    Raises:
        IrdistillError: a pattern lacks {loss}, has another or a repeated field, or matches no run.
    """
    from irdistill.evaluation import Entry
    from irdistill.runs import open_run

    found = []
    for pattern in patterns:
        parts = re.split(r"\{(\w*)\}|(\*)", pattern)
        fields = [field for field in parts[1::3] if field]
        if "loss" not in fields or len(set(fields)) < len(fields) or set(fields) - set(FIELDS):
            raise IrdistillError(
                f"the pattern {pattern!r} has the fields {', '.join(fields) or '(none)'}; {{loss}}"
                " was expected once, and {student} and {seed} at most once."
            )
        expression = "".join(
            re.escape(text) + (f"(?P<{field}>[^/]+?)" if field else "[^/]*" if star else "")
            for text, field, star in zip(
                parts[::3], [*parts[1::3], None], [*parts[2::3], None], strict=True
            )
        )
        folders = sorted(glob(re.sub(r"\{\w*\}", "*", pattern)))
        matches = [
            (path, re.fullmatch(expression, path))
            for path in folders
            if (Path(path) / "manifest.json").is_file()
        ]
        if not any(match for _, match in matches):
            raise IrdistillError(
                f"no run folder matches {pattern!r}; quote it, so that the shell leaves it as"
                " it is."
            )
        for path, match in matches:
            if match is not None:
                named = {field: match.groupdict().get(field, "") for field in FIELDS}
                run = open_run(path)
                found.append(Entry(**named, collection=str(run.identity.collection["id"]), run=run))
    return found
