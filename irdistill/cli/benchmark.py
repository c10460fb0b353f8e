"""``irdistill benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from irdistill.cli.options import (
    MultiValueCommand,
    examples,
    json_option,
    model_options,
    out_option,
    overwrite_option,
    seed_option,
    write_result,
)
from irdistill.cli.search import INDEXES
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError

if TYPE_CHECKING:
    from irdistill.evaluation.reproduction import ReproducedFigure
    from irdistill.evaluation.suite_runs import Benchmark


@click.command(
    cls=MultiValueCommand,
    epilog=examples(
        "irdistill benchmark beir --model bm25 --datasets scifact nq --out out/beir",
    ),
)
@click.argument("suite")
@click.option(
    "--model",
    default="",
    help="bm25, lucene, or a retriever; with --rerank a teacher card or any reranker.",
)
@click.option(
    "--datasets",
    multiple=True,
    help="Only these: names of datasets, groups or averages; NAME=FOLDER for one on disk.",
)
@click.option(
    "--rerank",
    default="",
    help="What the model reorders: bm25, lucene, a run, or a folder with a run for each dataset.",
)
@click.option(
    "--runs",
    default="",
    help="Measure these runs instead of a model: a run, or a folder with one for each dataset.",
)
@click.option("--k", type=int, help="Documents a query; the suite's unless said.")
@click.option(
    "--index",
    type=click.Choice(INDEXES),
    default="flat",
    show_default=True,
    help="Of a model that searches.",
)
@model_options()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder of datasets that ir_datasets lacks.",
)
@click.option(
    "--check",
    is_flag=True,
    help="Make published figures again (those of --model where given), and say which are off.",
)
@out_option("A folder for each dataset, and results.json.")
@overwrite_option()
@seed_option()
@json_option()
@click.pass_context
def benchmark(
    context: click.Context,
    suite: str,
    model: str,
    datasets: tuple[str, ...],
    rerank: str,
    runs: str,
    k: int | None,
    index: str,
    kind: str | None,
    trust_remote_code: bool,
    data: Path | None,
    check: bool,
    out: Path,
    overwrite: bool,
    seed: int,
    json_file: Path | None,
) -> None:
    """Measure a model on a benchmark, dataset by dataset; stopped at any moment, the same command
    goes on.

    SUITE is a card in eval/, as msmarco, trec-dl, beir, nanobeir, lotte, robust04, cast,
    conversations or local, or a path to one.
    """
    from irdistill.evaluation.reproduction import checks_table, compare_published, reproduce
    from irdistill.evaluation.suite_runs import BenchmarkSystem, run_suite
    from irdistill.evaluation.suites import read_suite

    card = read_suite(suite)
    system = (
        BenchmarkSystem(model, rerank, runs, k, index, kind, trust_remote_code)
        if model or runs or not check
        else None
    )
    if check:
        checks = reproduce(card, out, datasets, data, overwrite=overwrite, seed=seed, system=system)
        if not checks:
            raise IrdistillError(
                f"the suite {card.name!r} has no published figure of what was asked for."
            )
        echo(checks_table(checks).markdown())
        _write(json_file, None, checks)
        context.exit(0 if all(found.ok for found in checks) else 1)
    assert system is not None
    result = run_suite(card, system, out, datasets, data, overwrite=overwrite, seed=seed)
    checks = compare_published(result)
    echo(result.to_markdown())
    if checks:
        echo("\nPublished figures of the same system:\n\n" + checks_table(checks).markdown())
    _write(json_file, result, checks)


def _write(
    json_file: Path | None, result: Benchmark | None, checks: list[ReproducedFigure]
) -> None:
    write_result(
        json_file,
        {
            **(result.to_json() if result else {}),
            "published": [check.to_json() for check in checks],
        },
    )
