"""``irdistill score`` and ``irdistill evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from irdistill.cli.options import (
    engine_options,
    examples,
    json_option,
    named,
    overwrite_option,
    seed_option,
    self_match_option,
    show,
    write_result,
)
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError, OptionError
from irdistill.students.model_kinds import RETRIEVER_TYPES

KINDS = ("cross-encoder", "seq2seq", "causal", "retriever", *RETRIEVER_TYPES, "interaction")

if TYPE_CHECKING:
    from irdistill.evaluation.ranking_policies import SelfMatch


@click.command(
    epilog=examples(
        "irdistill score pydocs/train --candidates out/bm25 --teacher minilm --out out/minilm",
        "# With vectors, for losses between them:",
        "irdistill score pydocs/train --candidates out/bm25 --teacher minilm --representations"
        " --out out/vectors",
        "# What the whole job would take:",
        "irdistill score pydocs/train --candidates out/bm25 --teacher minilm --estimate",
    )
)
@click.argument("collection")
@click.option("--candidates", required=True, help="The run whose documents are scored.")
@click.option(
    "--teacher",
    required=True,
    help="A teacher card, bm25, or a model: folder, hub id or package: path.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The run's folder.")
@click.option("--k", type=int, help="Score only the top k documents of each query.")
@click.option(
    "--part-queries", default=64, show_default=True, help="Queries a part: what a kill can cost."
)
@click.option(
    "--shard", help="i/n: score every n-th part from the i-th; join them with runs merge."
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    help=(
        "Of a model without a card: how it is read, as sparse for SPLADE. Detected from the model's"
        " files by default."
    ),
)
@click.option("--revision", help="Of a hub model.")
@click.option("--max-length", type=int, help="Tokens of query and document together.")
@click.option("--precision", type=click.Choice(["auto", "float32", "bfloat16", "float16"]))
@click.option(
    "--backend", type=click.Choice(["auto", "torch", "openvino"]), help="Of a cross-encoder."
)
@click.option(
    "--label", type=int, help="The output that means relevant, for a classifier with more than two."
)
@click.option(
    "--states",
    type=click.Choice(["auto", "stored", "live"]),
    help=(
        "Of a split-cross-encoder or kernel student: keep the states of the whole corpus, or make"
        " them part by part."
    ),
)
@click.option(
    "--storage", type=click.Choice(["float32", "float16"]), help="Of states that are kept."
)
@click.option(
    "--trust-remote-code", is_flag=True, default=None, help="Run code that comes with the model."
)
@click.option("--url", help="Of a language model's server, in place of the card's.")
@click.option(
    "--key", help="The environment variable that holds the server's key, in place of the card's."
)
@click.option("--parallel", type=int, help="Requests to a server at a time.")
@click.option(
    "--max-cost",
    type=float,
    help="Stop before more is spent on a server, in the currency of the card's prices.",
)
@click.option("--max-requests", type=int, help="Stop before a server has answered more requests.")
@click.option(
    "--responses",
    type=click.Path(path_type=Path),
    help="The file that keeps a server's answers; OUT.responses.jsonl if not given.",
)
@click.option(
    "--replay",
    is_flag=True,
    default=None,
    help="Take all answers from that file, and ask no server.",
)
@click.option(
    "--representations",
    is_flag=False,
    flag_value="float16",
    type=click.Choice(["float16", "float32"]),
    help=(
        "Keep the teacher's vectors beside the scores, for losses that compare them, as float16 or"
        " as given."
    ),
)
@engine_options("Where parts are scored.")
@click.option(
    "--estimate",
    "sampling",
    is_flag=True,
    help="Say what the whole job would take, told from a sample, and stop.",
)
@click.option(
    "--sample",
    default=0.01,
    show_default=True,
    help="The share of the queries that --estimate scores.",
)
@click.option(
    "--hourly-price",
    type=click.FloatRange(0),
    metavar="FLOAT",
    help="Of the machine, for --estimate.",
)
@seed_option()
@overwrite_option()
@json_option()
def score(
    collection: str,
    candidates: str,
    teacher: str,
    out: Path | None,
    sampling: bool,
    sample: float,
    hourly_price: float | None,
    seed: int,
    json_file: Path | None,
    **settings: Any,
) -> None:
    """Score candidates with a teacher; run the same command again to resume."""
    from irdistill.collections import load_collection
    from irdistill.teachers import EstimateOptions, ScoreOptions, estimate_cost
    from irdistill.teachers import score as score_run
    from irdistill.teachers.scoring_reports import truncation_shares, unscored_flags

    if out is None and not sampling:
        raise OptionError(
            "--out is missing: the folder of the run. (Only --estimate works without it.)"
        )
    loaded = load_collection(collection)
    options = ScoreOptions(**{key: value for key, value in settings.items() if value is not None})
    if sampling:
        estimate = EstimateOptions(sample=sample, seed=seed, hourly_price=hourly_price)
        cost = estimate_cost(loaded, candidates, teacher, options, estimate)
        write_result(json_file, cost.to_json())
        show(cost.lines(), None)
        return
    assert out is not None
    run = score_run(loaded, candidates, teacher, out, options)
    show(
        {
            "run": str(out),
            "queries": len(run),
            "rows": run.num_rows,
            "unscored": run.manifest.nulls,
            **{f"unscored ({flag})": count for flag, count in sorted(unscored_flags(run).items())},
            **truncation_shares(run),
            "fingerprint": run.fingerprint,
        },
        json_file,
    )


@click.command(
    epilog=examples(
        "irdistill evaluate pydocs/test out/bm25-test out/student-test --baseline out/bm25-test",
        'irdistill evaluate qrels.tsv run.txt.gz --measures "nDCG@10 RR@10"',
    )
)
@click.argument("collection")
@click.argument("run", nargs=-1, required=True)
@click.option(
    "--measures",
    default="nDCG@10 RR@10 R@100",
    show_default=True,
    help="As ir-measures writes them.",
)
@click.option(
    "--baseline", help="The run, one of those given or another, that all others are compared with."
)
@click.option(
    "--qrels-columns",
    help=(
        "Columns of a file of judgments: roles in their order, as query,-,document,grade (- "
        "is left out), or names in its header, as grade=label."
    ),
)
@self_match_option()
@seed_option()
@json_option()
def evaluate(
    collection: str,
    run: tuple[str, ...],
    measures: str,
    baseline: str | None,
    qrels_columns: str | None,
    self_match: SelfMatch,
    seed: int,
    json_file: Path | None,
) -> None:
    """Measure runs as trec_eval does, with intervals and tested differences.

    In place of COLLECTION a file of judgments will do (TREC qrels, a table with column names, JSON
    lines; compressed or not); then nothing is known of its corpus, and it is not checked that the
    runs belong to it.
    """
    from irdistill.collections import load_collection, read_judgments
    from irdistill.evaluation import evaluate as evaluate_runs

    runs = named(run if baseline is None or baseline in run else (*run, baseline))
    base = next((name for name, path in runs.items() if path == baseline), None)
    if qrels_columns and not Path(collection).is_file():
        raise IrdistillError(
            f"--qrels-columns names the columns of a file of judgments, and {collection} is none;"
            " leave it out."
        )
    judged = (
        read_judgments(collection, qrels_columns)
        if Path(collection).is_file()
        else load_collection(collection)
    )
    found = evaluate_runs(judged, runs, measures, base, seed, collection, self_match)
    write_result(json_file, {"rows": found.to_rows()})
    echo(found.to_markdown())
