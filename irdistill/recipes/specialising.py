"""Specialise a retriever to a corpus, without labels, by a recipe made for corpus, model and time.

Two steps, both of the query tower alone, so that passages are encoded once and existing indexes of
the model stay valid:

1. Term vectors (`irdistill.training.term_vector_fitting`): BM25 distilled into the query tower in
   closed form. This is all that the default teacher, the model fused with BM25, can teach, and
   takes seconds.
2. For another teacher, training as in CADET (Tamber et al. 2025, arXiv:2502.19712): queries are
   generated from the passages, the teacher orders candidates for them, and the tower learns its
   distribution. By default queries are titles and sentences of the passages, which need no
   language model. The steps are planned from the time that is left. A model with half of what was
   learned, and the trained one, are kept only if a probe does not fall
   (`irdistill.recipes.specialise_verdict`).
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from irdistill.collections import Collection, load_collection
from irdistill.collections.passage_corpus import reading_corpus
from irdistill.errors import SettingsDifferError
from irdistill.modeling.model_files import resolve_model
from irdistill.recipes.recipe import fill, read_recipe
from irdistill.recipes.runner import recorded_seconds, run_recipe
from irdistill.recipes.specialise_budget import (
    TimeBudget,
    TrainingBudget,
    measure_budget,
    plan_training,
)
from irdistill.recipes.specialise_options import SpecialiseOptions
from irdistill.recipes.specialise_stages import MEASURES, STAGES, SpecialiseStages
from irdistill.recipes.specialise_verdict import (
    BEFORE,
    TRAINED,
    Choice,
    ReportQueries,
    choose_system,
    verdict_lines,
)
from irdistill.recipes.summary import SEARCH
from irdistill.storage.files import differences, make_folder, read_json, write_json, write_text
from irdistill.storage.locking import lock_folder
from irdistill.storage.ownership import claim_folder, is_manifest
from irdistill.students.keep_report import KeepReport
from irdistill.verbs import load_verb

logger = logging.getLogger(__name__)

RECIPE, PLAN = "recipe.yaml", "plan.json"


@dataclass(frozen=True)
class Specialised:
    """The result of `specialise`.

    Attributes:
        folder: with ``recipe.yaml``, ``report.md`` and ``results.json``.
        model: folder of the specialised model.
    """

    folder: Path
    model: Path

    @property
    def report(self) -> str:
        """The report as Markdown."""
        return (self.folder / "report.md").read_text(encoding="utf-8")

    def __repr__(self) -> str:
        return f"{self.report}\nModel: {self.model}"

    def to_json(self) -> dict[str, Any]:
        """The figures."""
        return dict(read_json(self.folder / "results.json"))


def specialise_model(
    collection: str, model: str, out: Path, options: SpecialiseOptions, overwrite: bool = False
) -> Specialised:
    """Specialise a retriever to the corpus of a collection; resumes where it was stopped.

    ``OUT/recipe.yaml`` is the recipe that was run, ``OUT/report.md`` the table: before and after,
    on held-out synthetic queries, and on the collection's queries if it has judgments.

    Raises:
        SettingsDifferError: ``out`` was started with other settings.
        IrdistillError: as `measure_budget`, or as any stage of the recipe.
    """
    opened = load_collection(collection, queries=False)
    claim_folder(
        out,
        [PLAN, RECIPE],
        "a specialised model",
        lambda name: is_manifest(out / PLAN, ("options", "budget")),
    )
    # between two runs of the stages, too, another process must not begin
    with lock_folder(make_folder(out / "stages")):
        return _specialise(opened, collection, model, out, options, overwrite)


def _specialise(
    opened: Collection,
    collection: str,
    model: str,
    out: Path,
    options: SpecialiseOptions,
    overwrite: bool,
) -> Specialised:
    plan = _Plan(out / PLAN, _settings(opened, collection, model, options), overwrite)
    budget = TimeBudget(**plan.recorded("budget", lambda: measure_budget(opened, model, options)))
    stages = SpecialiseStages(collection, model, bool(len(opened.qrels)), options, budget)
    run = partial(_run_stages, out=out, seed=options.seed, overwrite=overwrite)
    run(stages.recipe())
    training = TrainingBudget(0)
    if options.trainings:
        planned = plan.recorded("training", lambda: _plan_training(stages, out))
        training = TrainingBudget(**planned)
        run(stages.recipe(training.steps))
    tested = ReportQueries(f"{out / 'queries'}#dev", options.query_kinds)
    chosen = plan.recorded("choice", lambda: _choose(stages, out, training.steps, tested))
    choice = Choice(chosen["system"], tuple(chosen["lines"]))
    run(stages.recipe(training.steps, choice.system))
    rows = read_json(out / "results.json")["rows"]
    lines = verdict_lines(rows, tested, choice)
    if options.keep and options.refined and training.steps:
        lines.insert(0, KeepReport.read(out / STAGES[TRAINED]).sentence)
    if options.trainings and not training.steps:
        lines.insert(
            0, f"The query tower was not trained: {options.minutes:g} minutes are too few."
        )
    unchanged = choice.system == BEFORE
    kept = Path(resolve_model(model)) if unchanged else out / STAGES[choice.system] / "model"
    _finish_report(out / "report.md", lines, collection, kept)
    return Specialised(out, kept)


def _finish_report(path: Path, lines: list[str], collection: str, model: Path) -> None:
    """Add the verdict, and how to search with the model that is kept."""
    tables = path.read_text(encoding="utf-8").partition(SEARCH)[0].rstrip()
    words = "\n".join(f"- {line}" for line in lines)
    search = f'irdistill search "{collection}" "a question of your own" --model {model}'
    write_text(path, f"{tables}\n\n## In words\n\n{words}\n\n{SEARCH}\n\n```\n{search}\n```\n")


class _Plan:
    """``plan.json``: what was measured and decided once, so that a resumed job does the same."""

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool) -> None:
        """Open the plan of a folder, or begin one.

        Raises:
            SettingsDifferError: the folder has the plan of other settings.
        """
        self.path = path
        self.content: dict[str, Any] = {"options": settings}
        if not path.is_file() or overwrite:
            return
        self.content = read_json(path)
        if self.content["options"] != settings:
            changed = "; ".join(differences(self.content["options"], settings))
            raise SettingsDifferError(
                f"{path.parent} was started with other settings ({changed}); choose another --out,"
                " or give --overwrite."
            )

    def recorded(self, name: str, make: Callable[[], Any]) -> dict[str, Any]:
        """The fields of a dataclass, made and written once."""
        if name not in self.content:
            self.content[name] = asdict(make())
            make_folder(self.path.parent)
            write_json(self.path, self.content)
            logger.info("%s: %s", name, self.content[name])
            self.content = read_json(self.path)
        return dict(self.content[name])


def _settings(
    opened: Collection, collection: str, model: str, options: SpecialiseOptions
) -> dict[str, Any]:
    """Everything that decides the result, besides what is measured."""
    return asdict(options) | {
        "collection": collection,
        "model": model,
        "corpus": reading_corpus(opened.corpus).fingerprint,
        "judged": len(opened.qrels),
        "kinds": list(options.query_kinds),
        "rules": list(options.rules),
        "keep": list(options.keep),
    }


def _run_stages(stages: dict[str, Any], out: Path, seed: int, overwrite: bool) -> None:
    """Write the recipe and run its stages that are not done."""
    text = yaml.safe_dump(stages, sort_keys=False, allow_unicode=True, width=120)
    write_text(make_folder(out) / RECIPE, text)
    run_recipe(read_recipe(out / RECIPE), out, seed, overwrite)


def _plan_training(stages: SpecialiseStages, out: Path) -> TrainingBudget:
    """Time a training of a few steps in a temporary folder, and plan the real one."""
    train = load_verb("train")

    def train_for(steps: int) -> None:
        arguments = dict(stages.training_stage(steps))
        del arguments["name"], arguments["verb"]
        paths = {"queries": str(out / "queries"), "good": str(out / "good")}
        paths |= {"terms": str(out / "terms" / "model")}
        paths |= {"teacher-train": str(out / "teacher-train")}
        with tempfile.TemporaryDirectory() as folder:
            filled = fill(arguments, paths) | {"out": Path(folder)}
            train.call(train.check(filled | {"seed": stages.options.seed}))

    queries = len(load_collection(f"{out / 'queries'}#train").queries)
    return plan_training(
        stages.options, recorded_seconds(out), stages.budget.seconds, queries, train_for
    )


def _choose(stages: SpecialiseStages, out: Path, steps: int, tested: ReportQueries) -> Choice:
    """Measure the candidates, and choose one by the probe."""
    evaluate = load_verb("evaluate")
    systems = {name: STAGES[name] for name in stages.candidates(steps)}
    datasets = {
        tested.synthetic if split == "dev" else collection: {
            name: str(out / f"{stage}-{split}") for name, stage in systems.items()
        }
        for split, collection in stages.tested.items()
    }
    values = {
        "datasets": datasets,
        "measures": MEASURES.split()[0],
        "baseline": {name: BEFORE for name in systems if name != BEFORE},
    }
    rows = evaluate.call(evaluate.check(values)).to_rows()
    return choose_system(rows, tested)
