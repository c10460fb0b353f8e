"""Clusters of similar queries: k-means of their vectors, stored in the training's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irdistill.errors import DamagedError, InputError, SettingsDifferError
from irdistill.search.vectors.faiss_index import import_faiss
from irdistill.storage.files import digest, read_json_object, write_json

if TYPE_CHECKING:
    from irdistill.students.dense_student import DenseStudent

_ROUNDS = 20
FILE = "clusters.json"


def query_clusters(
    folder: Path,
    encoder: DenseStudent,
    query_ids: Sequence[str],
    texts: Sequence[str],
    count: int,
    seed: int,
) -> np.ndarray:
    """(Q,) int64, the cluster of each query; spherical k-means if the encoder compares by cosine.

    The clusters are written to ``clusters.json``, which a training that resumes reads.

    Raises:
        InputError: there are fewer queries than clusters.
        SettingsDifferError: the folder has other clusters.
        DamagedError: ``clusters.json`` is damaged.
    """
    if len(texts) < count:
        raise InputError(
            f"clusters is {count}, and there are {len(texts)} queries; choose a smaller number."
        )
    identity = {
        "encoder": encoder.identity(),
        "queries": digest(list(query_ids)),
        "clusters": count,
        "seed": seed,
    }
    path = folder / FILE
    if path.exists():
        return _read_clusters(path, identity, len(texts))
    faiss = import_faiss()
    cosine = encoder.similarity == "cosine"
    vectors = encoder.encode(list(texts), "query", "float32", normalize=cosine)
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=_ROUNDS,
        seed=seed,
        spherical=cosine,
        min_points_per_centroid=1,
        max_points_per_centroid=max(256, -(-len(vectors) // count)),
    )
    means.train(vectors)
    clusters: np.ndarray = means.index.search(vectors, 1)[1][:, 0].astype(np.int64)
    write_json(path, {"identity": identity, "clusters": clusters.tolist()})
    return clusters


def _read_clusters(path: Path, identity: dict[str, object], count: int) -> np.ndarray:
    stored = read_json_object(path)
    if stored.get("identity") != identity:
        raise SettingsDifferError(
            f"{path} has clusters of other queries, or by another encoder; remove it."
        )
    clusters = stored.get("clusters")
    if (
        not isinstance(clusters, list)
        or len(clusters) != count
        or not all(type(cluster) is int for cluster in clusters)
    ):
        raise DamagedError(
            path, f"is damaged: it should have a number for each of {count} queries", "Remove it."
        )
    return np.array(clusters, dtype=np.int64)
