"""Verbs on runs: `fuse`, `mask`, and the commands ``irdistill runs ...``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import NotFoundError, OptionError
from irdistill.runs.label_injection import LabelOptions
from irdistill.verbs.argument_types import (
    CollectionLike,
    FilesLike,
    OverwriteOption,
    PolicyOption,
    RunLike,
    SeedOption,
)
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import open_collection
from irdistill.verbs.result_cache import open_cached_run

if TYPE_CHECKING:
    from irdistill.runs import Run
    from irdistill.runs.formats.transfer import Exported

Method = Literal["mean", "zscore", "minmax", "softmax", "logsoftmax", "rrf", "head"]
Format = Literal[
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
]


def _check_fusion(values: Mapping[str, Any]) -> None:
    from irdistill.runs import Mixing
    from irdistill.runs.fusion import check_count

    count, weights = len(values["runs"]), values.get("weights")
    check_count(count, "labels" in values)
    if values.get("method") == "head" and (weights or values.get("gate") or "labels" in values):
        raise OptionError(
            "method head joins two lists and mixes no scores; leave out weights, gate and labels."
        )
    if values["label_options"] != LabelOptions() and "labels" not in values:
        raise OptionError(
            "label_weight or label_noise was given without labels; name the training collection"
            " whose labels are added to the scores, or leave them out."
        )
    Mixing(
        values.get("method", "zscore"),
        None if isinstance(weights, str) else weights,
        values.get("missing", "null"),
        values.get("tau", 1.0),
        values.get("abstain", ""),
        head=values.get("head", 3),
    ).for_teachers(count)


@verb(
    "fuse",
    positional=("runs",),
    examples=(
        "irdistill fuse out/minilm out/bm25 --weights 2 1 --out out/fused",
        "# Weights from the quality on labeled queries:",
        "irdistill fuse out/a out/b --weights similarity --dev pydocs/dev --dev-runs out/a-dev"
        " out/b-dev --out out/weighted",
        "# No score where teachers disagree:",
        'irdistill fuse out/a out/b --abstain "tau<0.2,sd>1" --out out/agreed',
        "# The teacher's first three documents, then the student's list:",
        "irdistill fuse out/a out/b --method head --head 3 --out out/hybrid",
        "# A teacher that sees the labels of the training queries; only train takes it:",
        "irdistill fuse out/fused --labels pydocs/train --label-weight 2 --out out/assisted",
    ),
    check=_check_fusion,
    reopen=open_cached_run,
)
def fuse(
    runs: Annotated[
        list[RunLike], Field(description="Two or more runs of one collection; one with labels.")
    ],
    *,
    out: Annotated[Path | None, Field(description="Folder of the fused run.")] = None,
    method: Annotated[
        Method,
        Field(
            description="How scores are brought to one scale; head: the first documents of the"
            " first run, then the second run."
        ),
    ] = "zscore",
    head: Annotated[
        int, Field(ge=1, description="With method head: documents of the first run.")
    ] = 3,
    weights: Annotated[
        Literal["similarity", "agreement"] | list[float] | None,
        Field(
            description="One number per run; similarity: by nDCG@10 on the labeled queries of dev;"
            " agreement: with the other runs, without labels. Equal by default."
        ),
    ] = None,
    power: Annotated[
        float,
        Field(
            ge=0,
            description="Exponent of similarity and agreement: 0 gives equal weights, inf the best"
            " run alone.",
        ),
    ] = 1.0,
    dev: Annotated[
        CollectionLike | None,
        Field(
            description="Collection with labeled queries to fit on: not test, and not the queries"
            " that are fused."
        ),
    ] = None,
    dev_runs: Annotated[
        list[RunLike] | None,
        Field(description="Runs of the same teachers on dev, in the order of the runs."),
    ] = None,
    gate: Annotated[
        str | None,
        Field(
            description="Weights per query: fit (on dev), or coefficients such as"
            " agreement=2,gap=1,entropy=-1."
        ),
    ] = None,
    balance: Annotated[
        float,
        Field(ge=0, description="Strength of the pull of a fitted gate to equal use of runs."),
    ] = 0.1,
    top: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="With a gate: only this many runs count for a query."),
    ] = None,
    tau: Annotated[
        float | list[float],
        Field(description="Temperature of softmax: one number, or one per run."),
    ] = 1.0,
    abstain: Annotated[
        str,
        Field(
            description='No score where runs disagree: "tau<0.2" for a query, "sd>1" for a document'
            ", or both with a comma."
        ),
    ] = "",
    missing: Annotated[
        Literal["null", "skip", "min"],
        Field(description="What a document gets that a run did not score."),
    ] = "null",
    labels: Annotated[
        CollectionLike | None,
        Field(
            description="Add the labels of this training collection to the scores. The run may"
            " train a student; verbs that measure refuse it, and every run made from it."
        ),
    ] = None,
    label_options: LabelOptions = LabelOptions(),
    seed: SeedOption = 42,
    overwrite: OverwriteOption = False,
) -> Run:
    """Fuse runs of one collection: an ensemble of teachers, or a hybrid."""
    from irdistill.evaluation.fusing import FusionWeights, fuse_teachers
    from irdistill.runs import as_run
    from irdistill.runs.label_injection import LabelInjection

    assert out is not None
    weighting = FusionWeights(
        weights,
        power,
        open_collection(dev) if dev is not None else None,
        [as_run(run) for run in dev_runs or ()],
        gate,
        balance,
        top,
        head,
        None if labels is None else LabelInjection(open_collection(labels), label_options, seed),
    )
    opened = [as_run(run) for run in runs]
    return fuse_teachers(
        opened, out, method, weighting, missing, overwrite, tau=tau, abstain=abstain
    )


def _check_mask(values: Mapping[str, Any]) -> None:
    if not values.get("rules") and values.get("judgments") is None:
        raise OptionError("mask needs --rules, or --judgments with what people judged.")


@verb(
    "mask",
    positional=("collection", "run"),
    examples=(
        "irdistill mask pydocs/train out/fused --rules margin=0.5 --out out/masked",
        "# What people judged on the page of irdistill view:",
        "irdistill mask pydocs/train out/fused --judgments judgments --out out/judged",
    ),
    check=_check_mask,
    reopen=open_cached_run,
)
def mask(
    collection: Annotated[
        CollectionLike, Field(description="The run's collection; its judged documents stay.")
    ],
    run: Annotated[RunLike, Field(description="The run to copy with flags.")],
    rules: Annotated[
        list[str] | None,
        Field(
            description="margin=M, percentage=C, threshold=T, top-k=K or above-positive. The first"
            " rule that applies gives the flag."
        ),
    ] = None,
    *,
    out: Annotated[Path | None, Field(description="Folder of the new run.")] = None,
    positive: Annotated[
        Literal["highest", "lowest", "mean"],
        Field(description="Which score represents the positives of a query with several."),
    ] = "highest",
    judgments: Annotated[
        FilesLike | None,
        Field(
            description="Folder or files of irdistill view --judgments. Documents that people"
            " judged relevant are flagged; a suspicion that they refuted is cleared."
        ),
    ] = None,
    policy: PolicyOption = None,
    overwrite: OverwriteOption = False,
) -> Run:
    """Flag unjudged documents that are probably relevant, so that they are never negatives."""
    from irdistill.runs import as_run
    from irdistill.runs import mask as mask_run

    assert out is not None
    opened = open_collection(collection)
    people = None
    if judgments is not None:
        from irdistill.collections.judging import combine_judges, read_judges

        people = combine_judges(read_judges(judgments), policy)
    return mask_run(as_run(run, opened), opened, out, rules or (), positive, overwrite, people)


@verb(
    "runs import",
    positional=("file",),
    examples=(
        "irdistill runs import bm25.txt.gz --collection pydocs/test --format trec --out"
        " out/imported",
    ),
    reopen=None,
)
def import_run(
    file: Annotated[Path, Field(description="A run or score file.")],
    collection: Annotated[CollectionLike, Field(description="The collection of the file.")],
    out: Annotated[Path, Field(description="Folder of the new run.")],
    *,
    format: Annotated[
        Format | None,
        Field(description="Layout of the file (default: detected, if only one fits)."),
    ] = None,
    columns: Annotated[
        str | None,
        Field(
            description="Columns of a table: roles in order, such as query,document,-,score (- is"
            " left out), or names in its header, such as query=id,score=bm25. Roles: query,"
            " document, rank, score."
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        Field(description="Pickled scores of st-jsonl (default: those next to the file)."),
    ] = None,
    unknown: Annotated[
        Literal["error", "skip"],
        Field(description="Rows with unknown ids are an error, or skipped and counted."),
    ] = "error",
    duplicates: Annotated[
        Literal["error", "first", "mean"],
        Field(description="Score of a pair that has several different ones."),
    ] = "error",
    ranks: Annotated[
        bool,
        Field(
            description="Use the ranks of the file: scores n, n - 1, … 1, whatever scores it has"
            " (trec, tsv, rank-distillm)."
        ),
    ] = False,
    memory: Annotated[
        int, Field(ge=1, description="MiB of rows in memory; the rest is sorted on disk.")
    ] = 512,
    overwrite: OverwriteOption = False,
) -> Run:
    """Import a run or score file of another project."""
    from irdistill.runs import import_run as import_file

    if not file.is_file():
        raise NotFoundError(f"there is no file {file}.")
    return import_file(
        file,
        open_collection(collection),
        out,
        format,
        columns=columns,
        scores=scores,
        unknown=unknown,
        duplicates=duplicates,
        ranks=ranks,
        memory=memory << 20,
        overwrite=overwrite,
    )


@verb(
    "runs export",
    positional=("run",),
    examples=("irdistill runs export out/fused --format trec --out fused.txt.gz",),
)
def export_run(
    run: Annotated[RunLike, Field(description="The run to write.")],
    out: Annotated[
        Path,
        Field(description="The file; compressed if its name ends in .gz, .zst, .bz2 or .xz."),
    ],
    *,
    format: Annotated[
        Format | None,
        Field(description="Layout of the file (default: from its name, else trec)."),
    ] = None,
    collection: Annotated[
        CollectionLike | None, Field(description="For formats that hold judgments or texts.")
    ] = None,
    scores: Annotated[
        Path | None,
        Field(description="File for the scores of st-jsonl (default: next to the file)."),
    ] = None,
    tag: Annotated[str, Field(description="Last column of a TREC run.")] = "irdistill",
    keep_empty: Annotated[
        bool,
        Field(
            description="st-jsonl, flagembedding, tevatron: also write queries without positives or"
            " without negatives, with an empty list."
        ),
    ] = False,
) -> Exported:
    """Export a run as a score file of another project."""
    from irdistill.runs import as_run
    from irdistill.runs import export_run as export_file

    loaded = open_collection(collection) if collection is not None else None
    return export_file(
        as_run(run), out, format, loaded, scores=scores, tag=tag, keep_empty=keep_empty
    )


@verb("runs verify", positional=("runs",), examples=("irdistill runs verify out/fused out/bm25",))
def verify_runs(
    runs: Annotated[list[str], Field(description="Folders of runs.")],
) -> dict[str, list[str]]:
    """Read every byte of runs: checksums, counts, order. Exits with 1 if there is a problem."""
    from irdistill.runs import verify

    return {path: verify(path) for path in runs}


@verb(
    "runs merge",
    positional=("runs",),
    examples=("irdistill runs merge out/shard-1 out/shard-2 --out out/merged",),
)
def merge_runs(
    runs: Annotated[list[str], Field(description="Folders of the shards.")],
    out: Annotated[Path, Field(description="Folder of the whole run.")],
    *,
    overwrite: OverwriteOption = False,
) -> Run:
    """Join the shards of a run. Gaps, overlaps and different identities are refused."""
    from irdistill.runs import merge

    return merge(runs, out, overwrite)


@verb("runs stats", positional=("run",), examples=("irdistill runs stats out/fused",))
def run_stats(
    run: Annotated[RunLike, Field(description="The run.")],
) -> dict[str, Any]:
    """Counts, depths and statistics of the scores of a run."""
    from irdistill.runs import as_run, stats

    return stats(as_run(run))


@verb(
    "runs diff",
    positional=("left", "right"),
    examples=("irdistill runs diff out/minilm out/fused",),
)
def diff_runs(
    left: Annotated[RunLike, Field(description="A run.")],
    right: Annotated[RunLike, Field(description="Another run.")],
) -> dict[str, Any]:
    """How two runs differ: identity, queries, documents, scores, order."""
    from irdistill.runs import as_run, diff

    return diff(as_run(left), as_run(right))
