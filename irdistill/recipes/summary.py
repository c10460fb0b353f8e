"""What a recipe leaves for its reader: ``report.md`` and ``results.json``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from irdistill.evaluation.costs import Efficiency, costs_table, retention
from irdistill.evaluation.figures import Evaluation, Row
from irdistill.evaluation.reporting import Table
from irdistill.recipes.recipe import REFERENCE, Recipe
from irdistill.recipes.stages import COMPARISON, MODEL_VERBS, RESULT, artifact
from irdistill.storage.files import read_json, write_json, write_text

SEARCH = "## Search with it"


def write_summary(
    recipe: Recipe, folder: Path, seconds: dict[str, float], peak_memory: int
) -> None:
    """Gather the results of all stages.

    ``results.json`` holds ``rows`` (figures), ``efficiency``, ``audit`` (lines), ``retention``
    (each system's first figure as a share of the system called teacher), ``comparisons`` of losses,
    ``seconds`` by stage and ``peak_memory_bytes``.
    """
    results: dict[str, list[dict[str, Any]]] = {
        verb: [
            read_json(folder / stage.name / RESULT) for stage in recipe.stages if stage.verb == verb
        ]
        for verb in ("evaluate", "audit", "measure", "compare")
    }
    figures = Evaluation(
        tuple(Row(**row) for result in results["evaluate"] for row in result["rows"])
    )
    costs = [Efficiency(**cost) for result in results["measure"] for cost in result["systems"]]
    audits = [line for result in results["audit"] for line in result["lines"]]
    retained = retention(figures, "teacher")
    write_json(
        folder / "results.json",
        {
            "recipe": recipe.name,
            "rows": figures.to_rows(),
            "efficiency": [cost.to_json() for cost in costs],
            "audit": audits,
            "retention": retained,
            "comparisons": results["compare"],
            "seconds": seconds,
            "peak_memory_bytes": peak_memory,
        },
    )
    lines = [f"# {recipe.name}", "", recipe.description, ""]
    if figures.rows:
        lines += ["## Figures", "", figures.to_markdown()]
    lines += _costs(costs, figures, retained) if costs else []
    for stage in recipe.stages:
        if stage.verb == "compare":
            text = (folder / stage.name / COMPARISON).read_text(encoding="utf-8")
            lines += ["## Comparison of losses", "", text]
    if audits:
        lines += ["## Audit of the teachers", "", *(f"- {line}" for line in audits), ""]
    lines += _times(seconds, peak_memory) if seconds else []
    example = _example(recipe, folder)
    if example:
        lines += [SEARCH, "", "```", example, "```", ""]
    write_text(folder / "report.md", "\n".join(lines).rstrip() + "\n")


def _costs(costs: list[Efficiency], figures: Evaluation, retained: dict[str, float]) -> list[str]:
    figure = f"{figures.measures[0]} on {figures.datasets[0]}" if figures.rows else "first figure"
    return [
        "## Costs at query time",
        "",
        costs_table(costs, retained).markdown(),
        "",
        f"Retention is the share of the teacher's {figure}.",
        "A fused teacher needs all its parts for every query. p50 and p95: one query at a time, one"
        " thread.",
        "",
    ]


def _times(seconds: dict[str, float], peak_memory: int) -> list[str]:
    rows = [[name, f"{value:.1f}"] for name, value in seconds.items()]
    rows.append(["all", f"{sum(seconds.values()):.1f}"])
    return [
        "## Time",
        "",
        Table(["stage", "seconds"], rows).markdown(),
        "",
        f"Peak memory {peak_memory / 1e9:.2f} GB.",
        "",
    ]


def _example(recipe: Recipe, folder: Path) -> str:
    """How to search with the model that was trained here and searched with last."""
    verbs = {stage.name: stage.verb for stage in recipe.stages}

    def resolved(text: str) -> str:
        return REFERENCE.sub(lambda name: artifact(verbs[name[1]], folder / name[1]), text)

    for stage in reversed(recipe.stages):
        model = REFERENCE.fullmatch(str(stage.arguments.get("model")))
        if stage.verb != "retrieve" or not model or verbs[model[1]] not in MODEL_VERBS:
            continue
        collection = stage.arguments["collection"]
        question = (
            "how do I merge two dictionaries"
            if collection.startswith("pydocs")
            else "a question of your own"
        )
        return (
            f'irdistill search "{resolved(collection)}" "{question}" --model {resolved(model[0])}'
        )
    return ""
