"""``irdistill specialise``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from irdistill.cli.options import (
    MINILM,
    examples,
    json_option,
    model_options,
    out_option,
    overwrite_option,
    seed_option,
    write_result,
)
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")
EXAMPLES = examples(
    "# mydocs holds corpus.jsonl (one line a document: _id, title, text):",
    f"irdistill specialise mydocs --model {MINILM} --time 20m --out out/mine",
)


@click.command(epilog=EXAMPLES)
@click.argument("collection")
@click.option(
    "--model",
    required=True,
    help="The dense retriever to start from: folder, hub id or package: path.",
)
@click.option(
    "--teacher",
    default="fused",
    show_default=True,
    help="fused: the model with BM25; or a teacher's card or model.",
)
@click.option("--llm", default="", help="The card of a language model that writes queries too.")
@click.option("--kinds", default="", help="Of queries, joined by commas; see generate.")
@click.option(
    "--time",
    "duration",
    default="30m",
    show_default=True,
    help="About so long it may take here: 90s, 20m, 2h.",
)
@click.option("--rule", "rules", multiple=True, help="Filter the queries, see filter; repeatable.")
@click.option(
    "--avoid",
    type=click.Choice(["always", "where-possible", "never"]),
    default="where-possible",
    show_default=True,
    help=(
        "Whether passages judged relevant to the collection's own queries are kept from being"
        " sources."
    ),
)
@click.option(
    "--refine/--no-refine",
    default=None,
    help="Train behind the term vectors too; by default where the teacher is another than fused.",
)
@click.option(
    "--control",
    is_flag=True,
    help="Train two more students, by KL and by InfoNCE alone, to see what each is worth.",
)
@model_options()
@out_option("The folder; it says at the end where in it the model is.")
@overwrite_option()
@seed_option()
@json_option()
def specialise(
    collection: str,
    duration: str,
    kinds: str,
    rules: tuple[str, ...],
    out: Path,
    overwrite: bool,
    json_file: Path | None,
    **given: Any,
) -> None:
    """Specialise a retriever to a corpus of your own, without labels, and see whether it helped."""
    from irdistill.recipes.specialization import Specialisation
    from irdistill.recipes.specialization import specialise as run

    chosen = tuple(kind.strip() for kind in kinds.split(",") if kind.strip())
    asked = Specialisation(kinds=chosen, rules=rules, minutes=minutes(duration), **given)
    folder = run(collection, asked, out, overwrite)
    echo((folder / "report.md").read_text(encoding="utf-8"))
    model = folder / ("specialised" if asked.refined else "terms") / "model"
    echo(f"the model is in {model}; what was run is {folder / 'recipe.yaml'}")
    write_result(json_file, read_json(folder / "results.json"))


def minutes(text: str) -> float:
    """A duration in minutes: ``90s``, ``20m``, ``2h``; minutes where there is no unit.

    Raises:
        IrdistillError: it cannot be read.
    """
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise IrdistillError(f"the time {text!r} cannot be read; write 90s, 20m or 2h.")
    return float(match[1]) * {"s": 1 / 60, "h": 60.0}.get(match[2], 1.0)
