"""Options that several commands share, and how results are printed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from irdistill.errors import IrdistillError
from irdistill.ownership import check_replaceable, write_json_file

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def out_option(help: str) -> Decorator:
    """``--out``."""
    return click.option("--out", required=True, type=click.Path(path_type=Path), help=help)


def free_file(context: click.Context, option: click.Parameter, path: Path | None) -> Path | None:
    """Refuse, before any work, a file that irdistill did not write and that would be replaced."""
    if path is not None:
        check_replaceable(path)
    return path


def overwrite_option() -> Decorator:
    """``--overwrite``."""
    return click.option("--overwrite", is_flag=True, help="Replace another run that is there.")


def json_option() -> Decorator:
    """``--json``."""
    return click.option("--json", "json_file", type=click.Path(path_type=Path), callback=free_file,
                        help="Write the result as JSON, at full precision.")


def seed_option() -> Decorator:
    """``--seed``."""
    return click.option("--seed", default=42, show_default=True, help="Of everything drawn at random.")


def engine_options(what: str) -> Decorator:
    """``--engine``, ``--workers`` and ``--ray-address``; see ``cluster_settings``."""
    options = (
        click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help=what),
        click.option("--workers", type=int, help="Of ray: one a GPU, or one a machine without GPUs, unless said."),
        click.option("--ray-address", help="Of a Ray cluster, auto for the one of this machine; else one is started for the job."),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def cluster_settings(engine: str, workers: int | None, ray_address: str | None) -> tuple[int | None, str | None] | None:
    """The number of workers and the address of a Ray cluster; None for this process.

    Raises:
        IrdistillError: they were given without ``--engine ray``.
    """
    if engine == "ray":
        return workers, ray_address
    if workers is not None or ray_address:
        raise IrdistillError("--workers and --ray-address are of --engine ray; add it, or leave them out.")
    return None


class Several(click.Command):
    """A command whose repeatable options take all words up to the next option: ``--scores A B`` is ``--scores A --scores B``.

    Arguments have to come before such an option.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {name for option in self.params if isinstance(option, click.Option) and option.multiple for name in option.opts}
        given: list[str] = []
        open_option: str | None = None
        for word in args:
            if word.startswith("-"):
                open_option = word if word in names else None
            elif open_option is not None and given[-1] != open_option:
                given.append(open_option)
            given.append(word)
        return super().parse_args(ctx, given)


def settings(given: tuple[str, ...], option: str, flags: tuple[str, ...] = ()) -> dict[str, Any]:
    """``key=value`` words as a mapping; values are YAML, so that 16 is a number and ``[0, 2]`` a list.

    Args:
        flags: keys that have an option of their own.

    Raises:
        IrdistillError: a word is no such pair, stands there twice, or its value cannot be read.
    """
    found: dict[str, Any] = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key or key in found:
            raise IrdistillError(f"{option} {word!r} cannot be read; write key=value, each key once.")
        if key in flags:
            raise IrdistillError(f"{option} {word!r} has an option of its own: --{key.replace('_', '-')}.")
        try:
            # a value that YAML would strip or make a mapping of, as "query: ", is a text
            read = yaml.safe_load(value) if value.strip() == value else value
        except yaml.YAMLError as error:
            raise IrdistillError(f"the value in {option} {word!r} cannot be read: {error}") from error
        found[key] = value if isinstance(read, dict) else read
    return found


def named(paths: tuple[str, ...]) -> dict[str, str]:
    """A name for each run: the last part of its path, and as much before it as tells it from the others."""
    for depth in range(1, 1 + max(len(Path(path).parts) for path in paths)):
        names = ["/".join(Path(path).parts[-depth:]) for path in paths]
        if len(set(names)) == len(paths):
            return dict(zip(names, paths, strict=True))
    raise IrdistillError(f"a run is given twice among {', '.join(paths)}; give each once.")


def show(result: Mapping[str, Any], json_file: Path | None) -> None:
    """Print a result as aligned lines, and write it as JSON where asked."""
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        write_json_file(json_file, dict(result))
    width = max(map(len, result), default=0)
    for key, value in result.items():
        text = f"{value:.6g}" if isinstance(value, float) else "; ".join(map(str, value)) if isinstance(value, list) else value
        click.echo(f"{key:<{width}}  {text}")
