"""Tables that people read: Markdown of figures, differences, audits and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from irdistill.evaluation.efficiency import Efficiency
from irdistill.evaluation.evaluate import Evaluation, Row

LEVEL = 0.05


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with its columns aligned, for reading as plain text too; the first column is text."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[place]) for row in cells)) for place in range(len(header))]

    def line(row: Sequence[str]) -> str:
        padded = [cell.ljust(width) if place == 0 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths, strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width) if place == 0 else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join([line(cells[0]), f"| {' | '.join(rule)} |", *(line(row) for row in cells[1:])])


def figures_table(found: Evaluation, dataset: str) -> str:
    """Systems by measures: mean, 95% interval, and whether the difference is significant after Holm's correction."""
    rows = [[system, *(_figure(found.row(system, dataset, measure)) for measure in found.measures)]
            for system in found.systems if any(row.system == system and row.dataset == dataset for row in found.rows)]
    return markdown_table(["system", *found.measures], rows)


def _figure(row: Row) -> str:
    mark = ""
    if row.p_holm is not None and row.difference is not None and row.p_holm < LEVEL:
        mark = " ▲" if row.difference > 0 else " ▼"
    return f"{row.value:.4f} [{row.low:.3f}, {row.high:.3f}]{mark}"


def differences_table(found: Evaluation) -> str:
    """Every comparison with its tests, effect size and counts."""
    rows = [
        [row.system, str(row.against), row.dataset, row.measure,
         f"{row.difference:+.4f} [{row.difference_low:+.4f}, {row.difference_high:+.4f}]",
         *(probability(value) for value in (row.p, row.p_random, row.p_holm)), f"{row.effect:+.2f}",
         f"{row.wins}/{row.ties}/{row.losses}"]
        for row in found.rows if row.against is not None
    ]
    header = ["system", "against", "dataset", "measure", "difference [95%]", "p (t)", "p (random)", "p (Holm)", "d_z",
              "win/tie/loss"]
    return markdown_table(header, rows)


def probability(value: float | None) -> str:
    """A p as people write it."""
    if value is None:
        return "-"
    return "<0.0001" if value < 0.0001 else f"{value:.4f}"


def costs_table(costs: Sequence[Efficiency], retention: Mapping[str, float]) -> str:
    """Systems by size, speed and what share of the teacher's figure they keep."""
    rows = [
        [cost.system, f"{cost.parameters / 1e6:.1f}M", str(cost.layers), f"{cost.model_bytes / 1e6:.1f}",
         f"{cost.index_bytes / 1e6:.1f}", f"{cost.queries_per_second:.0f}", f"{cost.p50_ms:.1f}", f"{cost.p95_ms:.1f}",
         f"{retention[cost.system]:.1%}" if cost.system in retention else "-"]
        for cost in costs
    ]
    header = ["system", "query parameters", "layers", "weights MB", "index MB", "queries/s", "p50 ms", "p95 ms", "retention"]
    return markdown_table(header, rows)


def evaluation_markdown(found: Evaluation) -> str:
    """All tables of an evaluation, with what the marks mean and what was missing."""
    lines = []
    for dataset in found.datasets:
        own = [row for row in found.rows if row.dataset == dataset]
        lines += [f"### {dataset} ({own[0].n} queries)", "", figures_table(found, dataset), ""]
        for row in own:
            if row.measure == own[0].measure and (row.missing or row.unscored):
                lines += [f"{row.system}: {row.missing} queries without a result count as 0; {row.unscored} documents "
                          "have no score and are left out.", ""]
    if any(row.against for row in found.rows):
        lines += [f"▲ ▼: above or below the system compared with, p < {LEVEL} after Holm's correction over all comparisons.",
                  "", differences_table(found), ""]
    return "\n".join(lines)
