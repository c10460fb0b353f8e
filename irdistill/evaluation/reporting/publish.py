"""The verb *report*: runs or results in, a file that people read out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.collections import Collection, load_collection
from irdistill.errors import IrdistillError
from irdistill.evaluation.evaluator import Evaluation, Row, evaluate
from irdistill.evaluation.ranking_policies import SelfMatch, measured_run
from irdistill.evaluation.reporting.tables import costs_table, evaluation_latex, evaluation_markdown
from irdistill.runs import Run, open_run
from irdistill.storage.files import read_json
from irdistill.storage.ownership import check_replaceable, write_file

if TYPE_CHECKING:
    from irdistill.evaluation.efficiency import Efficiency

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
    """What is published: figures, and perhaps the runs they are of, what the systems cost, and the
    folder of the figures' file.
    """

    found: Evaluation
    collection: Collection | None = None
    runs: Mapping[str, Run] = field(default_factory=dict)
    costs: tuple[Efficiency, ...] = ()
    retention: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None


def evaluated(
    paths: Mapping[str, str],
    collection: str | None,
    measures: str,
    baseline: str | None,
    seed: int = 42,
    self_match: SelfMatch = "keep",
) -> Results:
    """Evaluate runs, system -> path; ``self_match`` as for ``evaluate``.

    Raises:
        IrdistillError: it is not said of which collection they are, or of several; or as
            ``evaluate``.
    """
    if baseline is not None and baseline not in paths.values():
        raise IrdistillError(
            f"the baseline {baseline!r} is none of the runs given: {', '.join(paths.values())}."
        )
    if collection is None:
        ids = {
            str(found)
            for path in paths.values()
            if Path(path).is_dir() and (found := open_run(path).identity.collection.get("id"))
        }
        if len(ids) != 1:
            raise IrdistillError(
                "the runs name"
                f" {'the collections ' + ', '.join(sorted(ids)) if ids else 'no collection'}; say"
                " which one they are of with --collection."
            )
        collection = ids.pop()
    held = load_collection(collection)
    runs = {system: measured_run(path, held, self_match) for system, path in paths.items()}
    base = next((system for system, path in paths.items() if path == baseline), None)
    return Results(evaluate(held, runs, measures, base, seed, self_match=self_match), held, runs)


def from_json(path: str | Path) -> Results:
    """Figures that a recipe or ``evaluate --json`` wrote.

    Raises:
        IrdistillError: the file holds no figures.
    """
    given = read_json(path)
    if not isinstance(given, dict) or not isinstance(given.get("rows"), list) or not given["rows"]:
        raise IrdistillError(
            f'{path} holds no figures: an object with "rows" was expected, as evaluate --json or a'
            " recipe writes."
        )
    try:
        found = Evaluation(tuple(Row(**row) for row in given["rows"]))
        costs: tuple[Efficiency, ...] = ()
        if given.get("efficiency"):
            from irdistill.evaluation.efficiency import Efficiency

            costs = tuple(Efficiency(**cost) for cost in given["efficiency"])
    except TypeError as error:
        raise IrdistillError(
            f"{path} is not a file of figures of this version: {error}. Evaluate again."
        ) from error
    return Results(
        found, costs=costs, retention=dict(given.get("retention") or {}), folder=Path(path).parent
    )


def publish(
    given: Results,
    form: str | None = None,
    out: Path | None = None,
    documents: int = 10,
    queries: int = 300,
    system: str | None = None,
) -> str | None:
    """Write a report, or give its text where there is no file to write.

    Args:
        form: ``html``, ``markdown``, ``latex``, ``plot``, ``mteb`` or ``card``; told from the
            file's name where None.
        system: whose figures go to ``mteb`` and ``card``; the first by default.

    Raises:
        IrdistillError: the form cannot be told or needs a place to write to, or the system is
            unknown.
    """
    if form is None:
        form = "markdown" if out is None else _SUFFIXES.get(out.suffix)
        if form is None:
            raise IrdistillError(
                f"it cannot be told what {out} is to be; give --format, or a name in"
                f" {', '.join(_SUFFIXES)}."
            )
    if out is None and form not in ("markdown", "latex"):
        raise IrdistillError(f"--out is missing: where the {form} goes.")
    if system is not None and system not in given.found.systems:
        raise IrdistillError(
            f"there is no system {system!r}; there are {', '.join(given.found.systems)}."
        )
    if out is not None and form not in ("mteb", "card"):
        check_replaceable(out)
    chosen = system or given.found.systems[0]
    if form in ("mteb", "card"):
        assert out is not None
        if form == "mteb":
            from irdistill.evaluation.reporting.mteb import write_results

            write_results(given.found, chosen, out)
        else:
            from irdistill.evaluation.reporting.card import write_card

            write_card(given.found, chosen, out, given.folder)
        return None
    if form == "plot":
        from irdistill.evaluation.reporting.pareto import draw, points

        assert out is not None
        draw(points(given.found, given.costs), out)
        return None
    text = _text(given, form, documents, queries)
    if out is None:
        return text
    out.parent.mkdir(parents=True, exist_ok=True)
    write_file(out, text)
    return None


def _text(given: Results, form: str, documents: int, queries: int) -> str:
    if form == "html":
        from irdistill.evaluation.reporting.page import html_report
        from irdistill.evaluation.reporting.pareto import points

        costs: Any = points(given.found, given.costs)
        return html_report(given.found, given.collection, given.runs, documents, queries, costs)
    if form == "latex":
        extra = (
            [costs_table(given.costs, given.retention).latex("Costs at query time.")]
            if given.costs
            else []
        )
        return "\n\n".join([evaluation_latex(given.found).rstrip(), *extra]) + "\n"
    lines = [evaluation_markdown(given.found)]
    if given.costs:
        lines += [
            "### Costs at query time",
            "",
            costs_table(given.costs, given.retention).markdown(),
            "",
        ]
    return "\n".join(lines)
