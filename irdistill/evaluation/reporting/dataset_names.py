"""Names of datasets in reports: short names for paths, and which queries are synthetic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from irdistill.collections.derived import DERIVED, is_derived
from irdistill.collections.slices import split_id, split_slice
from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json

_SYNTHETIC = "generate"


def short_names(datasets: Sequence[str]) -> dict[str, str]:
    """Names of datasets without their parent folders.

    ``/data/scifact#test[:300]`` becomes ``scifact#test[:300]``. Ids that are not paths stay as they
    are. If two names would be the same, they keep as many folders as needed to differ.
    """
    parts = {
        dataset: Path(_cut(dataset)[0]).expanduser().parts if _is_path(dataset) else ()
        for dataset in datasets
    }
    names: dict[str, str] = {}
    for dataset in datasets:
        if not parts[dataset]:
            names[dataset] = dataset
            continue
        for depth in range(1, len(parts[dataset]) + 1):
            names[dataset] = _ending(dataset, parts[dataset], depth)
            others = {
                other
                for other in datasets
                if other != dataset and _ending(other, parts[other], depth) == names[dataset]
            }
            if not others:
                break
    return names


def is_synthetic(dataset: str, beside: Path | None = None) -> bool:
    """Whether the queries of a dataset were generated from its documents by `irdistill generate`.

    Args:
        beside: a folder that may contain the dataset if its path is no longer right.
    """
    whole = Path(split_slice(dataset)[0]).expanduser()
    folder = whole if whole.is_dir() else Path(_cut(dataset)[0]).expanduser()
    for place in (folder, *([beside / folder.name] if beside is not None and folder.name else [])):
        if place.is_dir() and is_derived(place):
            try:
                identity = read_json(place / DERIVED)
                source = str(identity["source"]["id"])
                return identity["made_by"].get("verb") == _SYNTHETIC or (
                    source != dataset and is_synthetic(source, beside)
                )
            except (IrdistillError, KeyError, TypeError, AttributeError):
                return False
    return False


def _is_path(dataset: str) -> bool:
    path, _ = _cut(dataset)
    return path.startswith(("/", ".", "~")) or ("/" in path and Path(path).is_dir())


def _ending(dataset: str, parts: Sequence[str], depth: int) -> str:
    if not parts:
        return dataset
    return "/".join(parts[-depth:]).removeprefix("//") + _cut(dataset)[1]


def _cut(dataset: str) -> tuple[str, str]:
    """Split an id after its folder: ``sets/scifact#test[:300]`` gives ``sets/scifact`` and
    ``#test[:300]``.
    """
    place, part = split_slice(dataset)
    folder, split = split_id(place)
    return folder, (f"#{split}" if split else "") + part
