"""Open what the arguments of verbs name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irdistill.errors import OptionError
from irdistill.verbs.argument_types import share_of

if TYPE_CHECKING:
    from irdistill.collections import Collection
    from irdistill.distributed.ray_cluster import RayCluster
    from irdistill.runs import Run
    from irdistill.students.student_base import Student
    from irdistill.verbs.argument_types import (
        CollectionLike,
        CollectionsLike,
        ModelLike,
        RunLike,
        RunsLike,
        ValidationLike,
    )


def open_collection(collection: CollectionLike, queries: bool = True) -> Collection:
    """A collection by id or path, or one that is open."""
    from irdistill.collections import load_collection
    from irdistill.collections.collection_loader import require_queries

    if isinstance(collection, str | Path):
        return load_collection(str(collection), queries=queries)
    if queries:
        require_queries(collection)
    return collection


def open_validation(validate: ValidationLike) -> float | list[Collection]:
    """A share of the queries, or the collections that are named."""
    share = share_of(validate)
    if share is not None:
        return share
    assert not isinstance(validate, float)
    return open_collections(validate)


def open_collections(collections: CollectionsLike) -> list[Collection]:
    """One or several collections, by id or path or as objects."""
    several: Sequence[Any] = collections if isinstance(collections, list | tuple) else [collections]
    return [open_collection(collection) for collection in several]


def named_runs(runs: RunsLike) -> dict[str, Any]:
    """Runs by name.

    The names are the keys of a mapping, the last parts of paths, or ``run-1``, ``run-2`` and so on.
    A mapping of mappings of numbers is one run.
    """
    if isinstance(runs, Mapping) and not _is_run(runs):
        return dict(runs)
    several = runs if isinstance(runs, list | tuple) else [runs]
    paths = [_path(run) for run in several]
    if all(paths):
        return dict(zip(short_names(paths), several, strict=True))
    return {
        path or f"run-{n}": run for n, (path, run) in enumerate(zip(paths, several, strict=True), 1)
    }


def _is_run(value: Any) -> bool:
    first = next(iter(value.values()), None)
    inner = next(iter(first.values()), None) if isinstance(first, Mapping) else None
    return isinstance(inner, int | float)


def _path(run: Any) -> str:
    if isinstance(run, str | Path):
        return str(run)
    path = getattr(run, "path", None)
    return str(path) if path else ""


def short_names(paths: list[str]) -> list[str]:
    """The last part of each path, and as many parts before it as distinguish it from the others.

    Examples:
        >>> short_names(["out/a/run", "out/b/run"])
        ['a/run', 'b/run']
    """
    for parts in range(1, 1 + max((len(Path(path).parts) for path in paths), default=0)):
        names = ["/".join(Path(path).parts[-parts:]) for path in paths]
        if len(set(names)) == len(paths):
            return names
    raise OptionError(f"a path is given twice: {', '.join(paths)}. Give each once.")


def with_baseline(systems: dict[str, Any], baseline: str) -> tuple[dict[str, Any], str]:
    """The runs by name, and the name of the baseline, which is one of them or another run's path.

    Raises:
        OptionError: it is neither.
    """
    if baseline in systems:
        return systems, baseline
    names = {str(run): name for name, run in systems.items() if isinstance(run, str | Path)}
    if baseline not in names:
        if not Path(baseline).exists():
            raise OptionError(
                f"the baseline {baseline!r} is none of the runs: {', '.join(systems)}."
            )
        systems = named_runs([*systems.values(), baseline])
        names = {str(run): name for name, run in systems.items()}
    return systems, names[baseline]


def run_path(run: RunLike) -> str:
    """The folder of a run."""
    path = _path(run)
    if not path:
        raise OptionError("the run is in memory; give one that was written to a folder.")
    return path


def optional_run(run: RunLike | None, collection: Collection) -> Run | None:
    """Open a run, if there is one."""
    from irdistill.runs import as_run

    return None if run is None else as_run(run, collection)


def model_path(model: ModelLike) -> str:
    """The name or folder of a model; a student in memory is saved in the cache."""
    if isinstance(model, str | Path):
        return str(model)
    from irdistill.storage.build_cache import open_or_build
    from irdistill.storage.files import cache_folder, digest
    from irdistill.storage.sealed_folder import check_sealed_files, seal_files

    def build(place: Path) -> None:
        model.save(place / "model")
        seal_files(place)

    # students of equal weights may differ in prompts, lengths or pooling
    identity = digest(json.loads(json.dumps(model.identity(), default=str)))
    place = cache_folder() / "students" / identity
    open_or_build(place, build, check_sealed_files)
    return str(place / "model")


def with_hosted(model: ModelLike) -> Any:
    """A model as it is, or the encoder that the card of a hosted embedder declares."""
    if not isinstance(model, str | Path):
        return model
    from irdistill.teachers.hosted.hosted_loading import find_hosted_encoder

    return find_hosted_encoder(str(model)) or model


def with_encoder(model: ModelLike) -> Any:
    """As `with_hosted`, or the encoder of a folder that `irdistill export` wrote."""
    from irdistill.students.exported_encoder import ExportedEncoder, is_exported

    if isinstance(model, str | Path) and is_exported(model):
        return ExportedEncoder(model)
    return with_hosted(model)


def ray_options(
    engine: str, workers: int | None, ray_address: str | None
) -> tuple[int | None, str | None] | None:
    """Number of workers and address of a Ray cluster; None for this process."""
    if engine == "ray":
        return workers, ray_address
    if workers is not None or ray_address:
        raise OptionError("workers and ray_address need --engine ray; add it, or leave them out.")
    return None


def ray_cluster(engine: str, workers: int | None, ray_address: str | None) -> RayCluster | None:
    """The Ray cluster that encodes a corpus; None for this process."""
    options = ray_options(engine, workers, ray_address)
    if options is None:
        return None
    from irdistill.distributed.ray_cluster import RayCluster

    return RayCluster(*options)


def open_student(model: ModelLike, kind: str | None = None, **settings: Any) -> Student:
    """Load a saved model as a student of its kind, cross-encoders included."""
    from irdistill.modeling.model_files import STUDENT_FILE, read_model_json
    from irdistill.students.build import STUDENTS
    from irdistill.students.model_kinds import model_kind

    if not isinstance(model, str | Path):
        return model
    saved = read_model_json(str(model), STUDENT_FILE) or {}
    student: Student = STUDENTS[saved.get("kind") or model_kind(str(model), kind)].load(
        str(model), **settings
    )
    return student
