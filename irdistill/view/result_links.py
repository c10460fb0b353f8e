"""Links from a job to the pages that use its result."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlencode

from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json_object
from irdistill.view.workspace import RUN, TRAINING, Artifact


def links_of(artifact: Artifact, pages: Collection[str]) -> list[tuple[str, str]]:
    """Address and label of each page that shows the result of a job.

    Args:
        pages: paths of the pages that there are.
    """
    links: list[tuple[str, str, dict[str, str]]] = []
    if artifact.kind == RUN:
        key = artifact.key
        links.append(("/run", "Rankings", {"at": key}))
        links.append(("/scores", "Distribution of the scores", {"at": key}))
        links.append(("/compare", "Compare with other runs", {"with": key}))
    elif artifact.kind == TRAINING and (artifact.path / "model").is_dir():
        links.append(("/ask", "Ask the model", _system(artifact)))
    return [
        (f"{path}?{urlencode(values)}" if values else path, label)
        for path, label, values in links
        if path in pages
    ]


def _system(artifact: Artifact) -> dict[str, str]:
    """The model with the collection that it was trained on, if the record names it."""
    try:
        identity = read_json_object(artifact.path / "training.json")["identity"]
        return {"a": f"{artifact.key}/model @ {identity['collection']['id']}"}
    except (IrdistillError, KeyError, TypeError):
        return {}
