"""OpenSearch and Elasticsearch: bulk files and the mapping of the index."""

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
from irdistill.errors import InputError
from irdistill.storage.files import json_text

_LONGEST_ID = 512
"""Bytes of an ``_id``; longer document ids are replaced there by a UUID."""


class _LuceneServer(EngineFormat):
    """What both have in common: the bulk format."""

    kinds = ("dense", "sparse")
    why_not = " that is searched"
    part_name = "bulk-{:05d}.ndjson"

    def entry(self, index: EngineIndex, text: IndexedText, vector: Any) -> str:
        """The action and the document, a line each.

        Raises:
            InputError: a weight of a sparse vector is not positive.
        """
        whole = text.passage is None and 0 < len(text.id.encode()) <= _LONGEST_ID
        action = compact_json({"index": {"_id": text.id if whole else row_id(text)}})
        fields = compact_json(payload(index, text))[:-1]
        return f'{action}\n{fields},"vector":{_vector(index, vector)}}}\n'

    def other_files(self, index: EngineIndex, parts: Sequence[str]) -> Mapping[str, str]:
        """The body that creates the index, a script that loads it, and the query script."""
        more = {"terms.json": compact_json(index.terms) + "\n"} if index.terms else {}
        words = {"name": index.name, "title": self.title}
        return more | {
            "index.json": json_text(self.index_body(index)),
            "load.sh": fill_template("load-bulk.sh", **words),
            "query.py": self._query(index),
            "README.md": fill_template("bulk.md", kind=index.kind, **words),
        }

    def index_body(self, index: EngineIndex) -> dict[str, Any]:
        """The body of ``PUT /NAME``."""
        fields: dict[str, Any] = {"id": {"type": "keyword"}}
        if index.passages:
            fields["passage"] = {"type": "integer"}
        if index.texts:
            fields |= {"title": {"type": "text"}, "text": {"type": "text"}}
        fields["vector"] = self.vector_field(index)
        mappings = {"dynamic": "strict", "properties": fields}
        return {"settings": self.settings(index), "mappings": mappings}

    def settings(self, index: EngineIndex) -> dict[str, Any]:
        """Settings of the index."""
        return {"index": {"number_of_shards": 1}}

    def vector_field(self, index: EngineIndex) -> dict[str, Any]:
        """The mapping of the vectors."""
        raise NotImplementedError

    def search_body(self, index: EngineIndex) -> str:
        """The search of a query, as a Python expression."""
        raise NotImplementedError

    def _query(self, index: EngineIndex) -> str:
        rest = ', "size": 10, "_source": {"excludes": ["vector"]}'
        if index.passages:  # the best passage of each document
            rest += ', "collapse": {"field": "id"}'
        usage = 'python query.py "your question" > query.json'
        body = f"json.dumps({{{self.search_body(index)}{rest}}})"
        return query_script(index.facts, usage, body, named=bool(index.terms))


class OpenSearch(_LuceneServer):
    """A ``knn_vector`` field with an HNSW graph, or ``rank_features`` for sparse vectors."""

    title, most_dimensions = "OpenSearch", 16_000

    def settings(self, index: EngineIndex) -> dict[str, Any]:
        """Vectors are searched if ``index.knn`` is set."""
        shared = super().settings(index)
        return {"index": shared["index"] | ({"knn": True} if index.kind == "dense" else {})}

    def vector_field(self, index: EngineIndex) -> dict[str, Any]:
        """Vectors of cosine models have length 1, so the inner product is their similarity."""
        if index.kind == "sparse":
            return {"type": "rank_features"}
        method = {
            "name": "hnsw",
            "engine": "faiss",
            "space_type": "innerproduct",
            "parameters": {"m": 16, "ef_construction": 128},
        }
        return {"type": "knn_vector", "dimension": index.dimension, "method": method}

    def search_body(self, index: EngineIndex) -> str:
        """A ``knn`` query, or ``neural_sparse`` with weighted terms."""
        if index.kind == "sparse":
            return '"query": {"neural_sparse": {"vector": {"query_tokens": named}}}'
        fetched = 100 if index.passages else 10
        return f'"query": {{"knn": {{"vector": {{"vector": vector, "k": {fetched}}}}}}}'


class Elasticsearch(_LuceneServer):
    """A ``dense_vector`` or ``sparse_vector`` field."""

    title, most_dimensions = "Elasticsearch", 4_096

    def vector_field(self, index: EngineIndex) -> dict[str, Any]:
        """``dot_product`` needs vectors of length 1, which those of cosine models have."""
        if index.kind == "sparse":
            return {"type": "sparse_vector"}
        similarity = "dot_product" if index.similarity == "cosine" else "max_inner_product"
        return {
            "type": "dense_vector",
            "dims": index.dimension,
            "index": True,
            "similarity": similarity,
        }

    def search_body(self, index: EngineIndex) -> str:
        """A ``knn`` search, or a ``sparse_vector`` query with weighted terms."""
        if index.kind == "sparse":
            return '"query": {"sparse_vector": {"field": "vector", "query_vector": named}}'
        fetched = 100 if index.passages else 10
        return (
            f'"knn": {{"field": "vector", "query_vector": vector, "k": {fetched},'
            ' "num_candidates": 100}'
        )


def _vector(index: EngineIndex, vector: Any) -> str:
    if index.kind == "dense":
        return f"[{numbers(vector)}]"
    terms, weights = vector
    if len(weights) and weights.min() <= 0:
        raise InputError(
            "a document has a term with a weight that is not positive, which the field for sparse"
            " vectors refuses. Package the model as a bundle, or export it to qdrant."
        )
    pairs = zip(terms.tolist(), weights.tolist(), strict=True)
    named = (f"{compact_json(index.terms[term])}:{weight:.9g}" for term, weight in pairs)
    return f"{{{','.join(named)}}}"
