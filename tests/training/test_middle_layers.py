"""Pre-training on a teacher's middle layer: the tokens that are left, the loss, and resuming."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, BertConfig, BertModel, BertTokenizerFast
from transformers.models.bert.modeling_bert import BertLayer

from irdistill.errors import IrdistillError
from irdistill.storage.files import read_json
from irdistill.students.student_loading import load_transformer
from irdistill.training import pretraining as module
from irdistill.training.middle_layers import (
    MiddleLayerLoss,
    first_position,
    leave_out,
    load_lower_layers,
)
from irdistill.training.pretraining import pretrain
from irdistill.training.pretraining_options import PretrainOptions
from tests.training.support import digests
from tests.training.tiny import WORDS, make_backbone, make_collection

OPTIONS = PretrainOptions(
    steps=6,
    batch_size=8,
    learning_rate=5e-3,
    max_length=24,
    masked=0.5,
    precision="float32",
    checkpoint_every=2,
    log_every=1,
)
CPU = torch.device("cpu")


def make_teacher(folder: Path, words: list[str] = WORDS) -> str:
    """Four layers, wider than the backbone of `make_backbone`, with the same tokenizer."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    torch.manual_seed(5)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=24,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    BertTokenizerFast(vocab=vocab, model_max_length=32).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("middle")
    make_backbone(folder / "backbone")
    make_teacher(folder / "teacher")
    return folder


def go(place: Path, out: Path, options: PretrainOptions = OPTIONS, **settings: Any) -> Path:
    arguments = {"layers": 1, "teacher": str(place / "teacher")} | settings
    return pretrain(make_collection(), str(place / "backbone"), out, options, **arguments)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "train_log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("share", "left"), [(0.15, 17), (0.5, 10), (0.75, 5), (0.99, 1)])
def test_a_share_of_the_tokens_is_left_out(share: float, left: int) -> None:
    row = {"input_ids": [2, *range(10, 30), 3], "special_tokens_mask": [1, *[0] * 20, 1]}
    short = {"input_ids": [2, 9, 3], "special_tokens_mask": [1, 0, 1]}
    batch = leave_out([row, short], share, np.random.default_rng(1), 0)
    assert batch["input_ids"].shape == (2, left + 2)
    tokens, positions = batch["input_ids"][0].tolist(), batch["position_ids"][0].tolist()
    assert positions == sorted(set(positions)) and (positions[0], positions[-1]) == (0, 21)
    assert tokens == [row["input_ids"][place] for place in positions]
    assert batch["input_ids"][1].tolist()[:3] == [2, 9, 3]
    assert batch["attention_mask"].sum(dim=1).tolist() == [left + 2, 3]
    again = leave_out([row, short], share, np.random.default_rng(2), 0)
    assert left == 20 or again["position_ids"].tolist() != batch["position_ids"].tolist()


def test_the_layers_above_do_not_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[int] = Counter()
    inner = BertLayer.forward

    def counted(self: Any, *arguments: Any, **keywords: Any) -> Any:
        calls[id(self)] += 1
        return inner(self, *arguments, **keywords)

    monkeypatch.setattr(BertLayer, "forward", counted)
    tokenizer = load_transformer(str(place / "backbone")).tokenizer
    lower = load_lower_layers(str(place / "teacher"), 2, tokenizer)
    tokens = {
        "input_ids": torch.tensor([[2, 7, 9, 3]]),
        "position_ids": torch.tensor([[0, 3, 7, 9]]),
    }
    states = lower(**tokens).last_hidden_state
    assert len(calls) == 2 and set(calls.values()) == {1}
    whole = AutoModel.from_pretrained(place / "teacher").eval()
    every = whole(**tokens, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states, every[2])
    assert not any(parameter.requires_grad for parameter in lower.parameters())
    default = load_lower_layers(str(place / "teacher"), None, tokenizer)
    torch.testing.assert_close(default(**tokens).last_hidden_state, every[3])


def test_the_loss_by_hand(place: Path) -> None:
    student = load_transformer(str(place / "backbone"), task="fill-mask", new_head=True)
    lower = load_lower_layers(str(place / "teacher"), 2, student.tokenizer)
    loss = MiddleLayerLoss(student.model, lower, CPU, seed=3).eval()
    batch = {
        "input_ids": torch.tensor([[2, 7, 9, 3], [2, 8, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        "position_ids": torch.tensor([[0, 3, 7, 9], [0, 1, 2, 0]]),
    }
    value = loss(**batch).loss
    h = student.model.base_model(**batch).last_hidden_state.detach().numpy()
    t = AutoModel.from_pretrained(place / "teacher").eval()(
        **batch, output_hidden_states=True
    ).hidden_states[2].detach().numpy()  # fmt: skip
    weight, bias = (p.detach().numpy() for p in loss.projection.parameters())
    squares = (h @ weight.T + bias - t) ** 2
    expected = np.concatenate([squares[0], squares[1][:3]]).mean()
    assert value.item() == pytest.approx(float(expected), rel=1e-5)
    value.backward()
    assert all(p.grad is None for p in lower.parameters())
    assert student.model.base_model.embeddings.word_embeddings.weight.grad is not None
    names = set(loss.state_dict())
    assert {name.split(".")[0] for name in names} == {"student", "projection"}
    same = load_lower_layers(str(place / "backbone"), 1, student.tokenizer)
    assert isinstance(MiddleLayerLoss(student.model, same, CPU, 0).projection, torch.nn.Identity)


def test_it_learns_and_saves_a_backbone(place: Path, tmp_path: Path) -> None:
    model = go(place, tmp_path / "out", replace(OPTIONS, steps=30, warmup=0.0))
    values = losses(tmp_path / "out")
    assert np.mean(values[-3:]) < 0.8 * values[0]
    saved = AutoModel.from_pretrained(model)
    assert (saved.config.hidden_size, saved.config.num_hidden_layers) == (16, 1)
    identity = read_json(tmp_path / "out" / "training.json")["identity"]
    assert identity["teacher"]["layer"] == 3 and identity["options"]["masked"] == 0.5


def test_a_killed_one_goes_on_to_the_same_bytes(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(place, tmp_path / "whole")
    inner = module.PretrainingLoop.train_step

    def stop(self: Any, step: int, batch: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt
        inner(self, step, batch)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(module.PretrainingLoop, "train_step", stop)
        go(place, tmp_path / "killed")
    go(place, tmp_path / "killed")
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    with pytest.raises(IrdistillError, match="layer"):
        go(place, tmp_path / "whole", replace(OPTIONS, teacher_layer=1))
    with pytest.raises(IrdistillError, match="teacher"):
        go(place, tmp_path / "whole", teacher=None)


def test_what_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(IrdistillError, match="teacher_layer=2 was given without teacher"):
        go(place, tmp_path / "no", replace(OPTIONS, teacher_layer=2), teacher=None)
    with pytest.raises(IrdistillError, match=r"teacher_layer is 5, and the teacher .* has 4"):
        go(place, tmp_path / "no", replace(OPTIONS, teacher_layer=5))
    other = make_teacher(tmp_path / "other", [*WORDS[:-1], "another"])
    with pytest.raises(IrdistillError, match="another vocabulary than the backbone"):
        go(place, tmp_path / "no", teacher=other)
    assert not (tmp_path / "no").exists()


def test_positions_begin_where_the_model_begins_them(place: Path) -> None:
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=12,
    )  # fmt: skip
    model = RobertaModel(config).eval()
    tokens = torch.tensor([[5, 6, 7, 8]])
    positions = torch.arange(4)[None] + first_position(model)
    torch.testing.assert_close(
        model(tokens, position_ids=positions).last_hidden_state, model(tokens).last_hidden_state
    )
    assert first_position(AutoModel.from_pretrained(place / "teacher")) == 0
