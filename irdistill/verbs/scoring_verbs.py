"""The verbs `score` and `estimate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from irdistill.teachers.cost_estimate import EstimateOptions
from irdistill.teachers.score_options import ScoreOptions
from irdistill.verbs.argument_types import CollectionLike, RunLike, TeacherLike
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import open_collection
from irdistill.verbs.result_cache import open_cached_run

if TYPE_CHECKING:
    from irdistill.runs import Run
    from irdistill.teachers.cost_estimate import CostEstimate

CollectionOption = Annotated[CollectionLike, Field(description="Queries and corpus of the run.")]
CandidatesOption = Annotated[RunLike, Field(description="The run whose documents are scored.")]
TeacherOption = Annotated[
    TeacherLike,
    Field(
        description="A teacher card, bm25, a model (folder, hub id or package: path), or a function"
        " (queries, documents) -> scores as module:name or FILE.py:name,"
        " which needs --trust-remote-code."
    ),
]
_SCORE = "score pydocs/train --candidates out/bm25 --teacher minilm"


@verb(
    "score",
    positional=("collection",),
    examples=(
        f"irdistill {_SCORE} --out out/minilm",
        "# With vectors, for losses that compare them:",
        f"irdistill {_SCORE} --representations float16 --out out/vectors",
    ),
    reopen=open_cached_run,
)
def score(
    collection: CollectionOption,
    candidates: CandidatesOption,
    teacher: TeacherOption,
    *,
    out: Annotated[Path | None, Field(description="Folder of the run.")] = None,
    options: ScoreOptions = ScoreOptions(),
    **settings: Any,
) -> Run:
    """Score candidates with a teacher.

    A stopped job resumes where it stopped and ends with the same bytes.
    """
    from irdistill.runs import as_run
    from irdistill.teachers.scoring import score as score_candidates

    assert out is not None
    opened = open_collection(collection)
    return score_candidates(opened, as_run(candidates, opened), teacher, out, options)


@verb(
    "estimate",
    positional=("collection",),
    examples=(f"irdistill {_SCORE}".replace("score", "estimate", 1),),
)
def estimate(
    collection: CollectionOption,
    candidates: CandidatesOption,
    teacher: TeacherOption,
    *,
    options: ScoreOptions = ScoreOptions(),
    sampling: EstimateOptions = EstimateOptions(),
    **settings: Any,
) -> CostEstimate:
    """Estimate what scoring would take, from a sample; writes nothing."""
    from irdistill.runs import as_run
    from irdistill.teachers.cost_estimate import estimate_cost

    opened = open_collection(collection)
    return estimate_cost(opened, as_run(candidates, opened), teacher, options, sampling)
