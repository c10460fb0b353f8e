"""The libraries that irdistill and its extras need, from the package metadata."""

from __future__ import annotations

from functools import cache
from importlib import metadata

from packaging.requirements import Requirement


@cache
def requirements() -> dict[str, list[Requirement]]:
    """Requirements by extra; the extra ``""`` is irdistill itself."""
    distribution = metadata.distribution("irdistill")
    parsed = [Requirement(line) for line in distribution.requires or ()]
    parsed = [line for line in parsed if line.name != "irdistill"]
    extras = distribution.metadata.get_all("Provides-Extra", [])
    return {"": [line for line in parsed if line.marker is None]} | {
        extra: [line for line in parsed if line.marker and line.marker.evaluate({"extra": extra})]
        for extra in extras
    }


def installed_version(library: str) -> str | None:
    """Version of an installed library; None when it is not installed."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


@cache
def modules_of(library: str) -> list[str]:
    """Public top-level modules of an installed library."""
    providers = metadata.packages_distributions()
    names = [name for name, libraries in providers.items() if library in libraries]
    return [name for name in names if not name.startswith("_") and name.isidentifier()]


def faiss_builds() -> list[str]:
    """Installed builds of faiss (faiss-cpu, faiss-gpu …); two overwrite each other's files."""
    return sorted(set(metadata.packages_distributions().get("faiss", ())))
