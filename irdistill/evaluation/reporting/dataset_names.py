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

    Examples:
        >>> short_names(["/data/scifact#test", "beir/nq"])
        {'/data/scifact#test': 'scifact#test', 'beir/nq': 'beir/nq'}
    """
    endings = {dataset: _endings(dataset) for dataset in datasets}
    return {
        dataset: next(
            (
                name
                for name in names
                if not any(name in endings[other] for other in datasets if other != dataset)
            ),
            names[-1],
        )
        for dataset, names in endings.items()
    }


def _endings(dataset: str) -> list[str]:
    """The names of a dataset, the shortest first: with more and more folders of its path."""
    path, rest = _cut(dataset)
    if not path.startswith(("/", ".", "~")) and not ("/" in path and Path(path).is_dir()):
        return [dataset]
    parts = Path(path).expanduser().parts
    return [
        "/".join(parts[-count:]).removeprefix("//") + rest for count in range(1, len(parts) + 1)
    ]


def _cut(dataset: str) -> tuple[str, str]:
    """Split an id after its folder: ``sets/a#test[:9]`` gives ``sets/a`` and ``#test[:9]``."""
    place, part = split_slice(dataset)
    folder, split = split_id(place)
    return folder, (f"#{split}" if split else "") + part


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
