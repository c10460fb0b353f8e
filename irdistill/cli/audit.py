"""``irdistill audit``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irdistill.cli.options import (
    examples,
    free_file,
    json_option,
    model_options,
    named,
    seed_option,
    self_match_option,
    write_result,
)
from irdistill.console.terminal import echo

if TYPE_CHECKING:
    from irdistill.evaluation.ranking_policies import SelfMatch


@click.command(
    epilog=examples(
        "irdistill audit pydocs/train out/minilm out/fused --first-stage out/bm25",
        "irdistill audit pydocs/train out/minilm --html audit.html",
    )
)
@click.argument("collection")
@click.argument("run", nargs=-1, required=True)
@click.option("--first-stage", help="The run that the teachers are to be better than.")
@click.option(
    "--student",
    help="A model of any kind: fit temperature and scale to its scores before training.",
)
@model_options()
@click.option(
    "--html",
    "html_file",
    type=click.Path(path_type=Path),
    callback=free_file,
    help="Write the page with plots, in one file.",
)
@click.option(
    "--examples",
    default=5,
    show_default=True,
    help="Of each contradiction with the judgments, how many to show.",
)
@click.option(
    "--sample",
    default=2000,
    show_default=True,
    help="Look at so many queries at most, drawn at random.",
)
@click.option(
    "--list-size",
    default=8,
    show_default=True,
    help="Documents of a training list, for the temperatures.",
)
@click.option(
    "--relevant-from",
    default=1,
    show_default=True,
    help="The grade from which a document is relevant (TREC DL: 2); nDCG weighs all grades.",
)
@self_match_option()
@seed_option()
@json_option()
def audit(
    collection: str,
    run: tuple[str, ...],
    first_stage: str | None,
    student: str | None,
    kind: str | None,
    trust_remote_code: bool,
    html_file: Path | None,
    examples: int,
    sample: int,
    list_size: int,
    relevant_from: int,
    self_match: SelfMatch,
    seed: int,
    json_file: Path | None,
) -> None:
    """Is a teacher worth learning from, and how? Verdicts first, then what they rest on."""
    from irdistill.collections import load_collection
    from irdistill.evaluation import AuditOptions
    from irdistill.evaluation import audit as audit_runs

    options = AuditOptions(
        student,
        sample,
        list_size,
        examples,
        seed,
        relevant_from,
        self_match,
        kind,
        trust_remote_code,
    )
    found = audit_runs(load_collection(collection), named(run), first_stage, options=options)
    write_result(json_file, found.to_json())
    if html_file is not None:
        found.write_html(html_file)
    echo(found.to_markdown())
