"""The names of columns in files of scores and judgments, and the role of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from irdistill.errors import InputError

IGNORED = "-"
NEEDED = {
    "run": (("query",), ("document",), ("score", "rank")),
    "judgments": (("query",), ("document",), ("grade",)),
}
"""The columns that a kind of table must have: one of each group."""

_NAMES = {
    "query": [
        "qid queryid topicid queryno topicno topicnumber questionid turnid idquery",
        "query topic question",
        "q",
    ],
    "document": [
        "pid docid docno documentid corpusid passageid psgid itemid iddoc did documentno",
        "document doc passage corpus item",
        "d",
    ],
    "rank": ["rank ranking position"],
    "score": ["score scores similarity sim logit relevancescore relscore"],
    "grade": [
        "grade relevance rel label rating judgment judgement relevancelabel qrel relevancegrade"
    ],
    "iteration": ["q0 iter iteration zero unused"],
    "tag": ["tag runid run runname runtag system systemid name"],
    "index": ["unnamed0 index level0 rownames"],
    "positive": ["pos positive pospid pidpos posid positiveid positivepid posdocid"],
    "negative": ["neg negative negpid pidneg negid negativeid negativepid negdocid"],
}
"""Role -> groups of names, without case, spaces and punctuation. A name of a later group counts
only if no column has a name of an earlier one: ``query`` beside ``qid`` is a text.
"""

_ROLES = {
    name: (role, group)
    for role, groups in _NAMES.items()
    for group, names in enumerate(groups)
    for name in names.split()
} | {"": ("index", 0)}


def role_of(name: str) -> str | None:
    """The role of a column name; None if the name is not known.

    Examples:
        >>> role_of("Query-ID"), role_of("docno"), role_of("x")
        ('query', 'document', None)
    """
    return _ROLES.get(plain_name(name), (None, 0))[0]


def is_header(cells: Sequence[str]) -> bool:
    """Whether a line names columns: at least two cells are known names of different roles.

    ``Q0`` and tags such as ``run`` occur in the rows of TREC files, so they do not count. ``q`` and
    ``d`` could be ids, and count only together with a name such as ``score``.
    """
    roles = {
        role for role in map(role_of, cells) if role not in (None, "index", "iteration", "tag")
    }
    letters = {role_of(cell) for cell in cells if plain_name(cell) in ("q", "d")}
    sure = roles - letters
    return len(sure) >= 2 or (bool(sure & {"rank", "score", "grade"}) and len(roles) >= 3)


def roles_of_header(
    names: Sequence[str], kind: str, place: str, chosen: Mapping[int, str] | None = None
) -> tuple[str, ...]:
    """The role of each column by its name; ``-`` for those that are not used.

    Args:
        kind: ``run`` or ``judgments``.
        chosen: the roles of some columns by their numbers, as chosen by the user.
    """
    by_user = dict(chosen or {})
    roles = [by_user.get(number, IGNORED) for number in range(len(names))]
    for role in ("query", "document", "rank", "score", "grade"):
        places = (
            []
            if role in roles
            else [number for number in _best_places(names, role) if number not in by_user]
        )
        if len(places) > 1:
            raise InputError(
                f"{place} has several columns that could be the {role}:"
                f" {', '.join(names[i].strip() for i in places)}. Name one of them:"
                f" {columns_option(kind)} {role}={names[places[0]].strip()}."
            )
        if places:
            roles[places[0]] = role
    return check_complete(_scored(roles, kind), names, kind, place)


def _best_places(names: Sequence[str], role: str) -> list[int]:
    by_group: dict[int, list[int]] = {}
    for number, name in enumerate(names):
        known, group = _ROLES.get(plain_name(name), (None, 0))
        if known == role:
            by_group.setdefault(group, []).append(number)
    return by_group[min(by_group)] if by_group else []


def _scored(roles: list[str], kind: str) -> list[str]:
    """Use grades as the scores of a run without scores, and scores as grades, as in BEIR."""
    role, other = ("score", "grade") if kind == "run" else ("grade", "score")
    if role in roles:
        return [IGNORED if name == other else name for name in roles]
    return [role if name == other else name for name in roles]


def check_complete(
    roles: Sequence[str], names: Sequence[str], kind: str, place: str
) -> tuple[str, ...]:
    """The roles, if they include all that this kind of table must have."""
    for group in NEEDED[kind]:
        if not set(group) & set(roles):
            shown = ", ".join(repr(name.strip()) for name in names)
            raise InputError(
                f"{place} has the columns {shown}, and no known name of the"
                f" {' or the '.join(group)}. Name it: {columns_option(kind)} {group[0]}=NAME."
            )
    return tuple(roles)


def columns_option(kind: str) -> str:
    """The command line option that names the columns of a kind of table."""
    return "--columns" if kind == "run" else "--qrels-columns"


def parse_columns(columns: str | Sequence[str], kind: str) -> tuple[list[str], dict[str, str]]:
    """The columns that a user names: roles by their places, or names by their roles.

    Args:
        columns: ``query,document,-,score`` (``-`` is a column to ignore) or
            ``query=id,score=bm25`` (names in the header), as one string or a list.

    Returns:
        Roles in the order of the columns, and names by role; one of the two is empty.

    Examples:
        >>> parse_columns("query=id,score=bm25", "run")
        ([], {'query': 'id', 'score': 'bm25'})
    """
    parts = [part.strip() for part in (columns.split(",") if isinstance(columns, str) else columns)]
    named = [part for part in parts if "=" in part]
    if named and len(named) != len(parts):
        raise InputError(
            f"{columns_option(kind)} {','.join(parts)!r} mixes two ways: write roles in the"
            " order of the columns (query,document,-,score), or role=NAME for each"
            " (query=id,score=bm25)."
        )
    roles = [_parse_role(part.partition("=")[0], kind) for part in parts]
    used = [role for role in roles if role != IGNORED]
    if len(set(used)) != len(used) or not used or (named and len(used) != len(roles)):
        raise InputError(
            f"{columns_option(kind)} {','.join(parts)!r} has a role twice or none at all. Name"
            " each column once."
        )
    if named:
        return [], {
            role: part.partition("=")[2].strip() for role, part in zip(roles, parts, strict=True)
        }
    return list(
        check_complete(roles, roles, kind, f"{columns_option(kind)} {','.join(parts)!r}")
    ), {}


def _parse_role(text: str, kind: str) -> str:
    allowed = {role for group in NEEDED[kind] for role in group}
    word = text.strip()
    if word in ("-", "_"):
        return IGNORED
    role = role_of(word) if word else None
    role = (
        {"grade": "score", "score": "grade"}.get(role or "", role) if role not in allowed else role
    )
    if role in ("iteration", "tag", "index"):
        return IGNORED
    if role not in allowed:
        raise InputError(
            f"{columns_option(kind)} has {word!r}; {', '.join(sorted(allowed))} or - (a column to"
            " leave out) was expected."
        )
    return str(role)


def plain_name(name: str) -> str:
    """A column name without case, spaces and punctuation, as names are compared."""
    return re.sub(r"[\s_\-.:#\"'()\[\]/]+", "", name).lower()
