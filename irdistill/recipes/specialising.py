"""Specialise a retriever to a corpus, without labels, by a recipe made for corpus, model and time.

Two steps, both of the query tower alone, so that passages are encoded once and existing indexes of
the model stay valid:

1. Term vectors (`irdistill.training.term_vector_fitting`): BM25 distilled into the query tower in
   closed form. This is all that the default teacher, the model fused with BM25, can teach, and
   takes seconds.
2. For another teacher, training as in CADET (Tamber et al. 2025, arXiv:2502.19712): queries are
   generated from the passages, the teacher orders candidates for them, and the tower learns its
   distribution. By default queries are titles and sentences of the passages, which need no
   language model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from irdistill.collections import Collection, load_collection
from irdistill.errors import OptionError, SettingsDifferError
from irdistill.evaluation.reporting.dataset_names import short_names
from irdistill.queries.query_kinds import split_sentences
from irdistill.recipes.recipe import read_recipe
from irdistill.recipes.runner import run_recipe
from irdistill.recipes.specialise_options import FUSED, SpecialiseOptions
from irdistill.storage.files import differences, read_json, write_json, write_text
from irdistill.storage.ownership import claim_folder, is_manifest
from irdistill.students import DenseStudent
from irdistill.students.build import load_dense
from irdistill.students.towers import one_tower

logger = logging.getLogger(__name__)

RECIPE, PLAN = "recipe.yaml", "plan.json"
_MEASURED = 96
_STEP_COST = 3.0
"""A step costs about three times what encoding its queries does: forward, and backward twice that.
"""
_EPOCHS = 12.0
_LEAST_STEPS, _LEAST_QUERIES = 50, 200
_PATIENCE, _EVALUATE_EVERY, _HELD_OUT = 3, 50, 0.1
"""Training ends when the loss on a tenth of the queries, held out, has not fallen three times in a
row.
"""


@dataclass(frozen=True)
class TimeBudget:
    """How much fits into the time; measured once on this machine and kept, so that a resumed job
    does the same.

    Attributes:
        passages: source passages of queries; None for all.
        sentences: queries of the kind sentence per passage.
        steps: steps of each training.
        passages_per_second, queries_per_second: speed of the model's encoder.
    """

    passages: int | None
    sentences: int
    steps: int
    passages_per_second: float
    queries_per_second: float


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


def measure_budget(collection: Collection, model: str, options: SpecialiseOptions) -> TimeBudget:
    """Measure the model on some passages and sentences, and divide the time."""
    corpus = collection.corpus
    student = load_dense(model, options.kind, trust_remote_code=options.trust_remote_code)
    one_tower(student.model, f"the model {model!r}")
    draw = np.random.default_rng(options.seed)
    texts = corpus.texts(np.sort(draw.permutation(len(corpus))[:_MEASURED]))
    queries = [split[0] for split in map(split_sentences, texts) if split] or texts
    rates = [_rate(student, texts, "document"), _rate(student, queries, "query")]
    seconds = options.minutes * 60
    left = seconds - len(corpus) / rates[0]
    if left < 0.2 * seconds:
        raise OptionError(
            f"encoding the {len(corpus)} passages of {collection.id!r} alone takes about"
            f" {len(corpus) / rates[0] / 60:.0f} of {options.minutes:g} minutes on this machine;"
            " give more time (--time), or a smaller model."
        )
    writing, training = 0.15 * left, 0.6 * left
    most_queries = max(_LEAST_QUERIES, int(writing * rates[1]))
    per_passage = 4 if most_queries > 5 * len(corpus) else 2
    kinds = options.query_kinds
    each = per_passage * ("sentence" in kinds) + sum(kind != "sentence" for kind in kinds)
    passages = max(1, most_queries // each)
    expected = min(passages, len(corpus)) * each
    steps = int(training / max(1, options.trainings) * rates[1] / (_STEP_COST * options.batch_size))
    steps = max(_LEAST_STEPS, min(steps, int(_EPOCHS * expected / options.batch_size)))
    return TimeBudget(passages if passages < len(corpus) else None, per_passage, steps, *rates)


def _rate(student: DenseStudent, texts: list[str], side: Literal["query", "document"]) -> float:
    student.encode(texts[:8], side, show_progress=False)  # the first call is slow
    began = time.perf_counter()
    student.encode(texts, side, show_progress=False)
    return len(texts) / (time.perf_counter() - began)


def specialise_model(
    collection: str, model: str, out: Path, options: SpecialiseOptions, overwrite: bool = False
) -> Specialised:
    """Specialise a retriever to the corpus of a collection; resumes where it was stopped.

    ``OUT/recipe.yaml`` is the recipe that was run, ``OUT/report.md`` the table: before and after,
    on held-out synthetic queries, and on the collection's queries if it has judgments.
    """
    opened = load_collection(collection, queries=False)
    claim_folder(
        out,
        [PLAN, RECIPE],
        "a specialised model",
        lambda name: is_manifest(out / PLAN, ("options", "budget")),
    )
    budget = _kept_budget(opened, collection, model, out, options, overwrite)
    stages = specialise_recipe(collection, model, bool(len(opened.qrels)), options, budget)
    text = yaml.safe_dump(stages, sort_keys=False, allow_unicode=True, width=120)
    write_text(out / RECIPE, text)
    run_recipe(read_recipe(out / RECIPE), out, options.seed, overwrite)
    lines = verdict_lines(read_json(out / "results.json")["rows"])
    report = (out / "report.md").read_text(encoding="utf-8").rstrip()
    words = "".join(f"- {line}\n" for line in lines)
    write_text(out / "report.md", f"{report}\n\n## In words\n\n{words}")
    return Specialised(out, out / ("specialised" if options.refined else "terms") / "model")


def _kept_budget(
    opened: Collection,
    collection: str,
    model: str,
    out: Path,
    options: SpecialiseOptions,
    overwrite: bool,
) -> TimeBudget:
    """The budget in the folder, or a new one."""
    settings = asdict(options) | {
        "collection": collection,
        "model": model,
        "corpus": opened.corpus.fingerprint,
        "judged": len(opened.qrels),
        "kinds": list(options.query_kinds),
        "rules": list(options.rules),
    }
    path = out / PLAN
    if path.is_file() and not overwrite:
        kept = read_json(path)
        if kept["options"] != settings:
            changed = "; ".join(differences(kept["options"], settings))
            raise SettingsDifferError(
                f"{out} was started with other settings ({changed}); choose another --out, or give"
                " --overwrite."
            )
        return TimeBudget(**kept["budget"])
    budget = measure_budget(opened, model, options)
    write_json(path, {"options": settings, "budget": asdict(budget)})
    steps = f": {budget.steps} steps" if options.trainings else ""
    logger.info(
        "%.0f passages and %.0f queries a second here%s",
        budget.passages_per_second,
        budget.queries_per_second,
        steps,
    )
    return budget


def specialise_recipe(
    collection: str, model: str, judged: bool, options: SpecialiseOptions, budget: TimeBudget
) -> dict[str, Any]:
    """The recipe as a mapping, which a user may read, change and run again."""
    splits = {"train": "${queries}#train", "dev": "${queries}#dev"}
    splits |= {"real": collection} if judged else {}
    tested = [split for split in splits if split != "train"]
    stages = [_queries_stage(collection, options, budget)]
    opened = {"model": model, **options.model_options}
    stages.append({"name": "terms", "verb": "terms", "collection": splits["train"], **opened})
    for split in splits if options.trainings else tested:
        stages += _teacher_stages(split, splits[split], model, options)
    learned = splits["train"]
    if options.rules and options.trainings:
        stages.append(
            {
                "name": "good",
                "verb": "filter",
                "collection": learned,
                "rules": list(options.rules),
                "scores": "${teacher-train}",
                "retrieved": "${before-train}",
            }
        )
        learned = "${good}#train"
    students = _training_stages(learned, model, options, budget)
    stages += students
    for name in ("terms", *(stage["name"] for stage in students)):
        stages += [
            {
                "name": f"{name}-{split}",
                "verb": "retrieve",
                "collection": splits[split],
                "model": f"${{{name}}}",
                "k": 100,
            }
            for split in tested
        ]
    stages.append(_figures_stage({split: splits[split] for split in reversed(tested)}, options))
    return {
        "name": "specialise",
        "description": f"{model} specialised to the corpus of {collection}, without labels.",
        "settings": {},
        "stages": stages,
    }


def _queries_stage(
    collection: str, options: SpecialiseOptions, budget: TimeBudget
) -> dict[str, Any]:
    llm = {"llm": options.llm} if options.llm else {}
    return {
        "name": "queries",
        "verb": "generate",
        "collection": collection,
        "kinds": list(options.query_kinds),
        "passages": budget.passages,
        "sentences": budget.sentences,
        "avoid": options.avoid,
        **llm,
    }


def _training_stages(
    collection: str, model: str, options: SpecialiseOptions, budget: TimeBudget
) -> list[dict[str, Any]]:
    """The student, and the two controls that are trained with one loss each."""
    contrastive = f'InfoNCE(tau={options.tau}, positive_by="teacher")'
    both = f"KL(tau={options.tau}, teacher_tau={options.teacher_tau}) + 0.1*{contrastive}"
    trusted = {"trust_remote_code": True} if options.trust_remote_code else {}
    plain: dict[str, Any] = {"backbone": model, "freeze_documents": True, **trusted}
    students: list[tuple[str, str, dict[str, Any]]] = []
    if options.refined:
        students.append(("specialised", both, {"backbone": "${terms}"}))
    if options.control:
        students += [("kl-alone", both, plain), ("infonce-alone", contrastive, plain)]
    return [
        {
            "name": name,
            "verb": "train",
            "collection": collection,
            "scores": "${teacher-train}",
            "loss": loss,
            **start,
            "steps": budget.steps,
            "batch_size": options.batch_size,
            "list_size": options.list_size,
            "learning_rate": options.learning_rate,
            "dropout": False,
            "positives": False,
            "early_stop": _PATIENCE,
            "validate": _HELD_OUT,
            "validate_every": _EVALUATE_EVERY,
            "validate_measures": "loss",
            "validate_queries": 0,
            "checkpoint_every": 200,
        }
        for name, loss, start in students
    ]


def _figures_stage(splits: Mapping[str, str], options: SpecialiseOptions) -> dict[str, Any]:
    after = (
        {"term vectors": "terms", "after": "specialised"} if options.refined else {"after": "terms"}
    )
    controls = {"KL alone": "kl-alone", "InfoNCE alone": "infonce-alone"}
    systems = {"before": "before", "BM25": "bm25", "teacher": "teacher", **after}
    systems |= controls if options.control else {}
    return {
        "name": "figures",
        "verb": "evaluate",
        "measures": "nDCG@10 R@100",
        "baseline": {name: "before" for name in systems if name != "before"},
        "datasets": {
            collection: {name: f"${{{stage}-{split}}}" for name, stage in systems.items()}
            for split, collection in splits.items()
        },
    }


def _teacher_stages(
    split: str, collection: str, model: str, options: SpecialiseOptions
) -> list[dict[str, Any]]:
    """Candidates of BM25 and of the model for some queries, and the teacher's scores of both."""
    k = options.k if split == "train" else 100
    first = {"verb": "retrieve", "collection": collection, "k": k}
    scored = {"verb": "score", "collection": collection, "candidates": f"${{pool-{split}}}"}
    opened = options.model_options
    stages = [
        {"name": f"bm25-{split}", **first, "model": "bm25"},
        {"name": f"before-{split}", **first, "model": model, **opened},
        {
            "name": f"pool-{split}",
            "verb": "fuse",
            "method": "rrf",
            "runs": [f"${{bm25-{split}}}", f"${{before-{split}}}"],
        },
    ]
    if options.teacher != FUSED:
        return [*stages, {"name": f"teacher-{split}", **scored, "teacher": options.teacher}]
    return [
        *stages,
        {"name": f"bm25-scores-{split}", **scored, "teacher": "bm25"},
        {"name": f"model-scores-{split}", **scored, "teacher": model, **opened},
        {
            "name": f"teacher-{split}",
            "verb": "fuse",
            "method": "zscore",
            "runs": [f"${{bm25-scores-{split}}}", f"${{model-scores-{split}}}"],
        },
    ]


def verdict_lines(rows: list[dict[str, Any]]) -> list[str]:
    """One line per dataset and student: whether it helped, by the first measure."""
    measure = rows[0]["measure"]
    values = {(row["system"], row["dataset"]): row for row in rows if row["measure"] == measure}
    names = short_names([dataset for _, dataset in values])
    lines = []
    for (system, dataset), row in values.items():
        if system not in ("term vectors", "after", "KL alone", "InfoNCE alone"):
            continue
        before = values[("before", dataset)]["value"]
        ahead = values[("teacher", dataset)]["value"] - before
        share = (
            f", {row['difference'] / ahead:.0%} of the teacher's lead"
            if ahead > 0
            else "; the teacher is not ahead of the model here, so there was nothing to learn"
        )
        significant = row["p_holm"] is not None and row["p_holm"] < 0.05
        verdict = (
            ("It helped" if row["difference"] > 0 else "It did harm")
            if significant
            else "Whether it helped is not significant"
        )
        queries = (
            "held-out synthetic queries"
            if dataset.endswith("#dev")
            else f"the judged queries of {names[dataset]}"
        )
        lines.append(
            f"{system}, {queries}: {measure} {before:.4f} before, {row['value']:.4f} now"
            f" ({row['difference']:+.4f}{share}). {verdict} (corrected p = {row['p_holm']:.4f},"
            f" {row['n']} queries)."
        )
    return lines
