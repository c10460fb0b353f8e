"""Rerankers of every family against plain transformers."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ElectraConfig,
    ElectraModel,
)

from irdistill import IrdistillError
from irdistill.collections import Query
from irdistill.modeling.batching import TokenBudget
from irdistill.teachers import CrossEncoderTeacher, TextPair, score_pairs
from irdistill.teachers.teacher_kinds import kind_of
from tests.teachers.families import tiny_classifier, tiny_lightning_ir

QUERIES = ["how does the cat sat", "what is heat"]
TEXTS = [
    "the cat sat in the red mat",
    "dog and bird",
    "heat shock wave in the cell " * 30,
    "why? small fish!",
]
PAIRS = [
    TextPair(Query(f"q{number}", query), row, text)
    for number, query in enumerate(QUERIES)
    for row, text in enumerate(TEXTS)
]
FAMILIES = ["bert", "electra", "roberta", "xlm-roberta", "deberta-v2", "modernbert", "distilbert"]
NO_OPENVINO = pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino")
#: tracing takes seconds, so of the back end openvino only those whose positions are not learned
#: (test_teachers has BERT)
CASES = [
    *((family, "torch") for family in FAMILIES),
    *(
        pytest.param(family, "openvino", marks=[NO_OPENVINO, pytest.mark.slow])
        for family in ("deberta-v2", "modernbert")
    ),
]


def plain(folder: Path) -> np.ndarray:
    tokenizer, network = (
        AutoTokenizer.from_pretrained(folder),
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
    )
    logits = []
    for pair in PAIRS:
        inputs = tokenizer(
            pair.query.text,
            pair.text,
            truncation="longest_first",
            max_length=64,
            return_tensors="pt",
        )
        with torch.no_grad():
            logits.append(network(**inputs).logits[0, 0].item())
    return np.array(logits, np.float32)


@pytest.mark.parametrize(("family", "backend"), CASES)
def test_a_sequence_classifier_of_any_family_gives_its_logits(
    tmp_path: Path, family: str, backend: str
) -> None:
    folder = tiny_classifier(tmp_path / family, family)
    teacher = CrossEncoderTeacher(str(folder), precision="float32", backend=backend, device="cpu")
    assert teacher.max_length == 64
    assert teacher.head is not None and teacher.head[0].dtype == np.float32
    logits, _ = score_pairs(teacher, PAIRS, TokenBudget(70))  # batches of many shapes
    expected = plain(folder)
    assert logits.values == pytest.approx(expected, abs=1e-5, rel=1e-5)
    assert np.ptp(expected) > 0.05


@pytest.mark.parametrize("prefix", ["", "electra."])
def test_a_cross_encoder_of_lightning_ir_is_an_encoder_and_a_linear_layer(
    tmp_path: Path, prefix: str
) -> None:
    folder = tiny_lightning_ir(tmp_path / "mono")
    config = ElectraConfig(
        **{
            key: value
            for key, value in json.loads((folder / "config.json").read_text()).items()
            if key not in ("model_type", "architectures")
        }
    )
    weights = load_file(folder / "model.safetensors")
    encoder = ElectraModel(config).eval()
    encoder.load_state_dict(
        {key: value for key, value in weights.items() if key != "linear.weight"}
    )
    save_file(
        {key if key == "linear.weight" else prefix + key: value for key, value in weights.items()},
        folder / "model.safetensors",
    )
    tokenizer, expected = AutoTokenizer.from_pretrained(folder), []
    for pair in PAIRS:
        query, text = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (pair.query.text, pair.text)
        )
        ids = [
            tokenizer.cls_token_id,
            *query[:4],
            tokenizer.sep_token_id,
            *text[:9],
            tokenizer.sep_token_id,
        ]
        types = [0] * (2 + len(query[:4])) + [1] * (1 + len(text[:9]))
        with torch.no_grad():
            hidden = encoder(
                torch.tensor([ids]), token_type_ids=torch.tensor([types])
            ).last_hidden_state[0, 0]
        expected.append(float(weights["linear.weight"][0] @ hidden))
    assert kind_of(str(folder)) == "cross-encoder"
    teacher = CrossEncoderTeacher(str(folder), precision="float32", backend="torch", device="cpu")
    logits, lengths = (
        score_pairs(teacher, PAIRS, TokenBudget(30))[0].values,
        teacher.tokenize(PAIRS)[1],
    )
    assert lengths.max() == 4 + 9 + 3
    assert logits == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert np.ptp(logits) > 0.05
    assert teacher.identity["query_length"] == 4 and teacher.identity["document_length"] == 9
    save_file(
        {key: value for key, value in weights.items() if "encoder.layer.1" not in key},
        folder / "model.safetensors",
    )
    with pytest.raises(IrdistillError, match="would be random"):
        CrossEncoderTeacher(str(folder), device="cpu")
