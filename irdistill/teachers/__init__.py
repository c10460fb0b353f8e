"""Teachers: strong, slow rerankers whose scores are computed once and kept."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irdistill.teachers.bm25_teacher import BM25Teacher
from irdistill.teachers.cost_estimate import CostEstimate, estimate
from irdistill.teachers.protocol import BatchTeacher, Teacher, TeacherScores, TextPair
from irdistill.teachers.ray_scoring import RayEngine
from irdistill.teachers.recording import score_with_representations
from irdistill.teachers.scoring_engine import score, score_pairs
from irdistill.teachers.teacher_loading import TeacherCard, load_teacher, read_card, responses_file
from irdistill.teachers.teacher_spec import TeacherSpec

__all__ = [
    "BM25Teacher",
    "BatchTeacher",
    "CausalTeacher",
    "CostEstimate",
    "CrossEncoderTeacher",
    "LateInteractionTeacher",
    "RayEngine",
    "RetrieverTeacher",
    "Seq2SeqTeacher",
    "SparseRetrieverTeacher",
    "Teacher",
    "TeacherCard",
    "TeacherScores",
    "TeacherSpec",
    "TextPair",
    "estimate",
    "load_teacher",
    "read_card",
    "responses_file",
    "score",
    "score_pairs",
    "score_with_representations",
]

_WITH_TORCH = {
    "CausalTeacher": "causal_teacher",
    "CrossEncoderTeacher": "cross_encoder_teacher",
    "LateInteractionTeacher": "late_interaction_teacher",
    "RetrieverTeacher": "retriever_teacher",
    "Seq2SeqTeacher": "seq2seq_teacher",
    "SparseRetrieverTeacher": "sparse_retriever_teacher",
}


def __getattr__(name: str) -> Any:
    if name in _WITH_TORCH:
        return getattr(import_module(f"irdistill.teachers.{_WITH_TORCH[name]}"), name)
    raise AttributeError(f"module 'irdistill.teachers' has no attribute {name!r}")
