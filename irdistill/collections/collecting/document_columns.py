"""Which columns of a table hold the ids, titles and texts of documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from irdistill.collections.collecting.collect_options import COLUMN_IGNORED, CollectOptions
from irdistill.collections.column_names import plain_name
from irdistill.errors import InputError

_NAMES = {
    "id": ["id docid docno documentid documentno corpusid passageid pid articleid pageid paperid"],
    "title": ["title doctitle documenttitle", "headline heading"],
    "text": [
        "text doctext documenttext passagetext",
        "content contents body passage document article abstract paragraph fulltext",
    ],
}
"""Role -> groups of names, without case, spaces and punctuation. A name of a later group counts
only if no column has a name of an earlier one.
"""


class DocumentColumns(NamedTuple):
    """Names or numbers of columns; ids and titles may be missing."""

    id: str | None
    title: str | None
    text: tuple[str, ...]

    @property
    def all(self) -> list[str]:
        """All columns that are read, each once."""
        names = [self.id, self.title, *self.text]
        return list(dict.fromkeys(name for name in names if name is not None))

    def roles(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Columns of each role among all names of a table, and those that are not read."""
        chosen = {
            "id": [self.id] if self.id is not None else [],
            "title": [self.title] if self.title is not None else [],
            "text": list(self.text),
        }
        return chosen | {"not read": [name for name in names if name not in self.all]}


def text_columns(names: Sequence[str]) -> list[str]:
    """The columns whose names say that they hold texts."""
    return _named(names, "text")


def choose_columns(names: Sequence[str], place: str, options: CollectOptions) -> DocumentColumns:
    """The columns of a table by the options, else by their names.

    Args:
        names: names of the columns; those of a table without header are ``1``, ``2`` and so on.
        place: what error messages call the table.

    Raises:
        InputError: a column does not exist, no name is known, or several are.
    """
    single = {"id": options.id, "title": options.title}
    chosen = {
        role: None if name == COLUMN_IGNORED else _by_user(names, name, role, place)
        for role, name in single.items()
        if name is not None
    }
    text = tuple(_by_user(names, name, "text", place) for name in options.text)
    taken = {*chosen.values(), *text}
    for role in ("id", "title"):
        if role not in chosen:
            candidates = [name for name in _named(names, role) if name not in taken]
            chosen[role] = _only(candidates, role, place)
            taken.add(chosen[role])
    if not text:
        only = _only([name for name in _named(names, "text") if name not in taken], "text", place)
        if only is None:
            raise InputError(
                f"{place} has the columns {_shown(names)}, and no known name of the text. Name it:"
                " --text NAME."
            )
        text = (only,)
    return DocumentColumns(chosen["id"], chosen["title"], text)


def _by_user(names: Sequence[str], name: str, role: str, place: str) -> str:
    if name not in names:
        alike = [known for known in names if plain_name(known) == plain_name(name)]
        if len(alike) != 1:
            raise InputError(
                f"{place} has no column {name!r} (--{role}); it has {_shown(names)}. Write one of"
                " these."
            )
        return alike[0]
    return name


def _named(names: Sequence[str], role: str) -> list[str]:
    """The columns of the first group that a column has a name of."""
    for group in _NAMES[role]:
        known = set(group.split())
        matches = [name for name in names if plain_name(name) in known]
        if matches:
            return matches
    return []


def _only(candidates: Sequence[str], role: str, place: str) -> str | None:
    if len(candidates) > 1:
        how = f"--{role} {candidates[0]}"
        more = f", or several, which are joined: --text {' '.join(candidates)}"
        raise InputError(
            f"{place} has several columns that could be the {role}: {', '.join(candidates)}. Name"
            f" one: {how}{more if role == 'text' else ''}."
        )
    return candidates[0] if candidates else None


def _shown(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names) or "no columns"
