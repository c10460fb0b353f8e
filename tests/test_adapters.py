"""An adapter of peft without its backbone is loaded on it, as a model of any kind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from irdistill.collections import Collection, Query
from irdistill.errors import IrdistillError
from irdistill.modeling.model_files import resolve_model
from irdistill.modeling.model_revisions import model_revision
from irdistill.search import retrieve
from irdistill.students import CrossEncoderStudent, build_student, load_student
from irdistill.students.student_base import Student
from irdistill.teachers import (
    CausalTeacher,
    CrossEncoderTeacher,
    Seq2SeqTeacher,
    TextPair,
    score_pairs,
)
from irdistill.teachers.teacher_kinds import kind_of
from tests.students.tiny import tiny_backbone
from tests.teachers.families import tiny_causal, tiny_decoder, tiny_t5

peft = pytest.importorskip("peft", reason="adapters need the extra lora")
TEXTS = ["the cat sat on a mat", "rain", "what is the heart"]
PAIRS = [TextPair(Query("q", "what is rain"), row, text) for row, text in enumerate(TEXTS)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IRDISTILL_CACHE", str(tmp_path / "cache"))


def adapter(network: Any, folder: Path, tokenizer: Any = None, **settings: Any) -> Any:
    """Save a random adapter alone; gives the adapted network."""
    torch.manual_seed(3)
    targets = settings.pop("target_modules", ["query", "value"])
    adapted = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=targets, **settings))
    with torch.no_grad():
        for name, value in adapted.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                value.normal_(0.0, 0.3)
    adapted.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    assert not (folder / "config.json").exists() and (folder / "adapter_config.json").is_file()
    return adapted.eval()


def mean(network: Any, tokenizer: Any, text: str) -> np.ndarray:
    with torch.no_grad():
        return (
            network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(dim=0).numpy()
        )


@pytest.mark.parametrize("own_tokenizer", [False, True])
def test_an_encoder_is_a_dense_model(own_tokenizer: bool, tmp_path: Path) -> None:
    base = tiny_backbone(tmp_path / "base", layers=2)
    tokenizer = AutoTokenizer.from_pretrained(base)
    adapted = adapter(
        AutoModel.from_pretrained(base), tmp_path / "adapter", tokenizer if own_tokenizer else None
    )
    folder = str(tmp_path / "adapter")
    assert kind_of(folder) == "retriever"
    student: Any = load_student(folder, device="cpu")
    result = student.encode(TEXTS, show_progress=False, precision="float32")
    assert np.allclose(result, [mean(adapted, tokenizer, text) for text in TEXTS], atol=1e-5)
    assert not np.allclose(
        result, load_student(str(base), device="cpu").encode(TEXTS, show_progress=False), atol=1e-2
    )  # type: ignore[attr-defined]
    collection = Collection.from_dicts(
        "c", {f"d{row}": text for row, text in enumerate(TEXTS)}, {"q": "rain"}, {}
    )
    assert (
        retrieve(collection, folder, tmp_path / "run", 2, work=tmp_path / "work")["q"].doc_ids[0]
        == "d1"
    )
    assert build_student("dense", folder, device="cpu", layers=1).size()["document_parameters"] > 0


def test_the_backbones_own_modules_are_kept(tmp_path: Path) -> None:
    first = Transformer(str(tiny_backbone(tmp_path / "bert", layers=2)))
    SentenceTransformer(
        modules=[first, Pooling(32, "cls")], prompts={"query": "what is "}, device="cpu"
    ).save(str(tmp_path / "base"), create_model_card=False)
    adapter(AutoModel.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    student: Any = load_student(str(tmp_path / "adapter"), device="cpu")
    assert student.model[1].pooling_mode == "cls" and student._prompt("query") == "what is "


def test_a_reranker_teaches_and_is_a_start_for_a_student(tmp_path: Path) -> None:
    base = tiny_backbone(tmp_path / "base", layers=2)
    tokenizer = AutoTokenizer.from_pretrained(base)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    adapted = adapter(network, tmp_path / "adapter", task_type="SEQ_CLS")
    folder = str(tmp_path / "adapter")
    with torch.no_grad():
        expected = [
            adapted(**tokenizer(pair.query.text, pair.text, return_tensors="pt")).logits.item()
            for pair in PAIRS
        ]
    assert kind_of(folder) == "cross-encoder"
    teacher = CrossEncoderTeacher(folder, precision="float32", device="cpu", backend="torch")
    assert np.allclose(score_pairs(teacher, PAIRS)[0].values, expected, atol=1e-4)
    student = CrossEncoderStudent(folder, device="cpu")
    assert np.allclose(
        student.predict([(pair.query.text, pair.text) for pair in PAIRS]).numpy(),
        expected,
        atol=1e-4,
    )


def test_a_decoder_with_a_score_and_without_a_padding_token(tmp_path: Path) -> None:
    base = tiny_decoder(tmp_path / "base", "llama")
    tokenizer = AutoTokenizer.from_pretrained(base)
    adapted = adapter(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=1),
        tmp_path / "adapter",
        task_type="SEQ_CLS",
        target_modules=["q_proj", "v_proj"],
    )
    with torch.no_grad():
        expected = [
            adapted(**tokenizer(pair.query.text, pair.text, return_tensors="pt")).logits.item()
            for pair in PAIRS
        ]
    teacher = CrossEncoderTeacher(str(tmp_path / "adapter"), precision="float32", device="cpu")
    assert np.allclose(score_pairs(teacher, PAIRS)[0].values, expected, atol=1e-4)


def test_language_models(tmp_path: Path) -> None:
    base = tiny_causal(tmp_path / "base")
    adapted = adapter(
        AutoModelForCausalLM.from_pretrained(base),
        tmp_path / "causal",
        task_type="CAUSAL_LM",
        target_modules=["q_proj", "v_proj"],
    )
    assert kind_of(str(tmp_path / "causal")) == "causal"
    inputs: dict[str, Any] = {
        "template": "{query} {document}",
        "positive": "yes",
        "negative": "no",
        "precision": "float32",
        "device": "cpu",
    }
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path / "whole")
    AutoTokenizer.from_pretrained(base).save_pretrained(tmp_path / "whole")
    one, other = (
        score_pairs(CausalTeacher(str(tmp_path / name), **inputs), PAIRS)[0].values
        for name in ("causal", "whole")
    )
    assert np.allclose(one, other, atol=1e-5)
    adapter(
        AutoModelForSeq2SeqLM.from_pretrained(tiny_t5(tmp_path / "t5")),
        tmp_path / "seq2seq",
        task_type="SEQ_2_SEQ_LM",
        target_modules=["q", "v"],
    )
    assert kind_of(str(tmp_path / "seq2seq")) == "seq2seq"
    assert np.isfinite(
        score_pairs(Seq2SeqTeacher(str(tmp_path / "seq2seq"), device="cpu"), PAIRS)[0].values
    ).all()


def test_a_masked_language_model_is_sparse_where_asked(tmp_path: Path) -> None:
    folder = tiny_backbone(tmp_path / "base", layers=2)
    AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    adapter(AutoModelForMaskedLM.from_pretrained(folder), tmp_path / "adapter")
    student: Any = load_student(str(tmp_path / "adapter"), kind="sparse", device="cpu")
    assert student.encode(TEXTS, show_progress=False).shape == (3, student.dimension)


@pytest.mark.parametrize("kind", ["dense", "sparse", "late-interaction", "cross-encoder"])
def test_students_that_were_saved_as_adapters_alone(kind: str, tmp_path: Path) -> None:
    folder = tiny_backbone(tmp_path / "base", layers=2)
    if kind == "sparse":
        AutoModelForMaskedLM.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    student = build_student(
        kind,
        str(folder),
        device="cpu",
        lora_rank=2,
        lora_merge=False,
        lora_targets=["query", "value"],
    )
    with torch.no_grad():
        for name, value in student.model.named_parameters():
            if "lora_B" in name or ("classifier" in name and value.requires_grad):
                value.add_(0.1)
    student.save(tmp_path / "adapter")
    saved = str(tmp_path / "adapter")
    load: Any = CrossEncoderStudent.load if kind == "cross-encoder" else load_student
    loaded: Student = load(saved, device="cpu")
    assert loaded.kind == kind and kind_of(saved) == (
        "cross-encoder" if kind == "cross-encoder" else "retriever"
    )
    texts: list[Any] = (
        [("what is rain", text) for text in TEXTS] if kind == "cross-encoder" else TEXTS
    )
    side: Any = student.sides[-1]
    student.model.eval()
    with torch.no_grad():
        for one, other in zip(
            student.embed(student.tokenize(texts, side), side),
            loaded.embed(loaded.tokenize(texts, side), side),
            strict=True,
        ):
            assert torch.allclose(one, other, atol=1e-5)


def test_names_of_backbones_and_what_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_backbone(tmp_path / "package" / "model", layers=2)
    (base.parent / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    adapter(AutoModel.from_pretrained(base), tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    config = json.loads(path.read_text())

    def named(name: Any) -> str:
        path.write_text(json.dumps(config | {"base_model_name_or_path": name}))
        return str(tmp_path / "adapter")

    plain = model_revision(named(str(base)))
    assert model_revision(named("package:package/model")) == plain
    assert resolve_model(str(tmp_path / "adapter")) == resolve_model(named("package:package/model"))
    with pytest.raises(
        IrdistillError,
        match="is an adapter, and its backbone cannot be found: there is no model folder",
    ):
        resolve_model(named("/nowhere/at/all"))
    with pytest.raises(IrdistillError, match="nobody/nothing-of-the-sort'"):
        resolve_model(named("nobody/nothing-of-the-sort"))
    with pytest.raises(IrdistillError, match="names no backbone"):
        resolve_model(named(None))
    with pytest.raises(IrdistillError, match="changes layers that its backbone"):
        resolve_model(named(str(tiny_causal(tmp_path / "other"))))
    with pytest.raises(IrdistillError, match="names itself"):
        resolve_model(named(str(tmp_path / "adapter")))
    named(str(base))
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    with pytest.raises(IrdistillError, match=r"has no adapter_model\.safetensors"):
        resolve_model(str(tmp_path / "adapter"))


def test_a_head_that_neither_brings_is_refused_and_a_changed_adapter_is_another_model(
    tmp_path: Path,
) -> None:
    base = tiny_backbone(tmp_path / "base", layers=2)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    adapter(network, tmp_path / "headless", task_type="SEQ_CLS", modules_to_save=[])
    weights = tmp_path / "headless" / "adapter_model.safetensors"
    from safetensors.torch import load_file, save_file

    save_file(
        {name: value for name, value in load_file(weights).items() if "classifier" not in name},
        weights,
    )
    with pytest.raises(IrdistillError, match="would be random"):
        resolve_model(str(tmp_path / "headless"))
    adapter(AutoModel.from_pretrained(base), tmp_path / "one")
    first = model_revision(str(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    weights = tmp_path / "two" / "adapter_model.safetensors"
    save_file({name: value * 2 for name, value in load_file(weights).items()}, weights)
    assert model_revision(str(tmp_path / "two")) != first == model_revision(str(tmp_path / "one"))


def test_a_revision_of_an_adapter_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requested revision is merged, not that of the main branch."""
    base = tiny_backbone(tmp_path / "base", layers=2)
    place = tmp_path / "hub" / "models--owner--adapter"
    (place / "refs").mkdir(parents=True)
    for branch, targets in (("main", ["query"]), ("v2", ["value"])):
        commit = branch[0] * 40
        adapter(
            AutoModel.from_pretrained(base), place / "snapshots" / commit, target_modules=targets
        )
        (place / "refs" / branch).write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False
    )
    for branch in ("main", "v2"):
        whole = resolve_model(str(place / "snapshots" / (branch[0] * 40)))
        assert resolve_model("owner/adapter", branch) == whole
        assert model_revision("owner/adapter", branch) == model_revision(whole)
    assert (
        resolve_model("owner/adapter")
        == resolve_model("owner/adapter", "main")
        != resolve_model("owner/adapter", "v2")
    )


def test_a_damaged_merged_model_is_made_again(tmp_path: Path) -> None:
    base = tiny_backbone(tmp_path / "base", layers=2)
    adapter(AutoModel.from_pretrained(base), tmp_path / "adapter")
    whole = Path(resolve_model(str(tmp_path / "adapter")))
    revision, weights = (
        model_revision(str(tmp_path / "adapter")),
        (whole / "model.safetensors").read_bytes(),
    )
    for change in (
        lambda path: path.write_bytes(weights[:-1] + bytes([weights[-1] ^ 1])),
        Path.unlink,
    ):
        change(whole / "model.safetensors")
        assert Path(resolve_model(str(tmp_path / "adapter"))) == whole
        assert (whole / "model.safetensors").read_bytes() == weights
        assert model_revision(str(tmp_path / "adapter")) == revision


def test_weights_without_a_place_are_refused_in_adapter_and_backbone(tmp_path: Path) -> None:
    """peft and transformers ignore these weights, so the loaded model would differ from the trained
    one.
    """
    backbone = tiny_backbone(tmp_path / "backbone", layers=1)
    sorts: dict[str, dict[str, Any]] = {
        "plain": {},
        "dora": {"use_dora": True},
        "words": {"target_modules": ["word_embeddings"]},
        "kept": {"modules_to_save": ["word_embeddings"]},
    }
    for name, settings in sorts.items():
        adapter(AutoModel.from_pretrained(backbone), tmp_path / name, **settings)
        load_student(str(tmp_path / name), device="cpu")
    resized = AutoModel.from_pretrained(backbone)
    tokenizer = AutoTokenizer.from_pretrained(backbone)
    tokenizer.add_tokens(["newword"])
    resized.resize_token_embeddings(len(tokenizer))
    adapter(resized, tmp_path / "resized", tokenizer, modules_to_save=["word_embeddings"])
    load_student(str(tmp_path / "resized"), device="cpu")
    file, base = tmp_path / "plain" / "adapter_model.safetensors", backbone / "model.safetensors"
    for path, what in (
        (file, "the adapter .* no place for: extra.weight"),
        (base, "the backbone .* no place for: extra.weight"),
    ):
        weights = load_file(path)
        save_file({**weights, "extra.weight": torch.ones(3)}, path, metadata={"format": "pt"})
        with pytest.raises(IrdistillError, match=what):
            load_student(str(tmp_path / "plain"), device="cpu")
        save_file(weights, path, metadata={"format": "pt"})
