"""The verb *specialise*: a retriever learns a corpus, without labels; the recipe is made for the
corpus, the model and the time.

Two steps, both of the query tower alone, so that passages are encoded once and indexes of the model
stay right:

1. Term vectors (`irdistill.training.term_vector_fitting`): BM25 distilled into the query tower in
   closed form. This is all that the default teacher, the model fused with BM25, has to give, and
   takes seconds.
2. For another teacher, training as CADET does it (Tamber et al. 2025, arXiv:2502.19712): queries
   are made out of the passages, the teacher orders candidates for them, and the tower learns its
   distribution. By default queries are titles and sentences of the passages, which needs no
   language model.
"""

from __future__ import annotations

import logging
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from irdistill.collections import Collection, load_collection
from irdistill.errors import IrdistillError
from irdistill.evaluation.reporting.dataset_names import short_names
from irdistill.queries.query_kinds import EXTRACTED_KINDS, split_sentences
from irdistill.recipes.recipe import read_recipe
from irdistill.recipes.runner import run_recipe
from irdistill.storage.files import differences, read_json, write_json, write_text
from irdistill.storage.ownership import claim_folder, is_manifest
from irdistill.students import DenseStudent
from irdistill.students.build import load_dense
from irdistill.students.towers import one_tower

logger = logging.getLogger(__name__)

RECIPE, PLAN = "recipe.yaml", "plan.json"
FUSED = "fused"
_MEASURED = 96
_WEIGHT = 3.0
"""A step costs about three times what encoding its queries does: forward, and backward twice that.
"""
_EPOCHS = 12.0
_LEAST_STEPS, _LEAST_QUERIES = 50, 200
_PATIENCE, _EVALUATE_EVERY = 3, 50
"""Training ends when the loss on a tenth of the queries, held out, has not fallen three times in a
row.
"""


@dataclass(frozen=True)
class Specialisation:
    """What is asked of `specialise`.

    Attributes:
        model: a dense retriever to start from.
        teacher: ``fused`` (the model with BM25), or a teacher's card or model.
        llm: the card of a language model that writes queries too; none where empty.
        kinds: of queries; those that need no language model, and with one also questions and
            keywords, where empty.
        minutes: about so long it may take on this machine.
        depth: candidates a query from BM25 and from the model, each.
        refine: train the query tower on the teacher's scores of synthetic queries, behind its term
            vectors. Where None, if the teacher is another than ``fused``, which has no more to give
            (figures in docs/specialise.md).
        kind: ``dense``, where the model's files do not say it.
        control: train two more students from the same start, by KL and by InfoNCE alone, to see
            what the parts are worth.
    """

    model: str
    teacher: str = FUSED
    llm: str = ""
    kinds: tuple[str, ...] = ()
    minutes: float = 30.0
    depth: int = 50
    batch_size: int = 32
    list_size: int = 64
    learning_rate: float = 1e-4
    tau: float = 0.05
    teacher_tau: float = 0.5
    rules: tuple[str, ...] = ()
    avoid: str = "where-possible"
    refine: bool | None = None
    control: bool = False
    seed: int = 42
    kind: str | None = None
    trust_remote_code: bool = False

    def __post_init__(self) -> None:
        if not self.minutes > 0:
            raise IrdistillError(f"{self.minutes} minutes were given to specialise; it takes some.")

    @property
    def refined(self) -> bool:
        """Whether the query tower is trained behind its term vectors."""
        return self.teacher != FUSED if self.refine is None else self.refine

    @property
    def trainings(self) -> int:
        """How many students are trained by gradients."""
        return self.refined + 2 * self.control

    @property
    def reading(self) -> dict[str, Any]:
        """How stages of the recipe are to open the model, where that was given."""
        kind = {} if self.kind is None else {"kind": self.kind}
        return kind | ({"trust_remote_code": True} if self.trust_remote_code else {})

    def chosen_kinds(self) -> tuple[str, ...]:
        """The kinds of queries, the usual ones where none are named."""
        return self.kinds or (*EXTRACTED_KINDS, *(("questions", "keywords") if self.llm else ()))


@dataclass(frozen=True)
class Plan:
    """How much fits into the time: told once, from what this machine does, and kept, so that a job
    that goes on does the same.

    Attributes:
        passages: to make queries of; None for all.
        sentences: queries of the kind sentence a passage.
        steps: of training, where there is any.
        passages_per_second, queries_per_second: that the model encodes.
    """

    passages: int | None
    sentences: int
    steps: int
    passages_per_second: float
    queries_per_second: float


def plan(collection: Collection, given: Specialisation) -> Plan:
    """Measure the model on some passages and sentences, and share out the time.

    Raises:
        IrdistillError: the model cannot be loaded or has two towers, or the passages alone take
            longer than all the time.
    """
    corpus = collection.corpus
    student = load_dense(given.model, given.kind, trust_remote_code=given.trust_remote_code)
    one_tower(student.model, f"the model {given.model!r}")
    draw = np.random.default_rng(given.seed)
    rows = np.sort(draw.permutation(len(corpus))[:_MEASURED])
    texts = corpus.texts(rows)
    asked = [found[0] for found in map(split_sentences, texts) if found] or texts
    rates = [_rate(student, texts, "document"), _rate(student, asked, "query")]
    seconds = given.minutes * 60
    left = seconds - len(corpus) / rates[0]
    if left < 0.2 * seconds:
        raise IrdistillError(
            f"encoding the {len(corpus)} passages of {collection.id!r} alone takes about"
            f" {len(corpus) / rates[0] / 60:.0f} of {given.minutes:g} minutes on this machine; give"
            " more time (--time), or a smaller model."
        )
    making, training = 0.15 * left, 0.6 * left
    queries = max(_LEAST_QUERIES, int(making * rates[1]))
    per = 4 if queries > 5 * len(corpus) else 2
    each = per * ("sentence" in given.chosen_kinds()) + sum(
        kind != "sentence" for kind in given.chosen_kinds()
    )
    passages = max(1, queries // each)
    expected = min(passages, len(corpus)) * each
    steps = int(training / max(1, given.trainings) * rates[1] / (_WEIGHT * given.batch_size))
    steps = max(_LEAST_STEPS, min(steps, int(_EPOCHS * expected / given.batch_size)))
    return Plan(passages if passages < len(corpus) else None, per, steps, *rates)


def _rate(student: DenseStudent, texts: list[str], side: Any) -> float:
    student.encode(texts[:8], side, show_progress=False)  # what is slow the first time
    began = time.perf_counter()
    student.encode(texts, side, show_progress=False)
    return len(texts) / (time.perf_counter() - began)


def specialise(
    collection: str,
    given: Specialisation,
    out: str | Path,
    overwrite: bool = False,
    work: Path | None = None,
) -> Path:
    """Specialise a retriever to the corpus of a collection; stopped and started again it goes on.

    ``OUT/recipe.yaml`` is what was run, ``OUT/specialised/model`` the retriever
    (``OUT/terms/model`` where term vectors are all it got), ``OUT/report.md`` the table: before and
    after, on held-out synthetic queries, and on the collection's own queries where it has
    judgments.

    Returns:
        The folder.

    Raises:
        IrdistillError: as `plan`, or as any stage of the recipe.
    """
    held = load_collection(collection, queries=False)
    folder = Path(out)
    claim_folder(
        folder,
        [PLAN, RECIPE],
        "a specialised model",
        lambda name: is_manifest(folder / PLAN, ("asked", "plan")),
    )
    asked = {
        "collection": collection,
        "corpus": held.corpus.fingerprint,
        "judged": len(held.qrels),
        **asdict(given),
    }
    asked["kinds"], asked["rules"] = list(given.chosen_kinds()), list(given.rules)
    for key in ("kind", "trust_remote_code"):
        if not asked[key]:
            del asked[key]
    path = folder / PLAN
    if path.is_file() and not overwrite:
        told = read_json(path)
        if told["asked"] != asked:
            changed = "; ".join(differences(told["asked"], asked))
            raise IrdistillError(
                f"{folder} was begun with other settings ({changed}); choose another --out, or give"
                " --overwrite."
            )
        planned = Plan(**told["plan"])
    else:
        planned = plan(held, given)
        write_json(path, {"asked": asked, "plan": asdict(planned)})
        steps = f": {planned.steps} steps" if given.trainings else ""
        logger.info(
            "%.0f passages and %.0f queries a second here%s",
            planned.passages_per_second,
            planned.queries_per_second,
            steps,
        )
    stages = recipe(collection, bool(len(held.qrels)), given, planned)
    write_text(
        folder / RECIPE, yaml.safe_dump(stages, sort_keys=False, allow_unicode=True, width=120)
    )
    run_recipe(read_recipe(folder / RECIPE), folder, given.seed, overwrite, work)
    lines = verdict(read_json(folder / "results.json")["rows"])
    report = (folder / "report.md").read_text(encoding="utf-8")
    write_text(
        folder / "report.md",
        report.rstrip() + "\n\n## In words\n\n" + "".join(f"- {line}\n" for line in lines),
    )
    return folder


def recipe(collection: str, judged: bool, given: Specialisation, planned: Plan) -> dict[str, Any]:
    """The recipe as a mapping; what a user may read, change and run again."""
    splits = ["train", "dev", *(["real"] if judged else [])]
    named = {"train": "${queries}#train", "dev": "${queries}#dev", "real": collection}
    queries = {
        "name": "queries",
        "verb": "generate",
        "collection": collection,
        "kinds": list(given.chosen_kinds()),
        "passages": planned.passages,
        "sentences": planned.sentences,
        "avoid": given.avoid,
    }
    stages: list[dict[str, Any]] = [queries | ({"llm": given.llm} if given.llm else {})]
    learnt = named["train"]
    stages.append(
        {
            "name": "terms",
            "verb": "terms",
            "collection": learnt,
            "model": given.model,
            **given.reading,
        }
    )
    for split in splits if given.trainings else splits[1:]:
        stages += _teaching(split, named[split], given)
    if given.rules and given.trainings:
        stages.append(
            {
                "name": "good",
                "verb": "filter",
                "collection": learnt,
                "rules": list(given.rules),
                "scores": "${teacher-train}",
                "retrieved": "${before-train}",
            }
        )
        learnt = "${good}#train"
    contrastive = f'InfoNCE(tau={given.tau}, positive_by="teacher")'
    taught = f"KL(tau={given.tau}, teacher_tau={given.teacher_tau}) + 0.1*{contrastive}"
    students: dict[str, tuple[str, dict[str, Any]]] = {}
    if given.refined:
        students["specialised"] = taught, {"backbone": "${terms}"}
    trusted = {"trust_remote_code": True} if given.trust_remote_code else {}
    plain: dict[str, Any] = {"backbone": given.model, "freeze_documents": True, **trusted}
    students |= (
        {"kl-alone": (taught, plain), "infonce-alone": (contrastive, plain)}
        if given.control
        else {}
    )
    for name, (loss, start) in students.items():
        stages.append(
            {
                "name": name,
                "verb": "train",
                "collection": learnt,
                "scores": "${teacher-train}",
                "loss": loss,
                **start,
                "steps": planned.steps,
                "batch_size": given.batch_size,
                "list_size": given.list_size,
                "learning_rate": given.learning_rate,
                "dropout": False,
                "positives": False,
                "early_stop": _PATIENCE,
                "evaluate_every": _EVALUATE_EVERY,
                "checkpoint_every": 200,
            }
        )
    for name in ("terms", *students):
        stages += [
            {
                "name": f"{name}-{split}",
                "verb": "search",
                "collection": named[split],
                "model": f"${{{name}}}",
                "k": 100,
            }
            for split in splits[1:]
        ]
    systems = {
        "before": "before",
        "BM25": "bm25",
        "teacher": "teacher",
        **(
            {"term vectors": "terms", "after": "specialised"}
            if given.refined
            else {"after": "terms"}
        ),
        **({"KL alone": "kl-alone", "InfoNCE alone": "infonce-alone"} if given.control else {}),
    }
    stages.append(
        {
            "name": "figures",
            "verb": "evaluate",
            "measures": "nDCG@10 R@100",
            "compare": {name: "before" for name in systems if name != "before"},
            "datasets": {
                named[split]: {name: f"${{{stage}-{split}}}" for name, stage in systems.items()}
                for split in reversed(splits[1:])
            },
        }
    )
    return {
        "name": "specialise",
        "description": f"{given.model} specialised to the corpus of {collection}, without labels.",
        "settings": {},
        "stages": stages,
    }


def _teaching(split: str, collection: str, given: Specialisation) -> list[dict[str, Any]]:
    """Candidates of BM25 and of the model for some queries, and the teacher's scores of both."""
    on = {"collection": collection}
    depth = given.depth if split == "train" else 100
    stages: list[dict[str, Any]] = [
        {"name": f"bm25-{split}", "verb": "candidates", **on, "retriever": "bm25", "depth": depth},
        {
            "name": f"before-{split}",
            "verb": "candidates",
            **on,
            "retriever": given.model,
            "depth": depth,
            **given.reading,
        },
        {
            "name": f"pool-{split}",
            "verb": "fuse",
            "method": "rrf",
            "runs": [f"${{bm25-{split}}}", f"${{before-{split}}}"],
        },
    ]
    pool = {"candidates": f"${{pool-{split}}}"}
    if given.teacher != FUSED:
        return [
            *stages,
            {"name": f"teacher-{split}", "verb": "score", **on, **pool, "teacher": given.teacher},
        ]
    for name, teacher, reading in (("bm25", "bm25", {}), ("own", given.model, given.reading)):
        stages.append(
            {
                "name": f"{name}-scores-{split}",
                "verb": "score",
                **on,
                **pool,
                "teacher": teacher,
                **reading,
            }
        )
    parts = [f"${{bm25-scores-{split}}}", f"${{own-scores-{split}}}"]
    return [
        *stages,
        {"name": f"teacher-{split}", "verb": "fuse", "method": "zscore", "runs": parts},
    ]


def verdict(rows: list[dict[str, Any]]) -> list[str]:
    """One line a dataset and student: whether it helped, by the first measure."""
    measure = rows[0]["measure"]
    values = {(row["system"], row["dataset"]): row for row in rows if row["measure"] == measure}
    names = short_names([dataset for _, dataset in values])
    lines = []
    for (system, dataset), row in values.items():
        if system not in ("term vectors", "after", "KL alone", "InfoNCE alone"):
            continue
        before, teacher = (
            values[("before", dataset)]["value"],
            values[("teacher", dataset)]["value"],
        )
        sure = row["p_holm"] is not None and row["p_holm"] < 0.05
        helped = (
            ("It helped" if row["difference"] > 0 else "It did harm")
            if sure
            else "It cannot be told whether it helped"
        )
        gained = (
            f", {row['difference'] / (teacher - before):.0%} of what the teacher is ahead"
            if teacher > before
            else ("; the teacher is not ahead of the model here, so there was nothing to learn")
        )
        queries = (
            "held-out synthetic queries"
            if dataset.endswith("#dev")
            else f"the judged queries of {names[dataset]}"
        )
        lines.append(
            f"{system}, {queries}: {measure} {before:.4f} before, {row['value']:.4f} now"
            f" ({row['difference']:+.4f}{gained}). {helped} (corrected p = {row['p_holm']:.4f},"
            f" {row['n']} queries)."
        )
    return lines
