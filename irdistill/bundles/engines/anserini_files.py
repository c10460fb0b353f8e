"""Lucene through Anserini and Pyserini: collections of JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from irdistill.bundles.engines.engine_files import (
    EngineFormat,
    EngineIndex,
    compact_json,
    numbers,
)
from irdistill.bundles.indexed_rows import IndexedText
from irdistill.bundles.package_scripts import fill_template, query_script
from irdistill.errors import InputError

LEVELS = 100
"""Anserini counts whole numbers: a weight is rounded to hundredths."""


class Anserini(EngineFormat):
    """``JsonDenseVectorCollection``, or ``JsonVectorCollection`` with quantized impacts."""

    title, kinds, most_dimensions = "Anserini", ("dense", "sparse"), 4_096
    part_documents, part_name = 50_000, "collection/documents-{:05d}.jsonl"

    def id_fault(self, doc_id: str) -> str:
        """As `EngineFormat.id_fault`."""
        if doc_id.split() == [doc_id]:
            return ""
        return "is empty or holds spaces, which the run files of Anserini cannot hold"

    def entry(self, index: EngineIndex, text: IndexedText, vector: Any) -> str:
        """A line of JSON; a passage's id is the document's with ``#`` and its number."""
        return f'{_fields(index, text)[:-1]},"vector":{_vector(index, vector)}}}\n'

    def other_files(self, index: EngineIndex, parts: Sequence[str]) -> Mapping[str, str]:
        """The query script and the commands."""
        more = {"terms.json": compact_json(index.terms) + "\n"} if index.terms else {}
        notes = fill_template("anserini.md", kind=index.kind, passages=index.passages)
        return more | {"query.py": _query(index), "README.md": notes}


def _fields(index: EngineIndex, text: IndexedText) -> str:
    number = "" if text.passage is None else f"#{text.passage}"
    contents = f"{text.title}\n{text.text}".strip() if index.texts else ""
    name = "docid" if index.kind == "dense" else "id"  # as each collection class of Anserini reads
    return compact_json({name: text.id + number, "contents": contents or text.id})


def _vector(index: EngineIndex, vector: Any) -> str:
    if index.kind == "dense":
        return f"[{numbers(vector)}]"
    terms, weights = vector
    if len(weights) and weights.min() < 0:
        raise InputError(
            "a document has a term with a negative weight, which an impact index cannot store."
            " Package the model as a bundle, or export it to qdrant."
        )
    levels = np.rint(weights * LEVELS).astype(int).tolist()
    pairs = zip(terms.tolist(), levels, strict=True)
    return compact_json({index.terms[term]: level for term, level in pairs if level})


def _query(index: EngineIndex) -> str:
    usage = 'python query.py "your question" > topics.jsonl'
    if index.kind == "dense":
        return query_script(index.facts, usage, 'json.dumps({"qid": "1", "vector": vector})')
    words = f'" ".join([name] * round(weight * {LEVELS}))'
    topic = f'"1\\t" + " ".join({words} for name, weight in named.items())'
    usage = 'python query.py "your question" > topics.tsv'
    return query_script(index.facts, usage, topic, named=True)
