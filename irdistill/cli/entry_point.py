"""The entry point: errors as one paragraph, exit codes, and the list of commands."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from irdistill import __version__
from irdistill.cli.commands import VerbGroup, examples
from irdistill.console.progress_bars import set_quiet
from irdistill.console.terminal import PrintableFormatter, echo
from irdistill.errors import IrdistillError, one_line
from irdistill.storage.files import describe_os_error


class CommandInterruptedError(Exception):
    """Ctrl-C was pressed; click itself would print an empty line and forget what was kept."""


class _Commands(VerbGroup):
    """The commands, with an interruption that reaches `main`."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            kept = "; ".join(dict.fromkeys(getattr(error, "__notes__", ())))
            raise CommandInterruptedError(
                f"interrupted. Kept: {kept}. Run the same command again to resume."
                if kept
                else (
                    "interrupted before anything new was finished; what was finished earlier is"
                    " kept. Run the same command again."
                )
            ) from error


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog=examples("irdistill retrieve pydocs/test --model bm25 --out out/bm25-test"),
)
@click.version_option(__version__, prog_name="irdistill")
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and all logs.")
@click.option("--quiet", is_flag=True, help="Show no progress bars and no notes.")
def cli(debug: bool, quiet: bool) -> None:
    """Distill a strong, slow reranker into a small, fast retriever, and measure the result.

    COLLECTION is pydocs/train|dev|test|howto, an ir_datasets id, a folder in BEIR layout
    (path#split), or documents: a folder of files, a table, hf:OWNER/NAME. RUN is a run's folder,
    or a TREC run file.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    set_quiet(quiet)
    level = logging.DEBUG if debug else logging.ERROR if quiet else logging.INFO
    logging.basicConfig(
        level=level if debug else logging.ERROR, format="%(message)s", stream=sys.stderr, force=True
    )
    for handler in logging.getLogger().handlers:
        handler.setFormatter(PrintableFormatter("%(message)s"))
    logging.getLogger("irdistill").setLevel(level)


for _name, _help in (
    ("runs", "Manage runs: import, export, verify, merge, stats, diff."),
    ("judgments", "Judgments of people: export as qrels, agreement of judges."),
    ("cards", "List, print and copy the cards: teachers, suites (eval), data and recipes."),
):
    cli.add_command(VerbGroup(_name, prefix=f"{_name} ", help=_help))


def _global_flags_first(words: list[str]) -> list[str]:
    """The words with --quiet and --debug before the command, wherever they were written."""
    end = words.index("--") if "--" in words else len(words)
    flags = [word for word in words[:end] if word in ("--quiet", "--debug")]
    return [*flags, *(word for word in words[:end] if word not in flags), *words[end:]]


INTERNAL_FAULT = 70
"""Exit code of an unexpected error (EX_SOFTWARE)."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line and exit: 0 done, 1 wrong input, 70 internal error, 130 interrupted."""
    words = _global_flags_first(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(cli.main(words, prog_name="irdistill", standalone_mode=False) or 0)
    except (CommandInterruptedError, KeyboardInterrupt, click.exceptions.Abort) as stop:
        reason = stop if isinstance(stop, CommandInterruptedError) else "interrupted."
        echo(f"irdistill: {reason}", err=True)
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        text = io.StringIO()
        error.show(text)
        echo(text.getvalue().rstrip("\n"), err=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader of a pipe (head, less) ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        echo(f"irdistill: {describe_error(error)}", err=True)
        sys.exit(1 if isinstance(error, IrdistillError | OSError | MemoryError) else INTERNAL_FAULT)


def describe_error(error: Exception) -> str:
    """One paragraph for an error that ends a command."""
    if isinstance(error, IrdistillError):
        return str(error)
    if isinstance(error, OSError):
        return describe_os_error(error)
    if isinstance(error, MemoryError):
        detail = f" ({error})" if str(error) else ""
        return (
            f"there is not enough memory{detail}. Close other programs, or choose smaller batches,"
            " fewer documents per query or a smaller model. What was finished is kept; run the"
            " same command again to resume."
        )
    last = traceback.extract_tb(error.__traceback__)[-1]
    detail = one_line(error)
    return (
        f"internal error: {type(error).__name__}: {detail} ({Path(last.filename).name}, line"
        f" {last.lineno}). This is an error in irdistill or in a library that it uses. Run"
        " irdistill --debug with the same command for the traceback, and report it. What was"
        " finished is kept."
    )
