"""``irdistill doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from irdistill.cli.options import examples, json_option, show, write_result
from irdistill.console.terminal import echo


@click.command(epilog=examples("irdistill doctor", "irdistill doctor --cache"))
@click.option(
    "--cache",
    is_flag=True,
    help="Read every byte of the cache folder; damaged files are rebuilt at their next use.",
)
@json_option()
@click.pass_context
def doctor(context: click.Context, cache: bool, json_file: Path | None) -> None:
    """What is installed, what is missing, and the one command that mends it. Exits with 1 where a
    need is not met.
    """
    if cache:
        from irdistill.storage.checksums import check_folders
        from irdistill.storage.files import cache_folder

        checked = check_folders(cache_folder())
        for line in checked.damaged:
            echo(line)
        show(
            {
                "cache": str(cache_folder()),
                "folders": checked.folders,
                "bytes": checked.bytes,
                "of earlier versions": checked.earlier,
                "damaged": len(checked.damaged),
            },
            json_file,
        )
        context.exit(1 if checked.damaged else 0)
    from rich.console import Console

    from irdistill.doctor import examine, is_healthy, render, to_json

    checks = examine()
    write_result(json_file, to_json(checks))
    Console().print(render(checks))
    context.exit(0 if is_healthy(checks) else 1)
