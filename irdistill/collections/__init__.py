"""What is searched and asked: corpora, queries with their turns, judgments, and their readers."""

from __future__ import annotations

from irdistill.collections.collection import Collection, Query, Turn
from irdistill.collections.collection_loader import load_collection
from irdistill.collections.compiling import compile_corpus
from irdistill.collections.corpus import Corpus
from irdistill.collections.document_table import Document
from irdistill.collections.judgments import read_judgments
from irdistill.collections.load_report import LoadReport, Problem
from irdistill.collections.qrels import Qrels
from irdistill.collections.qrels_conversion import QrelsLike, as_qrels

__all__ = [
    "Collection",
    "Corpus",
    "Document",
    "LoadReport",
    "Problem",
    "Qrels",
    "QrelsLike",
    "Query",
    "Turn",
    "as_qrels",
    "compile_corpus",
    "load_collection",
    "read_judgments",
]
