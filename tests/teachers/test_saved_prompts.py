"""Rerankers that were saved with prompts score as ``CrossEncoder.predict`` does, and the manifest
says with which.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, MultiVectorEncoder, SparseEncoder
from transformers import AutoTokenizer

from irdistill import IrdistillError
from irdistill.collections import Query
from irdistill.students import build_student
from irdistill.teachers import CrossEncoderTeacher, TextPair, score_pairs
from irdistill.teachers.causal_teacher import CausalTeacher
from irdistill.teachers.late_interaction_teacher import LateInteractionTeacher
from irdistill.teachers.sparse_retriever_teacher import SparseRetrieverTeacher
from tests.students.tiny import tiny_backbone
from tests.teachers.families import tiny_causal, tiny_classifier
from tests.teachers.tiny import tiny_cross_encoder

TEXTS = [
    "the cat sat in the red mat",
    "dog and bird",
    "heat shock wave in the cell " * 9,
    "why? small fish!",
]
PAIRS = [
    TextPair(Query(f"q{number}", text), row, document)
    for number, text in enumerate(["how does the cat sat", "what is heat"])
    for row, document in enumerate(TEXTS)
]
ROLES = (
    "{% for message in messages %}{% if message['role'] == 'system' %}S: {{ message['content'] }}"
    " {% elif message['role'] == 'query' %}Q: {{ message['content'] }} {% else %}D: {{"
    " message['content'] }}{% endif %}{% endfor %}"
)


def predicted(folder: Path, **options: Any) -> np.ndarray:
    encoder = CrossEncoder(str(folder), device="cpu")
    scored: np.ndarray = encoder.predict(
        [(pair.query.text, pair.text) for pair in PAIRS],
        activation_fn=torch.nn.Identity(),
        batch_size=1,
        **options,
    )
    return scored


@pytest.mark.parametrize(
    ("prompts", "name", "prompt"),
    [
        ({"ask": "what is the ", "other": "no "}, "ask", "what is the "),
        ({"ask": "what is the "}, None, ""),
        ({"ask": ""}, "ask", ""),
        ({"query": "big red ", "document": "slow "}, "query", "big red "),
    ],
)
def test_a_sequence_classifier(
    tmp_path: Path, prompts: dict[str, str], name: str | None, prompt: str
) -> None:
    CrossEncoder(
        str(tiny_cross_encoder(tmp_path / "plain")),
        device="cpu",
        prompts=prompts,
        default_prompt_name=name,
    ).save(str(tmp_path / "m"))
    teacher = CrossEncoderTeacher(
        str(tmp_path / "m"), precision="float32", backend="torch", device="cpu"
    )
    scored, _ = score_pairs(teacher, PAIRS)
    np.testing.assert_allclose(scored.values, predicted(tmp_path / "m"), atol=1e-5)
    assert teacher.identity["prompt"] == prompt
    assert (np.abs(scored.values - predicted(tmp_path / "m", prompt="")).max() > 0.01) == bool(
        prompt
    )


def with_roles(folder: Path, out: Path) -> None:
    """A reranker that takes messages, saved with a default prompt."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = ROLES
    tokenizer.save_pretrained(folder)
    encoder = CrossEncoder(
        str(folder), device="cpu", prompts={"ask": "find the cat"}, default_prompt_name="ask"
    )
    assert "message" in encoder[0].modality_config
    encoder.save(str(out))


def test_a_classifier_with_a_chat_template(tmp_path: Path) -> None:
    """In chat templates the prompt is the system message."""
    folder = tiny_classifier(tmp_path / "plain", "qwen2")
    with_roles(folder, tmp_path / "m")
    teacher = CrossEncoderTeacher(
        str(tmp_path / "m"), precision="float32", backend="torch", device="cpu"
    )
    scored, _ = score_pairs(teacher, PAIRS)
    np.testing.assert_allclose(scored.values, predicted(tmp_path / "m"), atol=1e-4)
    assert (
        "S: find the cat" in teacher.identity["template"]
        and teacher.identity["prompt"] == "find the cat"
    )


def test_a_causal_reranker(tmp_path: Path) -> None:
    folder = tiny_causal(tmp_path / "plain")
    with_roles(folder, tmp_path / "m")
    teacher = CausalTeacher(str(tmp_path / "m"), precision="float32", device="cpu")
    scored, _ = score_pairs(teacher, PAIRS)
    np.testing.assert_allclose(scored.values, predicted(tmp_path / "m"), atol=1e-4)
    assert teacher.identity["template"].startswith("S: find the cat Q: {query}")


@pytest.mark.parametrize(
    ("prompts", "name"),
    [({"query": "what is ", "document": "the "}, None), ({"all": "big "}, "all")],
)
@pytest.mark.parametrize(
    ("kind", "library", "teacher_class"),
    [
        ("sparse", SparseEncoder, SparseRetrieverTeacher),
        ("late-interaction", MultiVectorEncoder, LateInteractionTeacher),
    ],
)
def test_retrievers(
    tmp_path: Path,
    kind: str,
    library: Any,
    teacher_class: Any,
    prompts: dict[str, str],
    name: str | None,
) -> None:
    build_student(kind, str(tiny_backbone(tmp_path / "backbone", layers=2)), device="cpu").save(
        tmp_path / "plain"
    )
    library(str(tmp_path / "plain"), device="cpu", prompts=prompts, default_prompt_name=name).save(
        str(tmp_path / "m")
    )
    teacher = teacher_class(str(tmp_path / "m"), precision="float32", device="cpu")
    peer = library(str(tmp_path / "m"), device="cpu")
    expected = [
        peer.similarity(peer.encode_query([pair.query.text]), peer.encode_document([pair.text]))
        for pair in PAIRS
    ]
    np.testing.assert_allclose(
        teacher.score(PAIRS).values,
        [float(one.to_dense() if one.is_sparse else one) for one in expected],
        atol=1e-3,
        rtol=1e-4,
    )
    assert (
        teacher.identity["prompts"].items() >= prompts.items()
        and teacher.identity["default_prompt"] == name
    )


@pytest.mark.parametrize(
    ("settings", "refused"),
    [
        ({"text": {"max_length": 8}}, "text.max_length=8"),
        ({"text": {"padding": True}}, ""),
        ({"common": {"add_special_tokens": False}}, "common.add_special_tokens=False"),
    ],
)
def test_saved_processing_that_makes_other_tokens_is_refused(
    tmp_path: Path, settings: dict[str, Any], refused: str
) -> None:
    CrossEncoder(str(tiny_cross_encoder(tmp_path / "plain")), device="cpu").save(
        str(tmp_path / "m")
    )
    file = tmp_path / "m" / "sentence_bert_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"processing_kwargs": settings}))
    for load in (
        lambda: CrossEncoderTeacher(
            str(tmp_path / "m"), precision="float32", backend="torch", device="cpu"
        ),
        lambda: build_student("cross-encoder", str(tmp_path / "m"), device="cpu"),
    ):
        if refused:
            with pytest.raises(IrdistillError, match=refused.replace(".", r"\.")):
                load()
        else:
            load()
