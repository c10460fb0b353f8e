"""The figures of an evaluation, and the tables that show them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from irdistill.console.terminal import counted
from irdistill.errors import NotFoundError
from irdistill.evaluation.measures import PerQuery
from irdistill.evaluation.reporting.dataset_names import is_synthetic, short_names
from irdistill.evaluation.reporting.findings import (
    DOWN,
    UP,
    Finding,
    Table,
    cell,
    cells,
    probability,
)
from irdistill.evaluation.reporting.rendering import Displayed, render_latex, render_markdown
from irdistill.evaluation.significance import FEW, LEVEL
from irdistill.evaluation.unseen_collections import retention_finding

MARKS = (
    f"{UP} {DOWN}: above or below the baseline, p < {LEVEL} after Holm's correction over all"
    " comparisons."
)
TIES = (
    "Documents with equal scores are ordered as in trec_eval, by descending id. Another order would"
    " give other figures: the table shows the lowest and the highest mean, and how many queries"
    " depend on the order."
)


@dataclass(frozen=True)
class Row:
    """One figure: a system on a dataset by a measure.

    The fields from ``p`` to ``losses`` are None where the system is not compared.

    Attributes:
        n: number of queries in the qrels; all count.
        value: mean over queries. Measures that count (``NumRet``, ``NumRel``, ``NumQ``) give the
            sum, without an interval or tests.
        low: lower end of the 95% bootstrap interval of the mean.
        high: upper end of that interval.
        p: p-value of the paired t-test. Where all queries differ by the same amount, the t-test is
            not defined, and ``p`` is that of the randomization test.
        p_random: p-value of the randomization test.
        p_holm: ``p`` after Holm's correction over the whole table.
        against: the baseline.
        difference: this system minus the baseline.
        difference_low: lower end of the 95% bootstrap interval of the difference.
        difference_high: upper end of that interval.
        effect: Cohen's d_z; None where all queries differ by the same amount, or for one query.
        detectable: smallest true difference that the t-test finds in 4 of 5 such query sets; None
            as for ``effect``.
        wins: number of queries on which this system is above the baseline.
        ties: number of queries without a difference.
        losses: number of queries on which this system is below the baseline.
        tie_low: mean under the worst order of documents with equal scores; None, as the next two,
            where the bounds are not known for the measure.
        tie_high: mean under the best order of documents with equal scores.
        tied: number of queries whose value depends on that order.
        judged: Judged@10, the mean share of judged documents among the first 10.
        holes: mean share of unjudged documents among those that the measure looks at.
        missing: number of queries without a result; they count as 0.
        unscored: number of documents without a score; they are left out.
        run: fingerprint of the run.
        self_matches: number of queries whose list holds the document with the query's own id.
        trained: whether the system's model was trained on the corpus; None if that is not known.
    """

    system: str
    dataset: str
    measure: str
    n: int
    value: float
    low: float | None
    high: float | None
    p: float | None = None
    p_random: float | None = None
    p_holm: float | None = None
    against: str | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    effect: float | None = None
    detectable: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None
    missing: int = 0
    unscored: int = 0
    run: str = ""
    tie_low: float | None = None
    tie_high: float | None = None
    tied: int | None = None
    judged: float | None = None
    holes: float | None = None
    self_matches: int = 0
    trained: bool | None = None


@dataclass(frozen=True, repr=False)
class Evaluation(Displayed):
    """A table of figures, and the values of each query.

    Attributes:
        rows: the figures, one per system, dataset and measure; one per baseline if a system is
            compared with several.
        per_query: dataset -> system -> values.
    """

    rows: tuple[Row, ...]
    per_query: Mapping[str, Mapping[str, PerQuery]] = field(default_factory=dict)

    @property
    def systems(self) -> list[str]:
        """Names of the systems, in the order of the rows."""
        return list(dict.fromkeys(row.system for row in self.rows))

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets, in the order of the rows."""
        return list(dict.fromkeys(row.dataset for row in self.rows))

    @property
    def measures(self) -> list[str]:
        """Names of the measures, in the order of the rows."""
        return list(dict.fromkeys(row.measure for row in self.rows))

    def row(self, system: str, dataset: str, measure: str) -> Row:
        """Return one row; of a system with several baselines, the row of the first.

        Raises:
            NotFoundError: there is no such row.
        """
        for row in self.rows:
            if (row.system, row.dataset, row.measure) == (system, dataset, measure):
                return row
        raise NotFoundError(
            f"there is no figure of {system!r} on {dataset!r} by {measure!r}. Systems:"
            f" {', '.join(self.systems)}; datasets: {', '.join(self.datasets)}; measures:"
            f" {', '.join(self.measures)}."
        )

    def with_datasets(self, names: Mapping[str, str]) -> Evaluation:
        """Return the same figures with datasets renamed."""
        return Evaluation(
            tuple(replace(row, dataset=names.get(row.dataset, row.dataset)) for row in self.rows),
            {names.get(name, name): systems for name, systems in self.per_query.items()},
        )

    def with_short_names(self) -> Evaluation:
        """Return the same figures with paths of datasets shortened."""
        return self.with_datasets(short_names(self.datasets))

    def to_rows(self) -> list[dict[str, Any]]:
        """The rows as mappings, at full precision."""
        return [asdict(row) for row in self.rows]

    def to_json(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` writes."""
        return {"rows": self.to_rows()}

    def findings(self) -> list[Finding]:
        """One section per dataset, then the differences, the retention and the ties."""
        shown = self.with_short_names()
        synthetic = {
            short for dataset, short in short_names(self.datasets).items() if is_synthetic(dataset)
        }
        sections = []
        for dataset in shown.datasets:
            rows = [row for row in shown.rows if row.dataset == dataset]
            kind = "held-out synthetic query" if dataset in synthetic else "query"
            notes = _notes(rows)
            title, table = f"{dataset} ({counted(rows[0].n, kind)})", _figures_table(rows)
            values: dict[str, dict[str, float]] = {}
            for row in rows:
                values.setdefault(row.system, {})[row.measure] = row.value
            sections.append(Finding(dataset, title, tables=[table], notes=notes, values=values))
        if any(row.against for row in shown.rows):
            tables = [_differences_table(shown.rows)]
            sections.append(Finding("differences", "Differences", [MARKS], tables))
        sections += retention_finding(shown.rows)
        if any(row.tied for row in shown.rows):
            sections.append(Finding("ties", "Ties", [TIES], [_ties_table(shown.rows)]))
        return sections

    def to_markdown(self) -> str:
        """The tables in Markdown, with headings of level 3."""
        return render_markdown(self.findings(), level=3)

    def to_latex(self) -> str:
        """The tables of figures and differences in LaTeX."""
        return render_latex(self.findings())


def _figures_table(rows: Sequence[Row]) -> Table:
    """Systems by measures on one dataset, then how much of what was looked at is judged."""
    measures = list(dict.fromkeys(row.measure for row in rows))
    cutoffs = {measure: measure.partition("@")[2] for measure in measures}
    holes = {cutoff: measure for measure, cutoff in cutoffs.items() if cutoff != "10"}
    lines = []
    for system in dict.fromkeys(row.system for row in rows):
        by_measure = {row.measure: row for row in reversed(rows) if row.system == system}
        lines.append(
            [
                system,
                *(_figure(by_measure[measure]) for measure in measures),
                cell(by_measure[measures[0]].judged, ".1%"),
                *(cell(by_measure[measure].holes, ".1%") for measure in holes.values()),
            ]
        )
    caption = (
        f"{rows[0].dataset}, {counted(rows[0].n, 'query')}: means with 95% bootstrap intervals."
        f"{f' {MARKS}' if any(row.against for row in rows) else ''}"
    )
    names = (f"holes@{cutoff}" if cutoff else "holes" for cutoff in holes)
    return Table(["system", *measures, "Judged@10", *names], lines, caption)


def _figure(row: Row) -> str:
    """A mean with its interval and mark; a count by itself."""
    if row.low is None or row.high is None:
        return f"{row.value:.0f}"
    mark = ""
    if row.p_holm is not None and row.difference is not None and row.p_holm < LEVEL:
        mark = f" {UP}" if row.difference > 0 else f" {DOWN}"
    return f"{row.value:.4f} [{row.low:.3f}, {row.high:.3f}]{mark}"


def _differences_table(rows: Iterable[Row]) -> Table:
    """Every comparison with its tests, effect size and counts."""
    header = "system,against,dataset,measure,difference [95%],p (t),p (random),p (Holm),d_z"
    lines = [
        [
            *cells(row, "{0.system}", "{0.against}", "{0.dataset}", "{0.measure}"),
            *cells(row, "{0.difference:+.4f} [{0.difference_low:+.4f}, {0.difference_high:+.4f}]"),
            *map(probability, (row.p, row.p_random, row.p_holm)),
            *cells(row, "{0.effect:+.2f}", "{0.detectable:.4f}", "{0.wins}/{0.ties}/{0.losses}"),
        ]
        for row in rows
        if row.against is not None
    ]
    caption = (
        "Differences: paired t-test, randomization test, Holm's correction over the table, Cohen's"
        " d_z, and the smallest difference that the t-test finds in 4 of 5 such query sets."
    )
    return Table([*header.split(","), "detectable", "win/tie/loss"], lines, caption)


def _ties_table(rows: Iterable[Row]) -> Table:
    """Figures that depend on the order of documents with equal scores."""
    header = [
        "system",
        "dataset",
        "measure",
        "as trec_eval",
        "worst order",
        "best order",
        "queries",
    ]
    formats = "{0.value:.4f}", "{0.tie_low:.4f}", "{0.tie_high:.4f}", "{0.tied}"
    names = "{0.system}", "{0.dataset}", "{0.measure}"
    lines = [cells(row, *names, *formats) for row in rows if row.tied]
    return Table(header, list(dict.fromkeys(map(tuple, lines))))


def _notes(rows: Sequence[Row]) -> list[str]:
    """What a reader has to know about the figures of one dataset."""
    first = {row.system: row for row in reversed(rows)}
    notes = [
        f"{system}: {counted(first[system].missing, 'query')} without a result count as 0;"
        f" {counted(first[system].unscored, 'document')} without a score are left out."
        for system in dict.fromkeys(row.system for row in rows)
        if first[system].missing or first[system].unscored
    ]
    if rows[0].n < FEW and any(row.against for row in rows):
        notes.append(
            f"Only {counted(rows[0].n, 'query')}: a test on so few queries misses most differences"
            " that matter. The column detectable says how large a true difference must be for the"
            " t-test to find it in 4 of 5 such query sets."
        )
    return notes
