"""What is searched and asked: corpora, queries with their turns, judgments, and their readers."""

from __future__ import annotations

from irdistill.collections.any_collection import load_collection
from irdistill.collections.batches import Document
from irdistill.collections.collection import Collection, Qrels, Query, Turn
from irdistill.collections.compiling import compile_corpus
from irdistill.collections.corpus import Corpus
from irdistill.collections.judgments import read_judgments
from irdistill.collections.load_report import Finding, LoadReport

__all__ = [
    "Collection",
    "Corpus",
    "Document",
    "Finding",
    "LoadReport",
    "Qrels",
    "Query",
    "Turn",
    "compile_corpus",
    "load_collection",
    "read_judgments",
]
