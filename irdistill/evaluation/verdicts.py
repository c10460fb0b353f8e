"""Figures in words: which system is better, by how much, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from irdistill.evaluation.reporting.findings import Table, cells, probability
from irdistill.evaluation.significance import LEVEL

if TYPE_CHECKING:
    from irdistill.evaluation.figures import Evaluation, Row

_MOST = 4
"""Comparisons that are spelled out in sentences."""
_SIZES = ((0.2, "very small"), (0.5, "small"), (0.8, "medium"))
"""Names of effect sizes below a d_z (Cohen 1988)."""


def verdict_sentences(evaluation: Evaluation) -> list[str]:
    """What an evaluation says by its first measure; the first sentence is the headline.

    A single comparison is one sentence. Otherwise a sentence for each dataset names the best
    system, and each comparison follows; of more than four only those of the best systems.
    """
    first = evaluation.rows[0]
    several = len(evaluation.datasets) > 1
    rows = [row for row in evaluation.rows if row.measure == first.measure]
    compared = [row for row in rows if row.against]
    if len(compared) == 1 and len(evaluation.systems) == 2:
        return [difference_sentence(compared[0], evaluation)]
    many = len(compared) > _MOST
    lines = [_best(rows, dataset, several, many) for dataset in evaluation.datasets]
    if not many:
        lines += [difference_sentence(row, evaluation, several) for row in compared]
    if len(evaluation.systems) > 1 and not compared:
        lines.append("No baseline was named, so no difference is tested.")
    return lines


def difference_sentence(row: Row, evaluation: Evaluation, name_dataset: bool = False) -> str:
    """A compared row as a sentence, with the figures of both systems."""
    assert row.against is not None
    other = evaluation.row(row.against, row.dataset, row.measure)
    verb = {1: "is better than", -1: "is worse than", 0: "is not shown to differ from"}[_sign(row)]
    where = f" of {row.dataset}" if name_dataset else ""
    difference, low, high = cells(
        row, "{0.difference:+.4f}", "{0.difference_low:+.4f}", "{0.difference_high:+.4f}"
    )
    p = probability(row.p_holm)
    return (
        f"{row.system} {verb} {row.against} on {row.measure}{where}: {row.value:.4f} against"
        f" {other.value:.4f}, {difference}, 95% interval [{low}, {high}], p"
        f" {f'< {p[1:]}' if p.startswith('<') else f'= {p}'} after Holm; better on"
        f" {_queries(row.wins)}, worse on {row.losses or 0:,}, equal on {row.ties or 0:,}."
    )


def in_words(row: Row) -> str:
    """What the tests of a compared row say, in a few words.

    Examples:
        >>> from irdistill.evaluation import Row
        >>> in_words(Row("a", "d", "AP", 9, 0.5, 0.4, 0.6, p_holm=0.001, difference=0.1,
        ...              effect=0.9, wins=8, ties=0, losses=1))
        'better, more than chance explains; large effect'
    """
    if not row.wins and not row.losses:
        return "equal on every query"
    sign = _sign(row)
    if sign:
        size = "" if row.effect is None else f"; {_size(row.effect)} effect"
        return f"{'better' if sign > 0 else 'worse'}, more than chance explains{size}"
    if row.detectable is None:
        return "no difference shown; too few queries to tell"
    return (
        "no difference shown; a true difference of"
        f" {row.detectable:.4f} would show in 4 of 5 such query sets"
    )


def differences_in_words(rows: Iterable[Row]) -> Table:
    """Every comparison: what its tests say, then the figures.

    Columns that are the same in all rows, the baseline and the dataset, are left out.
    """
    compared = [row for row in rows if row.against is not None]
    names = ["system", "against", "dataset", "measure"]
    fields = [
        name
        for name in names
        if name in ("system", "measure") or len({getattr(row, name) for row in compared}) > 1
    ]
    header = [*fields, "in words", "difference [95%]", "p (t)", "p (random)", "p (Holm)", "d_z"]
    lines = [
        [
            *(str(getattr(row, name)) for name in fields),
            in_words(row),
            *cells(row, "{0.difference:+.4f} [{0.difference_low:+.4f}, {0.difference_high:+.4f}]"),
            *map(probability, (row.p, row.p_random, row.p_holm)),
            *cells(row, "{0.effect:+.2f}", "{0.wins}/{0.ties}/{0.losses}"),
        ]
        for row in compared
    ]
    return Table([*header, "win/tie/loss"], lines, words=[len(fields)])


def _sign(row: Row) -> int:
    """1 if the system is significantly better, -1 if it is worse, 0 if neither is shown."""
    if row.p_holm is None or row.difference is None or row.p_holm >= LEVEL:
        return 0
    return 1 if row.difference > 0 else -1


def _size(effect: float) -> str:
    return next((name for limit, name in _SIZES if abs(effect) < limit), "large")


def _best(rows: Sequence[Row], dataset: str, name_dataset: bool, with_tests: bool) -> str:
    """The system with the highest figure on a dataset, and what its comparisons show."""
    row = max((row for row in rows if row.dataset == dataset), key=lambda row: row.value)
    systems = len({row.system for row in rows})
    where = f"On {dataset}, " if name_dataset else ""
    interval = cells(row, "[{0.low:.4f}, {0.high:.4f}]")[0]
    figure = (
        f"{row.value:.4f}, 95% interval {interval}" if row.low is not None else f"{row.value:g}"
    )
    if systems == 1:
        return f"{where}{row.measure} of {row.system}: {figure}."
    text = f"{where}{row.system} has the highest {row.measure} of {systems} systems: {figure}."
    if not with_tests:
        return text
    tested = [other for other in rows if (other.system, other.dataset) == (row.system, dataset)]
    for sign, words in ((1, "better than"), (0, "not shown to differ from")):
        names = [str(other.against) for other in tested if other.against and _sign(other) == sign]
        if names:
            text += f" It is {words} {_joined(names)}."
    return text


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _queries(number: int | None) -> str:
    return f"{number or 0:,} {'query' if number == 1 else 'queries'}"
