"""What a recipe leaves for its reader: ``report.md`` and ``results.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irdistill.evaluation.costs import Efficiency, costs_table, retention
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.reporting import Table
from irdistill.recipes.recipe import REFERENCE, Recipe
from irdistill.recipes.verbs import COMPARISON, RESULT, artifact
from irdistill.storage.files import read_json, write_json, write_text


def write_summary(
    recipe: Recipe, folder: Path, seconds: dict[str, float], peak_memory: int
) -> None:
    """Gather the results of all stages.

    ``results.json`` holds ``rows`` (figures), ``efficiency``, ``audit`` (one line a finding),
    ``retention`` (each system's first figure as a share of the one called teacher), ``comparisons``
    of losses, ``seconds`` by stage and ``peak_memory_bytes``.
    """
    results: dict[str, list[dict[str, Any]]] = {
        "evaluate": [],
        "audit": [],
        "measure": [],
        "compare": [],
    }
    for stage in recipe.stages:
        if stage.verb in results:
            results[stage.verb].append(read_json(folder / stage.name / RESULT))
    found = Evaluation(
        tuple(Row(**row) for result in results["evaluate"] for row in result["rows"])
    )
    costs = [Efficiency(**cost) for result in results["measure"] for cost in result["systems"]]
    audits = [line for result in results["audit"] for line in result["lines"]]
    retained = retention(found, "teacher")
    example = _example(recipe, folder)
    write_json(
        folder / "results.json",
        {
            "recipe": recipe.name,
            "rows": found.to_rows(),
            "efficiency": [cost.to_json() for cost in costs],
            "audit": audits,
            "retention": retained,
            "comparisons": results["compare"],
            "seconds": seconds,
            "peak_memory_bytes": peak_memory,
        },
    )
    lines = [f"# {recipe.name}", "", recipe.description, ""]
    if found.rows:
        lines += ["## Figures", "", found.to_markdown()]
    if costs:
        figure = f"{found.measures[0]} on {found.datasets[0]}" if found.rows else "first figure"
        lines += [
            "## Costs at query time",
            "",
            costs_table(costs, retained).markdown(),
            "",
            f"Retention is the share of the teacher's {figure}.",
            (
                "A fused teacher needs all its parts for every query. p50 and p95: one query at a"
                " time, one thread."
            ),
            "",
        ]
    for stage in recipe.stages:
        if stage.verb == "compare":
            lines += [
                "## Comparison of losses",
                "",
                (folder / stage.name / COMPARISON).read_text(encoding="utf-8"),
            ]
    if audits:
        lines += ["## Audit of the teachers", "", *(f"- {line}" for line in audits), ""]
    if seconds:
        total = sum(seconds.values())
        lines += [
            "## Time",
            "",
            Table(
                ["stage", "seconds"],
                [[name, f"{value:.1f}"] for name, value in seconds.items()]
                + [["all", f"{total:.1f}"]],
            ).markdown(),
            "",
            f"Peak memory {peak_memory / 1e9:.2f} GB.",
            "",
        ]
    if example:
        lines += ["## Search with it", "", "```", example, "```", ""]
    write_text(folder / "report.md", "\n".join(lines).rstrip() + "\n")


def _example(recipe: Recipe, folder: Path) -> str:
    """How to search with the model that was trained here and searched with last."""
    verbs = {stage.name: stage.verb for stage in recipe.stages}

    def resolved(text: str) -> str:
        return REFERENCE.sub(lambda found: artifact(verbs[found[1]], folder / found[1]), text)

    for stage in reversed(recipe.stages):
        made = (
            REFERENCE.fullmatch(str(stage.arguments.get("model")))
            if stage.verb == "search"
            else None
        )
        if made and verbs[made[1]] in ("train", "terms"):
            collection = stage.arguments["collection"]
            asked = (
                "how do I merge two dictionaries"
                if collection.startswith("pydocs")
                else "a question of your own"
            )
            return (
                f'irdistill search "{resolved(collection)}" --model {resolved(made[0])} --query'
                f' "{asked}"'
            )
    return ""
