"""``irdistill cards``."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from irdistill.card_files import CARD_KINDS, Card, choose_card, list_cards
from irdistill.cli.options import examples, json_option, write_result
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError
from irdistill.storage.files import atomic_path, make_folder

_KIND = click.Choice(tuple(CARD_KINDS))


@click.group()
def cards() -> None:
    """List, print and copy the cards that come with irdistill: teachers, suites (eval), data and
    recipes.
    """


@cards.command("list", epilog=examples("irdistill cards list", "irdistill cards list teachers"))
@click.argument("kind", type=_KIND, required=False)
@json_option()
def list_(kind: str | None, json_file: Path | None) -> None:
    """Print the name of every card and its description."""
    listed = list_cards(kind)
    write_result(
        json_file,
        {
            "cards": [
                {
                    "kind": card.kind,
                    "name": card.name,
                    "description": _description(card),
                    "path": str(card.path),
                }
                for card in listed
            ]
        },
    )
    width = max(len(card.name) for card in listed)
    lines = []
    for name in dict.fromkeys(card.kind for card in listed):
        lines += [
            f"{name}:",
            *(
                f"  {card.name:<{width}}  {_short(_description(card), 105 - width)}".rstrip()
                for card in listed
                if card.kind == name
            ),
            "",
        ]
    echo("\n".join(lines).rstrip())


@cards.command(
    epilog=examples("irdistill cards show minilm", "irdistill cards show recipes/quickstart")
)
@click.argument("name")
@click.option("--kind", type=_KIND, help="The kind of card, where several kinds have the name.")
def show(name: str, kind: str | None) -> None:
    """Print a card.

    NAME is a card's name, or KIND/NAME.
    """
    echo(choose_card(name, kind).path.read_text(encoding="utf-8").rstrip("\n"))


@cards.command(
    epilog=examples(
        "irdistill cards copy quickstart mine.yaml", "irdistill cards copy teachers/minilm out"
    )
)
@click.argument("name")
@click.argument("destination", type=click.Path(path_type=Path), default=".", required=False)
@click.option("--kind", type=_KIND, help="The kind of card, where several kinds have the name.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def copy(name: str, destination: Path, kind: str | None, overwrite: bool) -> None:
    """Copy a card to a file or into a folder, to edit it and give its path to a command.

    NAME is a card's name, or KIND/NAME. DESTINATION is a file or a folder; the current folder by
    default.
    """
    card = choose_card(name, kind)
    is_file = destination.suffix in (".yaml", ".yml", card.path.suffix) and not destination.is_dir()
    target = destination if is_file else destination / card.path.name
    if target.exists() and not overwrite:
        raise IrdistillError(
            f"{target} exists; choose another name, or give --overwrite to replace it."
        )
    make_folder(target.parent)
    with atomic_path(target) as temporary:
        shutil.copyfile(card.path, temporary)
    uses = {
        "teachers": "irdistill score … --teacher {}",
        "eval": "irdistill benchmark {} …",
        "recipes": "irdistill run {}",
        "data": (
            "--prompt {} of rewrite" if card.name.startswith("prompts/") else "read by pydocs/howto"
        ),
    }
    echo(
        f"{target}: {card.kind}/{card.name}, to be edited. Used as:"
        f" {uses[card.kind].format(target)}"
    )


def _description(card: Card) -> str:
    import yaml

    if card.path.suffix != ".yaml":
        return ""
    try:
        content = yaml.safe_load(card.path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return ""
    return (
        " ".join(str(content.get("description", "")).split()) if isinstance(content, dict) else ""
    )


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"
