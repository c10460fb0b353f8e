"""Verbs that measure and compare: `audit`, `evaluate`, `compare`, `measure` and others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from irdistill.errors import NotFoundError, OptionError
from irdistill.search.retrieve_options import CodeOptions, Index
from irdistill.verbs.argument_types import (
    CollectionLike,
    JudgmentsLike,
    KindOption,
    MeasuresLike,
    ModelKind,
    ModelLike,
    ModelsLike,
    OutputFile,
    OverwriteOption,
    RunLike,
    RunsLike,
    SeedOption,
    SelfMatchOption,
    TrustOption,
)
from irdistill.verbs.declaration import verb
from irdistill.verbs.opening_inputs import (
    model_path,
    named_runs,
    open_collection,
    optional_run,
    run_path,
    short_names,
    with_baseline,
)

if TYPE_CHECKING:
    from irdistill.evaluation import Audit, Evaluation
    from irdistill.evaluation.costs import Efficiency
    from irdistill.evaluation.suite_runs import Benchmark

MeasuresOption = Annotated[
    MeasuresLike,
    Field(
        description="As ir-measures writes them. On the command line several measures go in one"
        ' pair of quotes: "nDCG@10 RR@10".'
    ),
]
IndexOption = Annotated[Index, Field(description="Index of a model that searches.")]
DEFAULT_MEASURES = "nDCG@10 RR@10 R@100"


@verb(
    "audit",
    positional=("collection", "runs"),
    examples=(
        "irdistill audit pydocs/train out/minilm out/fused --first-stage out/bm25",
        "irdistill audit pydocs/train out/minilm --html audit.html",
    ),
)
def audit(
    collection: Annotated[CollectionLike, Field(description="The collection of the runs.")],
    runs: Annotated[RunsLike, Field(description="Runs of teachers.")],
    *,
    first_stage: Annotated[
        RunLike | None, Field(description="Run that the teachers should improve on.")
    ] = None,
    student: Annotated[
        ModelLike | None,
        Field(description="Model whose untrained scores set temperature and scale."),
    ] = None,
    kind: KindOption = None,
    trust_remote_code: TrustOption = False,
    html: Annotated[
        OutputFile | None, Field(description="Write a page with plots, in one file.")
    ] = None,
    examples: Annotated[
        int, Field(ge=0, description="Contradictions with the judgments to show, of each kind.")
    ] = 5,
    sample: Annotated[
        int, Field(ge=1, description="Look at this many queries, drawn at random.")
    ] = 2000,
    list_size: Annotated[
        int, Field(ge=2, description="Documents of a training list, for the temperatures.")
    ] = 8,
    relevant_from: Annotated[
        int,
        Field(
            ge=1,
            description="Lowest grade of a relevant document (TREC DL: 2); nDCG uses all grades.",
        ),
    ] = 1,
    self_match: SelfMatchOption = "keep",
    seed: SeedOption = 42,
) -> Audit:
    """Audit teachers before training: is a teacher worth learning from, and how?"""
    from irdistill.evaluation import AuditOptions
    from irdistill.evaluation import audit as audit_runs
    from irdistill.runs import as_run

    options = AuditOptions(
        None if student is None else model_path(student),
        sample,
        list_size,
        examples,
        seed,
        relevant_from,
        self_match,
        kind,
        trust_remote_code,
    )
    opened = open_collection(collection)
    named = {name: as_run(run, opened) for name, run in named_runs(runs).items()}
    audited = audit_runs(opened, named, optional_run(first_stage, opened), options=options)
    if html is not None:
        audited.write_html(html)
    return audited


def _refuse_measures(runs: Any, measures: Any) -> None:
    """Refuse measures among the runs, which come from a list without quotation marks."""
    from irdistill.evaluation.measure_names import parse_measures

    for run in runs if isinstance(runs, list | tuple) else ():
        if isinstance(run, str) and "@" in run and not Path(run).exists():
            try:
                parse_measures(run)
            except OptionError:
                continue
            raise OptionError(
                f"there is no run {run!r}, which is a measure. Put several measures in one pair of"
                f' quotes: --measures "{measures} {run}".'
            )


def _check_evaluation(values: Mapping[str, Any]) -> None:
    from irdistill.evaluation.evaluator import check_baseline

    datasets, single = values.get("datasets"), values.keys() & {"collection", "runs"}
    runs = values.get("runs", ())
    _refuse_measures(runs, values.get("measures", ""))
    no_runs = isinstance(runs, Mapping | list | tuple) and not runs
    if datasets is None and "collection" in values and no_runs:
        raise OptionError("no runs were given; write: irdistill evaluate COLLECTION RUN...")
    if len(single) != (2 if datasets is None else 0):
        raise OptionError(
            "give a collection and runs, or datasets (a mapping of collections to runs by name)."
        )
    if datasets is not None:
        if not datasets or not all(datasets.values()):
            raise OptionError(
                "datasets names no run to measure; expected a mapping of collections to runs by"
                " name."
            )
        for runs in datasets.values():
            check_baseline(runs, values.get("baseline"))


@verb(
    "evaluate",
    positional=("collection", "runs"),
    examples=(
        "irdistill evaluate pydocs/test out/bm25-test out/student-test --baseline out/bm25-test",
        'irdistill evaluate qrels.tsv run.txt.gz --measures "nDCG@10 RR@10"',
    ),
    check=_check_evaluation,
)
def evaluate(
    collection: Annotated[
        JudgmentsLike | None,
        Field(
            description="The collection of the runs, or judgments alone (a TREC qrels file, a table"
            " with column names, JSON lines); then nothing is known of the corpus."
        ),
    ] = None,
    runs: Annotated[RunsLike | None, Field(description="Runs to measure.")] = None,
    *,
    datasets: Annotated[
        dict[str, dict[str, RunLike]] | None,
        Field(description="Several collections, each with its runs by name, for one table."),
    ] = None,
    measures: MeasuresOption = DEFAULT_MEASURES,
    baseline: Annotated[
        str | dict[str, str | list[str]] | None,
        Field(
            description="The system that the others are compared with: a name or a run's path; a"
            " mapping gives each system its own, or several."
        ),
    ] = None,
    qrels_columns: Annotated[
        str | None,
        Field(
            description="Columns of a file of judgments: roles in order, such as"
            " query,-,document,grade (- is left out), or names in its header, such as grade=label."
        ),
    ] = None,
    self_match: SelfMatchOption = "keep",
    seed: SeedOption = 42,
) -> Evaluation:
    """Evaluate runs as trec_eval does, with confidence intervals and tested differences."""
    from irdistill.evaluation import combine
    from irdistill.evaluation import evaluate as evaluate_runs

    if datasets is not None:
        return combine(
            *(
                evaluate_runs(
                    open_collection(dataset),
                    named,
                    measures,
                    baseline,
                    seed,
                    dataset,
                    self_match=self_match,
                )
                for dataset, named in datasets.items()
            )
        )
    systems = named_runs(runs)
    if isinstance(baseline, str):
        systems, baseline = with_baseline(systems, baseline)
    judged = _judged(collection, qrels_columns)
    name = str(collection) if isinstance(collection, str | Path) else None
    # paths are not opened here, as a TREC file is measured while it is read
    return evaluate_runs(judged, systems, measures, baseline, seed, name, self_match)


def _judged(collection: Any, qrels_columns: str | None) -> Any:
    from irdistill.collections import Collection, as_qrels, read_judgments

    is_file = isinstance(collection, str | Path) and Path(collection).is_file()
    if qrels_columns and not is_file:
        raise OptionError(
            f"--qrels-columns names the columns of a file of judgments, and {collection} is not"
            " one; leave it out."
        )
    if is_file:
        return read_judgments(collection, qrels_columns)
    if isinstance(collection, str | Path | Collection):
        return open_collection(collection)
    return as_qrels(collection)


@verb(
    "measure",
    positional=("collection", "models"),
    examples=("irdistill measure pydocs/test bm25 out/student/model --json costs.json",),
)
def measure(
    collection: Annotated[CollectionLike, Field(description="The queries and the corpus.")],
    models: Annotated[
        ModelsLike,
        Field(
            description="bm25, lucene, or models of any kind: folder, hub id or package: path. A"
            " list of models by one name is a fused system."
        ),
    ],
    k: Annotated[
        int, Field(ge=1, description="Documents per query to retrieve, or to rerank.")
    ] = 100,
    *,
    index: IndexOption = "flat",
    kind: Annotated[
        ModelKind | dict[str, ModelKind] | None,
        Field(description="How to read the models: one kind, or a mapping of models to kinds."),
    ] = None,
    trust_remote_code: TrustOption = False,
    queries: Annotated[int, Field(ge=1, description="Queries to time.")] = 200,
    seed: SeedOption = 42,
    dimension: Annotated[
        int | None,
        Field(ge=1, description="Truncate the vectors of Matryoshka models to this dimension."),
    ] = None,
    codes: CodeOptions = CodeOptions(),
    **settings: Any,
) -> list[Efficiency]:
    """Measure the cost of systems: latency, throughput, operations, bytes."""
    from irdistill.evaluation.efficiency import EfficiencyOptions, measure_efficiency

    loaded = open_collection(collection)
    searched = index if codes.vectors == "float" else codes
    options = EfficiencyOptions(k, searched, queries, seed, kind, trust_remote_code, dimension)
    return [
        measure_efficiency(loaded, name, parts, options)
        for name, parts in _named_models(models).items()
    ]


def _model_paths(models: Any) -> list[str]:
    return [
        model_path(model) for model in (models if isinstance(models, list | tuple) else [models])
    ]


def _named_models(models: ModelsLike) -> dict[str, list[str]]:
    if isinstance(models, Mapping):
        return {name: _model_paths(value) for name, value in models.items()}
    paths = _model_paths(models)
    return {name: [path] for name, path in zip(short_names(paths), paths, strict=True)}


@verb(
    "report",
    positional=("sources",),
    check=lambda values: _refuse_measures(values["sources"], values.get("measures", "")),
    examples=(
        "irdistill report out/bm25-test out/student-test --out report.html",
        "irdistill report out/quickstart/results.json --out report.md",
        "# A model card, as README.md of the model's folder:",
        "irdistill report out/student-test --format card --out out/student/model",
    ),
)
def report(
    sources: Annotated[
        RunsLike,
        Field(
            description="Runs, which are evaluated, or one results.json of a recipe or of evaluate"
            " --json; in Python also the result of evaluate."
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        Field(
            description="The file; for mteb and card a folder. Markdown and LaTeX are printed"
            " without one."
        ),
    ] = None,
    collection: Annotated[
        CollectionLike | None,
        Field(description="Collection of the runs (default: from their manifests)."),
    ] = None,
    measures: MeasuresOption = DEFAULT_MEASURES,
    baseline: Annotated[
        str | None, Field(description="The run that the others are compared with.")
    ] = None,
    format: Annotated[
        Literal["html", "markdown", "latex", "plot", "mteb", "card"] | None,
        Field(description="Default: from the file's name (.html, .md, .tex, .svg, .pdf, .png)."),
    ] = None,
    documents: Annotated[int, Field(ge=1, description="Documents of each list on the page.")] = 10,
    queries: Annotated[
        int, Field(ge=0, description="Queries with lists on the page: those that differ most.")
    ] = 300,
    model: Annotated[
        str | None,
        Field(description="For mteb and card: the system to write (default: the first)."),
    ] = None,
    self_match: SelfMatchOption = "keep",
    seed: SeedOption = 42,
) -> str | None:
    """Write a report: a page, tables for a paper, a plot, MTEB results or a model card.

    The page shows rankings query by query if the sources are runs. card adds the figures to the
    README.md of a model's folder; mteb writes MTEB's files into a folder of results.
    """
    from irdistill.evaluation import Evaluation
    from irdistill.evaluation.reporting.publishing import (
        Results,
        evaluate_runs,
        publish,
        read_results,
    )

    named = named_runs(sources)
    only = next(iter(named.values())) if len(named) == 1 else None
    measured = isinstance(only, Evaluation) or str(only).endswith(".json")
    if measured and self_match != "keep":
        raise OptionError(
            f"--self-match is for runs, and {next(iter(named))} holds figures that were measured"
            " already; give the runs."
        )
    if isinstance(only, Evaluation):
        results = Results(only)
    elif measured:
        results = read_results(str(only))
    else:
        results = evaluate_runs(named, collection, measures, baseline, seed, self_match)
    return publish(results, format, out, documents, queries, model)


@verb(
    "benchmark",
    positional=("suite",),
    examples=("irdistill benchmark beir --model bm25 --datasets scifact nq --out out/beir",),
)
def benchmark(
    suite: Annotated[
        str,
        Field(
            description="A card in eval/ (msmarco, trec-dl, beir, nanobeir, lotte, robust04, cast,"
            " conversations, local), or a path to one."
        ),
    ],
    out: Annotated[Path, Field(description="Folder with a folder per dataset, and results.json.")],
    *,
    model: Annotated[
        ModelLike,
        Field(
            description="bm25, lucene, or a retriever; with rerank a teacher card or any reranker."
        ),
    ] = "",
    datasets: Annotated[
        list[str] | None,
        Field(description="Only these datasets, groups or averages; NAME=FOLDER for one on disk."),
    ] = None,
    rerank: Annotated[
        RunLike,
        Field(
            description="What the model reranks: bm25, lucene, a run, or a folder with a run per"
            " dataset."
        ),
    ] = "",
    runs: Annotated[
        RunLike,
        Field(
            description="Measure these runs instead of a model: a run, or a folder with a run per"
            " dataset."
        ),
    ] = "",
    k: Annotated[
        Annotated[int, Field(ge=1)] | None,
        Field(description="Documents per query (default: the suite's)."),
    ] = None,
    index: IndexOption = "flat",
    kind: KindOption = None,
    trust_remote_code: TrustOption = False,
    data: Annotated[
        Path | None, Field(description="Folder of datasets that ir_datasets does not have.")
    ] = None,
    check: Annotated[
        bool,
        Field(
            description="Reproduce published figures (those of model, if given), and report which"
            " differ. Exits with 1 if one does."
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    seed: SeedOption = 42,
) -> Benchmark | list[Any]:
    """Measure a model on a benchmark, dataset by dataset. A stopped benchmark resumes."""
    from irdistill.evaluation.reproduction import reproduce
    from irdistill.evaluation.suite_runs import BenchmarkSystem, run_suite
    from irdistill.evaluation.suites import read_suite

    card = read_suite(suite)
    system = (
        BenchmarkSystem(
            model_path(model),
            run_path(rerank) if rerank else "",
            run_path(runs) if runs else "",
            k,
            index,
            kind,
            trust_remote_code,
        )
        if model or runs or not check
        else None
    )
    chosen = datasets or ()
    if check:
        checks = reproduce(card, out, chosen, data, overwrite=overwrite, seed=seed, system=system)
        if not checks:
            raise NotFoundError(f"the suite {card.name!r} has no published figure of this system.")
        return checks
    assert system is not None
    return run_suite(card, system, out, chosen, data, overwrite=overwrite, seed=seed)
