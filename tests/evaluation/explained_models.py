"""Tiny models of each kind whose scores can be explained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from irdistill.students import (
    DenseStudent,
    LateInteractionStudent,
    SparseStudent,
)
from irdistill.students.static_tower import query_tokenizer, static_model, summed_model
from irdistill.students.student_base import Student
from irdistill.students.towers import copy_tower, two_towers
from irdistill.students.word_vectors import WordVectors
from tests.students.tiny import WORDS, tiny_backbone

KINDS = (
    "dense",
    "terms",
    "beside",
    "beside terms, prompted",
    "static",
    "sparse",
    "inference-free",
    "late-interaction",
)


def explained_model(kind: str, folder: Path) -> Student:
    """A model of a kind, saved in a folder and opened from it."""
    built = _build(kind, str(tiny_backbone(folder / "backbone", layers=1)))
    built.save(folder / "model")
    return type(built).load(folder / "model")


def _build(kind: str, backbone: str) -> Student:
    random = np.random.default_rng(5)
    if kind == "sparse":
        return SparseStudent(backbone)
    if kind == "inference-free":
        return SparseStudent(backbone, inference_free=True)
    if kind == "late-interaction":
        return LateInteractionStudent(backbone, dimension=16, expand_queries=12)
    student = DenseStudent(backbone, similarity="cosine")
    if kind == "terms":
        return with_word_vectors(student)
    first = student._first("query")
    weight = random.normal(size=(len(first.tokenizer), student.dimension)).astype(np.float32)
    if kind.startswith("beside"):
        if kind != "beside":
            student = with_word_vectors(
                DenseStudent(backbone, query_prompt="how is ", pooling="cls")
            )
        weight[first.tokenizer.all_special_ids] = 0
        return DenseStudent.from_model(summed_model(student, weight))
    if kind == "static":
        return DenseStudent.from_model(static_model(student, query_tokenizer(student), weight))
    assert kind == "dense"
    return student


def with_word_vectors(student: DenseStudent) -> DenseStudent:
    """A student with the vectors of some words behind its query tower."""
    words = WORDS[2:20]
    weight = torch.randn(len(words), student.dimension, generator=torch.manual_seed(3))
    tower = copy_tower(student.model, None)
    vectors = WordVectors(student._first("query").tokenizer, [[word] for word in words], weight)
    return DenseStudent.from_model(two_towers(student.model, [*tower, vectors]))
