"""The verbs as a recipe calls them: each makes one artifact in a folder and gives its
fingerprint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from irdistill.collections import Collection, load_collection
from irdistill.collections.collection_loader import require_queries
from irdistill.errors import IrdistillError
from irdistill.evaluation import (
    DEFAULT_MEASURES,
    AuditOptions,
    Entry,
    audit,
    combine,
    compare_losses,
    evaluate,
    fuse_teachers,
)
from irdistill.evaluation.comparison import check_level
from irdistill.evaluation.efficiency import measure_efficiency
from irdistill.evaluation.evaluator import check_baseline
from irdistill.evaluation.ranking_policies import check_self_match
from irdistill.evaluation.significance import without_noise
from irdistill.losses import parse_loss
from irdistill.modeling.model_files import resolve_model
from irdistill.queries import (
    Generation,
    RewriteOptions,
    filter_queries,
    generate,
    rewrite,
    split,
)
from irdistill.runs import Mixing, mask
from irdistill.runs.fusion import check_count
from irdistill.search import RetrieveOptions, retrieve
from irdistill.search.lexical.first_stages import is_lexical
from irdistill.storage.files import (
    digest,
    file_sha256,
    make_folder,
    read_json,
    write_json,
    write_text,
)
from irdistill.storage.plain_data import check_values
from irdistill.students import build_student
from irdistill.students.build import STUDENT_SETTINGS, check_student_settings
from irdistill.students.model_kinds import MODEL_KINDS
from irdistill.teachers import (
    ScoreOptions,
    TeacherSpec,
    responses_file,
    score,
)
from irdistill.training import TrainOptions, train
from irdistill.training.options import PretrainOptions
from irdistill.training.pretraining import pretrain
from irdistill.training.term_vector_fitting import fit_term_vectors

#: Arguments that count something, of any verb.
_COUNTS = ("depth", "k", "top", "folds", "queries", "max_tokens")
RESULT, COMPARISON = "result.json", "comparison.md"


@dataclass
class RecipeContext:
    """What the stages of one run share: the random seed, and collections, which are opened once."""

    seed: int = 42
    work: Path | None = None
    _collections: dict[str, Collection] = field(default_factory=dict)

    def collection(self, name: str, queries: bool = True) -> Collection:
        """Open a collection once.

        Args:
            queries: whether it must have queries.
        """
        if name not in self._collections:
            self._collections[name] = load_collection(name, queries=False)
        if queries:
            require_queries(self._collections[name])
        return self._collections[name]


def _candidates(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    retriever: str = "bm25",
    depth: int = 100,
    index: Any = "flat",
    kind: str | None = None,
    trust_remote_code: bool = False,
) -> str:
    return retrieve(
        kitchen.collection(collection),
        retriever,
        out,
        depth,
        RetrieveOptions(
            index=index,
            seed=kitchen.seed,
            kind=kind,  # type: ignore[arg-type]
            trust_remote_code=trust_remote_code,
        ),
        work=kitchen.work,
    ).fingerprint


def _search(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    model: str,
    k: int = 100,
    index: Any = "flat",
    dimension: int | None = None,
    kind: str | None = None,
    trust_remote_code: bool = False,
) -> str:
    return retrieve(
        kitchen.collection(collection),
        model,
        out,
        k,
        RetrieveOptions(
            index=index,
            seed=kitchen.seed,
            dimension=dimension,
            kind=kind,  # type: ignore[arg-type]
            trust_remote_code=trust_remote_code,
        ),
        work=kitchen.work,
    ).fingerprint


def _score(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    candidates: str,
    teacher: str,
    k: int | None = None,
    representations: Any = None,
    **settings: Any,
) -> str:
    spec = TeacherSpec(
        teacher, settings.pop("kind", None), kitchen.work, responses_file(out), settings
    )
    options = ScoreOptions(
        k=k, representations="float16" if representations is True else representations or None
    )
    return score(kitchen.collection(collection), candidates, spec, out, options).fingerprint


def _fuse(
    kitchen: RecipeContext,
    out: Path,
    runs: list[str],
    method: Any = "zscore",
    weights: list[float] | str | None = None,
    missing: Any = "null",
    tau: Any = 1.0,
    abstain: str = "",
    power: float = 1.0,
    dev: str | None = None,
    dev_runs: list[str] | None = None,
    gate: str | None = None,
    balance: float = 0.1,
    top: int | None = None,
) -> str:
    return fuse_teachers(
        runs,
        out,
        method,
        weights,
        missing,
        tau=tau,
        abstain=abstain,
        power=power,
        dev=kitchen.collection(dev) if dev else None,
        dev_runs=dev_runs or (),
        gate=gate,
        balance=balance,
        top=top,
    ).fingerprint


def _mask(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    run: str,
    rules: str | list[str],
    positive: Any = "highest",
) -> str:
    return mask(run, kitchen.collection(collection), out, rules, positive).fingerprint


def _audit(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    teachers: dict[str, str],
    first_stage: str | None = None,
    self_match: Any = "keep",
) -> str:
    options = AuditOptions(seed=kitchen.seed, self_match=self_match)
    found = audit(kitchen.collection(collection), teachers, first_stage, options=options)
    return _write(out, found.to_json() | {"lines": found.lines})


def _train(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    scores: str | list[str],
    loss: str,
    backbone: str,
    student: str = "dense",
    representations: str | None = None,
    chosen: str | None = None,
    kind: str | None = None,
    **given: Any,
) -> str:
    held = kitchen.collection(collection)
    if chosen is not None:
        given = given | read_json(Path(chosen) / RESULT)["settings"]
        loss = given.pop("loss", loss)
    settings = {key: given.pop(key) for key in STUDENT_SETTINGS if key in given}
    built = build_student(kind or student, backbone, **settings)
    train(
        held,
        scores,
        built,
        loss,
        out,
        TrainOptions(**({"seed": kitchen.seed} | given)),
        "stored",
        kitchen.work,
        representations,
    )
    return digest(read_json(out / "training.json")["model"])


def _pretrain(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    backbone: str,
    layers: Any = None,
    random_init: bool = False,
    config: dict[str, Any] | None = None,
    **given: Any,
) -> str:
    options = PretrainOptions(**({"seed": kitchen.seed} | given))
    pretrain(
        kitchen.collection(collection, queries=False),
        backbone,
        out,
        options,
        layers=layers,
        random_init=random_init,
        config=config,
    )
    return digest(read_json(out / "training.json")["model"])


def _terms(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    model: str,
    kind: str | None = None,
    trust_remote_code: bool = False,
) -> str:
    fit_term_vectors(
        kitchen.collection(collection),
        model,
        out,
        kitchen.work,
        kind=kind,
        trust_remote_code=trust_remote_code,
    )
    return digest(read_json(out / "training.json")["model"])


def _rewrite(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    by: str = "",
    history: str | None = None,
    tokenizer: str | None = None,
    llm: str | None = None,
    prompt: str = "prompts/rewrite",
    max_tokens: int = 64,
    retry_tokens: int | None = None,
) -> str:
    return rewrite(
        kitchen.collection(collection),
        out,
        by or None,  # type: ignore[arg-type]
        history=history,
        tokenizer=tokenizer,
        llm=llm,
        options=RewriteOptions(prompt=prompt, max_tokens=max_tokens, retry_tokens=retry_tokens),
    ).fingerprint


def _split(kitchen: RecipeContext, out: Path, collection: str, folds: int = 5) -> str:
    return split(kitchen.collection(collection), out, folds, kitchen.seed).fingerprint


def _generate(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    kinds: list[str] | None = None,
    llm: str | None = None,
    examples: str | None = None,
    **settings: Any,
) -> str:
    options = Generation(
        **({"seed": kitchen.seed} | ({"kinds": tuple(kinds)} if kinds else {}) | settings)
    )
    return generate(
        kitchen.collection(collection, queries=False),
        out,
        options,
        llm,
        kitchen.collection(examples) if examples else (),
    ).fingerprint


def _filter(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    rules: list[str],
    scores: str | None = None,
    retrieved: str | None = None,
) -> str:
    return filter_queries(kitchen.collection(collection), out, rules, scores, retrieved).fingerprint


def _evaluate(
    kitchen: RecipeContext,
    out: Path,
    datasets: dict[str, dict[str, str]],
    measures: Any = DEFAULT_MEASURES,
    compare: dict[str, str] | str | None = None,
    self_match: Any = "keep",
) -> str:
    found = combine(
        *(
            evaluate(
                kitchen.collection(name),
                runs,
                measures,
                compare,
                kitchen.seed,
                self_match=self_match,
            )
            for name, runs in datasets.items()
        )
    )
    return _write(out, {"rows": found.to_rows()})


def _compare(
    kitchen: RecipeContext,
    out: Path,
    runs: list[dict[str, Any]],
    measure: str = "nDCG@10",
    level: float = 0.05,
    self_match: Any = "keep",
) -> str:
    entries = [Entry(**run | {"seed": str(run["seed"])}) for run in runs]
    collections = {entry.collection: kitchen.collection(entry.collection) for entry in entries}
    found = compare_losses(entries, collections, measure, level, self_match)
    fingerprint = _write(out, found.to_json())
    write_text(out / COMPARISON, found.to_markdown())
    return fingerprint


def _choose(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    candidates: list[dict[str, Any]],
    measure: str = "nDCG@10",
    self_match: Any = "keep",
) -> str:
    held = kitchen.collection(collection)
    found = [
        {
            "settings": one["settings"],
            "value": (
                evaluate(held, {"candidate": one["run"]}, measure, self_match=self_match)
                .rows[0]
                .value
            ),
        }
        for one in candidates
    ]
    equal = without_noise(np.array([one["value"] for one in found]))
    best = found[int(equal.argmax())]["settings"] if found else {}  # the first of equal ones
    return _write(out, {"settings": best, "measure": measure, "candidates": found})


def _measure(
    kitchen: RecipeContext,
    out: Path,
    collection: str,
    systems: dict[str, Any],
    k: int = 100,
    index: Any = "flat",
    queries: int = 200,
    kind: Any = None,
    trust_remote_code: bool = False,
) -> str:
    held = kitchen.collection(collection)
    found = [
        measure_efficiency(
            held,
            name,
            models,
            k,
            index,
            kitchen.work,
            queries,
            kitchen.seed,
            kind,
            trust_remote_code,
        ).to_json()
        for name, models in systems.items()
    ]
    return _write(out, {"systems": found})


def _write(out: Path, result: Mapping[str, Any]) -> str:
    make_folder(out)
    write_json(out / RESULT, dict(result))
    return file_sha256(out / RESULT)[:16]


WITHOUT_QUERIES = ("generate", "pretrain")
"""Verbs that need the documents of a collection alone."""

VERBS: Mapping[str, Callable[..., str]] = {
    "candidates": _candidates,
    "search": _search,
    "score": _score,
    "fuse": _fuse,
    "mask": _mask,
    "audit": _audit,
    "train": _train,
    "rewrite": _rewrite,
    "split": _split,
    "generate": _generate,
    "filter": _filter,
    "evaluate": _evaluate,
    "measure": _measure,
    "compare": _compare,
    "choose": _choose,
    "pretrain": _pretrain,
    "terms": _terms,
}


def artifact(verb: str, folder: Path) -> str:
    """What a later stage gets for a reference to this one: a run's folder, or a trained model's."""
    return str(folder / "model" if verb in ("train", "pretrain", "terms") else folder)


def _check_keys(entries: Any, *keys: str) -> None:
    for entry in entries if isinstance(entries, list) else [entries]:
        if not isinstance(entry, dict) or set(entry) != set(keys):
            raise IrdistillError(
                f"{entry!r} was given; a mapping with the keys {', '.join(keys)} was expected."
            )
        if not isinstance(entry.get("collection", ""), str):
            raise IrdistillError(f"the collection {entry['collection']!r} is not a text.")


def _check_options(given: Mapping[str, Any]) -> None:
    if "loss" in given:
        parse_loss(given["loss"])
    options = {key: value for key, value in given.items() if key != "loss"}
    try:
        check_values(options, TrainOptions, "the options of the training", free=True)
        TrainOptions(**options)
    except TypeError as error:
        raise IrdistillError(
            "a training option is unknown, or no number (YAML reads 1e-4 as text: 1.0e-4):"
            f" {error}."
        ) from error


def _check_datasets(
    datasets: Mapping[str, Mapping[str, str]], compare: Mapping[str, str] | str | None
) -> None:
    if not datasets or not all(datasets.values()):
        raise IrdistillError(
            "datasets names no run to measure; a mapping of collections to runs by their names was"
            " expected."
        )
    for runs in datasets.values():
        check_baseline(runs, compare)


def _check_fusion(arguments: Mapping[str, Any]) -> None:
    count, weights = len(arguments["runs"]), arguments.get("weights")
    check_count(count)
    rule = Mixing(
        arguments.get("method", "zscore"),
        None if isinstance(weights, str) else weights,
        arguments.get("missing", "null"),
        arguments.get("tau", 1.0),
        arguments.get("abstain", ""),
    )
    rule.for_teachers(count)


@cache
def _checked_model(name: str) -> None:
    resolve_model(name)


def check_arguments(verb: str, arguments: Mapping[str, Any]) -> None:
    """What can be known of a stage before anything runs: losses, options, measures and models that
    are no references.

    Raises:
        IrdistillError: one of them is wrong.
    """
    for counted in _COUNTS:
        count = arguments.get(counted)
        if isinstance(count, int) and count < 1:
            raise IrdistillError(f"{counted} is {count}; at least 1 was expected.")
    if verb == "train":
        parse_loss(arguments["loss"])
        own = {
            "collection",
            "scores",
            "loss",
            "backbone",
            "student",
            "kind",
            "representations",
            "chosen",
            *STUDENT_SETTINGS,
        }
        if (
            "kind" in arguments
            and "student" in arguments
            and arguments["kind"] != arguments["student"]
        ):
            raise IrdistillError(
                f"student: {arguments['student']} and kind: {arguments['kind']} mean the same; give"
                " one of them."
            )
        check_student_settings(
            arguments.get("kind") or arguments.get("student", "dense"),
            {key: arguments[key] for key in STUDENT_SETTINGS if key in arguments},
        )
        _check_options({key: value for key, value in arguments.items() if key not in own})
    if verb == "pretrain":
        own = {"collection", "backbone", "layers", "random_init", "config"}
        options = {key: value for key, value in arguments.items() if key not in own}
        try:
            check_values(options, PretrainOptions, "the options of the pre-training", free=True)
            PretrainOptions(**options)
        except TypeError as error:
            raise IrdistillError(f"an option of the pre-training is unknown: {error}.") from error
    if verb in ("evaluate", "compare", "choose", "audit"):
        check_self_match(arguments.get("self_match", "keep"))
    if verb in ("evaluate", "compare", "choose"):
        from irdistill.evaluation import parse_measures

        parse_measures(
            arguments.get("measures" if verb == "evaluate" else "measure", DEFAULT_MEASURES)
        )
    if verb == "evaluate":
        _check_datasets(arguments["datasets"], arguments.get("compare"))
    if verb == "fuse":
        _check_fusion(arguments)
    if verb == "compare":
        check_level(arguments.get("level", 0.05))
        _check_keys(arguments["runs"], "loss", "student", "collection", "seed", "run")
    if verb == "choose":
        _check_keys(arguments["candidates"], "settings", "run")
        for one in arguments["candidates"]:
            _check_options(one["settings"])
    if verb in ("candidates", "search", "measure", "terms"):
        kinds = arguments.get("kind")
        for one in (
            kinds.values() if isinstance(kinds, Mapping) else [] if kinds is None else [kinds]
        ):
            if one not in MODEL_KINDS:
                raise IrdistillError(
                    f"kind: {one} is unknown; give one of {', '.join(MODEL_KINDS)}."
                )
    for key in ("backbone", "query_backbone", "retriever", "model"):
        name = arguments.get(key)
        if isinstance(name, str) and not is_lexical(name) and "${" not in name:
            _checked_model(name)
