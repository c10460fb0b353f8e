"""Teachers: strong, slow rerankers whose scores are computed once and kept."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irdistill.teachers.bm25 import BM25Teacher
from irdistill.teachers.engine import score, score_pairs
from irdistill.teachers.estimate import Estimate, estimate
from irdistill.teachers.loading import TeacherCard, load_teacher, read_card, responses_file
from irdistill.teachers.protocol import BatchTeacher, Pair, Scores, Teacher
from irdistill.teachers.ray_engine import RayEngine
from irdistill.teachers.recording import score_with_representations
from irdistill.teachers.spec import TeacherSpec

__all__ = [
    "BM25Teacher",
    "BatchTeacher",
    "CausalTeacher",
    "CrossEncoderTeacher",
    "Estimate",
    "LateInteractionTeacher",
    "Pair",
    "RayEngine",
    "RetrieverTeacher",
    "Scores",
    "Seq2SeqTeacher",
    "SparseRetrieverTeacher",
    "Teacher",
    "TeacherCard",
    "TeacherSpec",
    "estimate",
    "load_teacher",
    "read_card",
    "responses_file",
    "score",
    "score_pairs",
    "score_with_representations",
]

_WITH_TORCH = {
    "CausalTeacher": "causal",
    "CrossEncoderTeacher": "cross_encoder",
    "LateInteractionTeacher": "late_interaction",
    "RetrieverTeacher": "retriever",
    "Seq2SeqTeacher": "seq2seq",
    "SparseRetrieverTeacher": "sparse_retriever",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module(f"irdistill.teachers.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module 'irdistill.teachers' has no attribute {name!r}")
