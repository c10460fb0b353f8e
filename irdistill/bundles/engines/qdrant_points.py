"""Qdrant: points as bodies of its HTTP interface, and the collection that holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from irdistill.bundles.engines.engine_files import (
    EngineFormat,
    EngineIndex,
    compact_json,
    numbers,
    payload,
    row_id,
)
from irdistill.bundles.indexed_rows import IndexedText
from irdistill.bundles.package_scripts import fill_template, query_script
from irdistill.storage.files import json_text

SPARSE = "sparse"
"""Name of the vectors of a sparse model; Qdrant's sparse vectors need one."""


class Qdrant(EngineFormat):
    """Dense vectors, sparse vectors, and multivectors compared by MaxSim."""

    title, kinds = "Qdrant", ("dense", "sparse", "late-interaction")
    part_name = "points-{:05d}.json"
    head, between, tail = '{"points":[\n', ",\n", "\n]}\n"

    def entry(self, index: EngineIndex, text: IndexedText, vector: Any) -> str:
        """A point. Its id is a UUID, which Qdrant needs; the payload has the document's id."""
        fields = compact_json(payload(index, text))
        return f'{{"id":"{row_id(text)}","vector":{_vector(index, vector)},"payload":{fields}}}'

    def other_files(self, index: EngineIndex, parts: Sequence[str]) -> Mapping[str, str]:
        """The body that creates the collection, a script that loads it, and the query script."""
        return {
            "collection.json": json_text(collection_body(index)),
            "load.sh": fill_template("load-points.sh", name=index.name),
            "query.py": _query(index),
            "README.md": fill_template(
                "qdrant.md", name=index.name, kind=index.kind, passages=index.passages
            ),
        }


def collection_body(index: EngineIndex) -> dict[str, Any]:
    """The body of ``PUT /collections/NAME``. Vectors of cosine models have length 1 already."""
    if index.kind == "sparse":
        return {"vectors": {}, "sparse_vectors": {SPARSE: {}}}
    vectors: dict[str, Any] = {"size": index.dimension, "distance": "Dot"}
    if index.kind == "late-interaction":
        vectors["multivector_config"] = {"comparator": "max_sim"}
        vectors["hnsw_config"] = {"m": 0}  # exact: a graph over multivectors is slow to build
    return {"vectors": vectors}


def _vector(index: EngineIndex, vector: Any) -> str:
    if index.kind == "dense":
        return f"[{numbers(vector)}]"
    if index.kind == "late-interaction":
        return f"[{','.join(f'[{numbers(token)}]' for token in vector)}]"
    terms, weights = vector
    return (
        f'{{"{SPARSE}":{{"indices":{compact_json(terms.tolist())},"values":[{numbers(weights)}]}}}}'
    )


def _query(index: EngineIndex) -> str:
    body = '{"query": vector, "limit": 10, "with_payload": True}'
    if index.kind == "sparse":
        body = (
            '{"query": {"indices": list(terms), "values": list(terms.values())},'
            f' "using": "{SPARSE}", "limit": 10, "with_payload": True}}'
        )
    if index.passages:  # the best passage of each document
        body = body[:-1] + ', "group_by": "id", "group_size": 1}'
    usage = 'python query.py "your question" > query.json'
    return query_script(index.facts, usage, f"json.dumps({body})")
