"""Queries that lie close together: k-means of their vectors, kept in the training's folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from irdistill.errors import IrdistillError
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
    """(Q,) int64 the cluster of each query, of ``count`` by k-means; spherical where the encoder
    compares by cosine.

    They are written to ``clusters.json``, and read there again by a training that goes on.

    Raises:
        IrdistillError: there are fewer queries than clusters, or the folder holds other clusters.
    """
    if len(texts) < count:
        raise IrdistillError(
            f"clusters={count} was asked for, and there are {len(texts)} queries; ask for fewer."
        )
    identity = {
        "encoder": encoder.identity(),
        "queries": digest(list(query_ids)),
        "clusters": count,
        "seed": seed,
    }
    path = folder / FILE
    if path.exists():
        there = read_json_object(path)
        if there.get("identity") != identity:
            raise IrdistillError(
                f"{path} holds clusters of other queries, or by another encoder; remove it."
            )
        clusters = there.get("clusters")
        if (
            not isinstance(clusters, list)
            or len(clusters) != len(texts)
            or not all(type(one) is int for one in clusters)
        ):
            raise IrdistillError(
                f"{path} is damaged: it should hold a number for each of {len(texts)} queries;"
                " remove it."
            )
        return np.array(clusters, dtype=np.int64)
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
    clusters = means.index.search(vectors, 1)[1][:, 0].astype(np.int64)
    write_json(path, {"identity": identity, "clusters": clusters.tolist()})
    return clusters
