"""Stages of a recipe: the checks before anything runs, and the call of a verb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from irdistill.collections import Collection, load_collection
from irdistill.errors import IrdistillError, OptionError
from irdistill.recipes.recipe import Stage
from irdistill.storage.files import digest, file_sha256, make_folder, read_json, write_json
from irdistill.storage.ownership import write_file
from irdistill.verbs import CATALOG, load_verb
from irdistill.verbs.argument_types import share_of
from irdistill.verbs.declaration import Verb

RESULT, COMPARISON = "result.json", "comparison.md"
MODEL_VERBS = ("train", "pretrain", "align", "terms", "static", "compress", "merge")
WITHOUT_QUERIES = ("generate", "package", "pretrain")
"""Verbs that need only the documents of a collection."""

_FROM_RUNNER = ("out", "overwrite")


@dataclass
class RecipeContext:
    """What the stages of one run share: the random seed, and collections, which are opened once."""

    seed: int = 42
    _collections: dict[str, Collection] = field(default_factory=dict)

    def collection(self, name: str, queries: bool = True) -> Collection:
        """Open a collection once."""
        from irdistill.collections.collection_loader import require_queries

        if name not in self._collections:
            self._collections[name] = load_collection(name, queries=False)
        if queries:
            require_queries(self._collections[name])
        return self._collections[name]


def stage_verb(stage: Stage) -> Verb:
    """The verb of a stage."""
    verbs = [name for name, entry in CATALOG.items() if entry.in_recipes]
    if stage.verb not in verbs:
        raise OptionError(
            f"the stage {stage.name!r} has the verb {stage.verb!r}; expected one of"
            f" {', '.join(verbs)}."
        )
    return load_verb(stage.verb)


def check_stage(stage: Stage) -> None:
    """Check the arguments of a stage against the declaration of its verb."""
    verb = stage_verb(stage)
    taken = [name for name in stage.arguments if name in _FROM_RUNNER or name in verb.groups]
    if taken:
        raise OptionError(
            f"the stage {stage.name!r} ({stage.verb}) sets {taken[0]!r}, which the recipe sets."
        )
    try:
        verb.check(stage.arguments, strict=True)
        for name in _models(verb, stage.arguments):
            _check_model(name)
    except IrdistillError as error:
        raise OptionError(f"the stage {stage.name!r} ({stage.verb}) cannot run: {error}") from error


def _models(verb: Verb, arguments: Mapping[str, Any]) -> Iterator[str]:
    """The names of models that exist before the recipe runs."""
    from irdistill.search.lexical.first_stages import is_lexical

    for name, value in arguments.items():
        is_model = verb.options[name].source == "model" or name == "query_backbone"
        if is_model and isinstance(value, str) and "${" not in value and not is_lexical(value):
            yield value


@cache
def _check_model(name: str) -> None:
    from irdistill.modeling.model_files import resolve_model

    resolve_model(name)


def stage_collections(stage: Stage) -> list[str]:
    """Collections that exist before the recipe runs; later stages may make others."""
    verb = stage_verb(stage)
    names = [
        value
        for name, value in stage.arguments.items()
        if verb.options[name].source in ("collection", "judgments") and isinstance(value, str)
    ]
    names += stage.arguments.get("datasets") or {}
    for name, value in stage.arguments.items():
        if verb.options[name].source in ("validation", "collections") and share_of(value) is None:
            names += [value] if isinstance(value, str) else value or []
    if stage.verb == "compare":
        names += [run["collection"] for run in stage.arguments["runs"] if isinstance(run, dict)]
    return [name for name in dict.fromkeys(names) if "${" not in name]


def run_stage(
    stage: Stage, arguments: Mapping[str, Any], folder: Path, context: RecipeContext
) -> str:
    """Call the verb of a stage; its artifact goes to a folder.

    Args:
        arguments: with the references of the stage filled in.

    Returns:
        The fingerprint of the artifact.
    """
    verb = load_verb(stage.verb)
    values = dict(arguments)
    for name, value in arguments.items():
        is_collection = verb.options[name].source in ("collection", "judgments")
        if is_collection and isinstance(value, str):
            values[name] = context.collection(value, stage.verb not in WITHOUT_QUERIES)
    if "seed" in verb.options:
        values.setdefault("seed", context.seed)
    if "out" in verb.options:
        result = verb.call(verb.check(values | {"out": folder}))
        return _fingerprint(stage.verb, result, folder)
    return _write_result(stage.verb, verb.call(verb.check(values)), folder)


def _fingerprint(verb: str, result: Any, folder: Path) -> str:
    if verb in MODEL_VERBS:
        return digest(read_json(folder / "training.json")["model"])
    return str(result.fingerprint)


def _write_result(verb: str, result: Any, folder: Path) -> str:
    """Write figures as JSON; a comparison of losses also as Markdown."""
    make_folder(folder)
    write_json(folder / RESULT, _json(verb, result))
    if verb == "compare":
        write_file(folder / COMPARISON, result.to_markdown())
    return file_sha256(folder / RESULT)[:16]


def _json(verb: str, result: Any) -> dict[str, Any]:
    if verb == "evaluate":
        return {"rows": result.to_rows()}
    if verb == "measure":
        return {"systems": [cost.to_json() for cost in result]}
    if verb == "choose":
        return dict(result)
    return dict(result.to_json()) | ({"lines": result.lines} if verb == "audit" else {})


def artifact(verb: str, folder: Path) -> str:
    """What a later stage gets for a reference: a run's folder, or a trained model's."""
    return str(folder / "model" if verb in MODEL_VERBS else folder)
