"""Teachers: strong, slow rerankers whose scores are computed once and stored."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from irdistill.teachers.bm25_teacher import BM25Teacher
from irdistill.teachers.cost_estimate import CostEstimate, EstimateOptions, estimate_cost
from irdistill.teachers.function_teacher import FunctionTeacher, teacher
from irdistill.teachers.part_scoring import score_pairs
from irdistill.teachers.protocol import (
    BatchTeacher,
    ListwiseTeacher,
    PartialOrder,
    Teacher,
    TeacherScores,
    TextPair,
)
from irdistill.teachers.score_options import ScoreOptions, TeacherOptions
from irdistill.teachers.scoring import score
from irdistill.teachers.teacher_card import TeacherCard, read_card
from irdistill.teachers.teacher_loading import TeacherSpec, load_teacher, responses_file

__all__ = [
    "BM25Teacher",
    "BatchTeacher",
    "CausalTeacher",
    "CostEstimate",
    "CrossEncoderTeacher",
    "EstimateOptions",
    "FunctionTeacher",
    "LateInteractionTeacher",
    "ListwiseTeacher",
    "PartialOrder",
    "RetrieverTeacher",
    "ScoreOptions",
    "Seq2SeqTeacher",
    "SparseRetrieverTeacher",
    "Teacher",
    "TeacherCard",
    "TeacherOptions",
    "TeacherScores",
    "TeacherSpec",
    "TextPair",
    "estimate_cost",
    "load_teacher",
    "read_card",
    "responses_file",
    "score",
    "score_pairs",
    "teacher",
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
