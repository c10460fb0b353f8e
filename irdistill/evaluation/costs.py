"""What systems cost at query time, and quality against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from irdistill.errors import InputError
from irdistill.evaluation.figures import Evaluation
from irdistill.evaluation.reporting.drawing import drawn_figure
from irdistill.evaluation.reporting.findings import Finding, Table, cell, cells
from irdistill.evaluation.reporting.rendering import Displayed


@dataclass(frozen=True, repr=False)
class Efficiency(Displayed):
    """Costs of one system; those of a fused system are the sum over its parts.

    Attributes:
        parameters: parameters that a query goes through, embeddings included; 0 for BM25.
        layers: transformer layers that a query goes through.
        model_bytes: size of these parameters in float32.
        index_bytes: size of what a search reads.
        queries_per_second: encoding and searching in batches of 64 on all cores, best of three
            rounds.
        p50_ms, p95_ms, p99_ms: latency of one query at a time on one thread, warm.
        documents_per_second: passages encoded per second on all cores; None where nothing is
            encoded beforehand.
        flops_per_query: floating-point operations in matrix products (two for a multiplication and
            an addition), mean over some queries. The search of a flat index is included; the steps
            of a graph index or of BM25 are not.
        reranks: documents reordered per query; 0 where the whole corpus is searched.
        documents: number of documents in the corpus.
        index_parts: bytes of the index by part: ``vectors`` or ``codes``, ``scales`` (the ranges
            of int8 codes), ``rescoring`` (float vectors that candidates are scored with), and
            ``ids`` (of the documents), which are not in ``index_bytes``.
    """

    system: str
    parameters: int
    layers: int
    model_bytes: int
    index_bytes: int
    queries_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    documents_per_second: float | None = None
    flops_per_query: float | None = None
    reranks: int = 0
    documents: int = 0
    index_parts: Mapping[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields as a mapping."""
        return asdict(self)

    def to_rows(self) -> list[dict[str, Any]]:
        """One row."""
        return [self.to_json()]

    def findings(self) -> list[Finding]:
        """A table of the costs, and one of the parts of the index."""
        return [Finding("costs", tables=[costs_table([self]), *index_tables([self])])]


@dataclass(frozen=True)
class CostPoint:
    """Quality and cost of one system.

    Attributes:
        cost: milliseconds per query (p50).
        value: first measure on the first dataset.
        best: whether no other system is at least as good at no more cost, and better in one.
        index_bytes: size of what a search reads.
        best_of_three: as ``best``, with the size of the index as a second cost.
    """

    system: str
    cost: float
    value: float
    measure: str
    best: bool = True
    index_bytes: int = 0
    best_of_three: bool = True


def costs_table(costs: Sequence[Efficiency], retention: Mapping[str, float] | None = None) -> Table:
    """Systems by size and speed, and the share of the teacher's figure that each keeps."""
    kept = retention or {}
    header = (
        "system,query parameters,layers,weights MB,index MB,GFLOPs/query,passages/s,queries/s,"
        "p50 ms,p95 ms,p99 ms,retention"
    )
    rows = [
        [
            cost.system,
            f"{cost.parameters / 1e6:.1f}M",
            str(cost.layers),
            *(f"{size / 1e6:.1f}" for size in (cost.model_bytes, cost.index_bytes)),
            "-" if cost.flops_per_query is None else f"{cost.flops_per_query / 1e9:.3g}",
            *cells(cost, "{0.documents_per_second:.0f}", "{0.queries_per_second:.0f}"),
            *cells(cost, "{0.p50_ms:.1f}", "{0.p95_ms:.1f}", "{0.p99_ms:.1f}"),
            cell(kept.get(cost.system), ".1%"),
        ]
        for cost in costs
    ]
    return Table(header.split(","), rows, "Costs at query time.")


def index_tables(costs: Sequence[Efficiency]) -> list[Table]:
    """The bytes of each index by part, if any system has parts."""
    split = [(cost, cost.index_parts) for cost in costs if cost.index_parts]
    names = list(dict.fromkeys(name for _, parts in split for name in parts))
    rows = [
        [
            cost.system,
            *(f"{parts.get(name, 0):,}" for name in names),
            f"{sum(parts.values()) / max(1, cost.documents):.1f}",
        ]
        for cost, parts in split
    ]
    header = ["system", *(f"{name} bytes" for name in names), "bytes per document"]
    return [Table(header, rows, "Bytes of the indexes.")] if split else []


def retention(evaluation: Evaluation, teacher: str) -> dict[str, float]:
    """Each system's first measure on the first dataset as a share of the teacher's."""
    values = _first_figures(evaluation)
    whole = values.get(teacher)
    return {system: value / whole for system, value in values.items()} if whole else {}


def cost_points(evaluation: Evaluation, costs: Sequence[Efficiency]) -> list[CostPoint]:
    """Quality and cost of the systems that have both."""
    values = _first_figures(evaluation)
    return mark_best(
        [
            CostPoint(
                cost.system,
                cost.p50_ms,
                values[cost.system],
                evaluation.measures[0],
                index_bytes=cost.index_bytes,
            )
            for cost in costs
            if cost.system in values
        ]
    )


def mark_best(points: Sequence[CostPoint]) -> list[CostPoint]:
    """Set ``best`` and ``best_of_three`` of each point."""

    def beaten(point: CostPoint, *costs: str) -> bool:
        return any(_beats(other, point, costs) for other in points)

    return [
        replace(
            point,
            best=not beaten(point, "cost"),
            best_of_three=not beaten(point, "cost", "index_bytes"),
        )
        for point in points
    ]


def _beats(other: CostPoint, point: CostPoint, costs: Sequence[str]) -> bool:
    """Whether another system is at least as good at no more of any cost, and better in one."""
    pairs = [(getattr(other, name), getattr(point, name)) for name in costs]
    pairs.append((-other.value, -point.value))
    return all(its <= ours for its, ours in pairs) and any(its < ours for its, ours in pairs)


def shown_points(points: Sequence[CostPoint]) -> list[dict[str, Any]]:
    """The points as pages draw them, with their figures as text."""
    return [
        asdict(point)
        | {
            "figure": f"{point.value:.4f}",
            "latency": f"{point.cost:.1f} ms",
            "size": f"{point.index_bytes / 1e6:.1f} MB",
        }
        for point in points
    ]


def _first_figures(evaluation: Evaluation) -> dict[str, float]:
    """System -> first measure on the first dataset."""
    first = [(row.dataset, row.measure) for row in evaluation.rows[:1]]
    return {row.system: row.value for row in evaluation.rows if (row.dataset, row.measure) in first}


def draw_costs(points: Sequence[CostPoint], path: str | Path) -> None:
    """Draw quality against cost, and the line through the best points, as SVG, PDF or PNG."""
    if not points:
        raise InputError(
            'no system has both a figure and a cost; give a results.json with "rows" and'
            ' "efficiency", as a recipe with the verbs evaluate and measure writes it.'
        )
    best = sorted((point for point in points if point.best), key=lambda point: point.cost)
    label: dict[str, Any] = {"xytext": (5, 4), "textcoords": "offset points"}
    with drawn_figure(Path(path), (5.2, 3.4), "drawing quality against cost") as figure:
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        line = [point.cost for point in best], [point.value for point in best]
        axes.plot(*line, "--", color="#c0603a", linewidth=1)
        for point in points:
            axes.scatter(point.cost, point.value, color="#3b6ea5", zorder=3)
            axes.annotate(point.system, (point.cost, point.value), **label)
        axes.set(xscale="log", ylabel=points[0].measure)
        axes.set_xlabel("milliseconds per query (p50, one thread)")
        axes.spines[["top", "right"]].set_visible(False)
