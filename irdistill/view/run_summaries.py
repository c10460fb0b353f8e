"""The runs of a workspace in short, from their manifests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from irdistill.errors import IrdistillError
from irdistill.runs.manifest import MANIFEST, Manifest
from irdistill.view.workspace import Artifact


@dataclass(frozen=True)
class RunSummary:
    """A finished run.

    Attributes:
        key: its key in the workspace.
        model: what computed the scores.
        collection: the id of its collection; may be empty.
        corpus_and_queries: fingerprints; runs that agree in them can be compared.
    """

    key: str
    kind: str
    model: str
    collection: str
    corpus_and_queries: tuple[str, str]
    queries: int
    rows: int
    unscored: int
    reranked: bool

    @property
    def documents_per_query(self) -> str:
        """The mean length of a list."""
        return f"{self.rows / self.queries:.0f}" if self.queries else "0"


class RunSummaries:
    """Reads each manifest once, and again when it changes."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, RunSummary | None]] = {}

    def of(self, artifacts: Iterable[Artifact]) -> list[RunSummary]:
        """The finished runs among artifacts; damaged and unfinished ones are left out."""
        summaries = [self._read(artifact) for artifact in artifacts]
        return [summary for summary in summaries if summary is not None]

    def _read(self, artifact: Artifact) -> RunSummary | None:
        version = run_version(artifact)
        stored = self._known.get(artifact.key)
        if stored is None or stored[0] != version:
            stored = self._known[artifact.key] = (version, _summary(artifact))
        return stored[1]


def run_version(artifact: Artifact) -> tuple[str, int, int]:
    """What changes when a run is written again."""
    try:
        status = (artifact.path / MANIFEST).stat()
    except OSError:
        return (str(artifact.path), 0, 0)
    return (str(artifact.path), status.st_mtime_ns, status.st_size)


def _summary(artifact: Artifact) -> RunSummary | None:
    try:
        manifest = Manifest.read(artifact.path)
    except (IrdistillError, OSError):
        return None
    if not manifest.complete or manifest.shard:
        return None
    identity = manifest.identity
    described = identity.collection
    return RunSummary(
        artifact.key,
        identity.kind,
        model_of(identity.producer),
        str(described.get("id") or ""),
        (str(described.get("corpus")), str(described.get("queries"))),
        manifest.queries,
        manifest.rows,
        manifest.nulls,
        identity.candidates is not None,
    )


def model_of(producer: dict[str, Any]) -> str:
    """The model that a manifest names; empty if it names none."""
    for name in ("model", "teacher", "name", "method", "format"):
        if isinstance(producer.get(name), str):
            return str(producer[name])
    return ""
