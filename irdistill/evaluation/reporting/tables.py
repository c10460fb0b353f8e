"""Tables that people read: figures, differences, checks and costs, as Markdown or LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from irdistill.evaluation.evaluator import Evaluation, Row
from irdistill.evaluation.reporting.datasets import is_synthetic, readable, short_names
from irdistill.evaluation.significance import FEW, LEVEL

if TYPE_CHECKING:
    from irdistill.evaluation.efficiency import Efficiency

UP, DOWN = "▲", "▼"
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    UP: r"$^{\blacktriangle}$",
    DOWN: r"$^{\blacktriangledown}$",
}


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the row."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """With its columns aligned, for reading as plain text too."""
        cells = [
            [" ".join(cell.replace("|", "\\|").split()) for cell in row]
            for row in (self.header, *self.rows)
        ]
        widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(self.header))]

        def line(row: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |"

        rule = [
            ("-" * width) if place == 0 else "-" * (width - 1) + ":"
            for place, width in enumerate(widths)
        ]
        return "\n".join(
            [line(cells[0]), f"| {' | '.join(rule)} |", *(line(row) for row in cells[1:])]
        )

    def latex(self, caption: str) -> str:
        """A ``table`` of the package booktabs (and amssymb, for the marks)."""

        def line(row: Sequence[str]) -> str:
            return f"{' & '.join(map(latex_text, row))} \\\\"

        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                rf"\caption{{{latex_text(caption)}}}",
                rf"\begin{{tabular}}{{l{'r' * (len(self.header) - 1)}}}",
                r"\toprule",
                line(self.header),
                r"\midrule",
                *map(line, self.rows),
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
            ]
        )


def latex_text(text: str) -> str:
    """Text in which nothing is a command."""
    return "".join(_LATEX.get(letter, letter) for letter in text)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text."""
    return Table(header, rows).markdown()


def figures_table(found: Evaluation, dataset: str) -> Table:
    """Systems by measures: mean, 95% interval, and whether the difference is significant after
    Holm's correction; then how much of what was looked at is judged.
    """
    own = [row for row in found.rows if row.dataset == dataset]
    measures = list(dict.fromkeys(row.measure for row in own))
    cuts = {measure: measure.partition("@")[2] for measure in measures}
    holes = {cut: measure for measure, cut in cuts.items() if cut != "10"}
    rows = []
    for system in dict.fromkeys(row.system for row in own):
        of = {row.measure: row for row in own if row.system == system}
        rows.append(
            [
                system,
                *(figure(of[measure]) for measure in measures),
                share(of[measures[0]].judged),
                *(share(of[measure].holes) for measure in holes.values()),
            ]
        )
    return Table(
        ["system", *measures, "Judged@10", *(f"holes@{cut}" if cut else "holes" for cut in holes)],
        rows,
    )


def figure(row: Row) -> str:
    """A mean with its interval and mark; a count by itself."""
    mark = ""
    if row.p_holm is not None and row.difference is not None and row.p_holm < LEVEL:
        mark = f" {UP}" if row.difference > 0 else f" {DOWN}"
    if row.low is None or row.high is None:
        return f"{row.value:.0f}"
    return f"{row.value:.4f} [{row.low:.3f}, {row.high:.3f}]{mark}"


def differences_table(rows: Iterable[Row]) -> Table:
    """Every comparison with its tests, effect size and counts."""
    cells = [
        [
            row.system,
            str(row.against),
            row.dataset,
            row.measure,
            f"{row.difference:+.4f} [{row.difference_low:+.4f}, {row.difference_high:+.4f}]",
            *(probability(value) for value in (row.p, row.p_random, row.p_holm)),
            "-" if row.effect is None else f"{row.effect:+.2f}",
            "-" if row.detectable is None else f"{row.detectable:.4f}",
            f"{row.wins}/{row.ties}/{row.losses}",
        ]
        for row in rows
        if row.against is not None
    ]
    return Table(
        [
            "system",
            "against",
            "dataset",
            "measure",
            "difference [95%]",
            "p (t)",
            "p (random)",
            "p (Holm)",
            "d_z",
            "detectable",
            "win/tie/loss",
        ],
        cells,
    )


def ties_table(rows: Iterable[Row]) -> Table:
    """Figures that depend on the order of documents with equal scores."""
    return Table(
        ["system", "dataset", "measure", "as trec_eval", "worst order", "best order", "queries"],
        [
            [
                row.system,
                row.dataset,
                row.measure,
                f"{row.value:.4f}",
                f"{row.tie_low:.4f}",
                f"{row.tie_high:.4f}",
                str(row.tied),
            ]
            for row in rows
            if row.tied
        ],
    )


def probability(value: float | None) -> str:
    """A p as people write it."""
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def share(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{value:.1%}"


def costs_table(costs: Sequence[Efficiency], retention: Mapping[str, float]) -> Table:
    """Systems by size, speed and what share of the teacher's figure they keep."""
    rows = [
        [
            cost.system,
            f"{cost.parameters / 1e6:.1f}M",
            str(cost.layers),
            f"{cost.model_bytes / 1e6:.1f}",
            f"{cost.index_bytes / 1e6:.1f}",
            "-" if cost.flops_per_query is None else f"{cost.flops_per_query / 1e9:.3g}",
            "-" if cost.documents_per_second is None else f"{cost.documents_per_second:.0f}",
            f"{cost.queries_per_second:.0f}",
            f"{cost.p50_ms:.1f}",
            f"{cost.p95_ms:.1f}",
            f"{cost.p99_ms:.1f}",
            f"{retention[cost.system]:.1%}" if cost.system in retention else "-",
        ]
        for cost in costs
    ]
    return Table(
        [
            "system",
            "query parameters",
            "layers",
            "weights MB",
            "index MB",
            "GFLOPs/query",
            "passages/s",
            "queries/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
            "retention",
        ],
        rows,
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader has to know about the figures of one dataset."""
    words = []
    first: dict[str, Row] = {}
    for row in rows:
        first.setdefault(row.system, row)
    for row in first.values():
        if row.missing or row.unscored:
            words.append(
                f"{row.system}: {row.missing} queries without a result count as 0; {row.unscored}"
                " documents have no score and are left out."
            )
    if rows[0].n < FEW and any(row.against for row in rows):
        words.append(
            f"Only {rows[0].n} queries: a test of so few misses most differences that matter. The"
            " column detectable says how large a true difference must be for the t-test to find it"
            " in 4 of 5 such query sets."
        )
    return words


MARKS = (
    f"{UP} {DOWN}: above or below the system compared with, p < {LEVEL} after Holm's correction"
    " over all comparisons."
)
TIES = (
    "Documents with equal scores are ordered as trec_eval does, by falling id. Another order would"
    " give other figures; these are the extremes, and the queries whose value depends on it."
)


def evaluation_markdown(found: Evaluation) -> str:
    """All tables of an evaluation, with what the marks mean and what was missing."""
    synthetic = [
        name for dataset, name in short_names(found.datasets).items() if is_synthetic(dataset)
    ]
    found = readable(found)
    lines = []
    for dataset in found.datasets:
        own = [row for row in found.rows if row.dataset == dataset]
        kind = "held-out synthetic queries" if dataset in synthetic else "queries"
        lines += [
            f"### {dataset} ({own[0].n} {kind})",
            "",
            figures_table(found, dataset).markdown(),
            "",
        ]
        for sentence in notes(own):
            lines += [sentence, ""]
    if any(row.against for row in found.rows):
        lines += [MARKS, "", differences_table(found.rows).markdown(), ""]
    if any(row.tied for row in found.rows):
        lines += [TIES, "", ties_table(found.rows).markdown(), ""]
    return "\n".join(lines)


def evaluation_latex(found: Evaluation) -> str:
    """The tables of an evaluation for a paper."""
    found = readable(found)
    parts = [r"% needs \usepackage{booktabs,amssymb}"]
    for dataset in found.datasets:
        own = [row for row in found.rows if row.dataset == dataset]
        marks = f" {MARKS}" if any(row.against for row in own) else ""
        parts.append(
            figures_table(found, dataset).latex(
                f"{dataset}, {own[0].n} queries: means with 95% bootstrap intervals.{marks}"
            )
        )
    if any(row.against for row in found.rows):
        parts.append(
            differences_table(found.rows).latex(
                "Differences: paired t-test, randomisation test, Holm's correction over the table,"
                " Cohen's d_z, and the smallest difference that the t-test finds in 4 of 5 such"
                " query sets."
            )
        )
    return "\n\n".join(parts) + "\n"
