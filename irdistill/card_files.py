"""Cards (YAML and JSON lines) for teachers, suites, data and recipes, in a checkout or a wheel."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from irdistill.errors import NotFoundError

_PACKAGE = Path(str(files("irdistill")))

#: The folder of each kind of card, and the name of one card of this kind.
CARD_KINDS = {"teachers": "teacher", "eval": "suite", "data": "data card", "recipes": "recipe"}


@dataclass(frozen=True)
class Card:
    """A card that is part of irdistill.

    Attributes:
        kind: ``teachers``, ``eval``, ``data`` or ``recipes``.
        name: the name that commands accept: ``minilm``, ``beir``, ``prompts/rewrite``.
    """

    kind: str
    name: str
    path: Path


def card_folder(kind: str) -> Path:
    """The folder of cards of one kind: ``teachers``, ``eval``, ``data`` or ``recipes``."""
    installed = _PACKAGE / "_cards" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def list_cards(kind: str | None = None) -> list[Card]:
    """All cards, or those of one kind, sorted by kind and name.

    Raises:
        NotFoundError: there is no such kind.

    Examples:
        >>> "quickstart" in [card.name for card in list_cards("recipes")]
        True
    """
    if kind is not None and kind not in CARD_KINDS:
        raise NotFoundError(
            f"there are no cards of the kind {kind!r}. The kinds are {', '.join(CARD_KINDS)}."
        )
    cards = []
    for name in [kind] if kind else CARD_KINDS:
        folder = card_folder(name)
        paths = sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".jsonl"))
        cards += [
            Card(name, path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths
        ]
    return cards


def find_card(kind: str, name: str) -> Path:
    """The file of a card.

    A file at the path ``name`` comes first, then the cards that are part of irdistill.

    Args:
        name: a name (``minilm``), a file name (``minilm.yaml``, ``teachers/minilm.yaml``) or a
            path.

    Raises:
        NotFoundError: there is no such card; the message lists close names.
    """
    folder = card_folder(kind)
    inner = name.removeprefix("./").removeprefix(f"{kind}/")
    candidates = (folder / f"{inner}{ending}" for ending in ("", ".yaml", ".jsonl"))
    for path in (Path(name).expanduser(), *candidates):
        # Path.is_file raises for a name that is too long; os.path.isfile returns False.
        if inner and os.path.isfile(path):
            return path
    raise NotFoundError(
        f"there is no {CARD_KINDS[kind]} {name!r}. {card_names(name, kind)} A path to a YAML file"
        " works too."
    )


def card_names(name: str, kind: str | None = None) -> str:
    """The names of cards that are close to a name, and the command that lists all of them."""
    names = [card.name for card in list_cards(kind)]
    inner = name.removeprefix(f"{kind}/").removesuffix(".yaml").lower()
    close = difflib.get_close_matches(inner, names, n=5, cutoff=0.55)
    close += [it for it in names if inner and inner in it and it not in close][: 5 - len(close)]
    nearest = f"Close names: {', '.join(close)}. " if close else ""
    return f"{nearest}All names: irdistill cards list{f' {kind}' if kind else ''}."


def choose_card(name: str, kind: str | None = None) -> Card:
    """The card with a name, of any kind; ``KIND/NAME`` if several kinds have the name.

    Raises:
        NotFoundError: no card, or several cards, have the name.
    """
    first, slash, rest = name.removeprefix("./").partition("/")
    if kind is None and slash and first in CARD_KINDS:
        kind, name = first, rest
    cards = list_cards(kind)
    matches = [card for card in cards if name in (card.name, f"{card.name}{card.path.suffix}")]
    if len(matches) == 1:
        return matches[0]
    if matches:
        choices = ", ".join(f"{card.kind}/{card.name}" for card in matches)
        raise NotFoundError(f"several cards have the name {name!r}; write one of {choices}.")
    raise NotFoundError(f"there is no card {name!r}. {card_names(name, kind)}")
