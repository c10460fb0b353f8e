"""Models with missing, misnamed or misshapen weights are refused by every loader; errors name the
keys.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from irdistill import IrdistillError
from irdistill.modeling.weights import complete_weights
from irdistill.students import build_student
from irdistill.students.cross_encoder_student import CrossEncoderStudent
from irdistill.students.dense_student import DenseStudent
from irdistill.students.late_interaction_student import LateInteractionStudent
from irdistill.students.sparse_student import SparseStudent
from irdistill.students.student_loading import load_encoder, load_transformer
from irdistill.teachers.cross_encoder_teacher import CrossEncoderTeacher
from irdistill.teachers.late_interaction_teacher import LateInteractionTeacher
from irdistill.teachers.sparse_retriever_teacher import SparseRetrieverTeacher
from tests.students.tiny import tiny_backbone
from tests.teachers.tiny import tiny_cross_encoder

Weights = dict[str, Tensor]
LAYER = "encoder.layer.1.output.dense.weight"


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_backbone(tmp_path_factory.mktemp("models") / "backbone", layers=2)


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_cross_encoder(tmp_path_factory.mktemp("models") / "reranker")


@pytest.fixture(scope="module")
def masked(backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backbone with a masked-language-model head."""
    folder = tmp_path_factory.mktemp("models") / "masked"
    AutoModelForMaskedLM.from_pretrained(backbone).save_pretrained(folder)
    AutoTokenizer.from_pretrained(backbone).save_pretrained(folder)
    return folder


def changed(
    source: Path, to: Path, change: Callable[[Weights], Weights], file: str = "model.safetensors"
) -> str:
    """A copy of a model folder with other weights."""
    shutil.copytree(source, to)
    save_file(change(load_file(to / file)), to / file, metadata={"format": "pt"})
    return str(to)


CHANGES: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "renamed with a prefix": (
        lambda w: {f"student.{key}": value for key, value in w.items()},
        r"student\..* and \d+ more",
    ),
    "one layer missing": (
        lambda w: {key: value for key, value in w.items() if "layer.1." not in key},
        r"layer\.1\.attention",
    ),
    "one key missing": (
        lambda w: {key: value for key, value in w.items() if not key.endswith(LAYER)},
        LAYER,
    ),
    "nothing in it": (lambda w: {}, r"embeddings\.LayerNorm\.bias"),
    "an extra key": (
        lambda w: {**w, "extra.weight": torch.ones(3)},
        r"no place for: extra\.weight",
    ),
    "a layer more": (
        lambda w: {
            **w,
            **{
                key.replace("layer.1", "layer.2"): value.clone()
                for key, value in w.items()
                if "layer.1" in key
            },
        },
        r"no place for: .*layer\.2\.attention",
    ),
    "another shape": (
        lambda w: {
            key: value[:10].clone() if key.endswith(LAYER) else value for key, value in w.items()
        },
        r"output\.dense\.weight \(10, 64\) instead of \(32, 64\)",
    ),
    "whole numbers": (
        lambda w: {
            key: value.to(torch.int8) if key.endswith(LAYER) else value for key, value in w.items()
        },
        r"output\.dense\.weight \(I8\)",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights_are_refused_by_name(
    backbone: Path, reranker: Path, tmp_path: Path, name: str
) -> None:
    change, message = CHANGES[name]
    dense, pairs = (
        changed(backbone, tmp_path / "dense", change),
        changed(reranker, tmp_path / "pairs", change),
    )
    for load in (
        lambda: DenseStudent.load(dense, device="cpu"),
        lambda: build_student("dense", dense, device="cpu"),
        lambda: build_student("cross-encoder", dense, device="cpu"),
        lambda: build_student("sparse", dense, device="cpu"),
        lambda: build_student("late-interaction", dense, device="cpu"),
        lambda: build_student("kernel", dense, device="cpu"),
        lambda: build_student("split-cross-encoder", dense, device="cpu"),
        lambda: CrossEncoderTeacher(pairs, device="cpu"),
        lambda: CrossEncoderStudent.load(pairs, device="cpu"),
        lambda: build_student("cross-encoder", pairs, device="cpu"),
    ):
        with pytest.raises(IrdistillError, match=message):
            load()


def test_a_reranker_without_its_head_is_no_teacher_and_no_backbone(
    reranker: Path, tmp_path: Path
) -> None:
    """Its config says that it is a reranker, so a new head would be taken for the trained one."""
    folder = changed(
        reranker,
        tmp_path / "m",
        lambda w: {k: v for k, v in w.items() if not k.startswith("classifier.")},
    )
    for load in (
        lambda: CrossEncoderTeacher(folder, device="cpu"),
        lambda: CrossEncoderStudent.load(folder, device="cpu"),
        lambda: build_student("cross-encoder", folder, device="cpu"),
    ):
        with pytest.raises(IrdistillError, match=r"classifier\.bias, classifier\.weight"):
            load()


def test_an_encoder_without_a_head_gets_one_only_as_a_backbone(backbone: Path) -> None:
    assert build_student("cross-encoder", str(backbone), device="cpu").predict(
        [("a", "b")]
    ).shape == (1,)  # type: ignore[attr-defined]
    with pytest.raises(IrdistillError, match=r"classifier\.bias, classifier\.weight"):
        CrossEncoderStudent.load(str(backbone), device="cpu")
    with pytest.raises(IrdistillError, match="no trained classification head"):
        CrossEncoderTeacher(str(backbone), device="cpu")


def test_a_new_projection_is_no_late_interaction_model(backbone: Path, tmp_path: Path) -> None:
    """sentence-transformers makes one of random weights for a plain encoder, and for a dense
    model.
    """
    SentenceTransformer(str(backbone), device="cpu").save(str(tmp_path / "dense"))
    for folder in (str(backbone), str(tmp_path / "dense")):
        with pytest.raises(IrdistillError, match="Dense layer would be random"):
            LateInteractionStudent.load(folder, device="cpu")
        with pytest.raises(IrdistillError, match="Dense layer would be random"):
            LateInteractionTeacher(folder, device="cpu")


def test_a_new_masked_language_model_head_is_no_sparse_model(backbone: Path) -> None:
    for load in (SparseStudent.load, SparseRetrieverTeacher):
        with pytest.raises(IrdistillError, match=r"cls\.predictions\.|random"):
            load(str(backbone), device="cpu")  # type: ignore[operator]
    assert build_student("sparse", str(backbone), device="cpu").kind == "sparse"


def test_heads_of_other_tasks_and_unused_poolers_are_no_fault(
    backbone: Path, reranker: Path, masked: Path, tmp_path: Path
) -> None:
    """A masked language model (without pooler) and a reranker are backbones; as bert-base-uncased,
    whose file holds both heads of pretraining and a pooler while its config names the masked
    language model alone.
    """
    for folder in (masked, reranker):
        for kind in (
            "dense",
            "sparse",
            "late-interaction",
            "cross-encoder",
            "kernel",
            "split-cross-encoder",
        ):
            if (folder, kind) != (reranker, "sparse"):
                build_student(kind, str(folder), device="cpu")
    hidden = {
        "bert.pooler.dense.weight": torch.zeros(32, 32),
        "bert.pooler.dense.bias": torch.zeros(32),
        "cls.seq_relationship.weight": torch.zeros(2, 32),
        "cls.seq_relationship.bias": torch.zeros(2),
        "bert.embeddings.position_ids": torch.arange(66).unsqueeze(0),
    }
    full = changed(masked, tmp_path / "full", lambda w: {**w, **hidden})
    for kind in ("dense", "sparse", "cross-encoder"):
        build_student(kind, full, device="cpu")


def test_an_architecture_that_transformers_does_not_know_may_have_heads_and_no_layers_of_its_own(
    backbone: Path, tmp_path: Path
) -> None:
    """As microsoft/deberta-v3-base, whose config names no architecture and whose file holds heads
    that no class has.
    """
    extras = (("mask_predictions.dense.weight", False), ("encoder.layer.9.output.dense.bias", True))
    for number, (extra, fails) in enumerate(extras):
        folder = changed(
            backbone, tmp_path / str(number), lambda w, extra=extra: {**w, extra: torch.ones(32)}
        )  # type: ignore[misc]
        config = json.loads((Path(folder) / "config.json").read_text())
        del config["architectures"]
        (Path(folder) / "config.json").write_text(json.dumps(config))
        if fails:
            with pytest.raises(IrdistillError, match=extra):
                build_student("dense", folder, device="cpu")
        else:
            build_student("dense", folder, device="cpu")


def test_what_an_unused_pooler_begins_with_is_the_same_in_every_process(masked: Path) -> None:
    """Weights that are not in the files are in the fingerprint, so they must not be random."""
    torch.manual_seed(1)
    first = DenseStudent.load(str(masked), device="cpu").weights_digest()
    torch.manual_seed(2)
    assert DenseStudent.load(str(masked), device="cpu").weights_digest() == first


def test_a_missing_shard_and_a_torn_file(backbone: Path, tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(backbone)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "sharded")
    before = DenseStudent.load(str(backbone), device="cpu").encode(["a cat"], show_progress=False)
    assert (
        DenseStudent.load(str(tmp_path / "sharded"), device="cpu").encode(
            ["a cat"], show_progress=False
        )
        == before
    ).all()
    shard = sorted((tmp_path / "sharded").glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(IrdistillError, match=shard.name):
        DenseStudent.load(str(tmp_path / "sharded"), device="cpu")
    shutil.copytree(backbone, tmp_path / "torn")
    whole = (tmp_path / "torn" / "model.safetensors").read_bytes()
    for length in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "torn" / "model.safetensors").write_bytes(whole[:length])
        with pytest.raises(IrdistillError, match="cannot be loaded"):
            DenseStudent.load(str(tmp_path / "torn"), device="cpu")
    (tmp_path / "torn" / "model.safetensors").unlink()
    with pytest.raises(IrdistillError, match=r"no file named model\.safetensors"):
        DenseStudent.load(str(tmp_path / "torn"), device="cpu")


def test_weights_in_a_pickle_are_checked_as_well(backbone: Path, tmp_path: Path) -> None:
    for name, keys in (("whole", ""), ("part", "encoder.layer.1.")):
        folder = tmp_path / name
        shutil.copytree(backbone, folder)
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        torch.save(
            {key: value for key, value in weights.items() if not keys or not key.startswith(keys)},
            folder / "pytorch_model.bin",
        )
    DenseStudent.load(str(tmp_path / "whole"), device="cpu")
    with pytest.raises(IrdistillError, match=r"layer\.1\."):
        DenseStudent.load(str(tmp_path / "part"), device="cpu")


@pytest.mark.parametrize(
    ("kind", "file", "key"),
    [
        ("kernel", "model.safetensors", "2.weights.weight"),
        ("split-cross-encoder", "head.safetensors", "score.bias"),
        ("late-interaction", "1_Dense/model.safetensors", "linear.weight"),
        ("sparse", "model.safetensors", "cls.predictions.bias"),
    ],
)
def test_the_heads_of_our_own_students(
    backbone: Path, tmp_path: Path, kind: str, file: str, key: str
) -> None:
    build_student(kind, str(backbone), device="cpu").save(tmp_path / "student")
    load = type(build_student(kind, str(backbone), device="cpu")).load
    load(str(tmp_path / "student"), device="cpu")
    changes: tuple[Callable[[Weights], Weights], ...] = (
        lambda w: {name: value for name, value in w.items() if name != key},
        lambda w: {**w, "more": torch.ones(2)},
        lambda w: {**w, key: torch.ones(3)},
    )
    for number, change in enumerate(changes):
        with pytest.raises(
            IrdistillError,
            match="more" if number == 1 else key if kind != "late-interaction" else "linear|size",
        ):
            load(changed(tmp_path / "student", tmp_path / str(number), change, file), device="cpu")


def test_adapters_are_compared_with_the_layers_they_are_for(backbone: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    student = build_student(
        "cross-encoder", str(backbone), lora_rank=2, lora_merge=False, device="cpu"
    )
    student.save(tmp_path / "student")
    loaded = CrossEncoderStudent.load(str(tmp_path / "student"), device="cpu")
    assert torch.allclose(
        loaded.predict([("a cat", "the dog")]), student.predict([("a cat", "the dog")])
    )  # type: ignore[attr-defined]
    assert (
        loaded.weights_digest()
        == CrossEncoderStudent.load(str(tmp_path / "student"), device="cpu").weights_digest()
    )
    keys = list(load_file(tmp_path / "student" / "adapter_model.safetensors"))
    lora, head = (
        next(key for key in keys if "lora_A" in key),
        next(key for key in keys if "classifier" in key),
    )
    for number, lost in enumerate((lora, head)):
        folder = changed(
            tmp_path / "student",
            tmp_path / str(number),
            lambda w, lost=lost: {  # type: ignore[misc]
                key: value for key, value in w.items() if key != lost
            },
            "adapter_model.safetensors",
        )
        with pytest.raises(IrdistillError, match="classifier" if lost == head else "lora_A"):
            CrossEncoderStudent.load(folder, device="cpu")


def test_the_saved_kinds_load_again(backbone: Path, masked: Path, tmp_path: Path) -> None:
    """Models saved by sentence-transformers pass."""
    for library, folder in (
        (SentenceTransformer, backbone),
        (SparseEncoder, masked),
        (MultiVectorEncoder, backbone),
    ):
        place = tmp_path / library.__name__
        library(str(folder), device="cpu").save(str(place))
        load_encoder(str(place), library=library, device="cpu")
    network: Any = AutoModelForSequenceClassification.from_pretrained(backbone, num_labels=1)
    network.save_pretrained(tmp_path / "pairs")
    AutoTokenizer.from_pretrained(backbone).save_pretrained(tmp_path / "pairs")
    CrossEncoderTeacher(str(tmp_path / "pairs"), device="cpu")
    load_transformer(str(tmp_path / "pairs"))


_SIZES = {
    "vocab_size": 60,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 40,
    "pad_token_id": 0,
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "electra": {"embedding_size": 8},
    "albert": {"embedding_size": 8},
    "mpnet": {},
    "gpt_neox": {},
    "modernbert": {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "qwen2": {"num_key_value_heads": 1},
    "distilbert": {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 32},
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
}


@pytest.mark.parametrize(
    "family",
    [
        (
            name
            if name in ("roberta", "gpt_neox", "t5")
            else pytest.param(name, marks=pytest.mark.slow)
        )
        for name in _FAMILIES
    ],
)
def test_every_head_of_a_family_may_be_dropped_or_be_new(family: str, tmp_path: Path) -> None:
    """Models saved by each class of transformers load as each other class that students use, and as
    themselves.
    """
    config = AutoConfig.for_model(family, **_SIZES | _FAMILIES[family])
    classes = [
        AutoModel,
        AutoModelForMaskedLM,
        AutoModelForSequenceClassification,
        AutoModelForCausalLM,
        AutoModelForPreTraining,
    ]
    fitting = [auto for auto in classes if type(config) in auto._model_mapping]
    assert len(fitting) >= 2
    for auto in fitting:
        auto.from_config(config).save_pretrained(tmp_path / auto.__name__)
        with complete_weights(auto.__name__):
            auto.from_pretrained(tmp_path / auto.__name__)
        for other in fitting:
            with complete_weights(other.__name__, new_head=True):
                other.from_pretrained(tmp_path / auto.__name__)
