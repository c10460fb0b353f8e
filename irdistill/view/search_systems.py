"""What can be asked: the bundles and models below the viewed folders, and BM25."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from irdistill.errors import IrdistillError, NotFoundError
from irdistill.runs import open_run
from irdistill.storage.files import read_json_object
from irdistill.view.workspace import BUNDLE, MODEL, RUN, TRAINING, Artifact, Workspace

BM25 = "bm25"
_RUNS = 12
"""Runs whose manifests are read for their collections if trainings and options name none."""


@dataclass(frozen=True)
class System:
    """A bundle, a model with a collection, or BM25 over a collection or the texts of a bundle.

    Attributes:
        key: its name in addresses.
        name: its name on pages, without the collection.
        kind: ``bundle``, ``model`` or ``bm25``.
        collection: name of the collection; empty for the documents of a bundle.
        artifact: the bundle or model; None for BM25 over a collection.
    """

    key: str
    name: str
    kind: str
    collection: str
    artifact: Artifact | None = None

    @property
    def group(self) -> str:
        """What it searches: systems of a group search the same documents."""
        if self.collection or self.artifact is None:
            return self.collection
        return f"documents of {self.artifact.key}"


def list_systems(workspace: Workspace, collections: Sequence[str]) -> list[System]:
    """The systems, grouped by what they search.

    Args:
        collections: ids of the option ``--collection``.
    """
    systems: list[System] = []
    for bundle in workspace.artifacts(BUNDLE):
        systems.append(System(bundle.key, bundle.key, BUNDLE, "", bundle))
        systems.append(System(f"{BM25} @ {bundle.key}", "BM25", BM25, "", bundle))
    searching = [model for model in workspace.artifacts(MODEL) if _can_search(model)]
    known = known_collections(workspace, collections)
    by_collection: dict[str, list[System]] = {name: [] for name in known}
    trained = {artifact.path: artifact for artifact in workspace.artifacts(TRAINING)}
    for model in searching:
        training = trained.get(model.path.parent)
        named = None if training is None else _training_collection(training)
        offered = known if named is None or named in collections else [named, *collections]
        for name in offered:
            system = System(f"{model.key} @ {name}", _short(model.key), MODEL, name, model)
            by_collection.setdefault(name, []).append(system)
    for name, models in by_collection.items():
        systems += [*models, System(f"{BM25} @ {name}", "BM25", BM25, name)]
    return systems


def find_system(systems: Sequence[System], key: str) -> System:
    """The system with a key.

    Raises:
        NotFoundError: there is none.
    """
    for system in systems:
        if system.key == key:
            return system
    raise NotFoundError(f"there is no bundle or model {key!r} to ask below the viewed folders.")


def known_collections(workspace: Workspace, collections: Sequence[str]) -> list[str]:
    """The collections of the option, then those of trainings; of runs if there are none."""
    names = [*collections]
    names += filter(None, map(_training_collection, workspace.artifacts(TRAINING)))
    return list(dict.fromkeys(names)) or list(dict.fromkeys(_run_collections(workspace)))


def _run_collections(workspace: Workspace) -> Iterator[str]:
    for artifact in workspace.artifacts(RUN)[:_RUNS]:
        try:
            name = _collection_of_run(artifact.path, artifact.modified)
        except IrdistillError:
            continue
        if name:
            yield name


@lru_cache(maxsize=256)
def _collection_of_run(path: Path, changed: float) -> str:
    return str(open_run(path).identity.collection.get("id") or "")


def _training_collection(training: Artifact) -> str | None:
    """The collection that a training names."""
    path = training.path / "training.json"
    try:
        return _named_collection(path, path.stat().st_mtime_ns)
    except (OSError, IrdistillError):
        return None


@lru_cache(maxsize=256)
def _named_collection(path: Path, changed: int) -> str | None:
    collection = read_json_object(path).get("identity", {}).get("collection")
    return str(collection["id"]) if isinstance(collection, dict) and "id" in collection else None


def _can_search(model: Artifact) -> bool:
    """Whether a model has vectors; a cross-encoder has none."""
    from irdistill.students.model_kinds import describe_model

    try:
        return not describe_model(str(model.path)).reads_pairs and not (
            read_json_object(model.path / "irdistill_student.json").get("kind")
            if (model.path / "irdistill_student.json").is_file()
            else None
        )
    except IrdistillError:
        return False


def _short(key: str) -> str:
    return key.removesuffix("/model")
