"""The verb *benchmark*: a system on the datasets of a suite, with the suite's averages."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.collections.slices import split_id
from irdistill.console.progress_bars import describe_kept, note_on_interrupt
from irdistill.console.terminal import counted
from irdistill.errors import InputError, NotFoundError, OptionError
from irdistill.evaluation.evaluator import combine, evaluate
from irdistill.evaluation.figures import Evaluation
from irdistill.evaluation.measure_names import is_count, parse_measures
from irdistill.evaluation.ranking_policies import PolicyRun, with_rewrites
from irdistill.evaluation.reporting.findings import Finding, Table, cell
from irdistill.evaluation.reporting.rendering import Displayed
from irdistill.evaluation.suites import Dataset, Suite
from irdistill.runs import Run, open_run
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.lexical.first_stages import is_lexical
from irdistill.storage.files import write_json
from irdistill.storage.ownership import claim_folder, is_manifest

RESULTS = "results.json"
ENDINGS = ("", ".trec", ".txt", ".trec.gz", ".txt.gz")
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class BenchmarkSystem:
    """The system that a benchmark measures: a retriever, a reranker, or existing runs.

    Attributes:
        model: a first stage or retriever; with ``rerank`` any teacher.
        rerank: a first stage by name (``bm25``, ``lucene``), or runs.
        runs: existing runs instead of a model. Runs are one run for one dataset, or a folder with a
            run named as each dataset (``FOLDER/scifact`` or ``FOLDER/scifact.trec``; slashes in a
            name are folders).
        k: documents per query that are retrieved or reranked; the suite's if None.
        index: index of a model that searches.
        kind: kind of the model, such as ``sparse``; detected from its files if None.
    """

    model: str = ""
    rerank: str = ""
    runs: str = ""
    k: int | None = None
    index: Any = "flat"
    kind: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.runs) or (self.rerank and self.runs):
            raise OptionError("give either a model (with or without rerank) or existing runs.")

    @property
    def name(self) -> str:
        """The name in tables."""
        model = f"{self.model} ({self.kind})" if self.kind else self.model
        return f"{model} over {self.rerank}" if self.rerank else model or self.runs

    def k_on(self, suite: Suite) -> int:
        """Documents per query on a suite."""
        return self.k or (suite.rerank_k if self.rerank else suite.k)


@dataclass(frozen=True, repr=False)
class Benchmark(Displayed):
    """The figures of one system on a suite.

    Attributes:
        figures: figures of each dataset, by the suite's names.
        averages: average -> measure -> value, of complete averages.
        refused: average -> its missing datasets.
        left_out: dataset -> policy -> number of documents left out.
    """

    suite: Suite
    system: BenchmarkSystem
    figures: Evaluation
    averages: dict[str, dict[str, float]]
    refused: dict[str, list[str]]
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)

    def value(self, where: str, measure: str) -> float | None:
        """The figure of a dataset or an average; None if there is none."""
        if where in self.averages:
            return self.averages[where].get(measure)
        rows = self.figures.rows
        return next(
            (row.value for row in rows if (row.dataset, row.measure) == (where, measure)), None
        )

    def to_rows(self) -> list[dict[str, Any]]:
        """The figures of all datasets, at full precision."""
        return self.figures.to_rows()

    def to_json(self) -> dict[str, Any]:
        """Everything at full precision."""
        return {
            "suite": self.suite.name,
            "system": self.system.name,
            "rows": self.to_rows(),
            "averages": self.averages,
            "refused": self.refused,
            "left_out": self.left_out,
        }

    def findings(self) -> list[Finding]:
        """One table of all datasets and averages, and what was left out."""
        measures, first = self.figures.measures, {row.dataset: row for row in self.figures.rows}

        def cells(name: str) -> list[str]:
            return [cell(self.value(name, measure), ".4f") for measure in measures]

        rows = [[dataset, str(row.n), *cells(dataset)] for dataset, row in first.items()]
        rows += [[f"**{name}**", "", *cells(name)] for name in self.averages]
        notes = [
            f"{name}: {counted(row.missing, 'query')} without a result count as 0;"
            f" {counted(row.unscored, 'document')} unscored."
            for name, row in first.items()
            if row.missing or row.unscored
        ]
        for name, counts in self.left_out.items():
            parts = [f"{count} {what.replace('_', ' ')}" for what, count in counts.items() if count]
            notes += [f"{name}: left out {', '.join(parts)}."] if parts else []
        notes += [
            f"{name}: no average without {', '.join(missing)}."
            for name, missing in self.refused.items()
        ]
        datasets = [self.suite.datasets[name] for name in first]
        notes += [f"{dataset.name}: {dataset.note}" for dataset in datasets if dataset.note]
        table = Table(["dataset", "queries", *measures], rows)
        text = [f"{self.suite.name}: {self.system.name}"]
        return [Finding("figures", text=text, tables=[table], notes=notes)]


def run_suite(
    suite: Suite,
    system: BenchmarkSystem,
    out: str | Path,
    datasets: Sequence[str] = (),
    data: str | Path | None = None,
    *,
    work: Path | None = None,
    overwrite: bool = False,
    seed: int = 42,
) -> Benchmark:
    """Measure a system on a suite, dataset by dataset; a stopped benchmark resumes.

    Args:
        out: folder with a folder per dataset for its runs, and ``results.json``.
        datasets: only these: names of datasets, groups and averages. ``NAME=COLLECTION`` uses a
            folder in BEIR layout, or another id, for a dataset.
        data: folder of the datasets that ir_datasets does not have.
    """
    chosen = choose(suite, datasets)
    places = {
        name: _place(suite, suite.datasets[name], place, data) for name, place in chosen.items()
    }
    several = len(chosen) > 1
    for source in (system.runs, "" if is_lexical(system.rerank) else system.rerank):
        for name in chosen if several and source else ():
            _run_path(source, name, True)
    folder = Path(out)
    if any(".." in Path(name).parts or Path(name).is_absolute() for name in places):
        raise InputError(
            f"a dataset of {suite.name} has a name that is not a folder's: {', '.join(places)}."
        )
    claim_folder(
        folder,
        [RESULTS],
        "a benchmark",
        lambda name: is_manifest(folder / RESULTS, ("suite", "system")),
    )
    jobs = _Jobs(suite, system, several, work, overwrite, seed)
    evaluations: list[Evaluation] = []
    left_out: dict[str, dict[str, int]] = {}
    for number, (name, place) in enumerate(places.items(), 1):
        logger.info("[%d/%d] %s", number, len(places), name)
        with note_on_interrupt(
            partial(describe_kept, number - 1, len(places), f"datasets in {folder}")
        ):
            evaluation, left_out[name] = jobs.measure(name, place, folder / name)
        evaluations.append(evaluation)
    figures = combine(*evaluations)
    averages, refused = average(suite, figures)
    result = Benchmark(suite, system, figures, averages, refused, left_out)
    write_json(folder / RESULTS, result.to_json())
    return result


def choose(suite: Suite, datasets: Sequence[str]) -> dict[str, str]:
    """Dataset -> the collection given for it, or an empty text, in the suite's order.

    All datasets if none is named.

    Raises:
        NotFoundError: a name is unknown.
        OptionError: a collection is given for a name of several datasets.
    """
    chosen: dict[str, str] = {}
    for text in datasets or list(suite.datasets):
        name, equals, place = text.partition("=")
        members = suite.members(name)
        if equals and (not place or len(members) != 1):
            raise OptionError(
                f"{text!r} cannot be read; write NAME=FOLDER, with the name of one dataset."
            )
        chosen |= {dataset.name: place or chosen.get(dataset.name, "") for dataset in members}
    return {name: chosen[name] for name in suite.datasets if name in chosen}


def average(
    suite: Suite, figures: Evaluation
) -> tuple[dict[str, dict[str, float]], dict[str, list[str]]]:
    """A suite's averages, with each group counted once.

    Measures that count documents or queries have no average.

    Returns:
        average -> measure -> value, of the complete averages; and average -> missing datasets, of
        the others.
    """
    values = {(row.dataset, row.measure): row.value for row in figures.rows}
    averages: dict[str, dict[str, float]] = {}
    refused: dict[str, list[str]] = {}
    averaged = [measure for measure in figures.measures if not is_count(parse_measures(measure)[0])]
    for name, parts in suite.averages.items():
        datasets = [dataset.name for dataset in suite.members(name)]
        missing = [dataset for dataset in datasets if dataset not in figures.datasets]
        if missing:
            refused[name] = missing
            continue
        groups = [[dataset.name for dataset in suite.members(part)] for part in parts]
        averages[name] = {
            measure: float(
                np.mean(
                    [np.mean([values[member, measure] for member in group]) for group in groups]
                )
            )
            for measure in averaged
            if all((dataset, measure) in values for dataset in datasets)
        }
    return averages, refused


def _place(suite: Suite, dataset: Dataset, place: str, data: str | Path | None) -> str:
    """The id or folder to open for a dataset."""
    if place or dataset.id:
        return place or dataset.id
    folder = Path(data or ".") / split_id(dataset.folder)[0]
    if not folder.is_dir():
        raise NotFoundError(
            f"the dataset {dataset.name!r} of the suite {suite.name!r} is not in ir_datasets, and"
            f" there is no folder {folder}. Get the published data, or convert it to BEIR layout,"
            f" and say where it is: --data FOLDER, with {dataset.folder} in it, or --datasets"
            f" {dataset.name}=FOLDER.{' ' + dataset.note if dataset.note else ''}"
        )
    return str(Path(data or ".").absolute() / dataset.folder)


def _run_path(source: str, name: str, several: bool) -> Path:
    """The path of a dataset's run."""
    path = Path(source)
    if not several and (path.is_file() or (path / "manifest.json").is_file()):
        return path
    for ending in ENDINGS:
        if (path / f"{name}{ending}").exists():
            return path / f"{name}{ending}"
    raise NotFoundError(
        f"there is no run for the dataset {name!r} in {source}; name it {path / name} or"
        f" {path / name}.trec."
    )


@dataclass(frozen=True)
class _Jobs:
    """Retrieves, reranks or opens the run of each dataset."""

    suite: Suite
    system: BenchmarkSystem
    several: bool
    work: Path | None
    overwrite: bool
    seed: int

    def measure(self, name: str, place: str, folder: Path) -> tuple[Evaluation, dict[str, int]]:
        """The figures of one dataset, and the number of documents that each policy left out."""
        dataset, collection = self.suite.datasets[name], load_collection(place)
        if dataset.queries == "rewrite":
            collection = with_rewrites(collection)
        run = PolicyRun(
            self.run(collection, dataset, folder),
            collection,
            dataset.self_match == "drop",
            dataset.duplicates == "drop",
            self.system.k_on(self.suite),
        )
        measures = dataset.measures or self.suite.measures
        runs = {self.system.name: run}
        evaluation = evaluate(collection, runs, measures, seed=self.seed, name=name)
        return evaluation, run.left_out._asdict()

    def run(self, collection: Collection, dataset: Dataset, folder: Path) -> Run:
        """The run of one dataset."""
        system, work, overwrite = self.system, self.work, self.overwrite
        if system.runs:
            return open_run(_run_path(system.runs, dataset.name, self.several), collection)
        # one more, as a self match is dropped
        k = system.k_on(self.suite) + (dataset.self_match == "drop")
        if not system.rerank:
            options = RetrieveOptions(
                index=system.index,
                seed=self.seed,
                kind=system.kind,  # type: ignore[arg-type]
                trust_remote_code=system.trust_remote_code,
            )
            out = folder / "run"
            return retrieve(
                collection, system.model, out, k, options, overwrite=overwrite, work=work
            )
        from irdistill.teachers import ScoreOptions, TeacherSpec, responses_file, score

        candidates: Run | Path
        if is_lexical(system.rerank):
            out = folder / "candidates"
            candidates = retrieve(collection, system.rerank, out, k, overwrite=overwrite, work=work)
        else:
            candidates = _run_path(system.rerank, dataset.name, self.several)
        teacher = TeacherSpec(
            system.model,
            system.kind,
            work,
            responses_file(folder / "run"),
            {"trust_remote_code": True} if system.trust_remote_code else {},
        )
        score_options = ScoreOptions(k=k, overwrite=overwrite)
        return score(collection, candidates, teacher, folder / "run", score_options)
