"""The verb *report*: figures of runs, or of a results file, written for readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from irdistill.collections import Collection, load_collection
from irdistill.errors import InputError, NotFoundError, OptionError
from irdistill.evaluation.costs import Efficiency, cost_points, costs_table, draw_costs
from irdistill.evaluation.diversity import measure_diversity, shared_queries
from irdistill.evaluation.evaluator import evaluate
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.ranking_policies import RunSource, SelfMatch, measured_run
from irdistill.evaluation.reporting.findings import Finding
from irdistill.evaluation.reporting.rendering import render_latex, render_markdown
from irdistill.runs import Run, open_run
from irdistill.storage.files import read_json
from irdistill.storage.ownership import check_replaceable, write_file

_SUFFIXES = {
    ".html": "html",
    ".md": "markdown",
    ".tex": "latex",
    ".svg": "plot",
    ".pdf": "plot",
    ".png": "plot",
}


@dataclass(frozen=True)
class Results:
    """What a report is about.

    Attributes:
        collection, runs: what was evaluated; absent if the figures come from a file.
        costs: costs of the systems.
        retention: system -> share of the teacher's figure.
        folder: the folder of the file of figures.
        baseline: the run that the others are compared with.
        seed: random seed of the intervals.
    """

    evaluation: Evaluation
    collection: Collection | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)
    costs: tuple[Efficiency, ...] = ()
    retention: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None
    baseline: str | None = None
    seed: int = 42


def evaluate_runs(
    sources: Mapping[str, RunSource],
    collection: str | Path | Collection | None,
    measures: str | Sequence[str],
    baseline: str | None,
    seed: int = 42,
    self_match: SelfMatch = "keep",
) -> Results:
    """Evaluate runs, system -> run.

    Args:
        collection: a collection or its id; by default that of the runs' manifests.
        baseline: name or path of one of the runs.
    """
    paths = {str(run): name for name, run in sources.items() if isinstance(run, str | Path)}
    if baseline is not None and baseline not in (*sources, *paths):
        raise OptionError(
            f"the baseline {baseline!r} is none of the runs: {', '.join([*paths] or sources)}."
        )
    if collection is None:
        manifests = [open_run(path).identity for path in paths if Path(path).is_dir()]
        manifests += [run.identity for run in sources.values() if isinstance(run, Run)]
        ids = {str(entry.collection["id"]) for entry in manifests if entry.collection.get("id")}
        if len(ids) != 1:
            named = f"the collections {', '.join(sorted(ids))}" if ids else "no collection"
            raise OptionError(
                f"the runs name {named}; say which one they are of with --collection."
            )
        collection = ids.pop()
    loaded = collection
    if not isinstance(loaded, Collection):
        loaded = load_collection(str(collection))
    runs = {system: measured_run(run, loaded, self_match) for system, run in sources.items()}
    base = None if baseline is None else paths.get(baseline, baseline)
    evaluation = evaluate(loaded, runs, measures, base, seed, self_match=self_match)
    return Results(evaluation, loaded, runs, baseline=base, seed=seed)


def read_results(path: str | Path) -> Results:
    """Read the figures that a recipe or ``evaluate --json`` wrote."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list | None):
        content = {}
    if not content.get("rows"):
        raise InputError(
            f'{path} has no figures: an object with "rows" was expected, as evaluate --json or a'
            " recipe writes it."
        )
    try:
        evaluation = Evaluation(tuple(Row(**row) for row in content["rows"]))
        costs = tuple(Efficiency(**cost) for cost in content.get("efficiency") or ())
    except TypeError as error:
        raise InputError(
            f"{path} is not a file of figures of this version: {error}. Evaluate again."
        ) from error
    retention = dict(content.get("retention") or {})
    return Results(evaluation, costs=costs, retention=retention, folder=Path(path).parent)


def publish(
    results: Results,
    form: str | None = None,
    out: Path | None = None,
    k: int = 10,
    queries: int = 300,
    system: str | None = None,
) -> str | None:
    """Write a report, or return its text if there is no file to write.

    Args:
        form: ``html``, ``markdown``, ``latex``, ``plot``, ``mteb`` or ``card``; by default detected
            from the file's name.
        k, queries: documents per list, and queries with their lists, on an HTML page.
        system: the system whose figures go to ``mteb`` and ``card``; the first by default.
    """
    if form is None:
        form = "markdown" if out is None else _SUFFIXES.get(out.suffix)
        if form is None:
            raise OptionError(
                f"the form of {out} cannot be derived from its name; give --format, or a name that"
                f" ends in {', '.join(_SUFFIXES)}."
            )
    evaluation = results.evaluation
    if system is not None and system not in evaluation.systems:
        raise NotFoundError(
            f"there is no system {system!r}; there are {', '.join(evaluation.systems)}."
        )
    if out is None:
        if form not in ("markdown", "latex"):
            raise OptionError(f"--out is missing; it says where to write the {form}.")
        return _text(results, form)
    chosen = system or evaluation.systems[0]
    if form == "mteb":
        from irdistill.evaluation.reporting.mteb import write_results

        write_results(evaluation, chosen, out)
    elif form == "card":
        from irdistill.evaluation.reporting.model_card import write_card

        write_card(evaluation, chosen, out, results.folder)
    else:
        check_replaceable(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        points = cost_points(evaluation, results.costs)
        if form == "plot":
            draw_costs(points, out)
        elif form == "html":
            from irdistill.evaluation.reporting.report_page import render_report

            page = render_report(
                evaluation,
                results.collection,
                results.runs,
                k,
                queries,
                points,
                _diversity(results),
            )
            write_file(out, page)
        else:
            write_file(out, _text(results, form))
    return None


def _text(results: Results, form: str) -> str:
    findings = results.evaluation.findings()
    if results.costs:
        table = costs_table(results.costs, results.retention)
        findings.append(Finding("costs", "Costs at query time", tables=[table]))
    if form == "latex":
        return render_latex(findings)
    return render_markdown([*findings, *_diversity(results)], level=3)


def _diversity(results: Results) -> list[Finding]:
    """The diversity of the runs; nothing if they share no query."""
    collection, runs = results.collection, results.runs
    if collection is None or not shared_queries(collection.queries, runs):
        return []
    return measure_diversity(collection, runs, results.baseline, seed=results.seed).findings()
