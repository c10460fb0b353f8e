"""A comparison of losses as people read it: Markdown, and the critical-difference diagram."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irdistill.errors import IrdistillError, MissingExtraError
from irdistill.evaluation.comparison import Comparison
from irdistill.evaluation.friedman_test import Friedman
from irdistill.evaluation.reporting import markdown_table, probability
from irdistill.storage.ownership import replace_safely

_WIDTH = 7.0
_LINE = 0.24
"""Inches."""


def comparison_markdown(found: Comparison) -> str:
    """The table of means over seeds, the ranks and their tests, and every significant
    difference.
    """
    lines = [
        _means(found),
        "",
        (
            f"Mean {found.measure} over the seeds ± their standard deviation. **Bold**: the best of"
            f" its column. ▼: below the best of its column, p < {found.level:g} by the paired"
            " t-test over queries (each query's mean over the seeds) after Holm's correction over"
            f" all {len(found.pairs)} pairs of the table."
        ),
        "",
    ]
    for title, ranks in (
        ("student × collection × seed", found.over_blocks),
        ("student × collection", found.over_settings),
    ):
        if ranks is not None:
            lines += [_ranks(title, ranks), ""]
    different = [pair for pair in found.pairs if pair.p_holm < found.level]
    lines += [f"{len(different)} of {len(found.pairs)} pairs differ after correction.", ""]
    if different:
        lines += [_pairs(found), ""]
    return "\n".join(lines)


def _means(found: Comparison) -> str:
    ranks = found.over_blocks.ranks if found.over_blocks else {}
    rows = []
    for loss in found.losses:
        cells = []
        for student, collection in found.settings:
            figure = found.figure(loss, student, collection)
            text = f"**{figure.mean:.4f}**" if figure.best else f"{figure.mean:.4f}"
            spread = "" if figure.deviation is None else f" ± {figure.deviation:.4f}"
            cells.append(f"{text}{spread}{' ▼' if figure.worse else ''}")
        rows.append([loss, *cells, f"{ranks[loss]:.2f}" if loss in ranks else "-"])
    return markdown_table(
        [
            "loss",
            *(f"{student}, {collection}" for student, collection in found.settings),
            "mean rank",
        ],
        rows,
    )


def _ranks(title: str, found: Friedman) -> str:
    statistic = "" if found.f is None else f" (F = {found.f:.2f})"
    groups = "; ".join(", ".join(group) for group in found.groups) or "none"
    return (
        f"Over {found.blocks} cells of {title}: Friedman χ² = {found.statistic:.2f}, p"
        f" {_p(found.p)}; by Iman and Davenport{statistic} p {_p(found.p_f)}. Nemenyi critical"
        f" difference of mean ranks at {found.level:g}: {found.critical_difference:.2f}. Mean"
        f" ranks: {', '.join(f'{name} {rank:.2f}' for name, rank in found.ranks.items())}. Not told"
        f" apart: {groups}."
    )


def _p(value: float) -> str:
    text = probability(value)
    return text if text.startswith("<") else f"= {text}"


def _pairs(found: Comparison) -> str:
    rows = []
    for pair in sorted(
        found.pairs, key=lambda pair: (pair.collection, pair.student, -abs(pair.difference))
    ):
        if pair.p_holm < found.level:
            better, worse, sign = (
                (pair.loss, pair.against, 1)
                if pair.difference > 0
                else (pair.against, pair.loss, -1)
            )
            counts = (pair.wins, pair.ties, pair.losses)[::sign]
            rows.append(
                [
                    f"{better} over {worse}",
                    pair.student,
                    pair.collection,
                    f"{abs(pair.difference):+.4f}",
                    probability(pair.p),
                    probability(pair.p_holm),
                    "/".join(map(str, counts)),
                ]
            )
    return markdown_table(
        [
            "better over worse",
            "student",
            "collection",
            "difference",
            "p",
            "p (Holm)",
            "win/tie/loss",
        ],
        rows,
    )


def write_diagram(found: Comparison, path: Path) -> None:
    """Draw the critical-difference diagram over (student, collection, seed) into an SVG, PNG or PDF
    file.

    Raises:
        MissingExtraError: matplotlib is not there.
        IrdistillError: there is one block alone, or the file has another ending.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plots", "the critical-difference diagram") from error
    if path.suffix not in (".svg", ".png", ".pdf"):
        raise IrdistillError(
            f"the plot {path} has the ending {path.suffix!r}; .svg, .png or .pdf was expected."
        )
    ranks = found.over_blocks
    if ranks is None:
        raise IrdistillError(
            "a diagram of ranks needs at least two cells of student, collection and seed; one was"
            " given."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "irdistill",
            "font.size": 9,
            "font.family": "sans-serif",
        }
    ):
        rows = (len(ranks.ranks) + 1) // 2
        figure = Figure(figsize=(_WIDTH, _LINE * (rows + len(ranks.groups) + 6)), facecolor="white")
        _draw(
            figure.add_axes((0, 0, 1, 1)),
            ranks,
            f"mean rank by {found.measure} over {ranks.blocks} cells (1 is best)",
        )
        metadata: dict[str, Any] = {"Date": None, "Creator": None} if path.suffix == ".svg" else {}
        with replace_safely(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata, dpi=150)


def _draw(axes: Any, found: Friedman, title: str) -> None:
    """An axis of ranks, the best on the left; names hang from it on both sides, bars join what does
    not differ.
    """
    count, names = len(found.ranks), list(found.ranks)
    left, right = 1.9, _WIDTH - 1.9

    def place(rank: float) -> float:
        return left + (rank - 1) / (count - 1) * (right - left)

    def line(x: Sequence[float], y: Sequence[float], width: float = 0.8) -> None:
        axes.plot(x, y, color="black", linewidth=width, solid_capstyle="butt")

    axes.set_axis_off()
    axes.text(_WIDTH / 2, 3.2, title, ha="center", va="center")
    wide = min(found.critical_difference, count - 1)
    line((left, place(1 + wide)), (1.9, 1.9), 1.5)
    axes.text(
        left, 2.15, f"critical difference {found.critical_difference:.2f}", ha="left", va="bottom"
    )
    line((left, right), (0, 0))
    for rank in range(1, count + 1):
        line((place(rank), place(rank)), (0, 0.25))
        axes.text(place(rank), 0.4, str(rank), ha="center", va="bottom")
    for number, group in enumerate(found.groups):
        ends = [place(found.ranks[group[0]]) - 0.04, place(found.ranks[group[-1]]) + 0.04]
        line(ends, [-0.5 - 0.45 * number] * 2, 3.0)
    below = -0.9 - 0.45 * len(found.groups)
    half = (count + 1) // 2
    for number, name in enumerate(names):
        first = number < half
        y = below - (number if first else count - 1 - number)
        end = left - 0.1 if first else right + 0.1
        line((place(found.ranks[name]), place(found.ranks[name]), end), (0, y, y))
        text = f"{name}  {found.ranks[name]:.2f}" if first else f"{found.ranks[name]:.2f}  {name}"
        axes.text(
            end - 0.06 if first else end + 0.06,
            y,
            text,
            ha="right" if first else "left",
            va="center",
        )
    axes.set_xlim(0, _WIDTH)
    axes.set_ylim(below - half, 3.8)
