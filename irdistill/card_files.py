"""Finding cards (teachers, suites, data, recipes) in a checkout and in an installed wheel alike."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from irdistill.errors import IrdistillError

_PACKAGE = Path(str(files("irdistill")))

#: The folder of each kind of card, and what one card of it is called.
CARD_KINDS = {"teachers": "teacher", "eval": "suite", "data": "data card", "recipes": "recipe"}


@dataclass(frozen=True)
class Card:
    """One card that comes with irdistill.

    Attributes:
        kind: ``teachers``, ``eval``, ``data`` or ``recipes``.
        name: as commands take it: ``minilm``, ``beir``, ``prompts/rewrite``, ``quickstart``.
    """

    kind: str
    name: str
    path: Path


def card_folder(kind: str) -> Path:
    """The folder of cards of one kind: ``teachers``, ``eval``, ``data`` or ``recipes``."""
    installed = _PACKAGE / "_cards" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def list_cards(kind: str | None = None) -> list[Card]:
    """All cards of one kind, or of all kinds, in order of kind and name.

    Raises:
        IrdistillError: there is no such kind.
    """
    if kind is not None and kind not in CARD_KINDS:
        raise IrdistillError(
            f"there are no cards of the kind {kind!r}; the kinds are {', '.join(CARD_KINDS)}."
        )
    cards = []
    for one in [kind] if kind else CARD_KINDS:
        folder = card_folder(one)
        paths = sorted(path for path in folder.rglob("*") if path.suffix in (".yaml", ".jsonl"))
        cards += [
            Card(one, path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths
        ]
    return cards


def find_card(kind: str, name: str) -> Path:
    """A card by name (``minilm``), by file name (``minilm.yaml``, ``teachers/minilm.yaml``) or by
    path.

    A file at that path comes first, then the card that is carried with irdistill.

    Raises:
        IrdistillError: there is none; the message lists close names, and all names.
    """
    carried = card_folder(kind)
    inner = name.removeprefix("./").removeprefix(f"{kind}/")
    for path in (
        Path(name).expanduser(),
        carried / inner,
        carried / f"{inner}.yaml",
        carried / f"{inner}.jsonl",
    ):
        if inner and os.path.isfile(
            path
        ):  # False for a name too long for a file, where Path.is_file raises
            return path
    raise IrdistillError(
        f"there is no {CARD_KINDS[kind]} {name!r}. {card_names(kind, name)}"
        " The path of a YAML file works too."
    )


def card_names(kind: str, name: str) -> str:
    """The names of one kind of card as sentences, those close to ``name`` first."""
    names = [card.name for card in list_cards(kind)]
    inner = name.removeprefix(f"{kind}/").removesuffix(".yaml").lower()
    close = difflib.get_close_matches(inner, names, n=5, cutoff=0.55)
    close += [one for one in names if inner and inner in one and one not in close][: 5 - len(close)]
    nearest = f"Close names: {', '.join(close)}. " if close else ""
    return f"{nearest}All {kind}: {', '.join(names) or 'none'}."


def choose_card(name: str, kind: str | None = None) -> Card:
    """The card that a name stands for, whatever its kind; ``KIND/NAME`` where several kinds have
    the name.

    Raises:
        IrdistillError: no card or several cards have the name.
    """
    first, slash, rest = name.removeprefix("./").partition("/")
    if kind is None and slash and first in CARD_KINDS:
        kind, name = first, rest
    cards = list_cards(kind)
    matches = [card for card in cards if name in (card.name, f"{card.name}{card.path.suffix}")]
    if len(matches) > 1:
        choices = ", ".join(f"{card.kind}/{card.name}" for card in matches)
        raise IrdistillError(f"several cards have the name {name!r}; write one of {choices}.")
    if not matches:
        stem = Path(name).stem
        close = difflib.get_close_matches(name, [card.name for card in cards], n=5, cutoff=0.5)
        close += [card.name for card in cards if stem in card.name and card.name not in close][:5]
        nearest = f" Close names: {', '.join(close)}." if close else ""
        raise IrdistillError(
            f"there is no card {name!r}.{nearest} All names: irdistill cards list."
        )
    return matches[0]
