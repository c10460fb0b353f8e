"""``irdistill report`` and ``irdistill measure``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irdistill.cli.options import (
    examples,
    json_option,
    model_options,
    named,
    seed_option,
    self_match_option,
    write_result,
)
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError

if TYPE_CHECKING:
    from irdistill.evaluation.ranking_policies import SelfMatch

FORMS = ("html", "markdown", "latex", "plot", "mteb", "card")


@click.command(
    epilog=examples(
        "irdistill report out/bm25-test out/student-test --out report.html",
        "irdistill report out/quickstart/results.json --out report.md",
        "# A model card, as README.md of the model's folder:",
        "irdistill report out/student-test --format card --out out/student/model",
    )
)
@click.argument("source", nargs=-1, required=True)
@click.option("--collection", help="Of the runs; that in their manifests by default.")
@click.option(
    "--measures",
    default="nDCG@10 RR@10 R@100",
    show_default=True,
    help="As ir-measures writes them.",
)
@click.option("--baseline", help="The run, one of those given, that all others are compared with.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMS),
    help="Told from the file's name by default: .html, .md, .tex, .svg, .pdf, .png.",
)
@click.option(
    "--documents",
    type=click.IntRange(1),
    metavar="INTEGER",
    default=10,
    show_default=True,
    help="Of each list, on the page.",
)
@click.option(
    "--queries",
    type=click.IntRange(0),
    metavar="INTEGER",
    default=300,
    show_default=True,
    help="With their lists on the page: those that differ most.",
)
@click.option(
    "--model", help="For mteb and card: the system whose figures are written; the first by default."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help=(
        "The file; for mteb and card a folder. Markdown and LaTeX are printed where none is given."
    ),
)
@self_match_option()
@seed_option()
def report(
    source: tuple[str, ...],
    collection: str | None,
    measures: str,
    baseline: str | None,
    form: str | None,
    documents: int,
    queries: int,
    model: str | None,
    out: Path | None,
    self_match: SelfMatch,
    seed: int,
) -> None:
    """Publish figures: a page, tables for a paper, a plot of quality and cost, MTEB's results, a
    model card.

    SOURCE is one or more runs, which are evaluated, or one results.json of a recipe or of evaluate
    --json.

    The page shows rankings query by query where the source is runs. card adds the figures to the
    README.md of a model's folder, ready for the hub; mteb writes MTEB's files into a folder of
    results.
    """
    from irdistill.evaluation.reporting.publish import evaluate_runs, publish, read_results

    results = len(source) == 1 and source[0].endswith(".json")
    if results and self_match != "keep":
        raise IrdistillError(
            f"--self-match is for runs, and {source[0]} holds figures that are measured already;"
            " give the runs."
        )
    given = (
        read_results(source[0])
        if results
        else evaluate_runs(named(source), collection, measures, baseline, seed, self_match)
    )
    text = publish(given, form, out, documents, queries, model)
    if text is not None:
        echo(text)


@click.command(
    epilog=examples("irdistill measure pydocs/test bm25 out/student/model --json costs.json")
)
@click.argument("collection")
@click.argument("model", nargs=-1, required=True)
@click.option(
    "--k",
    default=100,
    show_default=True,
    help="Documents a query that are found, or reranked by a cross-encoder.",
)
@click.option(
    "--index",
    type=click.Choice(("flat", "hnsw", "ivfpq")),
    default="flat",
    show_default=True,
    help="Of dense models.",
)
@model_options()
@click.option(
    "--queries",
    default=200,
    show_default=True,
    help="How many of the collection's queries are timed.",
)
@seed_option()
@json_option()
def measure(
    collection: str,
    model: tuple[str, ...],
    k: int,
    index: str,
    kind: str | None,
    trust_remote_code: bool,
    queries: int,
    seed: int,
    json_file: Path | None,
) -> None:
    """Time systems and count what they need: latency, throughput, operations, bytes.

    MODEL is bm25 or a model of any kind: folder, hub id or package: path. --kind is for all of them
        but bm25.
    """
    from irdistill.collections import load_collection
    from irdistill.evaluation.costs import costs_table
    from irdistill.evaluation.efficiency import measure_efficiency

    if min(k, queries) < 1:
        raise IrdistillError(f"--k is {k} and --queries {queries}; at least 1 was expected.")
    held = load_collection(collection)
    found = [
        measure_efficiency(
            held,
            name,
            path,
            k,
            index,  # type: ignore[arg-type]
            queries=queries,
            seed=seed,
            kind=kind,
            trust_remote_code=trust_remote_code,
        )
        for name, path in named(model).items()
    ]
    write_result(json_file, {"efficiency": [cost.to_json() for cost in found]})
    echo(costs_table(found, {}).markdown())
    for cost in found:
        if cost.reranks:
            echo(
                f"{cost.system} puts {cost.reranks} documents in order for each query; finding them"
                " is not counted."
            )
