"""Options of `train` for the lists that it draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from irdistill.runs import Gate
from irdistill.runs.mixing import Missing


@dataclass(frozen=True)
class ListOptions:
    """The lists of a training and their teachers; a part of `TrainOptions`."""

    # Documents of a list
    sources: Annotated[
        str,
        Field(
            description="Ranks that the documents of a list are drawn from: all, top, or ranges"
            " with optional counts such as 1-10:4,11-100:12."
        ),
    ] = "all"
    positives: Annotated[
        bool, Field(description="Put judged relevant documents first in a list.")
    ] = True
    max_positives: Annotated[
        int, Field(ge=1, description="Maximum relevant documents per list.")
    ] = 1
    only_scored: Annotated[
        bool,
        Field(
            description="Draw only documents with a teacher score, even if the loss needs none, so"
            " that all losses train on the same lists."
        ),
    ] = False
    margin_bins: Annotated[
        int,
        Field(
            ge=0,
            description="Draw the documents of a list evenly from this many ranges of the"
            " teacher's score; 0 draws by rank.",
        ),
    ] = 0
    flagged: Annotated[
        Literal["mask", "drop", "keep"],
        Field(
            description="Documents that a run flags as suspected false negatives: mask keeps them"
            " in the lists but never uses them as negatives, drop does not draw flagged documents"
            " that are not judged relevant, keep ignores the flags."
        ),
    ] = "mask"

    # Several teachers
    mix: Annotated[
        Literal["none", "mean", "zscore", "minmax", "softmax", "logsoftmax", "rrf"],
        Field(
            description="Combine the scores of several runs as fuse does; none takes the loss"
            " against each run, and the first run gives candidates and ranks."
        ),
    ] = "none"
    teacher_weights: Annotated[
        tuple[float, ...] | None,
        Field(
            description="Weight of each run: of its scores in the mix, or of its loss with mix"
            " none."
        ),
    ] = None
    missing: Annotated[
        Missing,
        Field(
            description="Score of a document in the mix that a run did not score: null (no score),"
            " skip (mean of the other runs) or min (lowest score of the run)."
        ),
    ] = "null"
    mix_tau: Annotated[
        float | tuple[float, ...],
        Field(description="Temperature of a softmax mix; one number, or one per run."),
    ] = 1.0
    abstain: Annotated[
        str, Field(description="Give no score where runs disagree, such as tau<0.2,sd>1.")
    ] = ""
    gate: Annotated[
        Gate | None, Field(description="Multiplies the teacher weights query by query.")
    ] = None

    # Order of the queries
    curriculum: Annotated[
        Literal["none", "gap", "entropy"],
        Field(
            description="Begin with easy queries: those with the largest gap between the two best"
            " teacher scores, or with the lowest entropy of the teacher's distribution."
        ),
    ] = "none"
    pacing: Annotated[
        Literal["linear", "root"],
        Field(description="Growth of the share of queries that the curriculum draws from."),
    ] = "linear"
    pacing_start: Annotated[
        float, Field(gt=0, le=1, description="Share of the queries at the start.")
    ] = 0.2
    pacing_end: Annotated[
        float,
        Field(
            ge=0,
            description="End of the curriculum: a share of the steps (below 1) or a number of"
            " steps.",
        ),
    ] = 0.5
    clusters: Annotated[
        int,
        Field(
            ge=0,
            description="Number of query clusters; each step draws from one cluster. 0 disables"
            " clustering.",
        ),
    ] = 0
    cluster_model: Annotated[
        str,
        Field(description="Dense model that embeds the queries to cluster; empty is the student."),
    ] = ""

    # Hard negatives of the student
    mine_every: Annotated[
        int,
        Field(
            ge=0,
            description="Steps between searches of the corpus with the current student for hard"
            " negatives; 0 disables mining.",
        ),
    ] = 0
    mine_depth: Annotated[int, Field(ge=1, description="Mined documents per query.")] = 100
    mine_take: Annotated[int, Field(ge=0, description="Mined documents per list; 0 is half.")] = 0
    mine_teacher: Annotated[
        str,
        Field(
            description="Teacher that scores mined documents that the run did not score. Without"
            " one, only losses that need no teacher score, such as InfoNCE, use them."
        ),
    ] = ""
