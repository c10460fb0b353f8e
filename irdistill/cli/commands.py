"""Commands derived from the declarations of verbs.

A verb's options become click options; pydantic converts and checks their values. Modules of verbs
are imported when their command is used, so that ``irdistill --help`` is fast.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import click

from irdistill.errors import OptionError
from irdistill.verbs import CATALOG, load_verb, verb_names

_SEVERAL_SOURCES = ("runs", "models", "collections", "texts", "files", "validation")
_VIEWED = ("run", "specialise", "train", "pretrain", "align", "score", "retrieve")
"""Verbs that take ``--view``."""
_NUMBERS = {int: "INTEGER", float: "FLOAT", bool: "BOOLEAN", Path: "PATH"}


class VerbGroup(click.Group):
    """A group whose commands are verbs, built when they are used.

    Args:
        prefix: the words before a command's name: ``"runs "``.
    """

    def __init__(self, *args: Any, prefix: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prefix = prefix

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the verbs, in the order of the catalog."""
        return [*verb_names(self.prefix), *self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build the command of a verb."""
        name = self.prefix + cmd_name
        return verb_command(name) if name in CATALOG else self.commands.get(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first word; an error suggests close names."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            close = difflib.get_close_matches(args[0], self.list_commands(ctx), 3)
            if not close or "Did you mean" in error.message:
                raise
            hint = f"{error.message} Did you mean {', '.join(close)}?"
            raise click.UsageError(hint, ctx) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The names and summaries of the verbs, without importing them."""
        rows = [(name, CATALOG[self.prefix + name].summary) for name in verb_names(self.prefix)]
        rows += [(name, group.get_short_help_str(80)) for name, group in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class MultiValueCommand(click.Command):
    """A command whose repeatable options take all words up to the next option.

    ``--scores A B`` means ``--scores A --scores B``. Arguments come before such an option.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the name of an option before each of its words."""
        names = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        words: list[str] = []
        open_option: str | None = None
        for word in args:
            if word.startswith("-") and not _is_number(word):
                open_option = word if word in names else None
            elif open_option is not None and words[-1] != open_option:
                words.append(open_option)
            words.append(word)
        return super().parse_args(ctx, words)


def _is_number(word: str) -> bool:
    try:
        return float(word) is not None
    except ValueError:
        return False


def verb_command(name: str) -> click.Command:
    """The command of a verb."""
    from irdistill.cli.printing import print_result

    verb = load_verb(name)

    def run(**words: Any) -> None:
        from irdistill.user_modules import import_user_modules

        json_file, view = words.pop("json_file"), words.pop("view", False)
        import_user_modules(words.pop("imports"))
        values = checked_options(verb, words)
        if name == "search" and "query" not in values:
            from irdistill.cli.search_prompt import search_many

            if not search_many(values, json_file):
                click.get_current_context().exit(1)
            return
        with _page(name, values) if view else nullcontext():
            ok = print_result(name, verb.call(values), values, json_file)
        if not ok:
            click.get_current_context().exit(1)

    return MultiValueCommand(
        name.rpartition(" ")[2],
        params=[
            *(_parameter(verb, option) for option in verb.options.values()),
            *_surface_options(name),
        ],
        callback=run,
        help=_help(verb),
        epilog=examples(*verb.examples),
    )


def checked_options(verb: Any, words: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a verb from the words of the command line."""
    arguments = {
        name: read_words(verb.options[name], words[name])
        for name in verb.options
        if words.get(name) not in (None, ())
    }
    verb.refuse_alternatives(arguments, lambda name: _flag(verb, name))
    later = verb.name == "search" and "query" not in arguments  # questions are read afterwards
    checked: dict[str, Any] = verb.check(
        arguments | ({"query": "?"} if later else {}), label=lambda name: _flag(verb, name)
    )
    if later:
        del checked["query"]
    return checked


def _help(verb: Any) -> str:
    arguments = (verb.options[name] for name in verb.positional)
    return "\n\n".join(
        [verb.documentation.replace("``", "").replace("`", "")]
        + [f"{_flag(verb, option.name)}: {option.description}" for option in arguments]
    )


def _flag(verb: Any, name: str) -> str:
    if name in verb.positional:
        option = verb.options[name]
        return (name.removesuffix("s") if takes_several(option) else name).upper()
    return f"--{name.replace('_', '-')}"


def _page(verb: str, values: Mapping[str, Any]) -> AbstractContextManager[None]:
    from irdistill.cli.view_companion import page_beside

    return page_beside(verb, values)


def _surface_options(verb: str) -> list[click.Parameter]:
    view = click.Option(
        ["--view"],
        is_flag=True,
        help="Show the job on a local page while it runs; its address is printed.",
    )
    return [
        *([view] if verb in _VIEWED else []),
        click.Option(
            ["--import", "imports"],
            multiple=True,
            metavar="MODULE",
            help="Import a module or a Python file first, with your losses and teachers.",
        ),
        click.Option(
            ["--json", "json_file"],
            type=click.Path(path_type=Path, allow_dash=True),
            metavar="FILE",
            callback=_keep_output_clean,
            help="Write the result as JSON, at full precision; - prints only that.",
        ),
    ]


def _parameter(verb: Any, option: Any) -> click.Parameter:
    """The click parameter of an option; its value stays text until `read_words`."""
    several = takes_several(option) or is_mapping(option)
    if option.name in verb.positional:
        return click.Argument(
            [option.name],
            nargs=-1 if several else 1,
            required=option.required and (verb.name, option.name) != ("search", "query"),
            metavar=_flag(verb, option.name) + ("..." if several else ""),
        )
    name = f"--{option.name.replace('_', '-')}"
    names = [name, option.name]
    help_text = option.description + _default(option)
    if option.types == (bool,):
        if option.default is not False:
            names = [f"{name}/--no-{name[2:]}", option.name]
        return click.Option(names, is_flag=True, default=None, help=help_text)
    return click.Option(
        names,
        multiple=several,
        required=option.required,
        metavar=_metavar(option),
        help=help_text,
    )


def _default(option: Any) -> str:
    if option.required or option.default is None or option.default in ("", False, {}, ()):
        return ""
    value = option.default
    if value is True:
        value = option.name.replace("_", "-")
    elif isinstance(value, tuple | list):
        value = " ".join(map(str, value))
    return f"  [default: {value}]"


def choices(option: Any) -> list[str]:
    """The words that an option allows, if it is a choice."""
    return [
        str(word) for part in option.types if get_origin(part) is Literal for word in get_args(part)
    ]


def _metavar(option: Any) -> str:
    if is_mapping(option):
        return "KEY=VALUE"
    words = choices(option) or [word for part in _item_options(option) for word in choices(part)]
    if words and str not in option.types:
        return f"[{'|'.join(words)}]" if sum(map(len, words)) < 60 else "NAME"
    if option.source:
        return option.source.removesuffix("s").upper() if option.source != "loss" else "LOSS"
    kinds = [*option.types, *(kind for part in _item_options(option) for kind in part.types)]
    return next((_NUMBERS[kind] for kind in kinds if kind in _NUMBERS), "TEXT")


def _item_options(option: Any) -> list[Any]:
    from dataclasses import replace

    return [
        replace(option, annotation=get_args(part)[0])
        for part in option.types
        if get_origin(part) in (list, tuple, Sequence)
    ]


def takes_several(option: Any) -> bool:
    """Whether an option takes several values."""
    return option.source in _SEVERAL_SOURCES or bool(_item_options(option))


def is_mapping(option: Any) -> bool:
    """Whether an option takes only ``KEY=VALUE`` words."""
    return all(get_origin(part) is dict for part in option.types)


def read_words(option: Any, words: Any) -> Any:
    """The value of an option from the words of the command line, before it is checked.

    A word that begins with { or [ is read as YAML. Numbers and choices may be joined by commas. An
    option that takes one value or several takes a single word as one value where it can.
    """
    from irdistill.storage.plain_data import parse_yaml

    if not isinstance(words, tuple):
        return parse_yaml(words, option.name) if _is_yaml(option, words) else words
    if is_mapping(option):
        return _mapping(option.name, words)
    values = [parse_yaml(word, option.name) if _is_yaml(option, word) else word for word in words]
    if len(values) == 1:
        try:
            option.check(values[0], option.name)
            return values[0]
        except OptionError:
            pass
    kinds = [kind for part in _item_options(option) for kind in part.types]
    if kinds and all(kind in (int, float) or get_origin(kind) is Literal for kind in kinds):
        return [part for value in values for part in str(value).split(",")]
    return values


def _is_yaml(option: Any, word: Any) -> bool:
    text = str(word)
    return (text[:1] == "[" or (text[:1] == "{" and ":" in text)) and option.types != (str,)


def _mapping(name: str, words: Sequence[str]) -> dict[str, Any]:
    from irdistill.storage.plain_data import parse_yaml

    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key or key in values:
            raise OptionError(f"--{name} {word!r} cannot be read; write key=value, each key once.")
        # YAML would strip "query: " or make a mapping of it: such a value is text
        read = parse_yaml(value, f"--{name} {word!r}") if value.strip() == value else value
        values[key] = value if isinstance(read, dict) and value[0] != "{" else read
    return values


def _keep_output_clean(
    context: click.Context, option: click.Parameter, value: Path | None
) -> Path | None:
    """With ``--json -`` everything else that is printed goes to standard error."""
    if str(value) == "-":
        from irdistill.cli.printing import STANDARD_OUTPUT

        context.meta[STANDARD_OUTPUT] = sys.stdout
        context.with_resource(redirect_stdout(sys.stderr))
    elif value is not None:
        from irdistill.storage.ownership import check_replaceable

        check_replaceable(value)
    return value


def examples(*lines: str) -> str:
    """The examples at the end of a help text: one per line, never wrapped.

    A line that begins with # is a comment on the line below it.
    """
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
