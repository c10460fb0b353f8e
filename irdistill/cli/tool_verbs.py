"""The commands ``irdistill cards ...`` and ``irdistill doctor``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from irdistill.card_files import Card, choose_card, list_cards
from irdistill.cli.printing import Printed
from irdistill.errors import OutputExistsError
from irdistill.storage.files import atomic_path, make_folder
from irdistill.verbs.declaration import verb

Kind = Literal["teachers", "eval", "data", "recipes"]
KindOption = Annotated[
    Kind | None, Field(description="Kind of the card, if several kinds have the name.")
]
NameOption = Annotated[str, Field(description="A card's name, or KIND/NAME.")]


@verb(
    "cards list",
    positional=("kind",),
    examples=("irdistill cards list", "irdistill cards list teachers"),
)
def list_all_cards(
    kind: Annotated[Kind | None, Field(description="Only cards of this kind.")] = None,
) -> Printed:
    """Print the name and description of every card."""
    cards = [(card, _description(card)) for card in list_cards(kind)]
    width = max(len(card.name) for card, _ in cards)
    lines: list[str] = []
    for name in dict.fromkeys(card.kind for card, _ in cards):
        lines += [
            f"{name}:",
            *(
                f"  {card.name:<{width}}  {_short(text, 105 - width)}".rstrip()
                for card, text in cards
                if card.kind == name
            ),
            "",
        ]
    rows = [
        {"kind": card.kind, "name": card.name, "description": text, "path": str(card.path)}
        for card, text in cards
    ]
    return Printed("\n".join(lines).rstrip(), {"cards": rows})


@verb(
    "cards show",
    positional=("name",),
    examples=("irdistill cards show minilm", "irdistill cards show recipes/quickstart"),
)
def show_card(name: NameOption, kind: KindOption = None) -> Printed:
    """Print a card."""
    card = choose_card(name, kind)
    text = card.path.read_text(encoding="utf-8").rstrip("\n")
    return Printed(text, {"kind": card.kind, "name": card.name, "text": text})


@verb(
    "cards copy",
    positional=("name", "destination"),
    examples=(
        "irdistill cards copy quickstart mine.yaml",
        "irdistill cards copy teachers/minilm out",
    ),
)
def copy_card(
    name: NameOption,
    destination: Annotated[Path, Field(description="A file or a folder.")] = Path(),
    *,
    kind: KindOption = None,
    overwrite: Annotated[bool, Field(description="Replace an existing file.")] = False,
) -> Printed:
    """Copy a card to a file or a folder, to edit it and give its path to a command."""
    card = choose_card(name, kind)
    is_file = destination.suffix in (".yaml", ".yml", card.path.suffix) and not destination.is_dir()
    target = destination if is_file else destination / card.path.name
    if target.exists() and not overwrite:
        raise OutputExistsError(
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
    use = uses[card.kind].format(target)
    return Printed(
        f"{target}: a copy of {card.kind}/{card.name}. Use: {use}", {"path": str(target)}
    )


def _description(card: Card) -> str:
    import yaml

    if card.path.suffix != ".yaml":
        return ""
    try:
        content = yaml.safe_load(card.path.read_text(encoding="utf-8"))
    except yaml.YAMLError:
        return ""
    text = content.get("description", "") if isinstance(content, dict) else ""
    return " ".join(str(text).split())


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1].rstrip() + "…"


@verb("doctor", examples=("irdistill doctor", "irdistill doctor --cache"))
def check_installation(
    cache: Annotated[
        bool,
        Field(description="Read every byte of the cache; damaged entries are rebuilt when used."),
    ] = False,
) -> Printed:
    """Report what is installed, what is missing, and the command that fixes it.

    Exits with 1 if a requirement is not met.
    """
    return _check_cache() if cache else _check_libraries()


def _check_cache() -> Printed:
    from irdistill.cli.printing import _table
    from irdistill.storage.checksums import check_folders
    from irdistill.storage.files import cache_folder

    checked = check_folders(cache_folder())
    table = _table(
        {
            "cache": str(cache_folder()),
            "folders": checked.folders,
            "bytes": checked.bytes,
            "of earlier versions": checked.earlier,
            "damaged": len(checked.damaged),
        }
    )
    return Printed("\n".join([*checked.damaged, table.text]), table.json, not checked.damaged)


def _check_libraries() -> Printed:
    import sys

    from rich.console import Console

    from irdistill.doctor import examine, is_healthy, render, to_json

    checks = examine()
    Console(file=sys.stdout).print(render(checks))
    return Printed("", to_json(checks), is_healthy(checks))
