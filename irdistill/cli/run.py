"""``irdistill run``."""

from __future__ import annotations

from pathlib import Path

import click

from irdistill.cli.options import examples, json_option, seed_option, write_result
from irdistill.console.terminal import echo
from irdistill.storage.files import read_json


@click.command(
    epilog=examples(
        "irdistill run quickstart --out out/quickstart",
        "irdistill run recipes/quickstart.yaml --out out/short --set steps=200",
    )
)
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), help="The folder; out/NAME by default.")
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting of the recipe; repeatable.",
)
@click.option(
    "--overwrite", is_flag=True, help="Make anew the stages that were made with other settings."
)
@seed_option()
@json_option()
def run(
    recipe: str,
    out: Path | None,
    changes: tuple[str, ...],
    overwrite: bool,
    seed: int,
    json_file: Path | None,
) -> None:
    """Run a recipe: every stage once; stopped at any moment, the same command goes on."""
    from irdistill.recipes import read_recipe, run_recipe

    loaded = read_recipe(recipe, changes)
    folder = run_recipe(loaded, out or Path("out") / loaded.name, seed, overwrite)
    echo((folder / "report.md").read_text(encoding="utf-8"))
    echo(f"Report: {folder / 'report.md'}; figures at full precision: {folder / 'results.json'}")
    write_result(json_file, read_json(folder / "results.json"))
