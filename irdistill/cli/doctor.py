"""``irdistill doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from irdistill.cli.options import json_option
from irdistill.ownership import write_json_file


@click.command(epilog="Example: irdistill doctor")
@json_option()
@click.pass_context
def doctor(context: click.Context, json_file: Path | None) -> None:
    """What is installed, what is missing, and the one command that mends it. Exits with 1 where a need is not met."""
    from rich.console import Console

    from irdistill.doctor import examine, is_healthy, render, to_json

    checks = examine()
    if json_file is not None:
        write_json_file(json_file, to_json(checks))
    Console().print(render(checks))
    context.exit(0 if is_healthy(checks) else 1)
