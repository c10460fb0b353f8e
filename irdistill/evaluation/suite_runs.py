"""The verb *benchmark*: a suite's datasets one after another, its averages, and what was published
for them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.collections.slices import split_id
from irdistill.console.progress import describe_kept, note_on_interrupt
from irdistill.errors import IrdistillError
from irdistill.evaluation.evaluator import Evaluation, combine, evaluate
from irdistill.evaluation.measure_names import is_count, parse_measures
from irdistill.evaluation.ranking_policies import PolicyRun, with_rewrites
from irdistill.evaluation.suites import Dataset, Suite
from irdistill.runs import Run, open_run
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.lexical.first_stages import is_lexical
from irdistill.storage.files import write_json
from irdistill.storage.ownership import claim_folder, is_manifest

RESULTS = "results.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class System:
    """What is measured: a model that searches, a model that reranks, or runs that there are
    already.

    Attributes:
        model: a first stage or retriever; with ``rerank`` any teacher.
        rerank: a first stage by name (``bm25``, ``lucene``), or runs.
        runs: these instead of a model. Runs are one run for one dataset, or a folder with a run
            named as each dataset (``FOLDER/scifact`` or ``FOLDER/scifact.trec``; a name's slashes
            are folders).
        depth: documents a query that are retrieved, or that are reranked; the suite's where None.
        index: of a model that searches.
        kind: how the model is read, as ``sparse``; detected from its files where None.
    """

    model: str = ""
    rerank: str = ""
    runs: str = ""
    depth: int | None = None
    index: Any = "flat"
    kind: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if bool(self.model) == bool(self.runs) or (self.rerank and self.runs):
            raise IrdistillError(
                "give either a model (and perhaps what it reranks), or runs that there are already."
            )

    @property
    def name(self) -> str:
        """As tables show it."""
        model = f"{self.model} ({self.kind})" if self.kind else self.model
        return f"{model} over {self.rerank}" if self.rerank else model or self.runs


@dataclass(frozen=True)
class Benchmark:
    """The figures of one system on a suite.

    Attributes:
        figures: of each dataset, by the suite's names.
        averages: average -> measure -> value, of those that are complete.
        refused: average -> the datasets that it lacks.
        left_out: dataset -> documents that its policies left out.
    """

    suite: Suite
    system: System
    figures: Evaluation
    averages: dict[str, dict[str, float]]
    refused: dict[str, list[str]]
    left_out: dict[str, dict[str, int]] = field(default_factory=dict)

    def value(self, where: str, measure: str) -> float | None:
        """The figure of a dataset or an average; None where there is none."""
        if where in self.averages:
            return self.averages[where].get(measure)
        values = [
            row.value for row in self.figures.rows if (row.dataset, row.measure) == (where, measure)
        ]
        return values[0] if values else None

    def to_json(self) -> dict[str, Any]:
        """As JSON holds it, at full precision."""
        return {
            "suite": self.suite.name,
            "system": self.system.name,
            "rows": self.figures.to_rows(),
            "averages": self.averages,
            "refused": self.refused,
            "left_out": self.left_out,
        }


def run_suite(
    suite: Suite,
    system: System,
    out: str | Path,
    datasets: Sequence[str] = (),
    data: str | Path | None = None,
    *,
    work: Path | None = None,
    overwrite: bool = False,
    seed: int = 42,
    opens: Callable[[str], Collection] = load_collection,
) -> Benchmark:
    """Measure a system on a suite, dataset by dataset; a stopped benchmark goes on where it was.

    Args:
        out: a folder for each dataset, with its runs; ``results.json`` beside them.
        datasets: only these: names of datasets, groups and averages. ``NAME=COLLECTION`` takes a
            folder in BEIR layout, or another id, for a dataset.
        data: the folder of the datasets that ir_datasets does not have.
        work: where indexes and vectors are kept; the cache folder where None.
        opens: opens a collection by its id.

    Raises:
        IrdistillError: a dataset is unknown, or its files are not there (found before anything is
            computed); as `retrieve` and `score`.
    """
    chosen = choose(suite, datasets)
    places = {
        name: _place(suite, suite.datasets[name], given, data) for name, given in chosen.items()
    }
    if len(chosen) > 1:
        _check_runs(suite, system, list(chosen))
    folder = Path(out)
    if any(".." in Path(name).parts or Path(name).is_absolute() for name in places):
        raise IrdistillError(
            f"a dataset of {suite.name} has a name that is not a folder's: {', '.join(places)}."
        )
    claim_folder(
        folder,
        [RESULTS],
        "a benchmark",
        lambda name: is_manifest(folder / RESULTS, ("suite", "system")),
    )
    found: list[Evaluation] = []
    left_out: dict[str, dict[str, int]] = {}
    for number, (name, place) in enumerate(places.items(), 1):
        logger.info("[%d/%d] %s", number, len(places), name)
        dataset = suite.datasets[name]
        collection = opens(place)
        if dataset.queries == "rewrite":
            collection = with_rewrites(collection)
        with note_on_interrupt(
            partial(describe_kept, number - 1, len(places), f"datasets in {folder}")
        ):
            run = _run_of(
                suite,
                system,
                collection,
                dataset,
                folder / name,
                work,
                overwrite,
                seed,
                len(places) > 1,
            )
        depth = system.depth or (suite.rerank_depth if system.rerank else suite.depth)
        counted = PolicyRun(
            run, collection, dataset.self_match == "drop", dataset.duplicates == "drop", depth
        )
        figures = evaluate(
            collection, {system.name: counted}, dataset.measures or suite.measures, seed=seed
        )
        found.append(figures.under(name))
        left_out[name] = {
            "excluded": counted.excluded,
            "self_matches": counted.self_matches,
            "duplicates": counted.duplicates,
        }
    figures = combine(*found)
    averages, refused = average(suite, figures)
    result = Benchmark(suite, system, figures, averages, refused, left_out)
    write_json(folder / RESULTS, result.to_json())
    return result


def choose(suite: Suite, datasets: Sequence[str]) -> dict[str, str]:
    """Dataset -> the collection that stands for it, or an empty text, in the suite's order; all of
    them where none is named.

    Raises:
        IrdistillError: a name is unknown.
    """
    chosen: dict[str, str] = {}
    for word in datasets or list(suite.datasets):
        name, equals, given = word.partition("=")
        members = suite.members(name)
        if equals and (not given or len(members) != 1):
            raise IrdistillError(
                f"{word!r} cannot be read; write NAME=FOLDER, with the name of one dataset."
            )
        chosen |= {dataset.name: given or chosen.get(dataset.name, "") for dataset in members}
    return {name: chosen[name] for name in suite.datasets if name in chosen}


def average(
    suite: Suite, figures: Evaluation
) -> tuple[dict[str, dict[str, float]], dict[str, list[str]]]:
    """A suite's averages, with a group counted once; one that lacks a dataset is not computed: what
    it lacks is named.

    Measures that count documents or queries have no average.

    Returns:
        average -> measure -> value, and average -> the datasets missing.
    """
    values = {(row.dataset, row.measure): row.value for row in figures.rows}
    averages: dict[str, dict[str, float]] = {}
    refused: dict[str, list[str]] = {}
    averaged = [measure for measure in figures.measures if not is_count(parse_measures(measure)[0])]
    for name, parts in suite.averages.items():
        missing = [
            dataset.name for dataset in suite.members(name) if dataset.name not in figures.datasets
        ]
        if missing:
            refused[name] = missing
            continue
        members = [[dataset.name for dataset in suite.members(part)] for part in parts]
        averages[name] = {
            measure: float(
                np.mean(
                    [np.mean([values[dataset, measure] for dataset in part]) for part in members]
                )
            )
            for measure in averaged
            if all((dataset, measure) in values for part in members for dataset in part)
        }
    return averages, refused


def _place(suite: Suite, dataset: Dataset, given: str, data: str | Path | None) -> str:
    """What to open for a dataset."""
    if given or dataset.id:
        return given or dataset.id
    folder = Path(data or ".") / split_id(dataset.folder)[0]
    if not folder.is_dir():
        raise IrdistillError(
            f"the dataset {dataset.name!r} of the suite {suite.name!r} is not one of ir_datasets,"
            f" and there is no folder {folder}. Get it as it is published, or bring it into BEIR"
            f" layout, and say where it lies: --data FOLDER, with {dataset.folder} in it, or"
            f" --datasets {dataset.name}=FOLDER.{' ' + dataset.note if dataset.note else ''}"
        )
    return str(Path(data or ".").absolute() / dataset.folder)


def _check_runs(suite: Suite, system: System, names: Sequence[str]) -> None:
    for given in (system.runs, "" if is_lexical(system.rerank) else system.rerank):
        for name in names if given else ():
            _supplied(given, name, True)


def _supplied(given: str, name: str, several: bool) -> Path:
    """The run of a dataset among those given."""
    path = Path(given)
    if not several and (path.is_file() or (path / "manifest.json").is_file()):
        return path
    for found in (
        path / name,
        *(path / f"{name}{ending}" for ending in (".trec", ".txt", ".trec.gz", ".txt.gz")),
    ):
        if found.exists():
            return found
    raise IrdistillError(
        f"there is no run for the dataset {name!r} in {given}; name it {path / name} or"
        f" {path / name}.trec."
    )


def _run_of(
    suite: Suite,
    system: System,
    collection: Collection,
    dataset: Dataset,
    folder: Path,
    work: Path | None,
    overwrite: bool,
    seed: int,
    several: bool,
) -> Run:
    """The run to be measured: searched for, reranked, or opened."""
    if system.runs:
        return open_run(_supplied(system.runs, dataset.name, several), collection)
    spare = dataset.self_match == "drop"
    if not system.rerank:
        return retrieve(
            collection,
            system.model,
            folder / "run",
            (system.depth or suite.depth) + spare,
            RetrieveOptions(
                index=system.index,
                seed=seed,
                kind=system.kind,  # type: ignore[arg-type]
                trust_remote_code=system.trust_remote_code,
            ),
            overwrite=overwrite,
            work=work,
        )
    from irdistill.teachers import ScoreOptions, TeacherSpec, responses_file, score

    depth = (system.depth or suite.rerank_depth) + spare
    candidates: Run | Path = (
        retrieve(
            collection,
            system.rerank,
            folder / "candidates",
            depth,
            overwrite=overwrite,
            work=work,
        )
        if is_lexical(system.rerank)
        else _supplied(system.rerank, dataset.name, several)
    )
    teacher = TeacherSpec(
        system.model,
        system.kind,
        work,
        responses_file(folder / "run"),
        {"trust_remote_code": True} if system.trust_remote_code else {},
    )
    options = ScoreOptions(k=depth, overwrite=overwrite)
    return score(collection, candidates, teacher, folder / "run", options)
