"""``irdistill fuse`` and ``irdistill runs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from irdistill.cli.options import (
    MultiValueCommand,
    examples,
    json_option,
    out_option,
    overwrite_option,
    show,
    write_result,
)
from irdistill.console.terminal import echo
from irdistill.errors import IrdistillError

FORMATS = (
    "trec",
    "tsv",
    "triples",
    "st-jsonl",
    "st-pickle",
    "colbert",
    "rank-distillm",
    "flagembedding",
    "tevatron",
    "disco",
    "pylate",
)
METHODS = ("mean", "zscore", "minmax", "softmax", "logsoftmax", "rrf")
EXAMPLES = examples(
    "irdistill fuse out/minilm out/bm25 --weights 2,1 --out out/fused",
    "# By figures on labelled queries:",
    "irdistill fuse out/a out/b --weights similarity --dev pydocs/dev --dev-run out/a-dev out/b-dev"
    " --out out/weighted",
    "# Null where teachers disagree:",
    'irdistill fuse out/a out/b --abstain "tau<0.2,sd>1" --out out/agreed',
)


def numbers(text: str | None, name: str) -> list[float] | None:
    """Numbers joined by commas, or None.

    Raises:
        IrdistillError: they cannot be read.
    """
    try:
        return [float(part) for part in text.split(",")] if text else None
    except ValueError as error:
        raise IrdistillError(
            f"the {name} {text!r} cannot be read; write numbers joined by commas, as 2,1."
        ) from error


@click.command(cls=MultiValueCommand, epilog=EXAMPLES)
@click.argument("run", nargs=-1, required=True)
@out_option("The fused run's folder.")
@click.option("--method", type=click.Choice(METHODS), default="zscore", show_default=True)
@click.option(
    "--weights",
    help=(
        "One number a run, joined by commas; similarity: by nDCG@10 on the labelled queries of"
        " --dev; agreement: with the other runs, without labels. Equal by default."
    ),
)
@click.option(
    "--power",
    default=1.0,
    show_default=True,
    help="Of similarity and agreement: 0 is equal, inf the best run alone.",
)
@click.option(
    "--dev",
    help=(
        "A collection with labelled queries to fit on: not test, and not the queries that are"
        " fused."
    ),
)
@click.option(
    "--dev-run",
    multiple=True,
    help="The same teachers' runs on --dev, one for each RUN, in the same order.",
)
@click.option(
    "--gate",
    help="Weights query by query: fit (on --dev), or coefficients as agreement=2,gap=1,entropy=-1.",
)
@click.option(
    "--balance",
    default=0.1,
    show_default=True,
    help="How hard a fitted gate is held to equal use of all runs.",
)
@click.option("--top", type=int, help="Of a gate: only so many runs count for a query.")
@click.option(
    "--tau",
    default="1",
    show_default=True,
    help="Divides the scores in a softmax; one number, or one a run.",
)
@click.option(
    "--abstain",
    default="",
    help='Null where runs disagree: "tau<0.2" a query, "sd>1" a document, or both by a comma.',
)
@click.option(
    "--missing",
    type=click.Choice(["null", "skip", "min"]),
    default="null",
    show_default=True,
    help="What a document gets that a run did not score.",
)
@overwrite_option()
@json_option()
def fuse(
    run: tuple[str, ...],
    out: Path,
    method: str,
    weights: str | None,
    missing: str,
    overwrite: bool,
    tau: str,
    dev: str | None,
    dev_run: tuple[str, ...],
    json_file: Path | None,
    **settings: Any,
) -> None:
    """Fuse runs of one collection: an ensemble of teachers, or a hybrid."""
    from irdistill.collections import load_collection
    from irdistill.evaluation import fuse_teachers

    shares = weights if weights in ("similarity", "agreement") else numbers(weights, "weights")
    taus = numbers(tau, "temperatures") or [1.0]
    found = fuse_teachers(
        run,
        out,
        method,
        shares,
        missing,  # type: ignore[arg-type]
        overwrite,
        tau=taus[0] if len(taus) == 1 else taus,
        dev=load_collection(dev) if dev else None,
        dev_runs=dev_run,
        **settings,
    )
    producer = found.identity.producer
    gating = producer.get("gate") or {}
    how = (
        {
            "gate": [
                ", ".join(
                    f"{name} {value:+.3f}"
                    for name, value in zip(gating["features"], own, strict=True)
                )
                for own in gating["coefficients"]
            ],
            "bias": [round(one, 4) for one in gating["bias"]],
        }
        if gating
        else {}
    )
    show(
        {
            "run": str(out),
            "queries": len(found),
            "rows": found.num_rows,
            "nulls": found.manifest.nulls,
            **found.manifest.usage,
            "weights": producer["weights"],
            **how,
            "fingerprint": found.fingerprint,
        },
        json_file,
    )


@click.group()
def runs() -> None:
    """Look after runs: import, export, verify, merge, mask, stats, diff."""


@runs.command(
    "import",
    epilog=examples(
        "irdistill runs import bm25.txt.gz --collection pydocs/test --format trec --out"
        " out/imported",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--collection", required=True, help="The collection the file belongs to.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Its layout; detected where the content allows only one.",
)
@click.option(
    "--columns",
    help=(
        "Columns of a table: roles in their order, as query,document,-,score (- is left out), or"
        " names in its header, as query=id,score=bm25. Roles: query, document, rank, score."
    ),
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="The pickled scores of st-jsonl; those beside the file by default.",
)
@click.option(
    "--unknown",
    type=click.Choice(["error", "skip"]),
    default="error",
    show_default=True,
    help="What rows with unknown ids are: an error, or left out and counted.",
)
@click.option(
    "--duplicates",
    type=click.Choice(["error", "first", "mean"]),
    default="error",
    show_default=True,
    help="What a pair gets that has several different scores.",
)
@click.option(
    "--ranks",
    is_flag=True,
    help=(
        "The ranks of the file decide: scores n, n - 1, … 1 by rank, whatever scores it "
        "has (trec, tsv, rank-distillm)."
    ),
)
@click.option(
    "--memory",
    type=click.IntRange(1),
    metavar="INTEGER",
    default=512,
    show_default=True,
    help="MiB that rows may take at a time; the rest waits on disk.",
)
@out_option("The new run's folder.")
@overwrite_option()
@json_option()
def import_run(
    file: Path,
    collection: str,
    form: str | None,
    columns: str | None,
    scores: Path | None,
    unknown: str,
    duplicates: str,
    ranks: bool,
    memory: int,
    out: Path,
    overwrite: bool,
    json_file: Path | None,
) -> None:
    """Bring a published run or score file into the store."""
    from irdistill.collections import load_collection
    from irdistill.runs import import_run as import_file

    if not file.is_file():
        raise IrdistillError(f"there is no file {file}.")
    found = import_file(
        file,
        load_collection(collection),
        out,
        form,
        columns=columns,
        scores=scores,
        unknown=unknown,
        duplicates=duplicates,
        ranks=ranks,
        memory=memory << 20,
        overwrite=overwrite,
    )
    producer = found.identity.producer
    show(
        {
            "run": str(out),
            "format": producer["format"],
            "queries": len(found),
            "rows": found.num_rows,
            "nulls": found.manifest.nulls,
            "repeated": producer["repeated"],
            "unknown queries": producer["unknown"]["queries"],
            "unknown documents": producer["unknown"]["documents"],
            "fingerprint": found.fingerprint,
        },
        json_file,
    )


@runs.command(
    "export",
    epilog=examples(
        "irdistill runs export out/fused --format trec --out fused.txt.gz",
    ),
)
@click.argument("run")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="Its layout; told from the file's name where that is plain.",
)
@click.option("--collection", help="For formats with judgments or texts in them.")
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    help="Where the scores of st-jsonl go; beside the file by default.",
)
@click.option(
    "--tag", default="irdistill", show_default=True, help="The last column of a TREC run."
)
@click.option(
    "--keep-empty",
    is_flag=True,
    help=(
        "st-jsonl, flagembedding, tevatron: also write queries without a positive or "
        "without negatives, with an empty list."
    ),
)
@out_option("The file; compressed where its name ends in .gz, .zst, .bz2 or .xz.")
@json_option()
def export_run(
    run: str,
    form: str | None,
    collection: str | None,
    scores: Path | None,
    tag: str,
    keep_empty: bool,
    out: Path,
    json_file: Path | None,
) -> None:
    """Write a run as a score file of another project."""
    from irdistill.collections import load_collection
    from irdistill.runs import export_run as export_file

    loaded = load_collection(collection) if collection else None
    done = export_file(run, out, form, loaded, scores=scores, tag=tag, keep_empty=keep_empty)
    write_result(
        json_file,
        {
            "file": str(out),
            "rows": done.rows,
            "left_out": done.left_out,
            "one_sided": done.one_sided,
        },
    )
    left = f"; {done.left_out} rows left out" if done.left_out else ""
    echo(f"{done.rows} rows in {out}{left}")


@runs.command(epilog=examples("irdistill runs verify out/fused out/bm25"))
@click.argument("run", nargs=-1, required=True)
@json_option()
@click.pass_context
def verify(context: click.Context, run: tuple[str, ...], json_file: Path | None) -> None:
    """Read every byte: checksums, counts, order. Exits with 1 where anything is wrong."""
    from irdistill.runs import verify as verify_run

    problems = {path: verify_run(path) for path in run}
    for path, lines in problems.items():
        for line in lines or [f"{path}: well"]:
            echo(line)
    write_result(json_file, {"problems": problems})
    context.exit(1 if any(problems.values()) else 0)


@runs.command(epilog=examples("irdistill runs merge out/shard-1 out/shard-2 --out out/merged"))
@click.argument("run", nargs=-1, required=True)
@out_option("The whole run's folder.")
@overwrite_option()
@json_option()
def merge(run: tuple[str, ...], out: Path, overwrite: bool, json_file: Path | None) -> None:
    """Join the shards of a run; gaps, overlaps and different identities are refused."""
    from irdistill.runs import merge as merge_runs

    found = merge_runs(run, out, overwrite)
    show(
        {
            "run": str(out),
            "queries": len(found),
            "rows": found.num_rows,
            "fingerprint": found.fingerprint,
        },
        json_file,
    )


@runs.command(
    epilog=examples(
        "irdistill runs mask out/fused --collection pydocs/train --rule margin=0.5 --out"
        " out/masked",
    )
)
@click.argument("run")
@click.option(
    "--collection",
    required=True,
    help="The collection of the run, whose judged documents are never flagged.",
)
@click.option(
    "--rule",
    multiple=True,
    required=True,
    help=(
        "margin=M, percentage=C, threshold=T, top-k=K or above-positive; of several the first that"
        " hits."
    ),
)
@click.option(
    "--positive",
    type=click.Choice(["highest", "lowest", "mean"]),
    default="highest",
    show_default=True,
    help="Which score stands for the positives where a query has several.",
)
@out_option("The new run's folder.")
@overwrite_option()
@json_option()
def mask(
    run: str,
    collection: str,
    rule: tuple[str, ...],
    positive: str,
    out: Path,
    overwrite: bool,
    json_file: Path | None,
) -> None:
    """Flag unjudged documents that are probably relevant, so that training takes them for no
    negatives.
    """
    from irdistill.collections import load_collection
    from irdistill.runs import mask as mask_run

    found = mask_run(run, load_collection(collection), out, rule, positive, overwrite)  # type: ignore[arg-type]
    show(
        {
            "run": str(out),
            "queries": len(found),
            "rows": found.num_rows,
            **found.manifest.usage,
            "fingerprint": found.fingerprint,
        },
        json_file,
    )


@runs.command(epilog=examples("irdistill runs stats out/fused"))
@click.argument("run")
@json_option()
def stats(run: str, json_file: Path | None) -> None:
    """Counts, depths and score statistics."""
    from irdistill.runs import stats as run_stats

    show(run_stats(run), json_file)


@runs.command(epilog=examples("irdistill runs diff out/minilm out/fused"))
@click.argument("left")
@click.argument("right")
@json_option()
def diff(left: str, right: str, json_file: Path | None) -> None:
    """How two runs differ: identity, queries, documents, scores, order."""
    from irdistill.runs import diff as run_diff

    show(run_diff(left, right), json_file)
