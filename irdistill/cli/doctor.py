"""``irdistill doctor``."""

from __future__ import annotations

from pathlib import Path

import click

from irdistill.cli.options import examples, json_option, write_result


@click.command(epilog=examples("irdistill doctor"))
@json_option()
@click.pass_context
def doctor(context: click.Context, json_file: Path | None) -> None:
    """What is installed, what is missing, and the one command that mends it. Exits with 1 where a need is not met."""
    from rich.console import Console

    from irdistill.doctor import examine, is_healthy, render, to_json

    checks = examine()
    write_result(json_file, to_json(checks))
    Console().print(render(checks))
    context.exit(0 if is_healthy(checks) else 1)
